package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Secret is a password or key. It prints as stars, in every verb and in JSON.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the value.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText hides the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Config says where the server is and how patient to be. The zero value of every
// field but Address is a usable default.
type Config struct {
	Address  string // host:port of the proxy
	Database string // "" is the server's default
	Username string
	Password Secret
	APIKey   Secret // instead of a user and password
	TLS      *TLS   // nil: no encryption

	DialTimeout  time.Duration // of the first handshake; default 10 s
	ReadTimeout  time.Duration // of a query, search or description; default 10 s
	WriteTimeout time.Duration // of an upsert, insert or delete; default 30 s
	SlowTimeout  time.Duration // of creating, loading, flushing, indexing; default 2 min

	Retry   Retry
	Breaker Breaker
	// MaxMessage bounds one message in each direction, in bytes; default 64 MiB,
	// which is Milvus's own.
	MaxMessage int
	// Metrics hears of every call. nil: nobody does.
	Metrics Metrics
}

// Retry says how often a call that may be repeated is repeated.
type Retry struct {
	Attempts int           // in all, the first included; default 4; 1 turns retries off
	Base     time.Duration // first pause, before jitter; default 50 ms; doubles each time
	Max      time.Duration // longest pause; default 2 s
	// Budget bounds the retries of all calls together: each takes one, each call that
	// succeeds gives a tenth back. Default 20; a server in trouble is not flooded.
	Budget float64
}

// Breaker says when the server counts as away.
type Breaker struct {
	Failures int           // in a row, of transport or deadline; default 5; negative turns it off
	Cooldown time.Duration // until the next try; default 1 s; doubles up to Max
	Max      time.Duration // default 15 s
}

// TLS describes the encryption. The server's certificate is always checked.
type TLS struct {
	CAFile     string // PEM; "" uses the system's roots
	CertFile   string // PEM, with KeyFile, for mutual TLS
	KeyFile    string
	ServerName string // where the certificate has another name than the address
}

// Limits of Milvus that requests are held to before they are sent.
const (
	MaxResults = 16384 // of one query or search, offset included
	MaxDim     = 32768
	MaxVarChar = 65535 // bytes of one string
	MaxFields  = 64    // of one collection
)

// withDefaults fills what is zero and checks the rest.
func (c Config) withDefaults() (Config, error) {
	bad := func(format string, a ...any) (Config, error) {
		return c, &Error{Kind: ErrInvalidRequest, Op: "configure", Where: redactAddress(c.Address), Detail: fmt.Sprintf(format, a...)}
	}
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil || strings.ContainsAny(c.Address, "/@ ") {
		return bad("the address %q is not host:port, such as localhost:19530; without a scheme, a path or credentials", redactAddress(c.Address))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return bad("the port %q is not a number from 1 to 65535", port)
	}
	if host == "" {
		return bad("the address %q has no host; write localhost%s for this machine", c.Address, c.Address)
	}
	if c.APIKey != "" && (c.Username != "" || c.Password != "") {
		return bad("an API key and a user were both given; give one")
	}
	if (c.Username == "") != (c.Password == "") {
		return bad("a user name needs a password, and the reverse; give both or neither")
	}
	if strings.Contains(c.Username, ":") {
		return bad("the user name has a colon, which Milvus takes for the end of it")
	}
	for name, d := range map[string]*time.Duration{
		"dial": &c.DialTimeout, "read": &c.ReadTimeout, "write": &c.WriteTimeout, "slow": &c.SlowTimeout,
		"retry base": &c.Retry.Base, "retry max": &c.Retry.Max, "breaker cooldown": &c.Breaker.Cooldown, "breaker max": &c.Breaker.Max,
	} {
		if *d < 0 {
			return bad("the %s time is negative: %v", name, *d)
		}
	}
	set(&c.DialTimeout, 10*time.Second)
	set(&c.ReadTimeout, 10*time.Second)
	set(&c.WriteTimeout, 30*time.Second)
	set(&c.SlowTimeout, 2*time.Minute)
	set(&c.Retry.Attempts, 4)
	set(&c.Retry.Base, 50*time.Millisecond)
	set(&c.Retry.Max, 2*time.Second)
	set(&c.Retry.Budget, 20)
	set(&c.Breaker.Failures, 5)
	set(&c.Breaker.Cooldown, time.Second)
	set(&c.Breaker.Max, 15*time.Second)
	set(&c.MaxMessage, 64<<20)
	if c.Metrics == nil {
		c.Metrics = nobody{}
	}
	return c, nil
}

func set[T int | float64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// redactAddress drops user:password@ from an address that has it.
func redactAddress(a string) string {
	if i := strings.LastIndexByte(a, '@'); i >= 0 {
		return "***@" + a[i+1:]
	}
	return a
}

// config makes the library's settings, or says which file is wrong.
func (t *TLS) config() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificates of the authority: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("a client certificate needs its key file, and the reverse; give both or neither")
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate %s: %w", t.CertFile, err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// Metrics hears what the client does. Methods are called from many goroutines and
// must not block.
type Metrics interface {
	// Call is one call with all its tries: op is a short fixed word such as
	// "search", outcome "ok" or the word of the error's kind (see Outcome).
	Call(op, outcome string, took time.Duration)
	// Retry is one repeated try.
	Retry(op string)
	// Breaker is the state after each change.
	Breaker(s State)
}

type nobody struct{}

func (nobody) Call(string, string, time.Duration) {}
func (nobody) Retry(string)                       {}
func (nobody) Breaker(State)                      {}
