package api

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"reflect"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// Dated events over HTTP: recent items are marked and weigh more in an audience, old
// ones are forgotten, a recent text moves the profile more than an old one, and what is
// wrong with an event is said where it is.
func TestEventsDecay(t *testing.T) {
	f := start(t, setup{})
	const decay = `"decay":{"half_life_days":30,"reference":"2011-12-01T00:00:00Z"}`
	f.do("PUT", "/v1/collections/shop", `{"model":"words","fields":[{"name":"items","type":"set",`+decay+`},{"name":"note","type":"text",`+decay+`}]}`).want(201)
	put := func(id, items, note string) {
		t.Helper()
		var out collection.Outcome
		f.do("POST", "/v1/collections/shop/customers", fmt.Sprintf(`[{"id":%q,"fields":{"items":%s,"note":%s}}]`, id, items, note)).want(200).into(&out)
		if out.Accepted != 1 {
			t.Fatalf("%+v", out)
		}
	}
	put("a", `[{"item":"tea","at":"2011-11-20"},{"item":"jam","at":"2011-09-20T10:00:00Z","weight":1},{"item":"ham","at":1262304000},"always"]`,
		`[{"text":"sailing boats sea","at":"2011-11-30"},{"text":"cooking garden soup","at":"2011-06-01"}]`)
	var c collection.Customer
	f.do("GET", "/v1/collections/shop/customers/a", nil).want(200).into(&c)
	if got := fmt.Sprint(c.Fields["items"]); got != "[always always (recent) jam tea tea (recent)]" {
		t.Errorf("items %s", got)
	}
	put("old", `[]`, `[{"text":"sailing boats sea","at":"2011-06-01"},{"text":"cooking garden soup","at":"2011-11-30"}]`)
	var hits struct{ Hits []collection.Hit }
	f.do("POST", "/v1/collections/shop/search", `{"text":"sailing boats sea"}`).want(200).into(&hits)
	if len(hits.Hits) != 2 || hits.Hits[0].ID != "a" || hits.Hits[0].Score < hits.Hits[1].Score+0.2 {
		t.Errorf("hits %+v", hits.Hits)
	}
	// Seeds who bought tea lately: others who did come before those who did long ago.
	var seeds []string
	var lines strings.Builder
	for i := range 600 {
		day := "2011-11-20" // recent
		if i%2 == 1 {
			day = "2011-08-01"
		}
		item := []string{"tea", "jam", "ham"}[i%3]
		fmt.Fprintf(&lines, `{"id":"c%d","fields":{"items":[{"item":%q,"at":%q}]}}`+"\n", i, item, day)
		if i%6 == 0 && len(seeds) < 40 {
			seeds = append(seeds, fmt.Sprintf("c%d", i))
		}
	}
	f.do("POST", "/v1/collections/shop/customers", lines.String(), header{"Content-Type": "application/x-ndjson"}).want(200)
	for _, method := range []string{audience.Centroid, audience.Neighbours, audience.Classifier} {
		info, refused := f.outcome("tea-"+method, map[string]any{"seeds": map[string]any{"ids": seeds}, "method": method, "features": map[string]any{"text": false}})
		if refused != nil || info.State != collection.JobDone {
			t.Fatalf("%s: %+v %q", method, refused, info.Problem)
		}
		var p struct{ Members []audience.Member }
		f.do("GET", "/v1/collections/shop/audiences/tea-"+method+"/members?limit=60", nil).want(200).into(&p)
		for _, m := range p.Members { // sixty others bought tea lately
			var n int
			if _, err := fmt.Sscanf(m.ID, "c%d", &n); err == nil && n%6 != 0 {
				t.Errorf("%s: %s at rank %d bought no tea lately", method, m.ID, m.Rank)
			}
		}
	}
	for event, want := range map[string]string{
		`[{"item":"tea","at":"yesterday"}]`:      "at: want a time",
		`[{"item":"tea","when":"2011-11-20"}]`:   `"when" is not a part of an event`,
		`[{"item":7}]`:                           "item: want a string",
		`[{"item":"tea","weight":0}]`:            "weight: want a number above 0",
		`[{"item":"tea","weight":-1}]`:           "weight: want a number above 0",
		`[["tea"]]`:                              "want a string or",
		`[{"text":"tea","at":"2011-11-20"}]`:     "item: want a string",
		`{"item":"tea","at":"2011-11-20"}`:       "want a list of strings",
		`[{"item":"a"},{"item":"b","at":[]}]`:    "fields.items[1]",
		`[{"item":"a","at":"0000-99-99T00:00"}]`: "at: want a time",
	} {
		var out collection.Outcome
		f.do("POST", "/v1/collections/shop/customers", `[{"id":"bad","fields":{"items":`+event+`}}]`).into(&out)
		if out.Accepted != 0 || len(out.Refused) != 1 || !strings.Contains(out.Refused[0].Reason, want) {
			t.Errorf("%s: %+v, want %q", event, out, want)
		}
	}
	var out collection.Outcome
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"free","texts":[{"body":"tea time","at":"2011-11-20","weight":2},"plain"]}]`).want(200).into(&out)
	if out.Accepted != 1 {
		t.Errorf("dated texts: %+v", out)
	}
	// The reference is part of what a collection is.
	f.do("PUT", "/v1/collections/shop", `{"model":"words","fields":[{"name":"items","type":"set","decay":{"half_life_days":60,"reference":"2011-12-01T00:00:00Z"}}]}`).problem(409, "conflict")
	for _, bad := range []string{`{"half_life_days":0,"reference":"2011-12-01T00:00:00Z"}`, `{"half_life_days":30}`, `{"half_life_days":30,"reference":"soon"}`} {
		if got := f.do("PUT", "/v1/collections/other", `{"fields":[{"name":"items","type":"set","decay":`+bad+`}]}`); got.status != 422 {
			t.Errorf("%s: status %d", bad, got.status)
		}
	}
	f.do("PUT", "/v1/collections/other", `{"fields":[{"name":"age","type":"number",`+decay+`}]}`).problem(422, "invalid")
}

// upload sends a file as an import and waits for its end.
func (f *fixture) upload(coll, name, options, text string) collection.Job {
	f.t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	if err := form.WriteField("options", options); err != nil {
		f.t.Fatal(err)
	}
	part, err := form.CreateFormFile("file", name)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := part.Write([]byte(text)); err != nil {
		f.t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		f.t.Fatal(err)
	}
	var job collection.Job
	f.do("POST", "/v1/collections/"+coll+"/imports", b.Bytes(), header{"Content-Type": form.FormDataContentType()}).want(202).into(&job)
	return f.finish(job.ID)
}

// The same customers with dated events, posted as NDJSON and read as a file of it, are
// the same: items decay as the field says, texts keep their times and weights.
func TestEventsOfFilesDecayAsPosted(t *testing.T) {
	f := start(t, setup{opt: Options{UploadDir: t.TempDir()}})
	const fields = `{"model":"words","fields":[{"name":"items","type":"set","decay":{"half_life_days":30,"reference":"2011-12-01T00:00:00Z"}},{"name":"plain","type":"set"},` +
		`{"name":"note","type":"text","decay":{"half_life_days":30,"reference":"2011-12-01T00:00:00Z"}},{"name":"age","type":"number"}]}`
	f.do("PUT", "/v1/collections/posted", fields).want(201)
	f.do("PUT", "/v1/collections/read", fields).want(201)
	var lines strings.Builder
	for i := range 40 {
		fmt.Fprintf(&lines, `{"id":"c%d","fields":{"age":%d,"plain":["x",{"item":"y","at":"2001-01-01"}],"items":[{"item":"tea","at":"2011-11-2%d"},{"item":"jam","at":"2011-09-20T10:00:00Z","weight":%d},{"item":"ham","at":1262304000},"always"],`+
			`"note":[{"text":"sailing boats sea %d","at":"2011-11-30","weight":0.5},{"text":"cooking garden soup","at":"2011-06-01"},"cooking"]},"texts":[{"field":"note","body":"sea","at":"2011-10-01"},"boats"]}`+"\n", i, 20+i, i%10, 1+i%9, i)
	}
	var out collection.Outcome
	f.do("POST", "/v1/collections/posted/customers", lines.String(), header{"Content-Type": "application/x-ndjson"}).want(200).into(&out)
	if end := f.upload("read", "in.ndjson", "{}", lines.String()); end.Accepted != 40 || out.Accepted != 40 {
		t.Fatalf("%+v and %+v", end, out)
	}
	marked := 0
	for i := range 40 {
		var posted, read collection.Customer
		f.do("GET", fmt.Sprintf("/v1/collections/posted/customers/c%d", i), nil).want(200).into(&posted)
		f.do("GET", fmt.Sprintf("/v1/collections/read/customers/c%d", i), nil).want(200).into(&read)
		if !reflect.DeepEqual(posted.Fields, read.Fields) || !reflect.DeepEqual(posted.Texts, read.Texts) {
			t.Fatalf("posted %+v, read %+v", posted, read)
		}
		marked += strings.Count(fmt.Sprint(read.Fields["items"]), "(recent)")
	}
	if marked < 80 {
		t.Errorf("%d items are marked as recent", marked)
	}
	var posted, read struct{ Hits []collection.Hit }
	f.do("POST", "/v1/collections/posted/search", `{"text":"sailing boats sea","limit":40}`).want(200).into(&posted)
	f.do("POST", "/v1/collections/read/search", `{"text":"sailing boats sea","limit":40}`).want(200).into(&read)
	if !reflect.DeepEqual(posted, read) || len(read.Hits) != 40 {
		t.Error("a search finds them at other scores")
	}
	// What is no event is said, with its line and place; a half-life that is not the
	// collection's is refused.
	end := f.upload("read", "in.ndjson", "{}", `{"id":"a","items":[{"item":"tea","at":"2011-11-20"}]}`+"\n"+`{"id":"b","items":[{"item":"tea","at":"yesterday"}]}`+"\n"+`{"id":"c","items":["x",{"sku":7}]}`+"\n"+`{"id":"d","items":["x"]}`+"\n"+`{"id":"e","items":["x"]}`+"\n")
	if end.Accepted != 3 || len(end.Errors) != 2 || !strings.Contains(end.Errors[0].Reason, "element 0: at: want a time") || !strings.Contains(end.Errors[1].Reason, "element 1: item: want a string") || end.Errors[0].Line != 2 {
		t.Errorf("%+v", end)
	}
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	if err := form.WriteField("options", `{"half_life_days":90,"as_of":"2011-12-01T00:00:00Z"}`); err != nil {
		t.Fatal(err)
	}
	part, err := form.CreateFormFile("file", "in.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte(lines.String())); err != nil {
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	if p := f.do("POST", "/v1/collections/read/imports", b.Bytes(), header{"Content-Type": form.FormDataContentType()}).problem(422, "invalid"); !strings.Contains(p.Detail+fmt.Sprint(p.Errors), "30 days before 2011-12-01") {
		t.Errorf("%+v", p)
	}
}
