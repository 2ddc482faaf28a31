package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// build makes an audience of the shop and waits for it.
func (f *fixture) build(name string, seeds []string, count int) collection.Job {
	f.t.Helper()
	var job collection.Job
	got := f.do("POST", "/v1/collections/shop/audiences", map[string]any{
		"name": name, "seeds": map[string]any{"ids": seeds}, "size": map[string]any{"count": count}, "method": "centroid",
	}).want(202)
	got.into(&job)
	if at := got.header.Get("Location"); at != "/v1/jobs/"+job.ID || job.ID == "" {
		f.t.Fatalf("Location %q of job %+v", at, job)
	}
	end := f.finish(job.ID)
	if end.State != collection.JobDone {
		f.t.Fatalf("audience %s ended as %+v", name, end)
	}
	return end
}

func TestAudienceLife(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinSeeds: 5}})
	sailors := f.shop(400)
	job := f.build("spring", sailors[:30], 100)

	var info collection.AudienceInfo
	f.do("GET", "/v1/collections/shop/audiences/spring", nil).want(200).into(&info)
	if info.State != collection.JobDone || info.Size != 100 || info.Job != job.ID || info.Result == nil {
		t.Fatalf("audience %+v", info)
	}
	if info.Result.Quality.Verdict == "" || info.Result.Doctor.Verdict == "" || len(info.Result.Curve) == 0 || len(info.Result.Members) != 0 {
		t.Errorf("the sheet is incomplete or carries the members: %+v", info.Result.Quality)
	}
	var list struct{ Audiences []collection.AudienceInfo }
	f.do("GET", "/v1/collections/shop/audiences", nil).want(200).into(&list)
	if len(list.Audiences) != 1 || list.Audiences[0].Name != "spring" {
		t.Errorf("list %+v", list)
	}
	var curve struct{ Curve []audience.Point }
	f.do("GET", "/v1/collections/shop/audiences/spring/curve", nil).want(200).into(&curve)
	if len(curve.Curve) != len(info.Result.Curve) {
		t.Errorf("%d points, the sheet has %d", len(curve.Curve), len(info.Result.Curve))
	}
	f.do("GET", "/v1/collections/shop/audiences/spring/curve?sizes=1,57,100", nil).want(200).into(&curve)
	if c := curve.Curve; len(c) != 3 || c[1].Size != 57 || c[2].Score != info.Result.Threshold || c[1].Low > c[1].Precision || c[1].High < c[1].Precision {
		t.Errorf("curve of three sizes %+v", curve.Curve)
	}
	for _, bad := range []string{"0", "1,99999", "x"} {
		f.do("GET", "/v1/collections/shop/audiences/spring/curve?sizes="+bad, nil).problem(422, "invalid")
	}
	if res := info.Result; len(res.Quality.Reliability.Bins) < 2 || len(res.Map.Axes) != 2 || len(res.Map.Seeds) != 30 || len(res.Phrases.Audience) == 0 {
		t.Errorf("the sheet lacks charts: %+v, %+v, %+v", res.Quality.Reliability, res.Map.Axes, res.Phrases)
	}

	// The list in pages is the list at once, whatever the size of a page and
	// whatever is written meanwhile.
	type page struct {
		Members []audience.Member
		Next    string
	}
	pages := func(limit int, between func()) (all []audience.Member) {
		cursor := ""
		for {
			var p page
			f.do("GET", fmt.Sprintf("/v1/collections/shop/audiences/spring/members?limit=%d&cursor=%s", limit, cursor), nil).want(200).into(&p)
			all = append(all, p.Members...)
			if cursor = p.Next; cursor == "" {
				return all
			}
			between()
		}
	}
	whole := pages(10_000, func() { t.Error("a list of 100 needs a second page of 10,000") })
	if len(whole) != 100 {
		t.Fatalf("%d members", len(whole))
	}
	for i, m := range whole {
		if m.Rank != i+1 || i > 0 && m.Score > whole[i-1].Score {
			t.Fatalf("member %d is %+v", i, m)
		}
		if slices.Contains(sailors[:30], m.ID) {
			t.Errorf("the seed %s is a member", m.ID)
		}
	}
	n := 0
	ids := func(list []audience.Member) (out []string) {
		for _, m := range list {
			out = append(out, m.ID)
		}
		return out
	}
	inPages := pages(7, func() {
		n++
		f.do("POST", "/v1/collections/shop/customers", fmt.Sprintf(`[{"id":"new%d","fields":{"note":"likes sailing boats sea"}}]`, n)).want(200)
	})
	if n == 0 || !slices.Equal(ids(inPages), ids(whole)) {
		t.Errorf("pages of 7 with writes between give %d members that differ from the whole list", len(inPages))
	}
	for _, bad := range []string{"cursor=zz!", "cursor=cjA9", "cursor=ci01", "limit=0", "limit=99999", "limit=x"} {
		p := f.do("GET", "/v1/collections/shop/audiences/spring/members?"+bad, nil).problem(422, "invalid")
		if len(p.Errors) == 0 {
			t.Errorf("%s: no fault is named", bad)
		}
	}

	var checked struct{ Members []collection.Membership }
	f.do("POST", "/v1/collections/shop/audiences/spring/members/check", map[string]any{"ids": []string{whole[3].ID, sailors[0], "nobody"}}).want(200).into(&checked)
	if c := checked.Members; len(c) != 3 || !c[0].In || c[0].Score != whole[3].Score || c[1].In || !c[1].Known || c[2].In || c[2].Known {
		t.Errorf("check says %+v", checked.Members)
	}
	f.do("POST", "/v1/collections/shop/audiences/spring/members/check", `{"ids":[]}`).problem(422, "invalid")
	var why audience.Explanation
	f.do("GET", "/v1/collections/shop/audiences/spring/members/"+whole[3].ID+"/why", nil).want(200).into(&why)
	sum := float32(0)
	for _, p := range why.Reasons {
		sum += p.Value
	}
	if !why.In || why.Rank != 4 || len(why.Passages) == 0 || len(why.Nearest) != 3 || sum-why.Score > 1e-5 || why.Score-sum > 1e-5 {
		t.Errorf("why: %+v", why)
	}
	f.do("GET", "/v1/collections/shop/audiences/spring/members/nobody/why", nil).problem(404, "not_found")
	f.do("GET", "/v1/collections/shop/audiences/autumn/members/"+whole[3].ID+"/why", nil).problem(404, "not_found")
	var of struct{ Audiences []string }
	f.do("GET", "/v1/collections/shop/customers/"+whole[0].ID+"/audiences", nil).want(200).into(&of)
	if !slices.Equal(of.Audiences, []string{"spring"}) {
		t.Errorf("audiences of a member: %v", of.Audiences)
	}
	f.do("GET", "/v1/collections/shop/customers/nobody/audiences", nil).problem(404, "not_found")

	// Erasing takes a member off the list and leaves the others where they are.
	var r collection.Receipt
	f.do("DELETE", "/v1/collections/shop/customers/"+whole[5].ID+"?erase=true", nil).want(200).into(&r)
	if r.Records != 1 || r.Audiences != 1 {
		t.Errorf("receipt %+v", r)
	}
	after := ids(pages(7, func() {}))
	if want := slices.Delete(ids(whole), 5, 6); !slices.Equal(after, want) {
		t.Errorf("after erasing one of 100 members, %d remain or their order changed", len(after))
	}
	f.do("DELETE", "/v1/collections/shop/audiences/spring", nil).want(204)
	for _, path := range []string{"", "/members", "/export", "/curve"} {
		f.do("GET", "/v1/collections/shop/audiences/spring"+path, nil).problem(404, "not_found")
	}
	f.do("DELETE", "/v1/collections/shop/audiences/spring", nil).problem(404, "not_found")
}

func TestAudienceRefusals(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(40)
	p := f.do("POST", "/v1/collections/shop/audiences", `{"name":"Bad Name","seeds":{"ids":["c0000",{"id":"c0001","weight":-1},{"wait":1}]},"size":{"count":5,"sise":1},"method":"magic"}`).problem(422, "invalid")
	for _, at := range []string{"body.name", "body.method", "body.size.sise"} {
		if !p.faultAt(at) {
			t.Errorf("no fault at %s: %+v", at, p.Errors)
		}
	}
	if len(p.Errors) < 5 {
		t.Errorf("five things are wrong, %d are named: %+v", len(p.Errors), p.Errors)
	}
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"a","seeds":{},"size":{"count":5,"ratio":0.1}}`).problem(422, "invalid")
	f.do("POST", "/v1/collections/nope/audiences", `{"name":"a","seeds":{"ids":["x"]},"size":{"count":5}}`).problem(404, "not_found")

	p = f.do("POST", "/v1/collections/shop/audiences", `{"name":"a","seeds":{"filter":{"must":[{"field":"nope","eq":1}]}},"filter":{"field":"age","gt":"x"},"size":{"count":0}}`).problem(422, "invalid")
	for _, at := range []string{"body.seeds.filter.must[0]", "body.filter.gt", "body.size.count"} {
		if !p.faultAt(at) {
			t.Errorf("no fault at %s: %+v", at, p.Errors)
		}
	}

	// The body is the request of package audience, whole.
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"fair","seeds":{"filter":{"field":"age","gte":50}},"size":{"count":5},"method":"trees","fairness":{"column":"region","min_ratio":2}}`).problem(422, "invalid")

	// Who matches and how many there are can only be seen with the data: the job
	// fails and says it.
	for body, says := range map[string]string{
		`{"name":"none","seeds":{"ids":["x","y"]},"size":{"count":5}}`:                       "0 of 2 given ids match",
		`{"name":"large","seeds":{"filter":{"field":"age","gte":50}},"size":{"count":1000}}`: "only 30 customers can be members",
	} {
		var job collection.Job
		f.do("POST", "/v1/collections/shop/audiences", body).want(202).into(&job)
		if end := f.finish(job.ID); end.State != collection.JobFailed || !strings.Contains(end.Problem, says) {
			t.Errorf("%s ended as %+v, want %q", body, end, says)
		}
	}

	// Too few seeds can only be seen with the data: the job fails and says why,
	// and what needs its list is refused meanwhile.
	var job collection.Job
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"few","seeds":{"ids":["c0000"]},"size":{"count":5}}`).want(202).into(&job)
	if end := f.finish(job.ID); end.State != collection.JobFailed || !strings.Contains(end.Problem, "1 of 1 given ids match") || strings.HasSuffix(end.Problem, "invalid") {
		t.Errorf("job %+v", end)
	}
	f.do("GET", "/v1/collections/shop/audiences/few/members", nil).problem(409, "no_list")
	f.do("GET", "/v1/collections/shop/audiences/few/export", nil).problem(409, "no_list")
	f.do("GET", "/v1/collections/shop/audiences/few/curve", nil).problem(409, "no_list")
	f.do("POST", "/v1/collections/shop/audiences/few/members/check", `{"ids":["x"]}`).problem(409, "no_list")
	f.do("POST", "/v1/collections/shop/audiences", map[string]any{"name": "few", "seeds": map[string]any{"ids": sailors}, "size": map[string]any{"count": 5}}).problem(409, "conflict")
}

// Overload is said before work starts, and nothing of the refused job stays.
func TestTooManyJobs(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MaxJobs: 1}})
	f.shop(8)
	body := func(name string) string {
		return `{"name":"` + name + `","seeds":{"text":"wait"},"size":{"count":1}}`
	}
	f.do("POST", "/v1/collections/shop/audiences", body("runs")).want(202)
	<-f.enc.entered
	f.do("POST", "/v1/collections/shop/audiences", body("waits")).want(202)
	f.do("POST", "/v1/collections/shop/audiences", body("refused")).problem(429, "jobs_full")
	f.do("GET", "/v1/collections/shop/audiences/refused", nil).problem(404, "not_found")
	if n := len(f.svc.Jobs()); n != 2 {
		t.Errorf("%d jobs", n)
	}
}

func TestExports(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinAudience: 60}})
	sailors := f.shop(80)
	odd := []string{`=HYPERLINK("x")`, "+1", "-1", "@cmd", "\ttab", "\rcr", `"quote",comma`, "line\nbreak", "plain"}
	for _, id := range odd {
		raw, err := json.Marshal([]any{map[string]any{"id": id, "fields": map[string]any{"note": "likes sailing boats sea", "age": 55}}})
		if err != nil {
			t.Fatal(err)
		}
		var out collection.Outcome
		f.do("POST", "/v1/collections/shop/customers", raw).want(200).into(&out)
		if out.Accepted != 1 {
			t.Fatalf("%q: %+v", id, out)
		}
	}
	f.build("all", sailors[:5], 60)
	at := "/v1/collections/shop/audiences/all/export"
	var members struct{ Members []audience.Member }
	f.do("GET", "/v1/collections/shop/audiences/all/members?limit=1000", nil).want(200).into(&members)
	want := members.Members
	found := 0
	for _, m := range want {
		if slices.Contains(odd, m.ID) {
			found++
		}
	}
	if found != len(odd) {
		t.Fatalf("%d of %d odd ids are on the list", found, len(odd))
	}

	got := f.do("GET", at+"?format=csv", nil).want(200)
	if kind := got.header.Get("Content-Type"); kind != "text/csv; charset=utf-8" {
		t.Errorf("content type %q", kind)
	}
	if d := got.header.Get("Content-Disposition"); !strings.Contains(d, "all.csv") {
		t.Errorf("Content-Disposition %q", d)
	}
	rows, err := csv.NewReader(bytes.NewReader(got.body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	col := slices.Index(rows[0], "id")
	rank := slices.Index(rows[0], "rank")
	if len(rows) != len(want)+1 || col < 0 || rank < 0 {
		t.Fatalf("%d rows, header %v", len(rows), rows[0])
	}
	for i, row := range rows[1:] {
		id := want[i].ID
		if strings.ContainsRune("=@\t\r", rune(id[0])) {
			id = "'" + id
		}
		if row[col] != id || row[rank] != strconv.Itoa(want[i].Rank) {
			t.Errorf("row %d is %q, want %q", i, row, id)
		}
	}

	got = f.do("GET", at+"?format=ndjson", nil).want(200)
	if kind := got.header.Get("Content-Type"); kind != "application/x-ndjson" {
		t.Errorf("content type %q", kind)
	}
	i := 0
	for line := range bytes.Lines(got.body) {
		var m audience.Member
		if err := json.Unmarshal(line, &m); err != nil || m.ID != want[i].ID || m.Score != want[i].Score {
			t.Fatalf("line %d: %s: %v", i, line, err)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d lines of %d", i, len(want))
	}

	got = f.do("GET", at+"?format=parquet", nil).want(200)
	table, err := parquet.Read[parquetMember](bytes.NewReader(got.body), int64(len(got.body)))
	if err != nil || len(table) != len(want) {
		t.Fatalf("%d rows of parquet: %v", len(table), err)
	}
	for i, row := range table {
		if row.ID != want[i].ID || int(row.Rank) != want[i].Rank || row.Score != want[i].Score {
			t.Errorf("row %d: %+v", i, row)
		}
	}
	f.do("GET", at+"?format=xls", nil).problem(422, "invalid")
}

func TestJobs(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(60)
	job := f.build("a", sailors, 30)
	var list struct{ Jobs []collection.Job }
	f.do("GET", "/v1/jobs", nil).want(200).into(&list)
	if len(list.Jobs) != 1 || list.Jobs[0].ID != job.ID {
		t.Errorf("jobs %+v", list.Jobs)
	}
	var one collection.Job
	f.do("GET", "/v1/jobs/"+job.ID, nil).want(200).into(&one)
	if one.State != collection.JobDone || one.Kind != "audience" || one.Target != "a" {
		t.Errorf("job %+v", one)
	}
	f.do("GET", "/v1/jobs/nope", nil).problem(404, "not_found")
	f.do("DELETE", "/v1/jobs/nope", nil).problem(404, "not_found")
	f.do("GET", "/v1/jobs/nope/events", nil).problem(404, "not_found")

	// A finished job has one event, and the stream ends.
	got := f.do("GET", "/v1/jobs/"+job.ID+"/events", nil).want(200)
	if kind := got.header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	if n := strings.Count(string(got.body), "event: job\n"); n != 1 || !strings.Contains(string(got.body), `"state":"done"`) {
		t.Errorf("events %s", got.body)
	}

	// Watch one that waits for the encoder, and cancel it.
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"slow","seeds":{"text":"wait"},"size":{"count":10}}`).want(202).into(&one)
	<-f.enc.entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lines := f.watch(ctx, "/v1/jobs/"+one.ID+"/events")
	next := func() (job collection.Job, ok bool) {
		for lines.Scan() {
			if data, is := strings.CutPrefix(lines.Text(), "data: "); is {
				if err := json.Unmarshal([]byte(data), &job); err != nil {
					t.Fatalf("event %q: %v", data, err)
				}
				return job, true
			}
		}
		return job, false
	}
	first, ok := next()
	if !ok || first.ID != one.ID || first.State != collection.JobRunning {
		t.Fatalf("the first event is %+v", first)
	}
	f.do("DELETE", "/v1/jobs/"+one.ID, nil).want(200)
	last := first
	for {
		job, more := next()
		if !more {
			break
		}
		last = job
	}
	if last.State != collection.JobCancelled {
		t.Errorf("the last event says %s", last.State)
	}
	var info collection.AudienceInfo
	f.do("GET", "/v1/collections/shop/audiences/slow", nil).want(200).into(&info)
	if info.State != collection.JobCancelled {
		t.Errorf("the audience of a cancelled job is %s", info.State)
	}
}

// Who is written enters and leaves an audience, and a stream says so.
func TestAudienceEvents(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(200)
	f.build("spring", sailors[:20], 40)
	f.do("GET", "/v1/collections/shop/audiences/nope/events", nil).problem(404, "not_found")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	in := f.watch(ctx, "/v1/collections/shop/audiences/spring/events")
	next := func() (c collection.Change) {
		t.Helper()
		for in.Scan() {
			if raw, ok := strings.CutPrefix(in.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(raw), &c); err != nil {
					t.Fatal(err)
				}
				return c
			}
		}
		t.Fatal("the stream ended: ", in.Err())
		return c
	}
	of := func(id string) (out struct{ Audiences []string }) {
		t.Helper()
		f.do("GET", "/v1/collections/shop/customers/"+id+"/audiences", nil).want(200).into(&out)
		return out
	}
	f.do("POST", "/v1/collections/shop/customers", `[{"id":"new","fields":{"age":60,"region":"r1","note":"likes sailing boats sea"}}]`).want(200)
	if c := next(); c.ID != "new" || c.Change != "enter" || c.Audience != "spring" {
		t.Errorf("%+v", c)
	}
	if got := of("new").Audiences; !slices.Equal(got, []string{"spring"}) {
		t.Errorf("new is in %v", got)
	}
	f.do("PATCH", "/v1/collections/shop/customers/new", `{"fields":{"age":20,"note":"likes cooking garden"}}`).want(200)
	if c := next(); c.ID != "new" || c.Change != "leave" {
		t.Errorf("%+v", c)
	}
	if got := of("new").Audiences; len(got) != 0 {
		t.Errorf("new is still in %v", got)
	}
}
