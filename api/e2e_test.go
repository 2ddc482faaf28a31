package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/api"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index/memory"
)

// constant is an encoder that gives every text the same unit vector: enough for
// the shapes of answers.
type constant struct{}

func (constant) Info() embed.Info {
	return embed.Info{Name: "constant", Dim: 4, MaxTokens: 8, Stamp: "constant@1"}
}

func (constant) Encode(_ context.Context, texts []string, _ embed.EncodeOptions) (*embed.Result, error) {
	res := &embed.Result{}
	for _, t := range texts {
		res.Vectors = append(res.Vectors, 0.5, 0.5, 0.5, 0.5)
		res.Tokens = append(res.Tokens, min(8, len(strings.Fields(t))+2))
		res.Truncated = append(res.Truncated, len(strings.Fields(t)) > 6)
	}
	return res, nil
}

type client struct {
	t   *testing.T
	url string
	key string
}

func start(t *testing.T) (*client, *api.KeyStore) {
	t.Helper()
	store := memory.Open()
	svc, err := collection.New(t.Context(), collection.Options{
		Store: store, KV: store.KV(), Limits: collection.Limits{MinAudience: 1},
		OpenModel: func(context.Context, string) (collection.Encoder, error) { return constant{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := api.NewKeyStore(store.KV())
	s, err := api.New(api.Options{Service: svc, Keys: keys, KV: store.KV(), Listen: "127.0.0.1:0", Models: []string{"constant"}, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		srv.Close()
		if err := svc.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &client{t: t, url: srv.URL}, keys
}

// do sends a request, checks the status and returns the body.
func (c *client) do(method, path, kind, body string, want int) []byte {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		if err := res.Body.Close(); err != nil {
			c.t.Error(err)
		}
	}()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, res.StatusCode, want, raw)
	}
	if want >= 400 && !strings.HasPrefix(path, "/v1/embeddings") && path != "/embed" && res.Header.Get("Content-Type") != "application/problem+json" {
		c.t.Errorf("%s %s: an error of type %q", method, path, res.Header.Get("Content-Type"))
	}
	return raw
}

func decode[T any](t *testing.T, raw []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

const asJSON = "application/json"

func TestFromCollectionToExport(t *testing.T) {
	c, _ := start(t)
	c.do("PUT", "/v1/collections/shop", asJSON, `{"fields":[{"name":"age","type":"number"},{"name":"region","type":"category"}]}`, 201)
	c.do("PUT", "/v1/collections/shop", asJSON, `{"fields":[{"name":"age","type":"number"}]}`, 200)
	c.do("PUT", "/v1/collections/shop", asJSON, `{"fields":[{"name":"age","type":"text"}]}`, 409)

	var lines strings.Builder
	for i := range 400 {
		age, region := 20+i%20, "south"
		if i%4 == 0 {
			age, region = 50+i%9, "north"
		}
		fmt.Fprintf(&lines, `{"id":"c%03d","fields":{"age":%d,"region":%q}}`+"\n", i, age, region)
	}
	lines.WriteString(`{"id":"bad","fields":{"age":"old","nope":1}}` + "\n{broken\n")
	out := decode[collection.Outcome](t, c.do("POST", "/v1/collections/shop/customers", "application/x-ndjson", lines.String(), 200))
	if out.Accepted != 400 || len(out.Refused) != 2 || out.Refused[0].Line != 401 || out.Refused[1].Line != 402 {
		t.Fatalf("outcome %+v", out)
	}
	if n := decode[struct{ Count int }](t, c.do("POST", "/v1/collections/shop/count", asJSON, `{"filter":{"field":"age","gte":50}}`, 200)); n.Count != 100 {
		t.Errorf("count %d, want 100", n.Count)
	}
	got := decode[collection.Customer](t, c.do("PATCH", "/v1/collections/shop/customers/c001", asJSON, `{"fields":{"age":33}}`, 200))
	if got.Fields["age"] != 33.0 || got.Fields["region"] != "south" {
		t.Errorf("patched to %v", got.Fields)
	}
	c.do("GET", "/v1/collections/shop/customers/nobody", "", "", 404)

	var seeds []string
	for i := 0; i < 160; i += 4 {
		seeds = append(seeds, fmt.Sprintf("%q", fmt.Sprintf("c%03d", i)))
	}
	job := decode[collection.Job](t, c.do("POST", "/v1/collections/shop/audiences", asJSON,
		`{"name":"like","seeds":{"ids":[`+strings.Join(seeds, ",")+`]},"size":{"count":60}}`, 202))
	deadline := time.Now().Add(time.Minute)
	for job = decode[collection.Job](t, c.do("GET", "/v1/jobs/"+job.ID, "", "", 200)); !job.State.Final() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		job = decode[collection.Job](t, c.do("GET", "/v1/jobs/"+job.ID, "", "", 200))
	}
	if job.State != collection.JobDone {
		t.Fatalf("job %+v", job)
	}
	if events := string(c.do("GET", "/v1/jobs/"+job.ID+"/events", "", "", 200)); !strings.HasPrefix(events, "event: job\ndata: {") {
		t.Errorf("events %q", events)
	}
	type page struct {
		Members []struct {
			ID   string
			Rank int
		}
		Next string
	}
	seen, next := 0, ""
	for {
		p := decode[page](t, c.do("GET", "/v1/collections/shop/audiences/like/members?limit=25&cursor="+next, "", "", 200))
		for _, m := range p.Members {
			if seen++; m.Rank != seen {
				t.Fatalf("rank %d at place %d", m.Rank, seen)
			}
		}
		if next = p.Next; next == "" {
			break
		}
	}
	if seen != 60 {
		t.Errorf("%d members in pages, want 60", seen)
	}
	csv := string(c.do("GET", "/v1/collections/shop/audiences/like/export?format=csv", "", "", 200))
	if n := strings.Count(csv, "\n"); n != 61 || !strings.HasPrefix(csv, "rank,id,score,probability\n") {
		t.Errorf("csv has %d lines and begins %.40q", n, csv)
	}
	if nd := string(c.do("GET", "/v1/collections/shop/audiences/like/export?format=ndjson", "", "", 200)); strings.Count(nd, "\n") != 60 {
		t.Errorf("ndjson has %d lines", strings.Count(nd, "\n"))
	}
	if pq := c.do("GET", "/v1/collections/shop/audiences/like/export?format=parquet", "", "", 200); string(pq[:4]) != "PAR1" {
		t.Errorf("parquet begins %q", pq[:4])
	}
	c.do("GET", "/v1/collections/shop/audiences/like/members?cursor=zzz", "", "", 422)
	c.do("DELETE", "/v1/collections/shop/audiences/like", "", "", 204)
	c.do("DELETE", "/v1/collections/shop", "", "", 204)
	c.do("GET", "/v1/collections/shop", "", "", 404)
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	c, _ := start(t)
	c.do("PUT", "/v1/collections/shop", asJSON, `{}`, 201)
	p := decode[struct {
		Code   string
		Errors []struct{ Location, Message string }
	}](t, c.do("POST", "/v1/collections/shop/audiences", asJSON, `{"name":"Not A Name","seeds":{},"size":{},"method":"magic","extra":1}`, 422))
	if p.Code == "" || len(p.Errors) < 3 {
		t.Errorf("problem %+v", p)
	}
	c.do("GET", "/v1/nowhere", "", "", 404)
	c.do("PATCH", "/v1/collections", "", "", 405)
}

func TestEmbeddingsInOtherClientsShapes(t *testing.T) {
	c, _ := start(t)
	type answer struct {
		Data  []struct{ Embedding any }
		Usage struct {
			PromptTokens int `json:"prompt_tokens"`
		}
	}
	a := decode[answer](t, c.do("POST", "/v1/embeddings", asJSON, `{"model":"constant","input":["a b","c"],"encoding_format":"base64"}`, 200))
	if len(a.Data) != 2 || a.Usage.PromptTokens != 7 {
		t.Fatalf("answer %+v", a)
	}
	raw, err := base64.StdEncoding.DecodeString(a.Data[0].Embedding.(string))
	if err != nil || len(raw) != 16 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	for _, bad := range []string{`{"model":"constant","input":[]}`, `{"model":"constant","input":[1,"a"]}`, `{"input":"a"}`, `{"model":"constant","input":"a","dimensions":5}`, `{"model":"constant","input":"a b c d e f g h"}`, `nonsense`} {
		e := decode[struct {
			Error struct{ Message, Type string }
		}](t, c.do("POST", "/v1/embeddings", asJSON, bad, 400))
		if e.Error.Message == "" || e.Error.Type == "" {
			t.Errorf("%s: %+v", bad, e)
		}
	}
	c.do("POST", "/v1/embeddings", asJSON, `{"model":"other","input":"a"}`, 404)
	v := decode[[][]float32](t, c.do("POST", "/embed", asJSON, `{"inputs":"a b"}`, 200))
	if len(v) != 1 || len(v[0]) != 4 {
		t.Errorf("vectors %v", v)
	}
	c.do("POST", "/embed", asJSON, `{"inputs":"a b c d e f g h"}`, 413)
	c.do("POST", "/embed", asJSON, `{"inputs":"a b c d e f g h","truncate":true}`, 200)
}

func TestKeysRolesAndTheLoopbackRule(t *testing.T) {
	c, keys := start(t)
	c.do("GET", "/v1/collections", "", "", 200)
	secret, err := keys.Add(t.Context(), "reader", api.RoleRead, []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	c.do("GET", "/v1/collections", "", "", 401)
	c.do("GET", "/healthz", "", "", 200)
	c.key = secret
	c.do("GET", "/v1/collections", "", "", 200)
	c.do("GET", "/v1/collections/other", "", "", 403)
	c.do("PUT", "/v1/collections/shop", asJSON, `{}`, 403)
	store := memory.Open()
	svc, err := collection.New(t.Context(), collection.Options{Store: store, KV: store.KV()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := svc.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := api.New(api.Options{Service: svc, Keys: api.NewKeyStore(store.KV()), Listen: "0.0.0.0:7878"}); err == nil || !strings.Contains(err.Error(), "keys add") {
		t.Errorf("listening anywhere without a key: %v", err)
	}
}
