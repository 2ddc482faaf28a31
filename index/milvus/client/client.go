package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	grpcretry "github.com/grpc-ecosystem/go-grpc-middleware/retry"
	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	sdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// Client speaks to one Milvus. Methods are safe for concurrent use. Arguments stay
// the caller's; results belong to the caller.
type Client struct {
	cfg Config
	lib *sdk.GrpcClient
	api milvuspb.MilvusServiceClient
	brk breaker
	bud budget

	greeting chan struct{} // holds one token: who has it may greet

	mu     sync.Mutex
	server *Server           // nil until greeted, and again after the connection was lost
	ident  string            // what the server calls this connection
	last   map[string]uint64 // timestamp of the last write by collection, for Session
	begun  map[string]bool   // collections that were read since all that was written before us, for Session
	unseen map[string]int    // writes without a timestamp since a read that has waited for all, for Session
	closed bool
}

// Server is what the other end says of itself.
type Server struct {
	Version string // as it came, such as v2.3.5-lite
	Major   int
	Minor   int
	Deploy  string // STANDALONE or DISTRIBUTED; "" where it does not say
}

// New makes a client without speaking to the server: the first call connects.
// ErrInvalidRequest where the configuration cannot be right.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	// Once there are options the library leaves its own out, and with them the dial
	// that blocks for ever. Its two retries stay in the chain, and are told not to.
	dial := []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: min(5*time.Second, cfg.DialTimeout),
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(cfg.MaxMessage+1<<20),
			grpcretry.Disable(),
		),
	}
	if cfg.TLS != nil {
		t, err := cfg.TLS.config()
		if err != nil {
			return nil, &Error{Kind: ErrInvalidRequest, Op: "configure", Where: cfg.Address, Detail: err.Error()}
		}
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(t)))
	}
	lib, err := sdk.NewClient(context.Background(), sdk.Config{
		Address: cfg.Address, DBName: cfg.Database,
		Username: cfg.Username, Password: string(cfg.Password), APIKey: string(cfg.APIKey),
		EnableTLSAuth: cfg.TLS != nil, DialOptions: dial,
		RetryRateLimit: &sdk.RetryRateLimitOption{MaxRetry: 0},
		DisableConn:    true, // greet does it, with a deadline, and again after a restart
	})
	if err != nil {
		return nil, &Error{Kind: ErrInvalidRequest, Op: "configure", Where: cfg.Address, Detail: err.Error()}
	}
	grpcClient, ok := lib.(*sdk.GrpcClient)
	if !ok {
		return nil, &Error{Kind: ErrInvalidRequest, Op: "configure", Where: cfg.Address, Detail: fmt.Sprintf("the library made a %T", lib)}
	}
	c := &Client{
		cfg: cfg, lib: grpcClient, api: grpcClient.Service,
		brk:      breaker{set: cfg.Breaker, changed: cfg.Metrics.Breaker, now: time.Now},
		bud:      budget{left: cfg.Retry.Budget, most: cfg.Retry.Budget},
		greeting: make(chan struct{}, 1),
		last:     map[string]uint64{},
		unseen:   map[string]int{},
		begun:    map[string]bool{},
	}
	c.greeting <- struct{}{}
	return c, nil
}

// Dial is New, and then a handshake that checks address, credentials and version
// within Config.DialTimeout. On an error nothing is left open.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.Server(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection; calls under way fail. Safe to call twice.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.lib.Close()
}

// Address is host:port of the server.
func (c *Client) Address() string { return c.cfg.Address }

// Breaker is what the circuit breaker does now.
func (c *Client) Breaker() State { return c.brk.current() }

// Server greets the server if that was not done yet, and says what it is.
// ErrVersion where it is one that is not supported.
func (c *Client) Server(ctx context.Context) (Server, error) {
	var out Server
	err := c.run(ctx, op{name: "connect", timeout: c.cfg.DialTimeout, repeat: true, greets: true}, func(ctx context.Context) *Error {
		s, e := c.greet(ctx)
		out = s
		return e
	})
	return out, err
}

// greet connects once; many callers wait for one of them.
func (c *Client) greet(ctx context.Context) (Server, *Error) {
	if s := c.known(); s != nil {
		return *s, nil
	}
	select {
	case <-c.greeting:
		defer func() { c.greeting <- struct{}{} }()
	case <-ctx.Done():
		return Server{}, &Error{Kind: ErrTimeout, Detail: "while waiting for the connection"}
	}
	if s := c.known(); s != nil {
		return *s, nil
	}
	hello, err := c.api.Connect(ctx, &milvuspb.ConnectRequest{ClientInfo: &commonpb.ClientInfo{
		SdkType: "Golang", SdkVersion: "2.4.2", User: c.cfg.Username, LocalTime: time.Now().Format(time.RFC3339),
	}})
	ident, deploy := "", ""
	switch {
	case err != nil:
		// Servers before 2.2.9 know no Connect, and other services neither.
		if e := ofTransport(err); !e.is(ErrVersion, ErrNotMilvus) || !strings.Contains(strings.ToLower(e.Detail), "connect") {
			return Server{}, e
		}
	default:
		if e := ofStatus(hello.GetStatus()); e != nil {
			return Server{}, e
		}
		if id := hello.GetIdentifier(); id != 0 {
			ident = strconv.FormatInt(id, 10)
		}
		deploy = hello.GetServerInfo().GetDeployMode()
	}
	// Connect is answered without credentials; GetVersion is not.
	v, err := c.api.GetVersion(ctx, &milvuspb.GetVersionRequest{})
	if err != nil {
		e := ofTransport(err)
		if e.is(ErrVersion) { // neither call is known
			e.Kind = ErrNotMilvus
		}
		return Server{}, e
	}
	if e := ofStatus(v.GetStatus()); e != nil {
		return Server{}, e
	}
	s := Server{Version: v.GetVersion(), Deploy: deploy}
	var ok bool
	if s.Major, s.Minor, ok = parseVersion(s.Version); !ok && hello.GetServerInfo().GetBuildTags() != "" {
		s.Version = hello.GetServerInfo().GetBuildTags()
		s.Major, s.Minor, ok = parseVersion(s.Version)
	}
	if !ok {
		return s, &Error{Kind: ErrVersion, Detail: fmt.Sprintf("it says that it is %q", shorten(s.Version))}
	}
	if s.Major != 2 || s.Minor < 3 {
		return s, &Error{Kind: ErrVersion, Detail: fmt.Sprintf("it is %s, and this needs 2.3 or later of 2", shorten(s.Version))}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.ident = &s, ident
	return s, nil
}

// parseVersion reads v2.3.5-lite and 2.4.
func parseVersion(s string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(strings.FieldsFunc(parts[1]+" ", func(r rune) bool { return r < '0' || r > '9' })[0])
	return major, minor, err == nil
}

func (c *Client) known() *Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// forget makes the next call greet again: after a restart the server may be another.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = nil
}

// op is one kind of call.
type op struct {
	name    string // in errors and metrics
	coll    string // "" where none is concerned
	timeout time.Duration
	repeat  bool // doing it twice is the same as doing it once
	greets  bool // is itself the handshake
}

func (c *Client) where(o op) string {
	if o.coll == "" {
		return redactAddress(c.cfg.Address)
	}
	return redactAddress(c.cfg.Address) + "/" + shorten(o.coll)
}

// finish fills what is the same for all errors.
func (c *Client) finish(o op, e *Error) *Error {
	e.Op, e.Where = o.name, c.where(o)
	e.Detail = c.redact(shorten(e.Detail))
	return e
}

// redact takes credentials out of what a server sent back.
func (c *Client) redact(s string) string {
	for _, secret := range []Secret{c.cfg.Password, c.cfg.APIKey} {
		if len(secret) > 0 {
			s = strings.ReplaceAll(s, string(secret), "***")
			s = strings.ReplaceAll(s, encoded(string(secret)), "***")
		}
	}
	if c.cfg.Password != "" {
		s = strings.ReplaceAll(s, encoded(c.cfg.Username+":"+string(c.cfg.Password)), "***")
	}
	return s
}

// run is every call: breaker, deadline, handshake, tries, metrics.
func (c *Client) run(parent context.Context, o op, try func(context.Context) *Error) error {
	start := time.Now()
	e := c.attempts(parent, o, try)
	if e == nil {
		c.cfg.Metrics.Call(o.name, "ok", time.Since(start))
		return nil
	}
	c.cfg.Metrics.Call(o.name, Outcome(e), time.Since(start))
	return e
}

func (c *Client) attempts(parent context.Context, o op, try func(context.Context) *Error) (e *Error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return c.finish(o, &Error{Kind: ErrUnreachable, Detail: "this client was closed"})
	}
	wait, ok := c.brk.allow()
	if !ok {
		return c.finish(o, &Error{Kind: ErrUnreachable, Detail: fmt.Sprintf("the last calls all failed; the next is tried in %v", wait.Round(time.Millisecond)), RetryAfter: wait})
	}
	v := away // the last try's
	defer func() { c.brk.done(v) }()
	if c.brk.current() == HalfOpen && c.lib.Conn != nil {
		c.lib.Conn.ResetConnectBackoff() // or the probe would meet gRPC's own pause
	}
	ctx, cancel := context.WithTimeout(parent, o.timeout)
	defer cancel()
	for n := 1; ; n++ {
		e, v = c.once(parent, ctx, o, try)
		if e == nil {
			c.bud.earn()
			return nil
		}
		e = c.finish(o, e)
		safe := o.repeat || !e.Sent || e.is(ErrRateLimited)
		if !e.retry || !safe || n >= c.cfg.Retry.Attempts {
			return e
		}
		pause := c.cfg.Retry.pause(n)
		if until, ok := ctx.Deadline(); ok && time.Until(until) <= pause {
			return e // what was seen says more than that time ran out
		}
		if !c.bud.take() {
			e.Detail += "; not tried again, because too many calls are being repeated"
			return e
		}
		c.cfg.Metrics.Retry(o.name)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(parent.Err(), context.Canceled) {
				e.Kind = context.Canceled
			}
			return e
		}
	}
}

func (c *Client) once(parent, ctx context.Context, o op, try func(context.Context) *Error) (*Error, verdict) {
	if ctx.Err() != nil {
		if errors.Is(parent.Err(), context.Canceled) {
			return &Error{Kind: context.Canceled}, unknown
		}
		return &Error{Kind: ErrTimeout, Detail: "the deadline was over before the call"}, unknown
	}
	if !o.greets {
		if _, e := c.greet(ctx); e != nil {
			return e, c.judge(parent, ctx, e)
		}
		c.mu.Lock()
		ident := c.ident
		c.mu.Unlock()
		if ident != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "identifier", ident)
		}
	}
	e := try(ctx)
	return e, c.judge(parent, ctx, e)
}

// judge says whether the server is there after a call, and names the caller's own
// haste for what it is.
func (c *Client) judge(parent, ctx context.Context, e *Error) verdict {
	if e == nil {
		return there
	}
	switch {
	case e.is(ErrUnreachable, ErrNotMilvus):
		c.forget()
		return away
	case !e.is(ErrTimeout, context.Canceled):
		return there
	case errors.Is(parent.Err(), context.Canceled):
		e.Kind, e.retry = context.Canceled, false
		return unknown
	case parent.Err() != nil: // the caller's deadline was shorter than ours
		e.Kind = ErrTimeout
		return unknown
	case ctx.Err() == nil && e.is(context.Canceled):
		e.Kind = ErrUnreachable // the server cancelled it, or the client was closed
	}
	c.forget()
	return away
}

type statusOwner interface{ GetStatus() *commonpb.Status }

// ask does one RPC with everything around it, and looks at the answer.
func ask[Q, A any](ctx context.Context, c *Client, o op, rpc func(context.Context, Q, ...grpc.CallOption) (A, error), req Q, check func(A) error) (A, error) {
	var out A
	err := c.run(ctx, o, func(ctx context.Context) *Error {
		ans, err := rpc(ctx, req)
		if err != nil {
			return ofTransport(err)
		}
		var e *Error
		switch a := any(ans).(type) {
		case *commonpb.Status:
			e = ofStatus(a)
		case statusOwner:
			e = ofStatus(a.GetStatus())
		}
		if e != nil {
			return e
		}
		if check != nil {
			if err := check(ans); err != nil {
				return &Error{Kind: ErrInvalidAnswer, Detail: err.Error(), Sent: true}
			}
		}
		out = ans
		return nil
	})
	return out, err
}

// refuse is a request that is not sent.
func (c *Client) refuse(o op, kind error, format string, a ...any) error {
	e := c.finish(o, &Error{Kind: kind, Detail: fmt.Sprintf(format, a...)})
	c.cfg.Metrics.Call(o.name, Outcome(e), 0)
	return e
}
