package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

const springBody = `{"name":%q,"seeds":{"ids":[%s]},"size":{"count":%d},"method":"centroid","explain":{"members":false}%s}`

func (f *fixture) audience(name string, seeds []string, n int, more string) {
	f.t.Helper()
	var job collection.Job
	f.do("POST", "/v1/collections/shop/audiences", fmt.Sprintf(springBody, name, `"`+strings.Join(seeds, `","`)+`"`, n, more)).want(202).into(&job)
	if job = f.finish(job.ID); job.State != collection.JobDone {
		f.t.Fatalf("%+v", job)
	}
}

func TestLifecycleOverHTTP(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(1200)
	f.audience("spring", sailors[:40], 400, `,"refresh":{"every":"24h","churn":0.1,"keep":2},"ttl":"720h","control":0.25`)
	f.audience("summer", sailors[60:100], 300, `,"control":{"count":30}`)
	base := "/v1/collections/shop/audiences"
	var info collection.AudienceInfo
	f.do("GET", base+"/spring", nil).want(200).into(&info)
	if info.Version != 1 || info.Next.IsZero() || info.Expires.IsZero() || info.Result.Manifest.Control == nil || *info.Request.Refresh.Churn != 0.1 {
		t.Fatalf("%+v", info)
	}
	held := info.Result.Manifest.Control.Members
	// The control group is shown and does not leave.
	var page membersBody
	f.do("GET", base+"/spring/members?limit=1000", nil).want(200).into(&page)
	marked := 0
	for _, m := range page.Members {
		if m.Control {
			marked++
		}
	}
	table := f.do("GET", base+"/spring/export", nil).want(200)
	if rows := bytes.Count(table.body, []byte("\n")) - 1; marked != held || held == 0 || rows != 400-held {
		t.Errorf("%d marked, %d held back, %d exported", marked, held, rows)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	events := f.watch(ctx, base+"/spring/events")
	key := header{"Idempotency-Key": "once"}
	var job, again collection.Job
	f.do("POST", base+"/spring/refresh", `{"churn":0.2}`, key).want(202).into(&job)
	f.do("POST", base+"/spring/refresh", `{"churn":0.2}`, key).want(202).into(&again)
	if job.ID != again.ID || job.Kind != "refresh" {
		t.Errorf("%+v and %+v", job, again)
	}
	if job = f.finish(job.ID); job.State != collection.JobDone {
		t.Fatalf("%+v", job)
	}
	told := ""
	for events.Scan() && told == "" {
		if data, is := strings.CutPrefix(events.Text(), "data:"); is {
			told = data
		}
	}
	if !strings.Contains(told, `"change":"refreshed"`) || !strings.Contains(told, `"version":2`) {
		t.Errorf("told %s", told)
	}
	f.do("POST", base+"/spring/refresh", nil).want(202).into(&job)
	f.finish(job.ID)
	f.do("POST", base+"/spring/refresh", `{"churn":7}`).problem(422, "invalid")
	f.do("POST", base+"/nobody/refresh", nil).problem(404, "not_found")
	var diff collection.Diff
	f.do("GET", base+"/spring/diff", nil).want(200).into(&diff)
	if diff.From.Version != 2 || diff.To.Version != 3 || diff.Kept != 400 || diff.RankCorrelation == nil || len(diff.IDs) != 0 {
		t.Errorf("%+v", diff)
	}
	ids, cursor := []string{}, ""
	for {
		f.do("GET", base+"/spring/diff?with=summer&show=entered&limit=50&cursor="+cursor, nil).want(200).into(&diff)
		ids = append(ids, diff.IDs...)
		if cursor = diff.Next; cursor == "" {
			break
		}
		diff = collection.Diff{}
	}
	if len(ids) != diff.Entered || diff.Entered == 0 || diff.Kept+diff.Left != 300 {
		t.Errorf("%d ids, %+v", len(ids), diff)
	}
	f.do("GET", base+"/spring/diff?cursor=!", nil).problem(422, "invalid")
	f.do("GET", base+"/summer/diff", nil).problem(422, "invalid")
	f.do("GET", base+"/spring/members?version=1", nil).want(200)
	f.do("GET", base+"/spring/members?version=9", nil).problem(404, "not_found")
	var overlap collection.Overlap
	f.do("POST", "/v1/collections/shop/overlap", `{"audiences":["spring","summer"]}`).want(200).into(&overlap)
	if overlap.Counts[0][1] != diff.Kept || overlap.Counts[0][0] != 400 || overlap.Union != 400+300-diff.Kept {
		t.Errorf("%+v", overlap)
	}
	f.do("POST", "/v1/collections/shop/overlap", `{"audiences":["spring","spring"]}`).problem(422, "invalid")
	f.do("POST", "/v1/collections/shop/combine", `{"name":"both","operation":"union","audiences":["spring","summer"],"ttl":"1h"}`).want(202).into(&job)
	if job = f.finish(job.ID); job.State != collection.JobDone {
		t.Fatalf("%+v", job)
	}
	f.do("GET", base+"/both", nil).want(200).into(&info)
	if info.Size != overlap.Union || len(info.Result.Manifest.Parents) != 2 || info.Combine == nil {
		t.Errorf("%+v", info)
	}
	for _, format := range []string{"csv", "ndjson", "parquet"} {
		f.do("GET", base+"/both/export?format="+format, nil).want(200)
	}
	f.do("POST", "/v1/collections/shop/combine", `{"name":"both","operation":"union","audiences":["spring","summer"]}`).problem(409, "conflict")
	if p := f.do("POST", "/v1/collections/shop/combine", `{"name":"x","operation":"union","audiences":["spring","nobody"]}`).problem(422, "invalid"); !p.faultAt("body.audiences[1]") {
		t.Errorf("%+v", p)
	}
	f.do("PATCH", base+"/both", `{"refresh":{"at":"03:30"},"control":0.1}`).problem(409, "conflict") // it has its parents'
	f.do("PATCH", base+"/both", `{"refresh":{"at":"03:30"}}`).want(200).into(&info)
	if info.Next.IsZero() {
		t.Errorf("%+v", info)
	}
	f.do("PATCH", base+"/both", `{"refresh":{"at":"3 o'clock"},"ttl":"soon"}`).problem(422, "invalid")
	if m := string(f.do("GET", "/metrics", nil).want(200).body); !strings.Contains(m, `kindred_audience_refreshes_total{outcome="done"} 2`) || !strings.Contains(m, "kindred_audiences_expired_total 0") {
		t.Errorf("metrics: %s", m)
	}
}

func TestOutcomesOverHTTP(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(1200)
	f.audience("spring", sailors[:40], 500, `,"control":{"share":0.4,"seed":7}`)
	at := "/v1/collections/shop/audiences/spring"
	var page membersBody
	f.do("GET", at+"/members?limit=1000", nil).want(200).into(&page)
	line := func(m audience.Member) (one, value int) {
		if m.Control && m.Rank%10 == 0 || !m.Control && m.Rank%2 == 0 {
			return 1, m.Rank
		}
		return 0, 0
	}
	var table, ndjson strings.Builder
	table.WriteString("\ufeffvalue,id,outcome,at\n")
	var array []map[string]any
	for i, m := range page.Members {
		y, v := line(m)
		switch i % 3 {
		case 0:
			fmt.Fprintf(&table, "%d,%s,%d,2026-03-01T12:00:00Z\n", v, m.ID, y)
		case 1:
			fmt.Fprintf(&ndjson, `{"id":%q,"outcome":%d,"value":%d}`+"\n", m.ID, y, v)
		default:
			array = append(array, map[string]any{"id": m.ID, "outcome": y == 1, "value": v})
		}
	}
	good := strings.Count(table.String(), "\n") - 1
	table.WriteString("1,nobody,1,\nx,c0001,1,yesterday\n1,,1,\n1,c0001,2,\n")
	send := func(kind, body string, accepted, refused int) {
		t.Helper()
		var out collection.Outcome
		f.do("POST", at+"/outcomes", body, header{"Content-Type": kind}).want(200).into(&out)
		if out.Accepted != accepted || len(out.Refused) != refused {
			t.Errorf("%s: %+v", kind, out)
		}
		for _, v := range out.Refused {
			if v.Line == 0 || v.Reason == "" {
				t.Errorf("%s: %+v", kind, v)
			}
		}
	}
	send("text/csv", table.String(), good, 4)
	send("application/x-ndjson", ndjson.String()+"{\n{\"id\":\"c1\"}\n", strings.Count(ndjson.String(), "\n"), 2)
	raw, err := json.Marshal(array)
	if err != nil {
		t.Fatal(err)
	}
	send("application/json", string(raw), len(array), 0)
	send("application/json", `[{"id":"c1","outcome":"yes"},{"id":"c1","outcome":1,"more":2},3]`, 0, 3)
	f.do("POST", at+"/outcomes", "id,converted\nc1,1\n", header{"Content-Type": "text/csv"}).problem(422, "invalid")
	f.do("POST", at+"/outcomes", `{`, header{"Content-Type": "application/json"}).problem(422, "invalid")
	f.do("POST", at+"/outcomes", `x`, header{"Content-Type": "text/plain"}).problem(415, "unsupported_media_type")
	var treated, control audience.Group
	for _, m := range page.Members {
		y, v := line(m)
		if m.Control {
			control.Add(y == 1, float64(v))
		} else {
			treated.Add(y == 1, float64(v))
		}
	}
	want := audience.MeasureLift(treated, control, true)
	var lift audience.Lift
	f.do("GET", at+"/lift", nil).want(200).into(&lift)
	if lift.Difference != want.Difference || lift.Verdict != audience.LiftMore || lift.Value == nil {
		t.Errorf("%+v, want %+v", lift, want)
	}
	f.do("GET", at+"/lift?missing=some", nil).problem(422, "invalid")
	var o audience.Observed
	f.do("POST", at+"/recalibrate", nil).want(200).into(&o)
	if o.Used != treated.Customers || o.Converted != treated.Converted {
		t.Errorf("%+v", o)
	}
	f.do("POST", "/v1/collections/shop/audiences/nobody/recalibrate", nil).problem(404, "not_found")
	f.do("GET", "/v1/collections/shop/audiences/nobody/lift", nil).problem(404, "not_found")
}

// Hillstrom's e-mails, from the customers to the lift, as statsmodels measures it.
func TestHillstromsExperiment(t *testing.T) {
	root := os.Getenv("KINDRED_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(root, "data", "hillstrom_email", "hillstrom.csv.gz"))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the data set hillstrom_email is absent")
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(plain).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type measured struct {
		Treated, Control            [2]int
		Difference, Relative, Value []float64
	}
	var golden struct {
		Customers         int
		Visit, Conversion measured
	}
	raw, err := os.ReadFile("testdata/hillstrom.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &golden); err != nil || len(rows)-1 != golden.Customers {
		t.Fatalf("%d customers, want %d, %v", len(rows)-1, golden.Customers, err)
	}
	at := map[string]int{}
	for i, name := range rows[0] {
		at[name] = i
	}
	f := start(t, setup{})
	f.do("PUT", "/v1/collections/shop", `{"fields":[{"name":"recency","type":"number"},{"name":"history","type":"number"},{"name":"zip_code","type":"category"},{"name":"channel","type":"category"}]}`).want(201)
	var customers strings.Builder
	outcomes := map[string]*strings.Builder{}
	for _, name := range []string{"visit", "conversion"} {
		outcomes[name] = &strings.Builder{}
		outcomes[name].WriteString("id,outcome,value,group\n")
	}
	for i, row := range rows[1:] {
		fmt.Fprintf(&customers, `{"id":"h%05d","fields":{"recency":%s,"history":%s,"zip_code":%q,"channel":%q}}`+"\n", i, row[at["recency"]], row[at["history"]], row[at["zip_code"]], row[at["channel"]])
		group := "treated"
		if row[at["segment"]] == "No E-Mail" {
			group = "control"
		}
		for name, b := range outcomes {
			fmt.Fprintf(b, "h%05d,%s,%s,%s\n", i, row[at[name]], row[at["spend"]], group)
		}
	}
	f.do("POST", "/v1/collections/shop/customers", customers.String(), header{"Content-Type": "application/x-ndjson"}).want(200)
	var job collection.Job
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"mailed","seeds":{"filter":{"field":"history","gte":1500}},"exclude":{"seeds":false},"size":{"ratio":1},"method":"centroid","explain":{"members":false}}`).want(202).into(&job)
	if job = f.finish(job.ID); job.State != collection.JobDone {
		t.Fatalf("%+v", job)
	}
	base := "/v1/collections/shop/audiences/mailed"
	for name, want := range map[string]measured{"visit": golden.Visit, "conversion": golden.Conversion} {
		var out collection.Outcome
		f.do("POST", base+"/outcomes", outcomes[name].String(), header{"Content-Type": "text/csv"}).want(200).into(&out)
		var lift audience.Lift
		f.do("GET", base+"/lift", nil).want(200).into(&lift)
		if out.Accepted != golden.Customers || lift.Verdict != audience.LiftMore || lift.Treated.Converted != want.Treated[0] || lift.Treated.Customers != want.Treated[1] || lift.Control.Converted != want.Control[0] || lift.Control.Customers != want.Control[1] {
			t.Fatalf("%s: %d taken, %+v", name, out.Accepted, lift)
		}
		for what, pair := range map[string]struct {
			got  audience.Interval
			want []float64
		}{"difference": {lift.Difference, want.Difference}, "relative": {*lift.Relative, want.Relative}, "value": {lift.Value.Difference, want.Value}} {
			for i, x := range []float64{pair.got.Value, pair.got.Low, pair.got.High} {
				if !(math.Abs(x-pair.want[i]) < 1e-7) {
					t.Errorf("%s, %s: %+v, want %v", name, what, pair.got, pair.want)
					break
				}
			}
		}
	}
}
