package milvus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
)

// tap is a line to a server that keeps what the client sends.
type tap struct {
	addr string
	mu   sync.Mutex
	sent []*bytes.Buffer // one a connection
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{addr: lis.Addr().String()}
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			b := &bytes.Buffer{}
			p.mu.Lock()
			p.sent = append(p.sent, b)
			p.mu.Unlock()
			go func() { io.Copy(in, out); in.Close() }()
			go func() { io.Copy(out, io.TeeReader(in, locked{&p.mu, b})); out.Close() }()
		}
	}()
	return p
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// expressions takes the packets apart: HTTP/2 frames, gRPC messages, Milvus's requests.
func (p *tap) expressions(t *testing.T) (exprs []string, calls map[string]int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	calls = map[string]int{}
	for _, b := range p.sent {
		raw := bytes.NewReader(b.Bytes()[len(http2.ClientPreface):])
		fr := http2.NewFramer(nil, raw)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		path, body := map[uint32]string{}, map[uint32][]byte{}
		for {
			f, err := fr.ReadFrame()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break // the rest of a frame is under way
			}
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				path[f.StreamID] = f.PseudoValue("path")
			case *http2.DataFrame:
				body[f.StreamID] = append(body[f.StreamID], f.Data()...)
			}
		}
		for id, m := range body {
			if len(m) < 5 || len(m) != 5+int(binary.BigEndian.Uint32(m[1:])) {
				continue
			}
			if m[0] != 0 {
				t.Fatal("a compressed message: this test cannot read it")
			}
			_, method, _ := strings.Cut(strings.TrimPrefix(path[id], "/"), "/")
			calls[method]++
			var msg proto.Message
			switch method {
			case "Query":
				msg = &milvuspb.QueryRequest{}
			case "Search":
				msg = &milvuspb.SearchRequest{}
			case "Delete":
				msg = &milvuspb.DeleteRequest{}
			default:
				continue
			}
			if err := proto.Unmarshal(m[5:], msg); err != nil {
				t.Fatal(err)
			}
			switch q := msg.(type) {
			case *milvuspb.QueryRequest:
				exprs = append(exprs, q.Expr)
			case *milvuspb.SearchRequest:
				exprs = append(exprs, q.Dsl)
			case *milvuspb.DeleteRequest:
				exprs = append(exprs, q.Expr)
			}
		}
	}
	return exprs, calls
}

// literals cuts an expression into its literals. Everything between them has to be of
// words that Kindred writes: an unescaped value would end up there.
func literals(expr string) ([]string, error) {
	known := map[string]bool{"and": true, "or": true, "not": true, "in": true, "exists": true, "json_contains_any": true, "id": true, "hash": true, "version": true, "cols": true, "e": true}
	var out []string
	for i := 0; i < len(expr); {
		c := expr[i]
		switch {
		case c == '"':
			q, err := strconv.QuotedPrefix(expr[i:])
			if err != nil {
				return nil, fmt.Errorf("at byte %d a literal that does not end", i)
			}
			s, err := strconv.Unquote(q)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
			i += len(q)
		case c >= 'a' && c <= 'z' || c == '_':
			n := i
			for n < len(expr) && (expr[n] >= 'a' && expr[n] <= 'z' || expr[n] == '_') {
				n++
			}
			if !known[expr[i:n]] {
				return nil, fmt.Errorf("at byte %d the word %q", i, expr[i:n])
			}
			i = n
		case strings.IndexByte(" ()[],.<>=+-0123456789", c) >= 0:
			i++
		default:
			return nil, fmt.Errorf("at byte %d the sign %q", i, c)
		}
	}
	return out, nil
}

// testWire looks at the packets of all that takes values of users.
func testWire(t *testing.T, addr string) {
	line := newTap(t, addr)
	s := open(t, line.addr, "")
	ctx := context.Background()
	texts := hostile(150)[:140] // none of the long ones
	spec, mine, _ := hostileWorld(t, s, texts)
	e, err := s.Open(ctx, "hostile")
	if err != nil {
		t.Fatal(err)
	}
	may := map[string]bool{"": true}
	for _, c := range spec.Columns {
		may[c.Name] = true
	}
	values, sent := map[string]bool{}, map[string]bool{}
	for i, v := range texts {
		id := name(v, i, index.MaxID)
		may[v], may[id], values[id] = true, true, true
		f := index.Filter{Should: []index.Filter{{Field: "plain", Eq: v}, {Field: "tags", In: []any{v}}, {Field: "id", Gte: v}, {Field: "id", Eq: id}}}
		if expr, err := milvus.Expr(&f, spec.Columns); err == nil && i%20 == 0 { // it waits for the server's clock
			values[v] = true
			if _, err := s.PushDown(ctx, "hostile", pushdown.Request{Head: index.Head{Vector: []float32{1, 0}}, Size: 5, Filter: expr}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Get(ctx, []string{id}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Search(ctx, index.Query{Vector: []float32{1, 0}, Filter: &f, Limit: 3}); err != nil {
			t.Fatal(err)
		}
		if i%30 == 0 {
			if _, err := e.Delete(ctx, []string{id, v + "x"}); err != nil && !strings.Contains(v, "\x00") {
				t.Fatal(err)
			}
			may[v+"x"] = true
			if err := s.KV().Put(ctx, map[string][]byte{"k" + v: []byte(v)}); err != nil {
				t.Fatal(err)
			}
			if err := s.KV().Delete(ctx, "k"+v); err != nil {
				t.Fatal(err)
			}
		}
	}
	mine.Close()
	s.Close()
	exprs, calls := line.expressions(t)
	for _, expr := range exprs {
		got, err := literals(expr)
		if err != nil {
			t.Fatalf("%q: %v", expr, err)
		}
		for _, l := range got {
			hex := strings.Trim(l, "0123456789abcdefg./") == ""
			if !may[l] && !hex {
				t.Fatalf("%q: the literal %q is no value that was asked for", expr, l)
			}
			sent[l] = true
		}
	}
	for v := range values {
		if !sent[v] {
			t.Errorf("%q was asked for and never seen on the wire", v)
		}
	}
	if len(exprs) < 100 || calls["Delete"] < 5 || calls["Search"] < 5 {
		t.Errorf("%d expressions in %v: hardly a test", len(exprs), calls)
	}
	t.Logf("%d expressions in %v", len(exprs), calls)
}

func TestWire(t *testing.T)     { testWire(t, fakeServer(t).Addr()) }
func TestRealWire(t *testing.T) { testWire(t, milvustest.Address(t)) }
