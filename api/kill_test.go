package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index/flat"
)

// TestServeToBeKilled is the child of TestKill: a server on a durable store,
// which prints its address and serves until it is killed.
func TestServeToBeKilled(t *testing.T) {
	dir := os.Getenv("KINDRED_KILL_DIR")
	if dir == "" {
		t.Skip("the child of TestKill")
	}
	store, err := flat.Open(filepath.Join(dir, "data"), flat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := collection.New(t.Context(), collection.Options{Store: store, KV: store.KV(), ImportRoot: dir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(Options{Service: svc, Keys: NewKeyStore(store.KV()), KV: store.KV(), Listen: l.Addr().String(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("serving http://%s\n", l.Addr())
	t.Fatal(srv.Serve(context.Background(), l))
}

// victim is a server in a process of its own.
type victim struct {
	t   *testing.T
	cmd *exec.Cmd
	url string
}

func startVictim(t *testing.T, dir string) *victim {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeToBeKilled$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "KINDRED_KILL_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, cmd: cmd}
	t.Cleanup(v.kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			v.url = url
			return v
		}
		t.Log("the child says ", lines.Text())
	}
	t.Fatal("the child does not serve")
	return nil
}

// kill ends the process at once and waits until it is gone.
func (v *victim) kill() {
	if v.cmd.ProcessState == nil {
		_ = v.cmd.Process.Kill() // it may have ended
		_ = v.cmd.Wait()         // "signal: killed" is what we want
	}
}

// ask sends a request and decodes the answer; false when the process was
// killed before it was whole.
func (v *victim) ask(method, path, kind, body string, want int, into any) bool {
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, strings.NewReader(body))
	if err != nil {
		v.t.Error(err)
		return false
	}
	req.Header.Set("Content-Type", kind)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return false
	}
	if res.StatusCode != want {
		v.t.Errorf("%s %s: status %d, want %d: %s", method, path, res.StatusCode, want, raw)
		return false
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			v.t.Errorf("%s %s: %v in %.200s", method, path, err, raw)
		}
	}
	return true
}

func (v *victim) must(method, path, kind, body string, want int, into any) {
	v.t.Helper()
	if !v.ask(method, path, kind, body, want, into) {
		v.t.Fatalf("%s %s: no good answer", method, path)
	}
}

const (
	asJSON  = "application/json"
	asLines = "application/x-ndjson"
	shopURL = "/v1/collections/shop"
)

// count counts the customers of a filter.
func (v *victim) count(filter string) int {
	v.t.Helper()
	var n struct{ Count int }
	v.must("POST", shopURL+"/count", asJSON, filter, 200, &n)
	return n.Count
}

// job waits for a job's end.
func (v *victim) job(id string) collection.Job {
	v.t.Helper()
	var job collection.Job
	for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if v.must("GET", "/v1/jobs/"+id, asJSON, "", 200, &job); job.State.Final() {
			return job
		}
	}
	v.t.Fatalf("the job is %+v after two minutes", job)
	return job
}

// A server is killed at random moments, again and again, while customers come
// in by request and by file, and while an audience is built. Nothing that it
// acknowledged is lost, nothing is there by half, and its jobs go on.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	const rows = 40_000
	var csv strings.Builder
	csv.WriteString("id,age,batch\n")
	for i := range rows {
		fmt.Fprintf(&csv, "f%05d,%d,file\n", i, 20+i*7919%60)
	}
	if err := os.WriteFile(filepath.Join(dir, "in.csv"), []byte(csv.String()), 0o600); err != nil {
		t.Fatal(err)
	}

	v := startVictim(t, dir)
	v.must("PUT", shopURL, asJSON, `{"fields":[{"name":"age","type":"number"},{"name":"batch","type":"category"}]}`, 201, nil)
	var imported collection.Job
	v.must("POST", shopURL+"/imports", asJSON, `{"path":"in.csv"}`, 202, &imported)
	acked, sent := map[string]bool{}, []string{}
	for round := range rounds {
		timer := time.AfterFunc(time.Duration(20+rng.IntN(400))*time.Millisecond, func() { _ = v.cmd.Process.Kill() })
		for n := 0; ; n++ {
			batch := fmt.Sprintf("r%d-%d", round, n)
			var lines strings.Builder
			for i := range batchRows {
				fmt.Fprintf(&lines, `{"id":"%s-%d","fields":{"age":%d,"batch":"%s"}}`+"\n", batch, i, 20+i%60, batch)
			}
			sent = append(sent, batch)
			var out collection.Outcome
			if !v.ask("POST", shopURL+"/customers", asLines, lines.String(), 200, &out) {
				break
			}
			if acked[batch] = true; out.Accepted != batchRows {
				t.Fatalf("batch %s: %+v", batch, out)
			}
		}
		timer.Stop()
		v.kill()
		v = startVictim(t, dir)
		whole := 0
		for _, batch := range sent {
			switch n := v.count(`{"filter":{"field":"batch","eq":"` + batch + `"}}`); {
			case n == batchRows:
				whole++
			case n != 0 || acked[batch]:
				t.Errorf("round %d: %d of %d customers of batch %s are there (acknowledged: %v)", round, n, batchRows, batch, acked[batch])
			}
		}
		if n := v.count(`{"filter":{"field":"batch","in":["file"]}}`) + whole*batchRows; n != v.count(`{}`) {
			t.Errorf("round %d: the parts have %d customers, all are %d", round, n, v.count(`{}`))
		}
	}
	if end := v.job(imported.ID); end.State != collection.JobDone || end.Accepted != rows || end.Refused != 0 {
		t.Errorf("the import ended as %+v", end)
	}
	if n := v.count(`{"filter":{"field":"batch","eq":"file"}}`); n != rows {
		t.Errorf("%d customers of a file of %d", n, rows)
	}
	t.Logf("%d of %d batches acknowledged", len(acked), len(sent))
	killDuringAudience(t, v, dir, rounds, rng)
}

const batchRows = 100

func killDuringAudience(t *testing.T, v *victim, dir string, rounds int, rng *rand.Rand) {
	create := func(name string) string {
		return `{"name":"` + name + `","seeds":{"filter":{"field":"age","gte":76}},"size":{"count":8000},"method":"classifier"}`
	}
	type page struct {
		Members []audience.Member
		Next    string
	}
	members := func(name string) (all []audience.Member) {
		t.Helper()
		for cursor := ""; ; {
			var p page
			v.must("GET", shopURL+"/audiences/"+name+"/members?limit=10000&cursor="+cursor, asJSON, "", 200, &p)
			all = append(all, p.Members...)
			if cursor = p.Next; cursor == "" {
				return all
			}
		}
	}
	var job collection.Job
	began := time.Now()
	v.must("POST", shopURL+"/audiences", asJSON, create("whole"), 202, &job)
	if end := v.job(job.ID); end.State != collection.JobDone {
		t.Fatalf("%+v", end)
	}
	takes := time.Since(began)
	want := members("whole")
	if len(want) != 8000 {
		t.Fatalf("%d members", len(want))
	}
	interrupted := 0
	for round := range rounds {
		name := fmt.Sprintf("a%d", round)
		v.must("POST", shopURL+"/audiences", asJSON, create(name), 202, &job)
		time.Sleep(time.Duration(rng.Int64N(int64(takes))))
		v.kill()
		v = startVictim(t, dir)
		var info collection.AudienceInfo
		v.must("GET", shopURL+"/audiences/"+name, asJSON, "", 200, &info)
		if info.State != collection.JobDone {
			interrupted++
		} else if got := members(name); !reflect.DeepEqual(got, want) {
			t.Errorf("round %d: the audience says done with %d members that differ", round, len(got))
		}
		if end := v.job(job.ID); end.State != collection.JobDone {
			t.Fatalf("round %d: %+v", round, end)
		}
		if got := members(name); !reflect.DeepEqual(got, want) {
			t.Errorf("round %d: %d members, and not those of a build that nobody killed", round, len(got))
		}
	}
	t.Logf("%d of %d builds of %v were interrupted", interrupted, rounds, takes.Round(time.Millisecond))
}
