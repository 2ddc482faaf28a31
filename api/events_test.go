package api

import (
	"fmt"
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
