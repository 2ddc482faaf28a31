package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"

	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
	"github.com/kindred-search/kindred/index/milvus/mirror"
)

// line is a way to a server that can be cut and mended.
type line struct {
	lis net.Listener
	mu  sync.Mutex
	cut bool
	all []net.Conn
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{lis: lis}
	t.Cleanup(func() { lis.Close(); l.set(true) })
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
			l.mu.Lock()
			if l.cut {
				in.Close()
				out.Close()
			}
			l.all = append(l.all, in, out)
			l.mu.Unlock()
			go func() { io.Copy(in, out); in.Close() }()
			go func() { io.Copy(out, in); out.Close() }()
		}
	}()
	return l
}

func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut = cut; cut {
		for _, c := range l.all {
			c.Close()
		}
		l.all = nil
	}
}

// look asks for a page of a server beside its API.
func (s *serving) look(path string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	start := time.Now()
	res, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", path, err, s.log())
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if took := time.Since(start); took > 7*time.Second {
		s.t.Errorf("%s took %v", path, took)
	}
	return res.StatusCode, string(raw)
}

type readyAnswer struct {
	Status   string
	Missing  []string
	Degraded []string
}

func (s *serving) ready(query string) (int, readyAnswer) {
	s.t.Helper()
	code, raw := s.look("/readyz" + query)
	var out readyAnswer
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		s.t.Fatal(err, raw)
	}
	return code, out
}

// value is one of /metrics; NaN where there is none would hide a misspelt name, so that
// is a failure.
func (s *serving) value(name string) float64 {
	s.t.Helper()
	_, text := s.look("/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		s.t.Fatalf("no %s in %s", name, strings.Join(regexp.MustCompile(`(?m)^kindred_milvus_[^c].*$`).FindAllString(text, -1), "\n"))
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// testHealth has a server whose Milvus goes away and comes back.
func testHealth(t *testing.T, addr string) {
	t.Parallel() // it waits most of the time
	l := newLine(t, addr)
	h := newHouse(t, addr)
	h.setup[1] = l.lis.Addr().String()
	s := h.serve()
	s.until("ready", func() bool { code, is := s.ready(""); return code == 200 && is.Status == "ok" })
	if code, said, _ := s.ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(0, 300)); code != 200 {
		t.Fatal(code, said)
	}
	s.until("a sweep", func() bool {
		return s.value(`kindred_milvus_mirror_swept_age_seconds{collection="shop"}`) < 5 && s.value(`kindred_milvus_calls_total{call="count",outcome="ok"}`) > 1
	})
	for name, want := range map[string][2]float64{
		`kindred_milvus_mirror_rows{collection="shop"}`:                                              {300, 300},
		`kindred_milvus_mirror_bytes{collection="shop"}`:                                             {300 * 80, 300 * 400},
		`kindred_milvus_mirror_behind_rows{collection="shop"}`:                                       {0, 0},
		`kindred_milvus_mirror_behind_bytes{collection="shop"}`:                                      {0, 0},
		`kindred_milvus_mirror_ready{collection="shop"}`:                                             {1, 1},
		`kindred_milvus_mirror_failing{collection="shop"}`:                                           {0, 0},
		`kindred_milvus_breaker{state="closed"}`:                                                     {1, 1},
		`kindred_milvus_breaker{state="open"}`:                                                       {0, 0},
		`kindred_milvus_calls_total{call="upsert",outcome="ok"}`:                                     {2, 50},
		`kindred_milvus_call_seconds_count{call="upsert"}`:                                           {2, 50},
		`kindred_milvus_call_seconds_bucket{call="upsert",le="+Inf"}`:                                {2, 50},
		`kindred_milvus_calls_total{call="connect",outcome="ok"}`:                                    {1, 1},
		`kindred_milvus_mirror_mended_rows_total{collection="shop"}`:                                 {0, 0},
		`kindred_milvus_mirror_swept_age_seconds{collection="shop"}`:                                 {0, 20},
		`kindred_http_requests_total{method="PUT",route="/v1/collections/:collection",status="201"}`: {1, 1},
	} {
		if got := s.value(name); got < want[0] || got > want[1] {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	search := func() int {
		code, _, _ := s.ask("POST", "/collections/shop/search", `{"vector":[1,0,0,0,0,0,0,0],"fields":[]}`)
		return code
	}
	if code := search(); code != 200 {
		t.Fatal(code)
	}
	l.set(true)
	s.until("it says that Milvus is away", func() bool { _, is := s.ready(""); return is.Status == "degraded" })
	code, is := s.ready("")
	said := strings.Join(is.Degraded, "\n")
	if code != 200 || len(is.Missing) > 0 || !strings.Contains(said, "Milvus cannot be reached since") || !strings.Contains(said, "writes") || !strings.Contains(said, "from memory") {
		t.Errorf("%d %+v", code, is)
	}
	if strings.Contains(said, "shop") || strings.Contains(said, l.lis.Addr().String()) {
		t.Errorf("it tells strangers of %s", said)
	}
	if code, is := s.ready("?writes=true"); code != 503 || is.Status != "not ready" || !slices.Contains(is.Missing, "writes are refused") {
		t.Errorf("%d %+v", code, is)
	}
	if code := search(); code != 200 {
		t.Errorf("a search while Milvus is away: %d", code)
	}
	if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(0, 1)); code != 503 {
		t.Errorf("a write while Milvus is away: %d %s", code, said)
	}
	s.until("metrics say so", func() bool {
		return s.value(`kindred_milvus_breaker{state="closed"}`) == 0 && s.value(`kindred_milvus_mirror_failing{collection="shop"}`) == 1
	})
	if s.value(`kindred_milvus_calls_total{call="health",outcome="unreachable"}`) < 1 || s.value(`kindred_milvus_breaker_changes_total{state="open"}`) < 1 || s.value(`kindred_milvus_retries_total{call="health"}`) < 1 {
		t.Error("failures are not counted")
	}
	l.set(false)
	s.until("all is well again", func() bool { code, is := s.ready("?writes=true"); return code == 200 && is.Status == "ok" })
	if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(300, 310)); code != 200 {
		t.Fatal(code, said)
	}
	s.stop()
}

func TestMilvusHealth(t *testing.T) {
	srv, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	testHealth(t, srv.Addr())
}

func TestRealMilvusHealth(t *testing.T) { testHealth(t, milvustest.Address(t)) }

// TestMilvusWarm has a server that reads many customers: it says how far it is, answers
// /metrics and requests that need none of them meanwhile, and a probe that gives up does
// not make it begin again.
func TestMilvusWarm(t *testing.T) {
	t.Parallel()
	srv, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	h := newHouse(t, srv.Addr())
	first := h.serve()
	if code, said, _ := first.ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	if code, said, _ := first.ask("POST", "/collections/shop/customers", customers(0, 3000)); code != 200 {
		t.Fatal(code, said)
	}
	first.stop()
	slow := make(chan struct{})
	srv.Fault(fake.Fault{Method: "Query", Do: pagesWait(slow)})
	s := h.serve()
	for range 3 {
		code, is := s.ready("")
		if code != 503 || is.Status != "not ready" || len(is.Missing) != 1 || !strings.Contains(is.Missing[0], "being read into memory") {
			t.Fatalf("%d %+v", code, is)
		}
		if code, _ := s.look("/healthz"); code != 200 {
			t.Fatal(code)
		}
	}
	if x := s.value(`kindred_milvus_mirror_behind_rows{collection="shop"}`); x != 3000 {
		t.Errorf("%v rows are still to come", x)
	}
	if x := s.value(`kindred_milvus_mirror_ready{collection="shop"}`); x != 0 {
		t.Error("it is ready")
	}
	close(slow)
	s.until("ready", func() bool { code, is := s.ready(""); return code == 200 && is.Status == "ok" })
	if x := s.value(`kindred_milvus_mirror_rows{collection="shop"}`); x != 3000 {
		t.Errorf("%v rows", x)
	}
	s.stop()
}

func TestAssess(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	sweep := 5 * time.Second
	copyAt := func(swept time.Duration, err error) milvus.Copy {
		return milvus.Copy{Collection: "secret", State: mirror.State{Ready: true, Rows: 10, Total: 10, Hydrated: ago(time.Hour), Swept: ago(swept), Err: err}}
	}
	filling := milvus.Copy{Collection: "secret", State: mirror.State{Rows: 7, Total: 20}}
	away := &client.Error{Kind: client.ErrUnreachable, Where: "10.0.0.1:19530"}
	for name, c := range map[string]struct {
		h        milvus.Health
		copies   []milvus.Copy
		warm     bool
		failed   int
		missing  string
		degraded []string
		readOnly bool
	}{
		"well":           {h: milvus.Health{Sweep: sweep}, copies: []milvus.Copy{copyAt(time.Second, nil)}, warm: true},
		"reading":        {h: milvus.Health{Sweep: sweep}, copies: []milvus.Copy{copyAt(time.Second, nil), filling}, missing: "7 of 20 in 1 collections, 1 collections are done"},
		"reading later":  {h: milvus.Health{Sweep: sweep}, copies: []milvus.Copy{copyAt(time.Second, nil), filling}, warm: true, degraded: []string{"7 of 20 customers"}},
		"one is broken":  {h: milvus.Health{Sweep: sweep}, copies: nil, warm: true, failed: 1, degraded: []string{"1 collections cannot be opened"}},
		"away":           {h: milvus.Health{Sweep: sweep, Err: away, Since: ago(time.Minute)}, copies: []milvus.Copy{copyAt(time.Minute, away)}, warm: true, degraded: []string{"Milvus cannot be reached since"}, readOnly: true},
		"away too long":  {h: milvus.Health{Sweep: sweep, Err: away, Since: ago(2 * time.Hour)}, copies: []milvus.Copy{copyAt(2*time.Hour, away)}, warm: true, missing: "no longer count", readOnly: true},
		"stale":          {h: milvus.Health{Sweep: sweep}, copies: []milvus.Copy{copyAt(2*time.Minute, nil)}, warm: true, degraded: []string{"may be missing from 1 collections"}},
		"sweeps fail":    {h: milvus.Health{Sweep: sweep}, copies: []milvus.Copy{copyAt(time.Second, errors.New("10.0.0.1"))}, warm: true, degraded: []string{"may be missing from 1 collections: Milvus failed"}},
		"writes refused": {h: milvus.Health{Sweep: sweep, Quotas: []string{"writes are refused"}}, warm: true, degraded: []string{"writes are refused"}, readOnly: true},
		"slowed down":    {h: milvus.Health{Sweep: sweep, Quotas: []string{"reads are slowed down"}}, warm: true, degraded: []string{"reads are slowed down"}},
	} {
		got := assess(c.h, c.copies, c.warm, c.failed, now)
		if (len(got.Missing) > 0) != (c.missing != "") || !strings.Contains(strings.Join(got.Missing, "\n"), c.missing) || got.ReadOnly != c.readOnly || len(got.Degraded) != len(c.degraded) {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		for i, want := range c.degraded {
			if !strings.Contains(got.Degraded[i], want) {
				t.Errorf("%s: %q", name, got.Degraded[i])
			}
		}
		if all := strings.Join(append(got.Missing, got.Degraded...), "\n"); strings.Contains(all, "secret") || strings.Contains(all, "10.0.0.1") {
			t.Errorf("%s: %s", name, all)
		}
	}
}

// pagesWait holds queries for vectors until it is told.
func pagesWait(until chan struct{}) func(context.Context, any, func() (any, error)) (any, error) {
	return func(ctx context.Context, req any, next func() (any, error)) (any, error) {
		if q, ok := req.(*milvuspb.QueryRequest); ok && slices.Contains(q.OutputFields, "vec") {
			select {
			case <-until:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return next()
	}
}
