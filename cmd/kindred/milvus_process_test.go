package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

// house is a Kindred whose customers lie in a Milvus; each process may have a folder
// of its own.
type house struct {
	t     *testing.T
	setup []string // flags
	env   []string
}

func newHouse(t *testing.T, addr string) *house {
	prefix := fmt.Sprintf("kindredtest_%x", time.Now().UnixNano())
	t.Cleanup(func() {
		store, err := settings(addr, prefix, scanMirror).openMilvus(context.Background(), nil)
		if err == nil {
			err = errors.Join(store.Destroy(context.Background()), store.Close())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return &house{t: t, setup: []string{"--milvus", addr, "--milvus-prefix", prefix, "--milvus-scan", "auto", "--device", "cpu"}}
}

// run starts a process of its own for one command, with an empty folder.
func (h *house) run(args ...string) (out, said string, err error) {
	cmd := exec.CommandContext(h.t.Context(), "kindred", append(args, append(h.setup, "--data", filepath.Join(h.t.TempDir(), "none"))...)...)
	cmd.Env = append(os.Environ(), h.env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

func (h *house) must(args ...string) string {
	h.t.Helper()
	out, said, err := h.run(args...)
	if err != nil {
		h.t.Fatalf("%v: %v\n%s%s", args, err, out, said)
	}
	return out
}

// serving is a server in a process of its own.
type serving struct {
	t   *testing.T
	cmd *exec.Cmd
	url string
	key string

	mu   sync.Mutex
	said bytes.Buffer
	done chan struct{}
}

func (h *house) serve() *serving {
	h.t.Helper()
	s := &serving{t: h.t, done: make(chan struct{})}
	s.cmd = exec.Command("kindred", append([]string{"serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(h.t.TempDir(), "none")}, h.setup...)...)
	s.cmd.Env = append(os.Environ(), h.env...)
	says, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.kill)
	heard := make(chan string, 1)
	go func() {
		defer close(s.done)
		lines := bufio.NewScanner(says)
		for lines.Scan() {
			s.mu.Lock()
			s.said.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				heard <- m[1]
			}
		}
	}()
	select {
	case s.url = <-heard:
	case <-s.done:
		h.t.Fatalf("the server ended: %s", s.log())
	case <-time.After(time.Minute):
		h.t.Fatalf("the server does not say where it is: %s", s.log())
	}
	return s
}

func (s *serving) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

func (s *serving) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.done
		_ = s.cmd.Wait()
	}
}

// stop ends it as an operator does.
func (s *serving) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	<-s.done
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("%v: %s", err, s.log())
	}
}

func (s *serving) ask(method, path, body string) (int, string, http.Header) {
	return s.askIf("", method, path, body)
}

// askIf is ask with If-Match.
func (s *serving) askIf(tag, method, path, body string) (int, string, http.Header) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+"/v1"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	kind := "application/json"
	if strings.HasSuffix(path, "/customers") {
		kind = "application/x-ndjson"
	}
	req.Header.Set("Content-Type", kind)
	if tag != "" {
		req.Header.Set("If-Match", tag)
	}
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return res.StatusCode, string(raw), res.Header
}

func (s *serving) until(what string, is func() bool) {
	s.t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > time.Minute {
			s.t.Fatalf("%s: not within a minute\n%s", what, s.log())
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Logf("%s: after %v", what, time.Since(start).Round(100*time.Millisecond))
}

// customer is one line; those of cluster 0 are alike.
func customer(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 9))
	v := make([]string, 8)
	for d := range v {
		x := r.NormFloat64()
		if d == i%4 {
			x += 3
		}
		v[d] = fmt.Sprintf("%.6f", x)
	}
	return fmt.Sprintf(`{"id":"c%06d","fields":{"age":%d},"vector":[%s]}`+"\n", i, i%90, strings.Join(v, ","))
}

func customers(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(customer(i))
	}
	return b.String()
}

// testProcesses has everything in a Milvus: processes with empty folders give the same
// answers, one after the other and at once.
func testProcesses(t *testing.T, addr string) {
	h := newHouse(t, addr)
	dir := t.TempDir()
	file, seeds := filepath.Join(dir, "customers.ndjson"), filepath.Join(dir, "seeds.csv")
	ids := "id\n"
	for i := 0; i < 200; i += 4 {
		ids += fmt.Sprintf("c%06d\n", i)
	}
	for name, text := range map[string]string{file: customers(0, 1200), seeds: ids} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.must("import", "shop", file, "--dim", "8")
	h.must("audience", "create", "shop", "spring", "--seeds", seeds, "--size", "200", "--method", "centroid")
	look := func() string {
		one := filepath.Join(t.TempDir(), "list.csv")
		h.must("audience", "export", "shop", "spring", "-o", one)
		list, err := os.ReadFile(one)
		if err != nil {
			t.Fatal(err)
		}
		return h.must("search", "shop", "--vector", "1,0,0,0,0,0,0,0", "--limit", "20", "--filter", `{"field":"age","gte":30}`) + h.must("audience", "show", "shop", "spring", "--json") + string(list)
	}
	before := look()
	if again := look(); again != before || strings.Count(before, "\n") < 200 {
		t.Fatalf("another process says\n%.2000s\nand the first said\n%.2000s", again, before)
	}
	var key string
	for line := range strings.Lines(h.must("keys", "add", "everything", "--role", "admin")) {
		if k := strings.TrimSpace(line); strings.HasPrefix(k, "kd_") || len(k) > 30 && !strings.Contains(k, " ") {
			key = k
		}
	}
	if list := h.must("keys", "ls"); !strings.Contains(list, "everything") {
		t.Fatal(list)
	}
	a, b := h.serve(), h.serve()
	a.key, b.key = key, key
	if code, said, _ := b.ask("GET", "/collections/shop", ""); code != 200 || !strings.Contains(said, `"customers":1200`) {
		t.Fatalf("key %q: %d %s", key, code, said)
	}
	b.key = ""
	if code, said, _ := b.ask("GET", "/collections/shop", ""); code != 401 {
		t.Fatalf("without a key: %d %s", code, said)
	}
	b.key = key
	if code, said, _ := a.ask("POST", "/collections/shop/customers", customers(1200, 1300)); code != 200 {
		t.Fatal(code, said)
	}
	b.until("a customer of the other", func() bool { c, _, _ := b.ask("GET", "/collections/shop/customers/c001299", ""); return c == 200 })
	if code, said, _ := b.ask("DELETE", "/collections/shop/customers/c000001", ""); code >= 300 {
		t.Fatal(code, said)
	}
	a.until("a delete of the other", func() bool { c, _, _ := a.ask("GET", "/collections/shop/customers/c000001", ""); return c == 404 })
	// An audience of one is the other's too, and it says how it was found.
	if code, said, _ := a.ask("POST", "/collections/shop/audiences", `{"name":"second","seeds":{"filter":{"field":"age","lt":10}},"size":{"count":150},"method":"centroid","features":{"columns":[]}}`); code >= 300 {
		t.Fatal(code, said)
	}
	var said string
	b.until("an audience of the other", func() bool {
		var code int
		code, said, _ = b.ask("GET", "/collections/shop/audiences/second", "")
		return code == 200 && strings.Contains(said, `"state":"done"`)
	})
	if !strings.Contains(said, `"scan":{"path":"push-down","exact":true`) {
		t.Errorf("how it was found is not said: %.1500s", said)
	}
	_, theirs, _ := a.ask("GET", "/collections/shop/audiences/second/members?limit=1000", "")
	_, ours, _ := b.ask("GET", "/collections/shop/audiences/second/members?limit=1000", "")
	if theirs != ours || strings.Count(ours, `"id"`) != 150 {
		t.Errorf("members differ: %.300s\n%.300s", theirs, ours)
	}
	// Who is suppressed here is on no list there.
	_, first, _ := strings.Cut(ours, `"id":"`)
	first, _, _ = strings.Cut(first, `"`)
	if code, said, _ := a.ask("PUT", "/collections/shop/suppressions/complaints", fmt.Sprintf(`{"ids":[%q],"always":true}`, first)); code >= 300 {
		t.Fatal(code, said)
	}
	b.until("a suppression of the other", func() bool {
		_, said, _ := b.ask("GET", "/collections/shop/audiences/second/members?limit=1000", "")
		return !strings.Contains(said, first)
	})
	// Both write other people at once: all are there, in both.
	var both sync.WaitGroup
	for w, s := range []*serving{a, b} {
		both.Go(func() {
			for i := range 5 {
				from := 2000 + (2*i+w)*100
				if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(from, from+100)); code != 200 {
					t.Errorf("%d %s", code, said)
				}
			}
		})
	}
	both.Wait()
	for _, s := range []*serving{a, b} {
		s.until("everyone", func() bool {
			_, said, _ := s.ask("GET", "/collections/shop", "")
			return strings.Contains(said, `"customers":2299`)
		})
	}
	a.stop()
	b.stop()
}

func TestRealMilvusProcesses(t *testing.T) { testProcesses(t, milvustest.Address(t)) }
