package api

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// outcome builds an audience over HTTP and returns its state, or the refusal.
func (f *fixture) outcome(name string, req map[string]any) (collection.AudienceInfo, *answer) {
	f.t.Helper()
	req["name"] = name
	if req["size"] == nil {
		req["size"] = map[string]any{"count": 100}
	}
	if req["method"] == nil {
		req["method"] = "centroid"
	}
	got := f.do("POST", "/v1/collections/shop/audiences", req)
	var info collection.AudienceInfo
	if got.status != 202 {
		return info, got
	}
	var job collection.Job
	got.into(&job)
	f.finish(job.ID)
	f.do("GET", "/v1/collections/shop/audiences/"+name, nil).want(200).into(&info)
	return info, nil
}

// all are the ids of a shop of n customers.
func all(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("c%04d", i))
	}
	return out
}

// Bad seeds over HTTP: each is refused, or fails, with words that say what is wrong,
// and the check says the same without building.
func TestBadSeeds(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	ids := func(list []string) map[string]any { return map[string]any{"ids": list} }
	for i, c := range []struct {
		what string
		req  map[string]any
		says string
	}{
		{"all unknown", map[string]any{"seeds": ids([]string{"x1", "x2", "x3", "x4", "x5", "x6"})}, "0 of 6 given ids match customers"},
		{"one seed", map[string]any{"seeds": ids(sailors[:1])}, "1 of 1 given ids match customers, at least 5"},
		{"one seed many times", map[string]any{"seeds": ids(slices.Repeat(sailors[:1], 50))}, "at least 5 are needed"},
		{"everyone", map[string]any{"seeds": ids(all(400))}, "all 400 customers are seeds"},
		{"everyone by filter", map[string]any{"seeds": map[string]any{"filter": map[string]any{"field": "age", "gte": 0}}}, "all 400 customers are seeds"},
		{"the lists are the same", map[string]any{"seeds": ids(sailors[:30]), "negatives": ids(sailors[:30])}, "one of the lists is the wrong one"},
		{"no negative is known", map[string]any{"seeds": ids(sailors[:30]), "negatives": ids([]string{"x"})}, "none of 1 match a customer"},
		{"nobody left", map[string]any{"seeds": ids(sailors[:30]), "exclude": ids(all(400))}, "nobody is left to choose from"},
		{"nobody satisfies", map[string]any{"seeds": ids(sailors[:30]), "filter": map[string]any{"field": "region", "eq": "r9"}}, "nobody satisfies the filter"},
		{"not a column", map[string]any{"seeds": ids(sailors[:30]), "features": map[string]any{"columns": []string{"shoe"}}}, `"shoe" is not a column`},
		{"nothing to go by", map[string]any{"seeds": ids(sailors[:30]), "features": map[string]any{"columns": []string{}, "text": false}}, "no text and no column to go by"},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := *f
			g.t = t
			info, refused := g.outcome(fmt.Sprintf("a%d", i), c.req)
			said := info.Problem
			if refused != nil {
				if refused.status != 422 {
					t.Errorf("status %d: %s", refused.status, refused.body)
				}
				said = string(refused.body)
			}
			if info.State == collection.JobDone || !strings.Contains(strings.ReplaceAll(said, `\"`, `"`), c.says) {
				t.Errorf("%s, %q: want %q", info.State, said, c.says)
			}
			delete(c.req, "name")
			delete(c.req, "size")
			delete(c.req, "method")
			var check audience.SeedCheck
			g.do("POST", "/v1/collections/shop/seeds/check", c.req).want(200).into(&check)
			if check.Doctor.Verdict != audience.Refuse || !strings.Contains(strings.Join(check.Doctor.Notes, "\n"), c.says) {
				t.Errorf("the check says %q: %q", check.Doctor.Verdict, check.Doctor.Notes)
			}
		})
	}
	for name, raw := range map[string]string{
		"NaN":             `{"seeds":{"ids":[{"id":"c0000","weight":NaN}]},"size":{"count":100},"name":"x"}`,
		"weight 1e999":    `{"seeds":{"ids":[{"id":"c0000","weight":1e999}]},"size":{"count":100},"name":"x"}`,
		"weight -1":       `{"seeds":{"ids":[{"id":"c0000","weight":-1}]},"size":{"count":100},"name":"x"}`,
		"weight 0":        `{"seeds":{"ids":[{"id":"c0000","weight":0}]},"size":{"count":100},"name":"x"}`,
		"weight a string": `{"seeds":{"ids":[{"id":"c0000","weight":"2"}]},"size":{"count":100},"name":"x"}`,
		"empty id":        `{"seeds":{"ids":[""]},"size":{"count":100},"name":"x"}`,
		"empty":           `{"seeds":{},"size":{"count":100},"name":"x"}`,
		"no seeds":        `{"size":{"count":100},"name":"x"}`,
	} {
		if got := f.do("POST", "/v1/collections/shop/audiences", raw); got.status != 422 && got.status != 400 {
			t.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
	for raw, says := range map[string]string{
		`{"seeds":{"ids":["c0000",{"id":"c0001","weight":-1}]},"size":{"count":100},"name":"x"}`:                  `{"location":"body.seeds.ids[1]","message":"want text, or an object of id (text, required), weight (a number above 0)"}`,
		`{"seeds":{"text":" \t"},"size":{"count":100},"name":"x"}`:                                                `{"location":"body.seeds.text","message":"blank: describe who is wanted, or leave it out"}`,
		`{"seeds":{"text":"sails"},"features":{"columns":["age","shoe"]},"size":{"count":100},"name":"x"}`:        `"location":"body.features.columns[1]"`,
		`{"seeds":{"text":"sails"},"features":{"allow_sensitive":["shoe"]},"size":{"count":100},"name":"x"}`:      `"location":"body.features.allow_sensitive[0]"`,
		`{"seeds":{"text":"sails"},"fairness":{"column":"shoe","min_ratio":0.8},"size":{"count":100},"name":"x"}`: `"location":"body.fairness.column"`,
		`{"seeds":{"text":"sails"},"control":"much","size":{"count":100},"name":"x"}`:                             `"message":"want a number above 0 below 1, or an object of `,
	} {
		if got := f.do("POST", "/v1/collections/shop/audiences", raw); got.status != 422 || !strings.Contains(string(got.body), says) {
			t.Errorf("%s: status %d: %s, want %s", raw, got.status, got.body, says)
		}
	}
	f.do("POST", "/v1/collections/none/seeds/check", `{"seeds":{"ids":["a"]}}`).problem(404, "not_found")
	f.do("POST", "/v1/collections/shop/seeds/check", `{"seeds":{"audience":"none"}}`).problem(404, "not_found")
}

// Seeds of all kinds at once, a contradiction among them, over HTTP: counted and said.
func TestSeedsOfAllKindsAtOnce(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(800)
	f.build("first", sailors[:30], 100)
	others := []string{"c0001", "c0002", "c0003", "c0005", sailors[0], "stranger", "c0001"}
	info, refused := f.outcome("second", map[string]any{
		"seeds": map[string]any{
			"ids":      []any{sailors[0], map[string]any{"id": sailors[1], "weight": 3.5}, sailors[1], "nobody", sailors[2], sailors[3], sailors[4]},
			"filter":   map[string]any{"field": "age", "gte": 65},
			"text":     "likes sailing boats sea",
			"audience": "first",
		},
		"negatives": map[string]any{"ids": others},
		"exclude":   map[string]any{"ids": []string{"c0006", "ghost"}, "audiences": []string{"first"}},
		"filter":    map[string]any{"field": "age", "gte": 20},
	})
	if refused != nil || info.State != collection.JobDone {
		t.Fatalf("%+v, %+v", info.Problem, refused)
	}
	d := info.Result.Doctor
	notes := strings.Join(d.Notes, "\n")
	for _, want := range []string{"given ids match no customer", "given more than once and count once", "1 customers are seeds and negatives", "1 of 7 negatives match no customer", "1 negatives were given more than once", "1 of 2 ids to exclude match no customer"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not among\n%s", want, notes)
		}
	}
	if d.Both != 1 || info.Result.Manifest.Negatives != 4 || d.Verdict != "warn" {
		t.Errorf("doctor %+v, %d negatives", d, info.Result.Manifest.Negatives)
	}
	var members struct{ Members []audience.Member }
	f.do("GET", "/v1/collections/shop/audiences/second/members?limit=1000", nil).want(200).into(&members)
	var first struct{ Members []audience.Member }
	f.do("GET", "/v1/collections/shop/audiences/first/members?limit=1000", nil).want(200).into(&first)
	off := append(slices.Clone(others), "c0006")
	for _, m := range first.Members {
		off = append(off, m.ID)
	}
	for _, m := range members.Members {
		if slices.Contains(off, m.ID) {
			t.Errorf("%s is a member", m.ID)
		}
	}
}

// Suppression lists over HTTP: whoever is on one leaves every way out, comes back with
// the list's end, and an erased customer stays suppressed.
func TestSuppression(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinAudience: 90}})
	sailors := f.shop(600)
	f.build("spring", sailors[:30], 100)
	type page struct{ Members []audience.Member }
	read := func() (out []string) {
		var p page
		f.do("GET", "/v1/collections/shop/audiences/spring/members?limit=1000", nil).want(200).into(&p)
		for _, m := range p.Members {
			out = append(out, m.ID)
		}
		return out
	}
	before := read()
	gone := before[10:15]
	at := "/v1/collections/shop/suppressions/complaints"
	var l collection.SuppressionList
	f.do("PUT", at, map[string]any{"ids": append(slices.Clone(gone), "later", gone[0]), "always": true}).want(200).into(&l)
	if l.IDs != 6 || l.Matched != 5 || !l.Always {
		t.Errorf("list %+v", l)
	}
	if got := read(); !slices.Equal(got, slices.Delete(slices.Clone(before), 10, 15)) {
		t.Errorf("%d members after %d", len(got), len(before))
	}
	csv := string(f.do("GET", "/v1/collections/shop/audiences/spring/export", nil).want(200).body)
	for _, id := range gone {
		if strings.Contains(csv, id) {
			t.Errorf("%s is exported", id)
		}
	}
	var checked struct{ Members []collection.Membership }
	f.do("POST", "/v1/collections/shop/audiences/spring/members/check", map[string]any{"ids": []string{gone[0], before[0]}}).want(200).into(&checked)
	if checked.Members[0].In || !checked.Members[1].In {
		t.Errorf("live: %+v", checked.Members)
	}
	// Written anew, and as a customer who was only on the list so far: both stay out.
	f.do("POST", "/v1/collections/shop/customers", fmt.Sprintf(`[{"id":"later","fields":{"note":"likes sailing boats sea","age":60}},{"id":%q,"fields":{"note":"likes sailing boats sea","age":60}}]`, gone[1])).want(200)
	f.do("POST", "/v1/collections/shop/audiences/spring/members/check", map[string]any{"ids": []string{"later", gone[1]}}).want(200).into(&checked)
	if checked.Members[0].In || checked.Members[1].In {
		t.Errorf("live, written since: %+v", checked.Members)
	}
	// Erased and back again.
	f.do("DELETE", "/v1/collections/shop/customers/"+gone[2], nil)
	f.do("POST", "/v1/collections/shop/customers", fmt.Sprintf(`[{"id":%q,"fields":{"note":"likes sailing boats sea","age":60}}]`, gone[2])).want(200)
	f.build("summer", sailors[:30], 100)
	var p page
	f.do("GET", "/v1/collections/shop/audiences/summer/members?limit=1000", nil).want(200).into(&p)
	for _, m := range p.Members {
		if slices.Contains(gone, m.ID) || m.ID == "later" {
			t.Errorf("%s is in a list built since", m.ID)
		}
	}
	var lists struct{ Suppressions []collection.SuppressionList }
	f.do("POST", at+"/ids", map[string]any{"remove": gone[:1], "add": []string{"n1", gone[0]}}).want(200).into(&l)
	if l.IDs != 7 {
		t.Errorf("added and removed: %+v", l)
	}
	// So many suppressed that the list is too short to leave.
	f.do("POST", at+"/ids", map[string]any{"add": before[:20]}).want(200)
	f.do("GET", "/v1/collections/shop/audiences/spring/export", nil).problem(409, "audience_too_small")
	f.do("GET", "/v1/collections/shop/audiences/spring/members", nil).problem(409, "audience_too_small")
	f.do("GET", "/v1/collections/shop/suppressions", nil).want(200).into(&lists)
	if len(lists.Suppressions) != 1 {
		t.Errorf("lists %+v", lists)
	}
	if _, refused := f.outcome("autumn", map[string]any{"seeds": map[string]any{"ids": sailors[:30]}, "exclude": map[string]any{"lists": []string{"none"}}}); refused == nil {
		var info collection.AudienceInfo
		f.do("GET", "/v1/collections/shop/audiences/autumn", nil).want(200).into(&info)
		if info.State != collection.JobFailed || !strings.Contains(info.Problem, `"none"`) {
			t.Errorf("an unknown list: %+v", info)
		}
	}
	f.do("DELETE", at, nil).want(204)
	f.do("DELETE", at, nil).problem(404, "not_found")
	f.do("POST", at+"/ids", `{"add":["a"]}`).problem(404, "not_found")
	f.do("PUT", at, `{"ids":[""]}`).problem(422, "invalid")
	f.do("PUT", at, map[string]any{"ids": []string{strings.Repeat("x", 257)}}).problem(422, "invalid")
	if len(read()) < 95 {
		t.Error("the members do not come back with the list's end")
	}
}

// A list below the minimum can be built and looked at as numbers, and leaves nowhere.
func TestSmallAudiencesDoNotLeave(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	f.build("few", sailors[:30], 40)
	for _, path := range []string{"/export", "/export?format=ndjson", "/export?format=parquet", "/members", "/members?limit=10"} {
		f.do("GET", "/v1/collections/shop/audiences/few"+path, nil).problem(409, "audience_too_small")
	}
	f.do("GET", "/v1/collections/shop/audiences/few/curve", nil).want(200)
}

// Customers with odd columns and seeds that say little: a warned, sensible list.
func TestOddCustomers(t *testing.T) {
	f := start(t, setup{})
	f.do("PUT", "/v1/collections/shop", `{"model":"words","fields":[{"name":"age","type":"number"},{"name":"same","type":"category"},{"name":"town","type":"category"},{"name":"since","type":"time"},{"name":"tags","type":"set"},{"name":"note","type":"text"}]}`).want(201)
	r := rand.New(rand.NewPCG(1, 1))
	var lines strings.Builder
	var seeds []string
	const n = 4000
	for i := range n {
		id := fmt.Sprintf("客户-%04d", i)
		fields := []string{`"same":"x"`, fmt.Sprintf(`"town":"t%d"`, i)} // a category of as many values as customers
		kind := i%10 == 0
		if i%3 > 0 || kind {
			fields = append(fields, fmt.Sprintf(`"age":%g`, []float64{30, 60}[map[bool]int{true: 1}[kind]]+r.NormFloat64()*5))
		}
		switch i % 7 {
		case 0:
			fields = append(fields, `"age":1.7976931348623157e308`)
		case 1:
			fields = append(fields, `"age":-1e308`, `"since":"0001-01-01T00:00:00Z"`)
		case 2:
			fields = append(fields, `"tags":["","a","a"]`, `"since":"9999-12-31"`)
		case 3:
			fields = append(fields, `"tags":[]`, `"note":""`)
		}
		if kind {
			fields = append(fields, `"note":"likes sailing boats sea"`)
		} else if i%7 == 5 {
			fields = append(fields, `"note":"identical words"`)
		}
		if kind && len(seeds) < 60 {
			seeds = append(seeds, id)
		}
		fmt.Fprintf(&lines, `{"id":%q,"fields":{%s}}`+"\n", id, strings.Join(fields, ","))
	}
	var out collection.Outcome
	f.do("POST", "/v1/collections/shop/customers", lines.String(), header{"Content-Type": "application/x-ndjson"}).want(200).into(&out)
	if out.Accepted != n {
		t.Fatalf("accepted %d of %d: %+v", out.Accepted, n, out.Refused[:1])
	}
	for _, method := range audience.Methods() {
		if method == audience.Description {
			continue
		}
		info, refused := f.outcome(method, map[string]any{"seeds": map[string]any{"ids": seeds}, "method": method, "size": map[string]any{"count": 200}})
		if refused != nil || info.State != collection.JobDone {
			t.Fatalf("%s: %q %v", method, info.Problem, refused)
		}
		if !strings.Contains(strings.Join(info.Result.Manifest.Left, "\n"), "same: the same for everyone") {
			t.Errorf("%s: left out %q", method, info.Result.Manifest.Left)
		}
		var p struct{ Members []audience.Member }
		f.do("GET", "/v1/collections/shop/audiences/"+method+"/members?limit=1000", nil).want(200).into(&p)
		hits := 0
		for _, m := range p.Members {
			var at int
			if _, err := fmt.Sscanf(m.ID, "客户-%04d", &at); err != nil {
				t.Fatal(err)
			}
			if at%10 == 0 {
				hits++
			}
			if m.Score != m.Score {
				t.Fatalf("%s: the score of %s is not a number", method, m.ID)
			}
		}
		if hits < 150 {
			t.Errorf("%s: %d of 200 members are of the kind", method, hits)
		}
	}
	// Half of the seeds without text: said.
	var cold []string
	for i := range n {
		if i%10 != 0 && i%7 == 3 && len(cold) < 60 {
			cold = append(cold, fmt.Sprintf("客户-%04d", i))
		}
	}
	var check audience.SeedCheck
	f.do("POST", "/v1/collections/shop/seeds/check", map[string]any{"seeds": map[string]any{"ids": append(cold, seeds...)}}).want(200).into(&check)
	if check.Doctor.Cold != 60 || !strings.Contains(strings.Join(check.Doctor.Notes, "\n"), "60 of 120 seeds have no text") {
		t.Errorf("doctor %+v", check.Doctor)
	}
	// Seeds that are all alike, of whom there are more: they are found first.
	var same []string
	for i := range n {
		if i%10 != 0 && i%7 == 5 && len(same) < 40 {
			same = append(same, fmt.Sprintf("客户-%04d", i))
		}
	}
	info, _ := f.outcome("alike", map[string]any{"seeds": map[string]any{"ids": same}, "features": map[string]any{"columns": []string{}}})
	if info.State != collection.JobDone || info.Result.Doctor.OutlierCount != 0 || info.Result.Quality.Measure.AUC.Value < 0.9 {
		t.Errorf("identical seeds: %s %q %+v", info.State, info.Problem, info.Result)
	}
	// Ids that look alike but are not: composed and decomposed letters are two people.
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"caf\u00e9","fields":{}},{"id":"cafe\u0301","fields":{}}]`).want(200)
	f.do("POST", "/v1/collections/shop/seeds/check", map[string]any{"seeds": map[string]any{"ids": append(slices.Clone(seeds), "caf\u00e9", "cafe\u0301", strings.Repeat("y", 10_000))}}).want(200).into(&check)
	if check.Doctor.Matched != 62 || check.Doctor.Duplicates != 0 || len(check.Doctor.Unmatched) != 1 || len(check.Doctor.Unmatched[0]) > 300 {
		t.Errorf("matched %d, twice %d, unmatched %d", check.Doctor.Matched, check.Doctor.Duplicates, len(check.Doctor.Unmatched))
	}
	for _, bad := range []string{`"age":1e400`, `"age":"NaN"`, `"since":"yesterday"`, `"tags":"a"`} {
		var out collection.Outcome
		f.do("POST", "/v1/collections/shop/customers", `[{"id":"bad","fields":{`+bad+`}}]`).into(&out)
		if out.Accepted != 0 {
			t.Errorf("%s is taken", bad)
		}
	}
}

// An export ends with its checksum, whatever the format.
func TestExportsEndWithTheirChecksum(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	f.build("spring", sailors[:30], 150)
	for _, format := range []string{"csv", "ndjson", "parquet"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.http.URL+"/v1/collections/shop/audiences/spring/export?format="+format, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := f.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(raw)
		if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; res.Trailer.Get(digestTrailer) != want || len(raw) < 1000 {
			t.Errorf("%s: %d bytes, trailer %q, want %q", format, len(raw), res.Trailer.Get(digestTrailer), want)
		}
	}
}
