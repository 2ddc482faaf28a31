package fake

import (
	"context"
	"fmt"
	"net"
	"path"
	"sync"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"google.golang.org/grpc"
)

// Fault is something that goes wrong with calls.
type Fault struct {
	// Method is the RPC's short name, such as Search; "" is every one.
	Method string
	// Skip lets that many calls through first; Times is how many are then hit, 0 all.
	Skip, Times int
	// Do stands in for the call. next does the real work.
	Do func(ctx context.Context, req any, next func() (any, error)) (any, error)
}

// Server is a Milvus in memory. Methods are safe for concurrent use.
type Server struct {
	milvuspb.UnimplementedMilvusServiceServer

	// Version is what it says it is. Set it before a client connects.
	Version string
	// Token, where not "", is the authorization header that calls must bring.
	Token string

	lis  net.Listener
	grpc *grpc.Server

	mu      sync.Mutex
	colls   map[string]*coll
	aliases map[string]string
	clock   uint64
	nextID  int64
	faults  []*Fault
	hits    map[*Fault]int
	seen    map[*Fault]int
	calls   map[string]int
	stop    chan struct{}
	stopped sync.Once
}

// Start listens on a free port of this machine. Stop it when done.
func Start(opts ...grpc.ServerOption) (*Server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Version: "v2.3.5-fake", lis: lis, colls: map[string]*coll{}, aliases: map[string]string{}, clock: 1,
		hits: map[*Fault]int{}, seen: map[*Fault]int{}, calls: map[string]int{}, stop: make(chan struct{}),
	}
	s.serve(lis, opts...)
	return s, nil
}

func (s *Server) serve(lis net.Listener, opts ...grpc.ServerOption) {
	opts = append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 20), grpc.MaxSendMsgSize(1 << 30), grpc.UnaryInterceptor(s.intercept),
	}, opts...)
	s.grpc = grpc.NewServer(opts...)
	milvuspb.RegisterMilvusServiceServer(s.grpc, s)
	go func(g *grpc.Server) { _ = g.Serve(lis) }(s.grpc)
}

// Addr is host:port.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Stop ends it; stalled calls return. Safe to call twice.
func (s *Server) Stop() {
	s.stopped.Do(func() { close(s.stop) })
	s.grpc.Stop()
}

// Restart ends all connections, stays away for that long and comes back on the same
// port with the same collections. Graceful says goodbye first (GOAWAY).
func (s *Server) Restart(away time.Duration, graceful bool) error {
	if graceful {
		s.grpc.GracefulStop()
	} else {
		s.grpc.Stop()
	}
	time.Sleep(away)
	lis, err := net.Listen("tcp", s.lis.Addr().String())
	if err != nil {
		return err
	}
	s.serve(lis)
	return nil
}

// Fault installs a fault beside those that are there.
func (s *Server) Fault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Calls is how often an RPC was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	if err := s.authorised(ctx, method); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls[method]++
	var hit *Fault
	for _, f := range s.faults {
		if f.Method != "" && f.Method != method {
			continue
		}
		s.seen[f]++
		if s.seen[f] <= f.Skip || f.Times > 0 && s.hits[f] >= f.Times {
			continue
		}
		s.hits[f]++
		hit = f
		break
	}
	s.mu.Unlock()
	next := func() (any, error) { return h(ctx, req) }
	if hit == nil {
		return next()
	}
	// A stalled call ends with the server, whatever the fault waits for.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return hit.Do(ctx, req, next)
}

// Fail answers with an error of the transport.
func Fail(err error) func(context.Context, any, func() (any, error)) (any, error) {
	return func(context.Context, any, func() (any, error)) (any, error) { return nil, err }
}

// Stall never answers; it ends with the call's own deadline or the server.
func Stall() func(context.Context, any, func() (any, error)) (any, error) {
	return func(ctx context.Context, _ any, _ func() (any, error)) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// Lose does the work and never says so.
func Lose() func(context.Context, any, func() (any, error)) (any, error) {
	return func(ctx context.Context, _ any, next func() (any, error)) (any, error) {
		if _, err := next(); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// DoThenFail does the work and then reports an error.
func DoThenFail(err error) func(context.Context, any, func() (any, error)) (any, error) {
	return func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		if _, e := next(); e != nil {
			return nil, e
		}
		return nil, err
	}
}

// Slow answers after a time.
func Slow(d time.Duration) func(context.Context, any, func() (any, error)) (any, error) {
	return func(ctx context.Context, _ any, next func() (any, error)) (any, error) {
		select {
		case <-time.After(d):
			return next()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Refuse answers in Milvus's own words instead of doing the work. code is the one of
// servers since 2.3, old the coarser one; either may be 0.
func Refuse(code int32, old commonpb.ErrorCode, reason string) func(context.Context, any, func() (any, error)) (any, error) { //nolint:staticcheck // older servers fill it
	return func(_ context.Context, req any, _ func() (any, error)) (any, error) {
		return withStatus(req, &commonpb.Status{Code: code, ErrorCode: old, Reason: reason}) //nolint:staticcheck // older servers fill it
	}
}

// Twist does the work and changes the answer.
func Twist[A any](change func(A)) func(context.Context, any, func() (any, error)) (any, error) {
	return func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		ans, err := next()
		if err != nil {
			return nil, err
		}
		a, ok := ans.(A)
		if !ok {
			return nil, fmt.Errorf("fake: the fault is for %T, and the answer is %T", a, ans)
		}
		change(a)
		return ans, nil
	}
}

// withStatus is the empty answer to a request, with a status.
func withStatus(req any, st *commonpb.Status) (any, error) {
	switch req.(type) {
	case *milvuspb.InsertRequest, *milvuspb.UpsertRequest, *milvuspb.DeleteRequest:
		return &milvuspb.MutationResult{Status: st}, nil
	case *milvuspb.QueryRequest:
		return &milvuspb.QueryResults{Status: st}, nil
	case *milvuspb.SearchRequest:
		return &milvuspb.SearchResults{Status: st}, nil
	case *milvuspb.DescribeCollectionRequest:
		return &milvuspb.DescribeCollectionResponse{Status: st}, nil
	case *milvuspb.ShowCollectionsRequest:
		return &milvuspb.ShowCollectionsResponse{Status: st}, nil
	case *milvuspb.ConnectRequest:
		return &milvuspb.ConnectResponse{Status: st}, nil
	case *milvuspb.GetVersionRequest:
		return &milvuspb.GetVersionResponse{Status: st}, nil
	case *milvuspb.FlushRequest:
		return &milvuspb.FlushResponse{Status: st}, nil
	case *milvuspb.DescribeIndexRequest:
		return &milvuspb.DescribeIndexResponse{Status: st}, nil
	case *milvuspb.GetLoadStateRequest:
		return &milvuspb.GetLoadStateResponse{Status: st}, nil
	case *milvuspb.CheckHealthRequest:
		return &milvuspb.CheckHealthResponse{Status: st}, nil
	}
	return st, nil
}
