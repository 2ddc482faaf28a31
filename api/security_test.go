package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

func mustAdd(t *testing.T, k *KeyStore, name, role string, collections ...string) string {
	t.Helper()
	secret, err := k.Add(t.Context(), name, role, collections)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestKeyStore(t *testing.T) {
	kv := memory.Open().KV()
	k := NewKeyStore(kv)
	secret := mustAdd(t, k, "ci", RoleRead, "shop")
	if len(secret) < 40 {
		t.Errorf("the secret %q is short", secret)
	}
	if other := mustAdd(t, k, "app", RoleAdmin); other == secret {
		t.Error("two keys have one secret")
	}
	pairs, err := kv.List("", 0, "")
	if err != nil || len(pairs) != 2 {
		t.Fatalf("%d entries: %v", len(pairs), err)
	}
	for _, p := range pairs {
		if strings.Contains(p.Key+string(p.Value), secret) || !strings.HasPrefix(p.Key, "key/") {
			t.Errorf("the entry %s holds the secret, or lies elsewhere: %s", p.Key, p.Value)
		}
	}
	list, err := k.List()
	if err != nil || len(list) != 2 || list[0].Name != "app" || list[1].Role != RoleRead || list[1].Collections[0] != "shop" {
		t.Errorf("list %+v, %v", list, err)
	}
	_, err = k.Add(t.Context(), "Bad Name", "owner", nil)
	if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "owner") || !strings.Contains(err.Error(), "Bad Name") {
		t.Errorf("a bad name and role give %v", err)
	}
	if _, err := k.Add(t.Context(), "ci", RoleRead, nil); !errors.Is(err, index.ErrExists) {
		t.Errorf("a name twice gives %v", err)
	}
	if err := k.Remove(t.Context(), "ci"); err != nil {
		t.Error(err)
	}
	if err := k.Remove(t.Context(), "ci"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("removing twice gives %v", err)
	}
}

func TestRoles(t *testing.T) {
	var read, write, admin, some string
	f := start(t, setup{before: func(k *KeyStore) {
		read = mustAdd(t, k, "r", RoleRead)
		write = mustAdd(t, k, "w", RoleWrite)
		admin = mustAdd(t, k, "a", RoleAdmin)
		some = mustAdd(t, k, "s", RoleWrite, "other")
	}})
	f.token = admin
	f.shop(20)
	f.do("PUT", "/v1/collections/other", shopBody).want(201)
	f.token = ""

	a := f.do("GET", "/v1/collections", nil)
	a.problem(401, "key_missing")
	if a.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	for _, bad := range []string{"Bearer nope", "Bearer ", "Basic " + read, "bearer" + read, "Bearer " + read + "x", "Bearer " + read[:len(read)-1]} {
		f.do("GET", "/v1/collections", nil, header{"Authorization": bad}).want(401)
	}
	f.do("GET", "/v1/collections", nil, header{"Authorization": "bearer " + read}).want(200) // the scheme has no case
	for _, path := range []string{"/healthz", "/readyz", "/health", "/openapi.json"} {
		f.do("GET", path, nil).want(200)
	}
	for _, path := range []string{"/", "/metrics", "/info", "/v1/models", "/v1/jobs"} {
		f.do("GET", path, nil).want(401)
	}

	calls := []struct {
		method, path, body string
		role               string
	}{
		{"GET", "/v1/collections/shop", "", RoleRead},
		{"POST", "/v1/collections/shop/search", `{"text":"sea"}`, RoleRead},
		{"POST", "/v1/collections/shop/similar", `{"positive":["c0001"]}`, RoleRead},
		{"POST", "/v1/collections/shop/count", `{}`, RoleRead},
		{"GET", "/v1/collections/shop/customers/c0001", "", RoleRead},
		{"GET", "/v1/jobs", "", RoleRead},
		{"POST", "/v1/embeddings", `{"model":"words","input":"x"}`, RoleRead},
		{"POST", "/embed", `{"inputs":"x"}`, RoleRead},
		{"GET", "/metrics", "", RoleRead},
		{"POST", "/v1/collections/shop/customers", `[{"id":"n"}]`, RoleWrite},
		{"PATCH", "/v1/collections/shop/customers/c0001", `{}`, RoleWrite},
		{"DELETE", "/v1/collections/shop/customers/c0002", "", RoleWrite},
		{"PUT", "/v1/collections/shop", shopBody, RoleAdmin},
		{"DELETE", "/v1/collections/shop", "", RoleAdmin},
	}
	for _, c := range calls {
		var in any
		if c.body != "" {
			in = c.body
		}
		if c.role != RoleRead {
			f.token = read
			f.do(c.method, c.path, in).want(403)
		}
		if c.role == RoleAdmin {
			f.token = write
			f.do(c.method, c.path, in).problem(403, "role")
		}
		f.token = map[string]string{RoleRead: read, RoleWrite: write, RoleAdmin: admin}[c.role]
		if got := f.do(c.method, c.path, in); got.status/100 != 2 {
			t.Errorf("%s %s with the role %s: %d %s", c.method, c.path, c.role, got.status, got.body)
		}
	}

	// A key for some collections sees nothing of the others, by any way.
	f.token = admin
	sailors := func() []string { return f.shop(60) }()
	job := f.build("spring", sailors, 30)
	f.token = some
	f.do("GET", "/v1/collections/shop", nil).problem(403, "collection")
	f.do("POST", "/v1/collections/shop/count", `{}`).problem(403, "collection")
	f.do("POST", "/v1/collections/other/count", `{}`).want(200)
	var list struct{ Collections []collection.Config }
	f.do("GET", "/v1/collections", nil).want(200).into(&list)
	if len(list.Collections) != 1 || list.Collections[0].Name != "other" {
		t.Errorf("a key for other sees %+v", list.Collections)
	}
	var jobs struct{ Jobs []collection.Job }
	f.do("GET", "/v1/jobs", nil).want(200).into(&jobs)
	if len(jobs.Jobs) != 0 {
		t.Errorf("a key for other sees the jobs %+v", jobs.Jobs)
	}
	for _, c := range [][2]string{{"GET", ""}, {"GET", "/events"}, {"DELETE", ""}} {
		f.do(c[0], "/v1/jobs/"+job.ID+c[1], nil).want(404)
	}
	if page := f.do("GET", "/", nil).want(200); strings.Contains(string(page.body), "shop") {
		t.Error("the console shows a key for other the shop")
	}
	f.do("GET", "/metrics", nil).want(403)

	// The other conventions get their own shapes.
	f.token = ""
	var oe openaiError
	f.do("POST", "/v1/embeddings", `{}`).want(401).into(&oe)
	if oe.Error.Message == "" || oe.Error.Type == "" {
		t.Errorf("401 for an openai client: %+v", oe)
	}
	var te map[string]string
	f.do("POST", "/embed", `{}`).want(401).into(&te)
	if te["error"] == "" || te["error_type"] == "" {
		t.Errorf("401 for a text-embeddings-inference client: %v", te)
	}
}

func TestRemovingTheLastKeyOpensNothing(t *testing.T) {
	f := start(t, setup{opt: Options{Listen: "0.0.0.0:7878"}, before: func(k *KeyStore) { mustAdd(t, k, "a", RoleAdmin) }})
	if err := f.keys.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f.do("GET", "/v1/collections", nil).want(401)
}

func TestLoopbackRule(t *testing.T) {
	svc, kv := newService(t, &fakeEncoder{}, setup{})
	for _, c := range []struct {
		listen string
		ok     bool
	}{
		{"127.0.0.1:7878", true}, {"[::1]:7878", true}, {"localhost:7878", true}, {"127.8.8.8:1", true},
		{"0.0.0.0:7878", false}, {":7878", false}, {"", false}, {"192.168.1.2:7878", false}, {"[::]:7878", false},
		{"example.com:80", false}, {"localhost.evil.com:80", false},
	} {
		_, err := New(Options{Service: svc, Keys: NewKeyStore(kv), KV: kv, Listen: c.listen})
		if (err == nil) != c.ok {
			t.Errorf("listen %q without keys: %v", c.listen, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "kindred keys add") || !strings.Contains(err.Error(), "127.0.0.1")) {
			t.Errorf("listen %q: the error names no fix: %v", c.listen, err)
		}
	}
	mustAdd(t, NewKeyStore(kv), "a", RoleRead)
	if _, err := New(Options{Service: svc, Keys: NewKeyStore(kv), KV: kv, Listen: "0.0.0.0:7878"}); err != nil {
		t.Errorf("with a key: %v", err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("options without a service or keys are taken")
	}
}

func TestHostHeader(t *testing.T) {
	f := start(t, setup{opt: Options{AllowedHosts: []string{"Kindred.test"}}})
	for host, status := range map[string]int{
		"localhost": 200, "127.0.0.1:7878": 200, "[::1]:80": 200, "LOCALHOST:1": 200, "kindred.test:99": 200,
		"evil.example": 403, "evil.example:7878": 403, "127.0.0.1.evil.example": 403, "localhost.": 403,
	} {
		if got := f.do("GET", "/v1/collections", nil, header{"Host": host}); got.status != status {
			t.Errorf("Host %q: %d, want %d", host, got.status, status)
		}
	}
	f.do("GET", "/v1/collections", nil, header{"Host": "evil.example"}).problem(403, "host")
	// With a key there is nothing that another page could do, and a proxy may
	// pass the public name on.
	var key string
	g := start(t, setup{before: func(k *KeyStore) { key = mustAdd(t, k, "a", RoleRead) }})
	g.token = key
	g.do("GET", "/v1/collections", nil, header{"Host": "search.example"}).want(200)
}

func TestIdempotency(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(60)
	create := map[string]any{"name": "once", "seeds": map[string]any{"ids": sailors}, "size": map[string]any{"count": 20}}
	key := header{"Idempotency-Key": "abc"}
	first := f.do("POST", "/v1/collections/shop/audiences", create, key).want(202)
	again := f.do("POST", "/v1/collections/shop/audiences", create, key).want(202)
	if string(first.body) != string(again.body) || first.header.Get("Location") != again.header.Get("Location") || again.header.Get("Content-Type") != first.header.Get("Content-Type") {
		t.Errorf("the answer given again differs: %s and %s", first.body, again.body)
	}
	if n := len(f.svc.Jobs()); n != 1 {
		t.Errorf("%d jobs of one request sent twice", n)
	}
	create["name"] = "other"
	f.do("POST", "/v1/collections/shop/audiences", create, key).problem(422, "idempotency_mismatch")
	f.do("POST", "/v1/collections/shop/audiences", create, header{"Idempotency-Key": strings.Repeat("x", 300)}).problem(422, "invalid")
	// Refusals are kept too; overload and our own faults are not.
	k2 := header{"Idempotency-Key": "k2"}
	f.do("POST", "/v1/collections/shop/search", `{}`, k2).want(422)
	f.do("POST", "/v1/collections/shop/search", `{}`, k2).problem(422, "invalid")
	k3 := header{"Idempotency-Key": "k3"}
	f.do("POST", "/v1/collections/shop/search", `{"text":"busy"}`, k3).want(429)
	f.do("POST", "/v1/collections/shop/search", `{"text":"sea"}`, k3).want(200)

	// Another server over the same store knows the key; a day later nobody does.
	srv, err := New(Options{Service: f.svc, Keys: f.keys, KV: f.kv, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	old := f.srv.Handler()
	f.http.Config.Handler = srv.Handler()
	if got := f.do("POST", "/v1/collections/shop/audiences", map[string]any{"name": "once", "seeds": create["seeds"], "size": create["size"]}, key); got.status != 202 || string(got.body) != string(first.body) {
		t.Errorf("after a restart: %d %s", got.status, got.body)
	}
	f.http.Config.Handler = old
	pairs, err := f.kv.List(idemPrefix, 0, "")
	if err != nil || len(pairs) == 0 {
		t.Fatalf("%d kept answers: %v", len(pairs), err)
	}
	for _, p := range pairs {
		var a idemAnswer
		if err := json.Unmarshal(p.Value, &a); err != nil {
			t.Fatal(err)
		}
		a.Answered = a.Answered.Add(-25 * time.Hour)
		raw, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.kv.Put(t.Context(), map[string][]byte{p.Key: raw}); err != nil {
			t.Fatal(err)
		}
	}
	f.do("POST", "/v1/collections/shop/audiences", create, key).want(202)
	if _, err := New(Options{Service: f.svc, Keys: f.keys, KV: f.kv, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	if left, err := f.kv.List(idemPrefix, 0, ""); err != nil || len(left) != 1 {
		t.Errorf("%d answers are kept after a day and a restart, want the new one: %v", len(left), err)
	}
}

// Two requests with one key at the same time are one request.
func TestIdempotencyWhileRunning(t *testing.T) {
	f := start(t, setup{})
	f.shop(8)
	key := header{"Idempotency-Key": "twin"}
	done := make(chan *answer, 1)
	go func() { done <- f.do("POST", "/v1/collections/shop/search", `{"text":"wait"}`, key) }()
	<-f.enc.entered
	// Who leaves before the answer may ask again: that it left is no answer.
	gone := header{"Idempotency-Key": "gone"}
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.http.URL+"/v1/collections/shop/search", strings.NewReader(`{"text":"wait"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", "gone")
	go func() { <-f.enc.entered; leave() }()
	if res, err := f.http.Client().Do(req); err == nil {
		res.Body.Close()
		t.Fatalf("left, and had %s", res.Status)
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := f.do("POST", "/v1/collections/shop/search", `{"text":"sea"}`, gone)
		if got.status == 200 {
			break
		}
		if got.problem(409, "idempotency_running"); time.Now().After(until) {
			t.Fatal("the request of who left is still running")
		}
	}
	f.do("POST", "/v1/collections/shop/search", `{"text":"wait"}`, key).problem(409, "idempotency_running")
	close(f.enc.hold)
	if got := <-done; got.status != 200 {
		t.Errorf("the first ended with %d", got.status)
	}
	f.do("POST", "/v1/collections/shop/search", `{"text":"wait"}`, key).want(200)
	if len(f.enc.entered) != 0 {
		t.Error("the request given again ran again")
	}
}

func TestGracefulShutdown(t *testing.T) {
	f := start(t, setup{opt: Options{Grace: 10 * time.Second}})
	f.shop(8)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.srv.Serve(ctx, l) }()
	base := "http://" + l.Addr().String()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	flying := make(chan int, 1)
	go func() {
		res, err := client.Post(base+"/v1/collections/shop/search", "application/json", strings.NewReader(`{"text":"wait"}`))
		if err != nil {
			t.Error(err)
			flying <- 0
			return
		}
		res.Body.Close()
		flying <- res.StatusCode
	}()
	<-f.enc.entered
	f.do("GET", "/readyz", nil).want(200)
	stop()
	deadline := time.Now().Add(5 * time.Second)
	for f.do("GET", "/readyz", nil).status != 503 {
		if time.Now().After(deadline) {
			t.Fatal("the server is still ready")
		}
		time.Sleep(5 * time.Millisecond)
	}
	var h health
	f.do("GET", "/readyz", nil).want(503).into(&h)
	if len(h.Missing) != 1 || !strings.Contains(h.Missing[0], "shutting down") {
		t.Errorf("readyz says %+v", h)
	}
	for { // no new connections
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the listener still accepts")
		}
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned (%v) before the request in flight had its answer", err)
	default:
	}
	close(f.enc.hold)
	if got := <-flying; got != 200 {
		t.Errorf("the request in flight got %d", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
