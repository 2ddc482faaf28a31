package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/collection"
)

func TestCollectionLife(t *testing.T) {
	f := start(t, setup{})
	var cfg collection.Config
	f.do("PUT", "/v1/collections/shop", shopBody).want(201).into(&cfg)
	if cfg.Name != "shop" || cfg.Model != fakeModel || cfg.Dim != fakeDim || len(cfg.Schema.Fields) != 3 {
		t.Errorf("created %+v", cfg)
	}
	f.do("PUT", "/v1/collections/shop", `{"model":"words","fields":[{"name":"vip","type":"bool","sensitive":true}]}`).want(200).into(&cfg)
	if len(cfg.Schema.Fields) != 4 || !cfg.Schema.Fields[3].Sensitive {
		t.Errorf("after adding a field: %+v", cfg.Schema)
	}
	p := f.do("PUT", "/v1/collections/shop", `{"model":"words","fields":[{"name":"vip","type":"number"},{"name":"age","type":"bool"}]}`).problem(409, "conflict")
	if len(p.Errors) != 2 {
		t.Errorf("two types conflict, the answer names %d: %+v", len(p.Errors), p.Errors)
	}
	var list struct{ Collections []collection.Config }
	f.do("GET", "/v1/collections", nil).want(200).into(&list)
	if len(list.Collections) != 1 || list.Collections[0].Name != "shop" {
		t.Errorf("list %+v", list)
	}
	f.do("GET", "/v1/collections/shop", nil).want(200).into(&cfg)
	f.do("GET", "/v1/collections/nope", nil).problem(404, "not_found")
	f.do("DELETE", "/v1/collections/shop", nil).want(204)
	f.do("DELETE", "/v1/collections/shop", nil).problem(404, "not_found")
	f.do("PUT", "/v1/collections/x", `{"model":"no-such-model"}`).problem(422, "unknown_model")
}

func TestCollectionPreconditions(t *testing.T) {
	f := start(t, setup{})
	f.do("PUT", "/v1/collections/shop", shopBody).want(201)
	tag := f.do("GET", "/v1/collections/shop", nil).want(200).header.Get("ETag")
	if tag == "" {
		t.Fatal("a collection has no ETag")
	}
	f.do("GET", "/v1/collections/shop", nil, header{"If-None-Match": tag}).want(304)
	more := `{"model":"words","fields":[{"name":"vip","type":"bool"}]}`
	got := f.do("PUT", "/v1/collections/shop", more, header{"If-Match": tag}).want(200)
	if got.header.Get("ETag") == tag || got.header.Get("ETag") == "" {
		t.Errorf("the ETag is %q after a change, and was %q", got.header.Get("ETag"), tag)
	}
	f.do("PUT", "/v1/collections/shop", more, header{"If-Match": tag}).problem(412, "changed")
	f.do("DELETE", "/v1/collections/shop", nil, header{"If-Match": tag}).problem(412, "changed")
	f.do("PUT", "/v1/collections/shop", more, header{"If-None-Match": "*"}).problem(412, "changed")
	f.do("DELETE", "/v1/collections/shop", nil, header{"If-Match": got.header.Get("ETag")}).want(204)
}

// All faults of a body come at once, each with its place.
func TestEveryFaultIsNamed(t *testing.T) {
	f := start(t, setup{})
	p := f.do("PUT", "/v1/collections/shop", `{"colour":1,"dim":-3,"precision":"int4","fields":[{"name":"a","type":"number"},{"name":"","type":"emoji"}]}`).problem(422, "invalid")
	for _, at := range []string{"body.colour", "body.dim", "body.precision", "body.fields[1].name", "body.fields[1].type"} {
		if !p.faultAt(at) {
			t.Errorf("no fault at %s: %+v", at, p.Errors)
		}
	}
	f.do("PUT", "/v1/collections/BAD%20NAME", shopBody).problem(422, "invalid")
	f.do("PUT", "/v1/collections/shop", `{"model":`).problem(400, "bad_request")
	f.do("PUT", "/v1/collections/shop", nil).problem(400, "bad_request")
	f.do("PUT", "/v1/collections/shop", shopBody, header{"Content-Type": "text/plain"}).problem(415, "unsupported_media_type")
	p = f.do("PUT", "/v1/collections/shop", `{"fields":[{"name":"a","type":"number"},{"name":"a","type":"number"}],"template":"{nope}"}`).problem(422, "invalid")
	if len(p.Errors) != 2 {
		t.Errorf("a field twice and a template with an unknown one are two faults: %+v", p.Errors)
	}
}

func TestUpsertVerdicts(t *testing.T) {
	f := start(t, setup{})
	f.shop(0)
	lines := []string{
		`{"id":"a","fields":{"age":31},"texts":["tea"]}`,
		``,
		`{"id":`,
		`{"id":"b","fields":{"age":"old","nope":1}}`,
		`{"id":"c","colour":"red"}`,
		`{"id":"d","fields":{"note":"coffee"}}`,
		`{"id":"a"}`,
		`{"id":"` + strings.Repeat("x", 300) + `"}`,
	}
	check := func(out collection.Outcome, accepted int, want []int) {
		t.Helper()
		got := []int{}
		for _, v := range out.Refused {
			got = append(got, v.Line)
			if v.Reason == "" {
				t.Errorf("line %d refused without a reason", v.Line)
			}
		}
		if out.Accepted != accepted || !slices.Equal(got, want) {
			t.Errorf("accepted %d, refused %v; want %d and %v: %+v", out.Accepted, got, accepted, want, out.Refused)
		}
	}
	var out collection.Outcome
	nd := header{"Content-Type": "application/x-ndjson; charset=utf-8"}
	f.do("POST", "/v1/collections/shop/customers", strings.Join(lines, "\r\n"), nd).want(200).into(&out)
	check(out, 2, []int{3, 4, 5, 7, 8})
	for _, v := range out.Refused {
		if v.Line == 4 && (v.ID != "b" || !strings.Contains(v.Reason, "fields.age") || !strings.Contains(v.Reason, "fields.nope")) {
			t.Errorf("line 4 should name both its faults: %+v", v)
		}
	}
	// What a line cannot hold: the reason has no names of Go's, and the id where
	// it could be read.
	vectors := map[string]string{
		`{"id":"v","vector":[1,2,NaN]}`: "not JSON at byte", `{"id":"v","vector":[1e39]}`: "32-bit", `{"id":"v","vector":[1,null]}`: "vector[1]: null",
		`{"id":"v","vector":["1"]}`: "vector: have string", `{"id":"v","vector":[1,2]}`: "the collection has 32", `{"id":"v","texts":[null]}`: "texts[0]",
		"{\"id\":\"\xff\"}": "UTF-8", `{"id":"\ud800"}`: "surrogate", `{"id":"\udc00\ud800"}`: "surrogate", `null`: "id: missing", `[]`: "want an object",
	}
	for line, says := range vectors {
		var out collection.Outcome
		f.do("POST", "/v1/collections/shop/customers", line, nd).want(200).into(&out)
		if len(out.Refused) != 1 || !strings.Contains(out.Refused[0].Reason, says) || strings.Contains(out.Refused[0].Reason, "rawRecord") {
			t.Errorf("%s: %+v, want %q", line, out, says)
		}
		if strings.Contains(line, `"v"`) && !strings.Contains(line, "NaN") && out.Refused[0].ID != "v" {
			t.Errorf("%s: the verdict has the id %q", line, out.Refused[0].ID)
		}
	}
	f.do("POST", "/v1/collections/shop/customers", `{"id":"pair \ud83d\ude00 \\ud800"}`, nd).want(200).into(&out)
	if out.Accepted != 1 {
		t.Errorf("a whole surrogate pair: %+v", out)
	}
	f.do("GET", "/v1/collections/shop/customers/a", nil).want(200)
	f.do("GET", "/v1/collections/shop/customers/b", nil).problem(404, "not_found")

	// An array: elements count as lines.
	out = collection.Outcome{}
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"e"}, 7, {"id":"f","vector":[1]}, {"id":"g"}]`).want(200).into(&out)
	check(out, 2, []int{2, 3})
	for _, bad := range []string{``, `{`, `{}`, `null`, `[{"id":"h"}`, `[] []`} {
		f.do("POST", "/v1/collections/shop/customers", bad).problem(400, "bad_request")
	}
	f.do("POST", "/v1/collections/shop/customers", `[]`, header{"Content-Type": "text/csv"}).problem(415, "unsupported_media_type")
	f.do("POST", "/v1/collections/nope/customers", `[]`).problem(404, "not_found")
	f.do("POST", "/v1/collections/shop/customers", `[]`).want(200).into(&out)

	// Of very many refused lines the first are named and all are counted.
	for kind, many := range map[string]string{asLines: strings.Repeat("x\n", 3*maxVerdicts), asJSON: "[" + strings.Repeat("1,", 3*maxVerdicts-1) + "1]"} {
		out = collection.Outcome{}
		f.do("POST", "/v1/collections/shop/customers", many, header{"Content-Type": kind}).want(200).into(&out)
		if len(out.Refused) != maxVerdicts || out.Unnamed != 2*maxVerdicts || out.Accepted != 0 {
			t.Errorf("%s: %d are named and %d counted of %d", kind, len(out.Refused), out.Unnamed, 3*maxVerdicts)
		}
	}
}

func TestUpsertManyAndGzip(t *testing.T) {
	f := start(t, setup{opt: Options{MaxBody: 1 << 20}})
	f.shop(0)
	var plain bytes.Buffer
	for i := range 2500 { // several batches
		fmt.Fprintf(&plain, `{"id":"k%d"}`+"\n", i)
	}
	pack := func(raw []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	h := header{"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
	var out collection.Outcome
	f.do("POST", "/v1/collections/shop/customers", pack(plain.Bytes()), h).want(200).into(&out)
	if out.Accepted != 2500 || len(out.Refused) != 0 {
		t.Errorf("accepted %d, refused %v", out.Accepted, out.Refused)
	}
	// A bomb: small as sent, too large when unpacked.
	bomb := pack(bytes.Repeat([]byte(" \n"), 1<<20))
	if len(bomb) > 1<<14 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	f.do("POST", "/v1/collections/shop/customers", bomb, h).problem(413, "body_too_large")
	f.do("POST", "/v1/collections/shop/search", pack([]byte(`{"text":"x","fields":["`+strings.Repeat("y", 2<<20)+`"]}`)), header{"Content-Encoding": "gzip"}).problem(413, "body_too_large")
	f.do("POST", "/v1/collections/shop/customers", []byte("no gzip"), h).problem(400, "bad_encoding")
	f.do("POST", "/v1/collections/shop/customers", []byte("[]"), header{"Content-Encoding": "br"}).problem(415, "unsupported_encoding")
	f.do("POST", "/v1/collections/shop/search", `{"text":"`+strings.Repeat("y", 2<<20)+`"}`).problem(413, "body_too_large")
}

func TestOneCustomer(t *testing.T) {
	f := start(t, setup{})
	f.shop(0)
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"a/b ü","fields":{"age":31,"note":"tea"},"texts":["free"]}]`).want(200)
	at := "/v1/collections/shop/customers/a%2Fb%20%C3%BC"
	var c collection.Customer
	f.do("GET", at, nil).want(200).into(&c)
	if c.ID != "a/b ü" || c.Fields["age"] != 31.0 || len(c.Texts) != 2 {
		t.Errorf("customer %+v", c)
	}
	f.do("PATCH", at, `{"fields":{"age":32,"region":"north"},"texts":["other"]}`).want(200).into(&c)
	if c.Fields["age"] != 32.0 || c.Fields["region"] != "north" || len(c.Texts) != 2 || c.Texts[1].Body != "other" {
		t.Errorf("after the patch %+v", c)
	}
	c = collection.Customer{}
	f.do("PATCH", at, `{"fields":{"region":null}}`).want(200).into(&c)
	if _, there := c.Fields["region"]; there || len(c.Texts) != 2 {
		t.Errorf("null should remove a field and nothing else: %+v", c)
	}
	p := f.do("PATCH", at, `{"fields":{"age":"x","nope":1}}`).problem(422, "invalid")
	if !p.faultAt("body.fields.age") || !p.faultAt("body.fields.nope") {
		t.Errorf("faults %+v", p.Errors)
	}
	f.do("PATCH", "/v1/collections/shop/customers/zz", `{"fields":{"age":1}}`).problem(404, "not_found")
	f.do("DELETE", at, nil).want(204)
	f.do("DELETE", at, nil).problem(404, "not_found")
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"x"}]`).want(200)
	var r collection.Receipt
	f.do("DELETE", "/v1/collections/shop/customers/x?erase=true", nil).want(200).into(&r)
	if r.ID != "x" || r.Records != 1 || r.Erased.IsZero() {
		t.Errorf("receipt %+v", r)
	}
	f.do("DELETE", "/v1/collections/shop/customers/x?erase=true", nil).want(200).into(&r)
	if r.Records != 0 {
		t.Errorf("erasing twice finds %+v", r)
	}
	f.do("DELETE", "/v1/collections/nope/customers/x?erase=true", nil).problem(404, "not_found")
	f.do("DELETE", "/v1/collections/shop/customers/x?erase=perhaps", nil).problem(422, "invalid")
}

func TestImports(t *testing.T) {
	root := t.TempDir()
	csv := "id,age,region,note\na,30,north,likes tea\nb,,south,likes cake\nc,oops,east,x\n"
	if err := os.WriteFile(filepath.Join(root, "in.csv"), []byte(csv), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, setup{importRoot: root, opt: Options{UploadDir: filepath.Join(root, "uploads")}})
	f.shop(0)
	var job collection.Job
	types := map[string]any{"types": map[string]string{"age": "number", "region": "category", "note": "text"}, "id_column": "id"}
	got := f.do("POST", "/v1/collections/shop/imports", map[string]any{"path": "in.csv", "options": types}).want(202)
	got.into(&job)
	if at := got.header.Get("Location"); at != "/v1/jobs/"+job.ID {
		t.Errorf("Location %q of job %q", at, job.ID)
	}
	end := f.finish(job.ID)
	if end.State != collection.JobDone || end.Accepted != 2 || end.Refused != 1 || len(end.Errors) != 1 || end.Errors[0].Line != 4 {
		t.Errorf("import ended as %+v", end)
	}
	for _, path := range []string{"../x.csv", "/etc/passwd", "nope.csv"} {
		p := f.do("POST", "/v1/collections/shop/imports", map[string]any{"path": path}).problem(422, "invalid")
		if !p.faultAt("path") && !p.faultAt("body.path") {
			t.Errorf("%s: faults %+v", path, p.Errors)
		}
	}

	// The same file as an upload.
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	opts, err := json.Marshal(types)
	if err != nil {
		t.Fatal(err)
	}
	if err := form.WriteField("options", string(opts)); err != nil {
		t.Fatal(err)
	}
	part, err := form.CreateFormFile("file", "../../evil.csv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte(strings.ReplaceAll(csv, "a,30", "up,30"))); err != nil {
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	f.do("POST", "/v1/collections/shop/imports", b.Bytes(), header{"Content-Type": form.FormDataContentType()}).want(202).into(&job)
	if end := f.finish(job.ID); end.State != collection.JobDone || end.Accepted != 2 {
		t.Errorf("upload ended as %+v", end)
	}
	f.do("GET", "/v1/collections/shop/customers/up", nil).want(200)
	uploads := func() (names []string) {
		files, err := os.ReadDir(filepath.Join(root, "uploads"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			names = append(names, file.Name())
		}
		return names
	}
	none := func(when string) {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); len(uploads()) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s: the uploads %v are still there", when, uploads())
			}
		}
	}
	none("after an import")
	// One that waits behind another job outlives a restart of the server, and
	// goes when it has ended; what nobody waits for goes at once.
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"slow","seeds":{"text":"wait"},"size":{"count":1}}`).want(202)
	<-f.enc.entered
	f.do("POST", "/v1/collections/shop/imports", b.Bytes(), header{"Content-Type": form.FormDataContentType()}).want(202).into(&job)
	if len(uploads()) != 1 {
		t.Fatalf("uploads %v while their import waits", uploads())
	}
	if err := os.WriteFile(filepath.Join(root, "uploads", "0b0fa2a8-52c4-4d87-8c5d-2fd2d3b3c3a1.csv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Service: f.svc, Keys: f.keys, KV: f.kv, Listen: "127.0.0.1:0", UploadDir: filepath.Join(root, "uploads")}); err != nil {
		t.Fatal(err)
	}
	if len(uploads()) != 1 {
		t.Errorf("uploads %v after a restart", uploads())
	}
	close(f.enc.hold)
	if end := f.finish(job.ID); end.State != collection.JobDone {
		t.Errorf("%+v", end)
	}
	none("after a restart")
	f.do("POST", "/v1/collections/nope/imports", b.Bytes(), header{"Content-Type": form.FormDataContentType()}).problem(404, "not_found")
	f.do("POST", "/v1/collections/shop/imports", "x", header{"Content-Type": "text/csv"}).problem(415, "unsupported_media_type")
}

func TestQuestions(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(80)
	var out struct{ Hits []collection.Hit }
	f.do("POST", "/v1/collections/shop/search", `{"text":"sailing boats sea","limit":5,"fields":["age"]}`).want(200).into(&out)
	if len(out.Hits) != 5 {
		t.Fatalf("%d hits", len(out.Hits))
	}
	for i, h := range out.Hits {
		if !slices.Contains(sailors, h.ID) || len(h.Fields) != 1 || i > 0 && h.Score > out.Hits[i-1].Score {
			t.Errorf("hit %d: %+v", i, h)
		}
	}
	first := slices.Clone(out.Hits)
	f.do("POST", "/v1/collections/shop/search", `{"text":"sailing boats sea","limit":3,"offset":2}`).want(200).into(&out)
	if out.Hits[0].ID != first[2].ID {
		t.Errorf("offset 2 begins with %s, the first list has %s there", out.Hits[0].ID, first[2].ID)
	}
	f.do("POST", "/v1/collections/shop/search", `{"customer":"c0004","limit":3,"filter":{"field":"region","eq":"r1"},"fields":["region"]}`).want(200).into(&out)
	for _, h := range out.Hits {
		if h.Fields["region"] != "r1" || h.ID == "c0004" {
			t.Errorf("hit %+v", h)
		}
	}
	for _, bad := range []string{
		`{}`, `{"text":"a","customer":"c0004"}`, `{"vector":[1,2]}`, `{"text":"a","limit":-1}`, `{"text":"a","limit":100000000}`,
		`{"text":"a","limits":3}`, `{"text":"a","fields":["age","nope"]}`, `{"text":"a","filter":{"field":"nope","eq":1}}`, `{"text":"a","filter":{"field":"age","eq":"x"}}`,
		`{"text":7}`, `{"text":"a","filter":{"must":[{"felt":"age"}]}}`, `{"vector":[1e39]}`, `{"vector":[null]}`,
		`{"vector":[` + strings.TrimSuffix(strings.Repeat("0,", fakeDim), ",") + `]}`,
	} {
		p := f.do("POST", "/v1/collections/shop/search", bad).problem(422, "invalid")
		if len(p.Errors) == 0 || p.Errors[0].Location == "" || strings.Contains(p.Errors[0].Message, "Go ") {
			t.Errorf("%s: no fault is named, or without its place: %+v", bad, p.Errors)
		}
	}
	f.do("POST", "/v1/collections/shop/search", "{\"text\":\"\xff\"}").problem(400, "bad_request")
	f.do("POST", "/v1/collections/shop/search", `{"filter":`+strings.Repeat(`{"must":[`, 6000)).problem(400, "bad_request")
	f.do("POST", "/v1/collections/shop/search", `{"customer":"nobody"}`).problem(404, "not_found")
	f.do("POST", "/v1/collections/nope/search", `{"text":"a"}`).problem(404, "not_found")
	f.do("POST", "/v1/collections/shop/search", `{"text":"busy"}`).problem(429, "encoder_busy")
	f.do("POST", "/v1/collections/shop/search", `{"text":"full"}`).problem(507, "disk_full")
	f.do("POST", "/v1/collections/shop/search", `{"text":"panic"}`).problem(500, "internal")

	vector, err := json.Marshal(make([]float32, fakeDim))
	if err != nil {
		t.Fatal(err)
	}
	one := strings.Replace(string(vector), "0", "1", 1)
	f.do("POST", "/v1/collections/shop/similar", `{"positive":["c0000",{"id":"c0004","weight":2},{"vector":`+one+`},`+one+`],"negative":["c0001"],"limit":4,"strategy":"best_score"}`).want(200).into(&out)
	if len(out.Hits) != 4 {
		t.Errorf("similar: %+v", out.Hits)
	}
	f.do("POST", "/v1/collections/shop/similar", `{"positive":["c0000","c0004"],"limit":4}`).want(200).into(&out)
	for _, h := range out.Hits {
		if !slices.Contains(sailors, h.ID) || h.ID == "c0000" || h.ID == "c0004" {
			t.Errorf("similar to sailors: %+v", h)
		}
	}
	p := f.do("POST", "/v1/collections/shop/similar", `{"positive":["nobody",[1,2]],"negative":[{"id":"c0001","vector":[1]}]}`).problem(422, "invalid")
	if len(p.Errors) != 3 {
		t.Errorf("three examples are bad, named are %+v", p.Errors)
	}
	for _, bad := range []string{`{}`, `{"positive":[]}`, `{"positive":[true]}`, `{"positive":[{"id":"c0000","wait":1}]}`, `{"positive":["c0000"],"strategy":"magic"}`} {
		f.do("POST", "/v1/collections/shop/similar", bad).problem(422, "invalid")
	}

	var n struct{ Count *int }
	f.do("POST", "/v1/collections/shop/count", `{"filter":{"field":"age","gte":50}}`).want(200).into(&n)
	if n.Count == nil || *n.Count != len(sailors) {
		t.Errorf("count %v, want %d", n.Count, len(sailors))
	}
	f.do("POST", "/v1/collections/shop/count", `{}`).want(200).into(&n)
	if *n.Count != 80 {
		t.Errorf("count of all %d", *n.Count)
	}
	f.do("POST", "/v1/collections/shop/count", `{"query":"sailing boats sea","above":0.5}`).want(200).into(&n)
	if *n.Count != len(sailors) {
		t.Errorf("count near sailing %d, want %d", *n.Count, len(sailors))
	}
	f.do("POST", "/v1/collections/shop/count", `{"query":"x"}`).problem(422, "invalid")
}
