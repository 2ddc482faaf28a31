package fake_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

const (
	coll = "customers"
	dim  = 4
	pw   = "s3cr3t-of-the-house"
)

func config(addr string) client.Config {
	return client.Config{
		Address: addr, MaxMessage: 4 << 20, DialTimeout: 1200 * time.Millisecond, ReadTimeout: 600 * time.Millisecond, WriteTimeout: 600 * time.Millisecond, SlowTimeout: time.Second,
		Username: "kindred", Password: pw,
		Retry:   client.Retry{Attempts: 4, Base: 5 * time.Millisecond, Max: 50 * time.Millisecond},
		Breaker: client.Breaker{Failures: 3, Cooldown: 30 * time.Millisecond, Max: 100 * time.Millisecond},
	}
}

func token() string { return base64.StdEncoding.EncodeToString([]byte("kindred:" + pw)) }

func columns(ids []string, gen int64) []client.Column {
	n := len(ids)
	out := []client.Column{
		{Name: "id", Type: client.VarChar, Strings: ids},
		{Name: "gen", Type: client.Int64, Ints: make([]int64, n)},
		{Name: "vec", Type: client.FloatVector, Vectors: make([]float32, n*dim), Dim: dim},
	}
	for i := range n {
		out[1].Ints[i] = gen
		out[2].Vectors[i*dim+i%dim] = 1
		out[2].Vectors[i*dim] += float32(i) / 1000
	}
	return out
}

func names(from, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("c%05d", from+i)
	}
	return out
}

// bench is a fake with 100 acknowledged rows, a line to it and a client at its end.
type bench struct {
	s     *fake.Server
	p     *fake.Proxy
	c     *client.Client
	acked map[string]int64
}

func (b *bench) upsert(ctx context.Context, ids []string, gen int64) error {
	_, err := b.c.Upsert(ctx, coll, columns(ids, gen))
	if err == nil {
		for _, id := range ids {
			b.acked[id] = gen
		}
	}
	return err
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	s.Token = token()
	p, err := fake.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(context.Background(), config(p.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{s: s, p: p, c: c, acked: map[string]int64{}}
	ctx := context.Background()
	err = c.Create(ctx, client.Schema{Name: coll, Fields: []client.Field{
		{Name: "id", Type: client.VarChar, Primary: true, MaxLength: 64}, {Name: "gen", Type: client.Int64}, {Name: "vec", Type: client.FloatVector, Dim: dim},
	}})
	if err == nil {
		err = c.Load(ctx, coll)
	}
	if err == nil {
		err = b.upsert(ctx, names(0, 100), 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everything reads all rows back, and holds each acknowledged one to what was written.
func (b *bench) everything(ctx context.Context) error {
	it, err := b.c.Iterate(client.IterateRequest{Collection: coll, Key: "id", Fields: []string{"gen"}, Batch: 37})
	if err != nil {
		return err
	}
	got := map[string]int64{}
	for {
		page, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i, id := range page.Column("id").Strings {
			got[id] = page.Column("gen").Ints[i]
		}
	}
	for id, gen := range b.acked {
		if got[id] < gen {
			return fmt.Errorf("LOST: %s was acknowledged with generation %d, and has %d", id, gen, got[id])
		}
	}
	return nil
}

type do = func(ctx context.Context, b *bench) error

func query(ctx context.Context, b *bench) error {
	got, err := b.c.Query(ctx, client.QueryRequest{Collection: coll, Expr: `id < "c00050"`, Fields: []string{"id", "gen", "vec"}, Limit: 100})
	if err == nil && got.Rows != 50 {
		return fmt.Errorf("%d rows", got.Rows)
	}
	return err
}

func search(ctx context.Context, b *bench) error {
	got, err := b.c.Search(ctx, client.SearchRequest{Collection: coll, Field: "vec", Vectors: []float32{1, 0, 0, 0}, Dim: dim, Metric: client.IP, Limit: 10, Fields: []string{"gen"}})
	if err == nil && got[0].Len() != 10 {
		return fmt.Errorf("%d hits", got[0].Len())
	}
	return err
}

func rangeSearch(ctx context.Context, b *bench) error {
	r := 0.5
	_, err := b.c.Search(ctx, client.SearchRequest{Collection: coll, Field: "vec", Vectors: []float32{1, 0, 0, 0}, Dim: dim, Metric: client.IP, Limit: 1000, Radius: &r})
	return err
}

func upsert(ctx context.Context, b *bench) error { return b.upsert(ctx, names(50, 100), 2) }

func insert(ctx context.Context, b *bench) error {
	_, err := b.c.Insert(ctx, coll, columns(names(1000, 10), 2))
	return err
}

func page(ctx context.Context, b *bench) error { return b.everything(ctx) }

func count(ctx context.Context, b *bench) error {
	n, err := b.c.Count(ctx, coll, "", client.Strong)
	if err == nil && n < 100 {
		return fmt.Errorf("%d rows", n)
	}
	return err
}

func describe(ctx context.Context, b *bench) error { _, err := b.c.Describe(ctx, coll); return err }

func fault(method string, times int, d func(context.Context, any, func() (any, error)) (any, error)) func(*bench) {
	return func(b *bench) { b.s.Fault(fake.Fault{Method: method, Times: times, Do: d}) }
}

func twistQuery(change func(*milvuspb.QueryResults)) func(*bench) {
	return fault("Query", 0, fake.Twist(change))
}

func twistSearch(change func(*schemapb.SearchResultData)) func(*bench) {
	return fault("Search", 0, fake.Twist(func(a *milvuspb.SearchResults) { change(a.Results) }))
}

func strs(a *milvuspb.QueryResults) []string {
	return a.FieldsData[0].GetScalars().GetStringData().Data
}

func TestBehaviours(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "the node goes away")
	failing := 0
	for _, tc := range []struct {
		name string
		mess func(*bench)
		do   do
		want error // nil: success all the same
	}{
		{"stalled read", fault("Query", 0, fake.Stall()), query, client.ErrTimeout},
		{"stalled write", fault("Upsert", 0, fake.Stall()), upsert, client.ErrTimeout},
		{"stalled search", fault("Search", 0, fake.Stall()), search, client.ErrTimeout},
		{"slow and in time", fault("Query", 0, fake.Slow(200*time.Millisecond)), query, nil},
		{"slow and too late", fault("Query", 0, fake.Slow(5*time.Second)), query, client.ErrTimeout},
		{"unavailable once", fault("Query", 1, fake.Fail(unavailable)), query, nil},
		{"unavailable twice, write", fault("Upsert", 2, fake.Fail(unavailable)), upsert, nil},
		{"unavailable for good", fault("", 0, fake.Fail(unavailable)), query, client.ErrUnreachable},
		{"unavailable, insert is not repeated", func(b *bench) { fault("Insert", 1, fake.DoThenFail(unavailable))(b) }, func(ctx context.Context, b *bench) error {
			err := insert(ctx, b)
			if n := b.s.Calls("Insert"); n != 1 {
				return fmt.Errorf("%d inserts were sent", n)
			}
			return err
		}, client.ErrUnreachable},
		{"written and not said, upsert is repeated", fault("Upsert", 1, fake.DoThenFail(unavailable)), upsert, nil},
		{"written and the acknowledgement lost", fault("Upsert", 0, fake.Lose()), upsert, client.ErrTimeout},
		{"rate limited once, old code", fault("Query", 1, fake.Refuse(0, commonpb.ErrorCode_RateLimit, "request is rejected by limiter")), query, nil},
		{"rate limited for good", fault("Upsert", 0, fake.Refuse(8, commonpb.ErrorCode_RateLimit, "request is rejected by limiter")), upsert, client.ErrRateLimited},
		{"rate limited, insert is repeated", fault("Insert", 1, fake.Refuse(8, 0, "rate limit exceeded")), insert, nil},
		{"resource exhausted", fault("Search", 0, fake.Fail(status.Error(codes.ResourceExhausted, "too many requests"))), search, client.ErrRateLimited},
		{"writes denied", fault("Upsert", 0, fake.Refuse(9, commonpb.ErrorCode_ForceDeny, "deny to write")), upsert, client.ErrRateLimited},
		{"disk full", fault("Upsert", 0, fake.Refuse(7, commonpb.ErrorCode_DiskQuotaExhausted, "disk quota exceeded")), upsert, client.ErrDiskFull},
		{"disk full, in the words of the system", fault("Upsert", 0, fake.Refuse(65535, commonpb.ErrorCode_UnexpectedError, "write /var/x: no space left on device")), upsert, client.ErrDiskFull},
		{"memory full", fault("Upsert", 0, fake.Refuse(3, commonpb.ErrorCode_MemoryQuotaExhausted, "memory quota exceeded")), upsert, client.ErrMemory},
		{"credentials refused later", fault("", 0, fake.Fail(status.Error(codes.Unauthenticated, "auth check failure for "+pw+" and "+token()))), query, client.ErrAuth},
		{"not permitted", fault("Upsert", 0, fake.Refuse(1401, 0, "permission deny")), upsert, client.ErrAuth},
		{"collection gone", func(b *bench) {
			fault("Query", 1, fake.Refuse(100, 0, "collection not found"))(b)
		}, query, client.ErrGone},
		{"collection gone, old code", fault("DescribeCollection", 1, fake.Refuse(0, commonpb.ErrorCode_CollectionNotExists, "can't find collection: customers")), describe, client.ErrGone},
		{"description without schema", fault("DescribeCollection", 1, fake.Twist(func(a *milvuspb.DescribeCollectionResponse) { a.Schema = nil })), describe, client.ErrInvalidAnswer},
		{"not loaded", fault("Search", 0, fake.Refuse(101, 0, "collection not loaded")), search, client.ErrNotLoaded},
		{"not loaded, in words", fault("Query", 0, fake.Refuse(0, commonpb.ErrorCode_UnexpectedError, "collection 4711 has not been loaded to memory or load failed, collection not loaded")), query, client.ErrNotLoaded},
		{"starting, then there", fault("", 2, fake.Refuse(1, commonpb.ErrorCode_NotReadyServe, "Milvus Proxy is not ready yet")), query, nil},
		{"starting for long", fault("Query", 0, fake.Refuse(1, commonpb.ErrorCode_NotReadyServe, "Milvus Proxy is not ready yet")), query, client.ErrNotReady},
		{"no node for the shard", fault("Search", 0, fake.Refuse(503, commonpb.ErrorCode_NoReplicaAvailable, "channel not available")), search, client.ErrNotReady},
		{"method unknown", fault("Upsert", 0, fake.Fail(status.Error(codes.Unimplemented, "unknown method Upsert for service milvus.proto.milvus.MilvusService"))), upsert, client.ErrVersion},
		{"panic in the server", fault("Query", 0, fake.Fail(status.Error(codes.Internal, "panic: index out of range"))), query, client.ErrServer},
		{"no status", fault("Query", 0, fake.Twist(func(a *milvuspb.QueryResults) { a.Status = nil })), query, client.ErrInvalidAnswer},
		{"wrong dimension", twistQuery(func(a *milvuspb.QueryResults) { a.FieldsData[2].GetVectors().Dim = 3 }), query, client.ErrInvalidAnswer},
		{"half a vector", twistQuery(func(a *milvuspb.QueryResults) {
			v := a.FieldsData[2].GetVectors().GetFloatVector()
			v.Data = v.Data[:len(v.Data)-2]
		}), query, client.ErrInvalidAnswer},
		{"NaN in a vector", twistQuery(func(a *milvuspb.QueryResults) {
			a.FieldsData[2].GetVectors().GetFloatVector().Data[5] = float32(math.NaN())
		}), query, client.ErrInvalidAnswer},
		{"fields of different length", twistQuery(func(a *milvuspb.QueryResults) {
			s := a.FieldsData[0].GetScalars().GetStringData()
			s.Data = s.Data[:10]
		}), query, client.ErrInvalidAnswer},
		{"a field left out", twistQuery(func(a *milvuspb.QueryResults) { a.FieldsData = a.FieldsData[:1] }), query, client.ErrInvalidAnswer},
		{"a field twice", twistQuery(func(a *milvuspb.QueryResults) { a.FieldsData[1] = a.FieldsData[0] }), query, client.ErrInvalidAnswer},
		{"a field of another type", twistQuery(func(a *milvuspb.QueryResults) { a.FieldsData[1].Type = schemapb.DataType_VarChar }), query, client.ErrInvalidAnswer},
		{"more rows than asked for", fault("Query", 0, func(ctx context.Context, req any, next func() (any, error)) (any, error) {
			req.(*milvuspb.QueryRequest).QueryParams = nil
			return next()
		}), func(ctx context.Context, b *bench) error {
			_, err := b.c.Query(ctx, client.QueryRequest{Collection: coll, Expr: `id >= ""`, Fields: []string{"id"}, Limit: 7})
			return err
		}, client.ErrInvalidAnswer},
		{"a count of nothing", twistQuery(func(a *milvuspb.QueryResults) { a.FieldsData = nil }), count, client.ErrInvalidAnswer},
		{"page reordered", twistQuery(func(a *milvuspb.QueryResults) { slices.Reverse(strs(a)) }), page, client.ErrInvalidAnswer},
		{"page with a key twice", twistQuery(func(a *milvuspb.QueryResults) { strs(a)[1] = strs(a)[0] }), page, client.ErrInvalidAnswer},
		{"the same page for ever", fault("Query", 0, func(ctx context.Context, req any, next func() (any, error)) (any, error) {
			req.(*milvuspb.QueryRequest).Expr = ""
			return next()
		}), page, client.ErrInvalidAnswer},
		{"page lost half-way, tried again", func(b *bench) {
			b.s.Fault(fake.Fault{Method: "Query", Skip: 1, Times: 1, Do: fake.Fail(unavailable)})
		}, page, nil},
		{"hit twice", twistSearch(func(a *schemapb.SearchResultData) {
			a.Ids.GetStrId().Data[1] = a.Ids.GetStrId().Data[0]
		}), search, client.ErrInvalidAnswer},
		{"hits reordered", twistSearch(func(a *schemapb.SearchResultData) { slices.Reverse(a.Scores) }), search, client.ErrInvalidAnswer},
		{"a score of NaN", twistSearch(func(a *schemapb.SearchResultData) { a.Scores[3] = float32(math.NaN()) }), search, client.ErrInvalidAnswer},
		{"fewer scores than keys", twistSearch(func(a *schemapb.SearchResultData) { a.Scores = a.Scores[:4] }), search, client.ErrInvalidAnswer},
		{"more hits than asked for", twistSearch(func(a *schemapb.SearchResultData) { a.Topks[0] = 11 }), search, client.ErrInvalidAnswer},
		{"answers for two queries", twistSearch(func(a *schemapb.SearchResultData) { a.Topks = []int64{5, 5} }), search, client.ErrInvalidAnswer},
		{"keys are numbers", twistSearch(func(a *schemapb.SearchResultData) {
			a.Ids = &schemapb.IDs{IdField: &schemapb.IDs_IntId{IntId: &schemapb.LongArray{Data: make([]int64, 10)}}}
		}), search, client.ErrInvalidAnswer},
		{"no results", fault("Search", 0, fake.Twist(func(a *milvuspb.SearchResults) { a.Results = nil })), search, client.ErrInvalidAnswer},
		{"beyond the radius", fault("Search", 0, func(ctx context.Context, req any, next func() (any, error)) (any, error) {
			for _, p := range req.(*milvuspb.SearchRequest).SearchParams {
				if p.Key == "params" {
					p.Value = "{}"
				}
			}
			return next()
		}), rangeSearch, client.ErrInvalidAnswer},
		{"rows refused beside a success", fault("Upsert", 0, fake.Twist(func(a *milvuspb.MutationResult) { a.ErrIndex = []uint32{3} })), upsert, client.ErrInvalidAnswer},
		{"half acknowledged", fault("Upsert", 0, fake.Twist(func(a *milvuspb.MutationResult) { a.UpsertCnt /= 2 })), upsert, client.ErrInvalidAnswer},
		{"keys of others acknowledged", fault("Upsert", 0, fake.Twist(func(a *milvuspb.MutationResult) { a.IDs.GetStrId().Data = nil })), upsert, client.ErrInvalidAnswer},
		{"huge message", fault("Query", 0, func(ctx context.Context, req any, next func() (any, error)) (any, error) {
			ans, err := next()
			if err == nil {
				strs(ans.(*milvuspb.QueryResults))[0] = strings.Repeat("x", 6<<20)
			}
			return ans, err
		}), func(ctx context.Context, b *bench) error {
			_, err := b.c.Query(ctx, client.QueryRequest{Collection: coll, Expr: `id < "c00003"`, Fields: []string{"id"}, Limit: 100})
			return err
		}, client.ErrTooLarge},
		{"batch too large to send", func(*bench) {}, func(ctx context.Context, b *bench) error {
			ids := names(0, 100)
			for i := range ids {
				ids[i] += strings.Repeat("x", 60000)
			}
			return b.upsert(ctx, ids, 3)
		}, client.ErrTooLarge},
		{"line reset", func(b *bench) { b.p.Reset() }, query, nil},
		{"line cut within an answer", func(b *bench) { b.p.CutAfter(400) }, query, nil},
		{"line cut within an acknowledgement", func(b *bench) { b.p.CutAfter(40) }, upsert, nil},
		{"packets dropped", func(b *bench) { b.p.Drop(true) }, query, client.ErrTimeout},
		{"packets dropped, write", func(b *bench) { b.p.Drop(true) }, upsert, client.ErrTimeout},
		{"goodbye (GOAWAY) and back", func(b *bench) { restart(b, 0, true) }, upsert, nil},
		{"killed and back", func(b *bench) { restart(b, 0, false) }, upsert, nil},
		{"caller's deadline", fault("Query", 0, fake.Stall()), func(ctx context.Context, b *bench) error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			return query(ctx, b)
		}, client.ErrTimeout},
		{"caller gives up", fault("Query", 0, fake.Stall()), func(ctx context.Context, b *bench) error {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(50*time.Millisecond, cancel)
			return query(ctx, b)
		}, context.Canceled},
	} {
		if tc.want != nil {
			failing++
		}
		t.Run(tc.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			b := newBench(t)
			defer b.s.Stop()
			defer b.p.Stop()
			defer b.c.Close()
			tc.mess(b)
			start := time.Now()
			err := tc.do(context.Background(), b)
			if took := time.Since(start); took > 1500*time.Millisecond {
				t.Errorf("took %v", took)
			}
			check(t, err, tc.want)
			b.s.Heal()
			b.p.Drop(false)
			b.p.CutAfter(-1)
			b.p.Reset() // a line that swallowed bytes is of no more use
			recovered(t, b)
		})
	}
	if failing < 40 {
		t.Errorf("%d behaviours end in an error: 40 at least are asked for", failing)
	}
	t.Logf("%d behaviours end in a typed error", failing)
}

func restart(b *bench, away time.Duration, graceful bool) {
	if err := b.s.Restart(away, graceful); err != nil {
		panic(err)
	}
}

// check holds an error to its kind and form.
func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v; wanted %v", err, want)
	}
	if want == nil {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *client.Error", err)
	}
	text := err.Error()
	if !strings.Contains(text, "127.0.0.1:") || e.Op == "" {
		t.Errorf("the error does not say where: %v", err)
	}
	if !strings.Contains(text, "(") && !errors.Is(want, context.Canceled) {
		t.Errorf("the error does not say how to mend it: %v", err)
	}
	if strings.Contains(text, pw) || strings.Contains(text, token()) {
		t.Errorf("the error holds a secret: %v", err)
	}
	if len(text) > 1200 || client.Outcome(err) == "other" || client.Outcome(err) == "ok" {
		t.Errorf("outcome %q of %v", client.Outcome(err), err)
	}
}

// recovered waits until reads work again, without a new client, and looks for losses.
func recovered(t *testing.T, b *bench) {
	t.Helper()
	until := time.Now().Add(5 * time.Second)
	for {
		err := b.everything(context.Background())
		if err == nil {
			break
		}
		if strings.Contains(err.Error(), "LOST") || time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if b.c.Breaker() != client.Closed {
		t.Error("the breaker did not close")
	}
}

// TestFirstContact is what a wrong address, port, version or password ends in.
func TestFirstContact(t *testing.T) {
	listen := func(handle func(net.Conn)) func(*testing.T) (string, func()) {
		return func(t *testing.T) (string, func()) {
			addr, stop, err := fake.Listen(handle)
			if err != nil {
				t.Fatal(err)
			}
			return addr, stop
		}
	}
	server := func(change func(*fake.Server), opts ...grpc.ServerOption) func(*testing.T) (string, func()) {
		return func(t *testing.T) (string, func()) {
			s, err := fake.Start(opts...)
			if err != nil {
				t.Fatal(err)
			}
			s.Token = token()
			change(s)
			return s.Addr(), s.Stop
		}
	}
	for _, tc := range []struct {
		name string
		addr func(*testing.T) (string, func())
		cfg  func(*client.Config)
		want error
	}{
		{"all well", server(func(*fake.Server) {}), nil, nil},
		{"slow start", server(func(s *fake.Server) {
			s.Fault(fake.Fault{Times: 3, Do: fake.Fail(status.Error(codes.Unavailable, "starting"))})
		}), nil, nil},
		{"nobody listens", func(t *testing.T) (string, func()) {
			addr, stop, _ := fake.Listen(func(net.Conn) {})
			stop()
			return addr, func() {}
		}, nil, client.ErrUnreachable},
		{"accepts and says nothing", listen(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), nil, client.ErrUnreachable},
		{"accepts and hangs up", listen(func(net.Conn) {}), nil, client.ErrUnreachable},
		{"HTTP on the port", listen(func(c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request")
			_, _ = io.Copy(io.Discard, c)
		}), nil, client.ErrNotMilvus},
		{"HTTP server on the port", func(t *testing.T) (string, func()) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.NotFoundHandler()}
			go srv.Serve(lis)
			return lis.Addr().String(), func() { srv.Close() }
		}, nil, client.ErrNotMilvus},
		{"HTTP/2 without gRPC", func(t *testing.T) (string, func()) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.NotFoundHandler(), Protocols: new(http.Protocols)}
			srv.Protocols.SetUnencryptedHTTP2(true)
			go srv.Serve(lis)
			return lis.Addr().String(), func() { srv.Close() }
		}, nil, client.ErrNotMilvus},
		{"garbage on the port", listen(func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat("SSH-2.0-nothing\r\n", 10))
			_, _ = io.Copy(io.Discard, c)
		}), nil, client.ErrNotMilvus},
		{"another gRPC service", func(t *testing.T) (string, func()) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			g := grpc.NewServer()
			go g.Serve(lis)
			return lis.Addr().String(), g.Stop
		}, nil, client.ErrNotMilvus},
		{"TLS wanted by us, not by it", server(func(*fake.Server) {}), func(c *client.Config) { c.TLS = &client.TLS{} }, client.ErrNotMilvus},
		{"TLS wanted by it, not by us", listen(func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{}).Handshake()
		}), nil, client.ErrUnreachable},
		{"version too old", server(func(s *fake.Server) { s.Version = "v2.2.16" }), nil, client.ErrVersion},
		{"version too new", server(func(s *fake.Server) { s.Version = "v3.0.1" }), nil, client.ErrVersion},
		{"version is nonsense", server(func(s *fake.Server) { s.Version = "latest" }), nil, client.ErrVersion},
		{"no credentials", server(func(*fake.Server) {}), func(c *client.Config) { c.Username, c.Password = "", "" }, client.ErrAuth},
		{"wrong password", server(func(*fake.Server) {}), func(c *client.Config) { c.Password = "x" }, client.ErrAuth},
		{"stalled greeting", server(func(s *fake.Server) { s.Fault(fake.Fault{Method: "Connect", Do: fake.Stall()}) }), nil, client.ErrTimeout},
		{"greeting in error", server(func(s *fake.Server) {
			s.Fault(fake.Fault{Method: "Connect", Do: fake.Refuse(5, commonpb.ErrorCode_UnexpectedError, "internal")})
		}), nil, client.ErrServer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			addr, stop := tc.addr(t)
			defer stop()
			cfg := config(addr)
			if tc.cfg != nil {
				tc.cfg(&cfg)
			}
			start := time.Now()
			c, err := client.Dial(context.Background(), cfg)
			if err == nil {
				defer c.Close()
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			check(t, err, tc.want)
		})
	}
}

// TestBreaker opens it, sees that calls then fail at once, and that it closes by itself.
func TestBreaker(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	b := newBench(t)
	defer b.s.Stop()
	defer b.p.Stop()
	defer b.c.Close()
	b.s.Fault(fake.Fault{Do: fake.Fail(status.Error(codes.Unavailable, "away"))})
	for range 20 {
		if err := query(context.Background(), b); !errors.Is(err, client.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if b.c.Breaker() == client.Closed {
		t.Fatal("the breaker is closed after 20 failures")
	}
	before, fast := b.s.Calls("Query")+b.s.Calls("Connect"), 0
	start := time.Now()
	for range 1000 {
		err := query(context.Background(), b)
		var e *client.Error
		if errors.As(err, &e) && e.RetryAfter > 0 {
			fast++
		}
	}
	if sent := b.s.Calls("Query") + b.s.Calls("Connect") - before; sent > 50 || fast < 900 {
		t.Errorf("%d calls were sent to a server that is away, %d of 1,000 failed at once in %v", sent, fast, time.Since(start))
	}
	b.s.Heal()
	recovered(t, b)
}

// TestRetryBudget sees that many callers together do not multiply a server's trouble.
func TestRetryBudget(t *testing.T) {
	b := newBench(t)
	defer b.s.Stop()
	defer b.p.Stop()
	defer b.c.Close()
	b.s.Fault(fake.Fault{Method: "Query", Do: fake.Refuse(8, commonpb.ErrorCode_RateLimit, "limited")})
	before := b.s.Calls("Query")
	const calls = 200
	for range calls {
		if err := query(context.Background(), b); !errors.Is(err, client.ErrRateLimited) {
			t.Fatal(err)
		}
	}
	if n := b.s.Calls("Query") - before; n > calls+25 {
		t.Fatalf("%d calls became %d", calls, n)
	}
}

type watcher struct{ calls, errs, retries atomic.Int64 }

func (w *watcher) Call(_, outcome string, _ time.Duration) {
	w.calls.Add(1)
	if outcome != "ok" {
		w.errs.Add(1)
	}
}
func (w *watcher) Retry(string)         { w.retries.Add(1) }
func (w *watcher) Breaker(client.State) {}

func TestMetricsHearOfEveryCall(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	w := &watcher{}
	cfg := config(s.Addr())
	cfg.Metrics = w
	c, err := client.Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Fault(fake.Fault{Method: "ShowCollections", Times: 1, Do: fake.Fail(status.Error(codes.Unavailable, "x"))})
	if _, err := c.List(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Describe(context.Background(), "nobody"); !errors.Is(err, client.ErrGone) {
		t.Fatal(err)
	}
	if w.calls.Load() != 3 || w.errs.Load() != 1 || w.retries.Load() != 1 {
		t.Fatalf("%d calls, %d errors, %d retries", w.calls.Load(), w.errs.Load(), w.retries.Load())
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	cfg := config("127.0.0.1:1")
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(f, cfg); strings.Contains(s, pw) {
			t.Errorf("%s prints %s", f, s)
		}
	}
	for _, addr := range []string{"", "nowhere", "http://x:1", "u:" + pw + "@h:1", "h:0", "h:70000", ":19530", "h:1/db"} {
		_, err := client.New(client.Config{Address: addr})
		if !errors.Is(err, client.ErrInvalidRequest) || strings.Contains(err.Error(), pw) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}
