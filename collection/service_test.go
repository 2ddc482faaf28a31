package collection

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wordsDim = 32

// words is an encoder whose vectors are sums of one fixed vector a word, so
// that texts that share words are near: enough truth to test everything above
// an encoder without a model.
type words struct{ calls int }

func (w *words) Info() embed.Info {
	return embed.Info{Name: "words", Dim: wordsDim, MaxTokens: 512, Stamp: "words@1"}
}

func (w *words) Encode(ctx context.Context, texts []string, _ embed.EncodeOptions) (*embed.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.calls++
	res := &embed.Result{Vectors: make([]float32, 0, len(texts)*wordsDim)}
	for _, text := range texts {
		sum := make([]float32, wordsDim)
		for _, word := range strings.Fields(strings.ToLower(text)) {
			h := fnv.New64a()
			if _, err := io.WriteString(h, word); err != nil {
				return nil, err
			}
			x := h.Sum64()
			for i := range sum {
				x = x*6364136223846793005 + 1442695040888963407
				sum[i] += float32(int8(x>>56)) / 128
			}
		}
		sum[0] += 1e-3
		res.Vectors = append(res.Vectors, unit(sum)...)
		res.Tokens = append(res.Tokens, len(strings.Fields(text)))
		res.Truncated = append(res.Truncated, false)
	}
	return res, nil
}

func newService(t *testing.T, opt Options) *Service {
	t.Helper()
	if opt.Store == nil {
		store := memory.Open()
		opt.Store, opt.KV = store, store.KV()
	}
	if opt.OpenModel == nil {
		opt.OpenModel = shelf{"words": &words{}}.open
	}
	s, err := New(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

var testSchema = profile.Schema{Fields: []profile.Field{
	{Name: "age", Type: profile.TypeNumber},
	{Name: "region", Type: profile.TypeCategory},
	{Name: "tags", Type: profile.TypeSet},
	{Name: "vip", Type: profile.TypeBool},
	{Name: "since", Type: profile.TypeTime},
	{Name: "note", Type: profile.TypeText},
}}

func mustPut(t *testing.T, s *Service) {
	t.Helper()
	if _, created, err := s.Put(t.Context(), Config{Name: "c", Model: "words", Schema: testSchema}); err != nil || !created {
		t.Fatalf("Put: created %v, error %v", created, err)
	}
}

func record(t *testing.T, s *Service, line string) profile.Record {
	t.Helper()
	rec, err := s.ParseRecord(testSchema, []byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// seedPopulation stores n customers; every fourth loves sailing and is over 50.
func seedPopulation(t *testing.T, s *Service, n int) (lovers []string) {
	t.Helper()
	var in []Input
	for i := range n {
		note, age := fmt.Sprintf("likes cooking garden book%d", i%17), 20+i%30
		if i%4 == 0 {
			note, age = fmt.Sprintf("likes sailing boats sea book%d", i%17), 50+i%20
			lovers = append(lovers, fmt.Sprintf("c%04d", i))
		}
		in = append(in, Input{Line: i + 1, Record: record(t, s, fmt.Sprintf(`{"id":"c%04d","fields":{"age":%d,"region":"r%d","note":%q}}`, i, age, i%3, note))})
	}
	for chunk := range slices.Chunk(in, 1000) {
		out, err := s.Upsert(t.Context(), "c", chunk)
		if err != nil || out.Accepted != len(chunk) {
			t.Fatalf("Upsert: %+v, %v", out, err)
		}
	}
	return lovers
}

func TestParseRecordNamesAllFaults(t *testing.T) {
	s := newService(t, Options{})
	_, err := s.ParseRecord(testSchema, []byte(`{"fields":{"age":"old","vip":1,"since":"soon","tags":"a","nope":2},"texts":[3]}`))
	if !errors.Is(err, index.ErrInvalid) {
		t.Fatalf("error %v does not match ErrInvalid", err)
	}
	var at []string
	for _, f := range Faults(err) {
		at = append(at, f.Location)
		if f.Message == "" {
			t.Errorf("fault at %s has no message", f.Location)
		}
	}
	want := []string{"id", "fields.age", "fields.nope", "fields.since", "fields.tags", "fields.vip", "texts[0]"}
	if !slices.Equal(at, want) {
		t.Errorf("faults at %v, want %v", at, want)
	}
}

func TestUpsertKeepsTheValidAndNamesTheRest(t *testing.T) {
	s := newService(t, Options{Limits: Limits{MaxTextLen: 50}})
	mustPut(t, s)
	in := []Input{
		{Line: 1, Record: record(t, s, `{"id":"a","fields":{"age":31,"region":"north","tags":["x","y"],"vip":true,"since":"2026-01-02T03:04:05Z","note":"likes tea"},"texts":["and coffee"]}`)},
		{Line: 2, Record: record(t, s, `{"id":""}`)},
		{Line: 3, Record: record(t, s, `{"id":"a"}`)},
		{Line: 4, Record: profile.Record{ID: "b", Texts: []profile.Text{{Body: strings.Repeat("x", 51)}}}},
		{Line: 5, Record: profile.Record{ID: "c", Texts: []profile.Text{{Body: "broken \xff"}}}},
		{Line: 6, Record: profile.Record{ID: "d", Vector: make([]float32, 3)}},
		{Line: 7, Record: profile.Record{ID: "e", Fields: map[string]index.Value{"age": {Kind: index.Number, Num: math.NaN()}}}},
		{Line: 8, Record: record(t, s, `{"id":"f"}`)},
	}
	out, err := s.Upsert(t.Context(), "c", in)
	if err != nil {
		t.Fatal(err)
	}
	if out.Accepted != 2 {
		t.Errorf("accepted %d, want 2 (a and f)", out.Accepted)
	}
	var lines []int
	for _, v := range out.Refused {
		lines = append(lines, v.Line)
		if v.Reason == "" {
			t.Errorf("line %d refused without a reason", v.Line)
		}
	}
	slices.Sort(lines)
	if want := []int{2, 3, 4, 5, 6, 7}; !slices.Equal(lines, want) {
		t.Errorf("refused lines %v, want %v: %+v", lines, want, out.Refused)
	}
	got, err := s.Customer(t.Context(), "c", "a")
	if err != nil {
		t.Fatal(err)
	}
	if got.Fields["age"] != 31.0 || got.Fields["vip"] != true || got.Fields["since"] != "2026-01-02T03:04:05Z" || len(got.Texts) != 2 {
		t.Errorf("customer came back as %+v", got)
	}
}

func TestPatchKeepsWhatItDoesNotName(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	in := []Input{{Line: 1, Record: record(t, s, `{"id":"a","fields":{"age":31,"region":"north","note":"likes tea"},"texts":["free text"]}`)}}
	if _, err := s.Upsert(t.Context(), "c", in); err != nil {
		t.Fatal(err)
	}
	got, err := s.Patch(t.Context(), "c", "a", map[string]any{"age": 32.0, "region": nil, "note": "likes wine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := got.Fields["region"]; has || got.Fields["age"] != 32.0 {
		t.Errorf("fields %v", got.Fields)
	}
	want := []profile.Text{{Body: "free text"}, {Field: "note", Body: "likes wine"}}
	if !slices.Equal(got.Texts, want) {
		t.Errorf("texts %v, want %v", got.Texts, want)
	}
	if _, err := s.Patch(t.Context(), "c", "nobody", nil, nil); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("patching nobody: %v", err)
	}
}

func TestSearchSimilarCount(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 200)
	ctx := t.Context()
	found, err := s.Search(ctx, "c", SearchRequest{Text: "sailing sea boats", Limit: 20})
	if err != nil || len(found.Hits) != 20 || !found.Found.Exact || found.Found.Path != index.PathScan {
		t.Fatalf("%d hits, %+v, %v", len(found.Hits), found.Found, err)
	}
	for _, h := range found.Hits {
		if !slices.Contains(lovers, h.ID) {
			t.Errorf("hit %s does not love sailing", h.ID)
		}
	}
	for _, strategy := range []string{"average_vector", "best_score"} {
		found, err = s.Similar(ctx, "c", SimilarRequest{Positive: []Example{{ID: lovers[0]}, {ID: lovers[1], Weight: 2}}, Negative: []Example{{ID: "c0001"}}, Strategy: strategy, Limit: 10, Fields: []string{}})
		if err != nil || len(found.Hits) != 10 || !found.Found.Exact || found.Found.Path != index.PathScan {
			t.Fatalf("%s: %d hits, %+v, %v", strategy, len(found.Hits), found.Found, err)
		}
		for _, h := range found.Hits {
			if !slices.Contains(lovers, h.ID) || h.ID == lovers[0] || h.ID == lovers[1] || h.Fields != nil {
				t.Errorf("%s: hit %+v", strategy, h)
			}
		}
	}
	old := &index.Filter{Field: "age", Gte: 50.0}
	n, err := s.Count(ctx, "c", CountRequest{Filter: old})
	if err != nil || n != len(lovers) {
		t.Errorf("count of the old: %d, %v, want %d", n, err, len(lovers))
	}
	above := float32(-1.01)
	n, err = s.Count(ctx, "c", CountRequest{Filter: old, Query: "sea", Above: &above})
	if err != nil || n != len(lovers) {
		t.Errorf("count above -1.01: %d, %v, want %d", n, err, len(lovers))
	}
	for name, q := range map[string]SearchRequest{
		"nothing": {}, "two": {Text: "a", Customer: "b"}, "negative": {Text: "a", Limit: -1}, "deep": {Text: "a", Offset: 1 << 30},
		"dimension": {Vector: []float32{1}},
	} {
		if _, err := s.Search(ctx, "c", q); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s: error %v does not match ErrInvalid", name, err)
		}
	}
}

func waitFor(t *testing.T, s *Service, id string) Job {
	t.Helper()
	updates, err := s.Watch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var last Job
	for j := range updates {
		last = j
	}
	return last
}

func TestAudienceFromRequestToErasure(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
			var opt Options
			opt.Limits = Limits{MinAudience: 10}
			if durable {
				store, err := flat.Open(t.TempDir(), flat.Options{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := store.Close(); err != nil {
						t.Error(err)
					}
				})
				opt.Store, opt.KV = store, store.KV()
			}
			s := newService(t, opt)
			mustPut(t, s)
			lovers := seedPopulation(t, s, 2000)
			ctx := t.Context()
			var seeds []audience.SeedRef
			for _, id := range lovers[:60] {
				seeds = append(seeds, audience.SeedRef{ID: id})
			}
			size := 300
			req := audience.Request{Name: "sailors", Seeds: audience.Seeds{IDs: seeds}, Size: audience.Size{Count: &size}}
			job, err := s.CreateAudience(ctx, "c", req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.CreateAudience(ctx, "c", req); !errors.Is(err, index.ErrExists) {
				t.Errorf("second of the name: %v", err)
			}
			if end := waitFor(t, s, job.ID); end.State != JobDone {
				t.Fatalf("job ended as %+v", end)
			}
			info, err := s.Audience(ctx, "c", "sailors")
			if err != nil || info.State != JobDone || info.Size != size {
				t.Fatalf("%+v, %v", info, err)
			}
			var members []audience.Member
			for after := 0; ; {
				page, err := s.Members(ctx, "c", "sailors", after, 77)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				members = append(members, page...)
				after = page[len(page)-1].Rank
			}
			if len(members) != size {
				t.Fatalf("%d members, want %d", len(members), size)
			}
			right := 0
			for i, m := range members {
				if m.Rank != i+1 {
					t.Fatalf("member %d has rank %d", i, m.Rank)
				}
				if slices.Contains(lovers, m.ID) {
					right++
				}
			}
			if right < size*95/100 {
				t.Errorf("%d of %d members love sailing", right, size)
			}
			in := members[0].ID
			checks, err := s.Check(ctx, "c", "sailors", []string{in, "c0001", "nobody"})
			if err != nil {
				t.Fatal(err)
			}
			if !checks[0].In || checks[1].In || !checks[1].Known || checks[2].Known {
				t.Errorf("checks %+v", checks)
			}
			names, err := s.AudiencesOf(ctx, "c", in)
			if err != nil || !slices.Equal(names, []string{"sailors"}) {
				t.Errorf("audiences of %s: %v, %v", in, names, err)
			}
			receipt, err := s.Erase(ctx, "c", in)
			if err != nil || receipt.Records != 1 || receipt.Audiences != 1 {
				t.Errorf("receipt %+v, %v", receipt, err)
			}
			page, err := s.Members(ctx, "c", "sailors", 0, 1)
			if err != nil || page[0].ID == in {
				t.Errorf("after the erasure the list begins with %+v, %v", page, err)
			}
			if _, err := s.Erase(ctx, "c", lovers[0]); err != nil {
				t.Fatal(err)
			}
			info, err = s.Audience(ctx, "c", "sailors")
			if err != nil || info.Named == nil || info.Named.Seeds != 59 || len(info.Request.Seeds.IDs) != 0 {
				t.Errorf("the erased seed is still counted: %+v, %v", info.Named, err)
			}
			if ids, total, err := s.AudienceIDs(ctx, "c", "sailors", NamedSeeds, 0, 100); err != nil || total != 59 || slices.ContainsFunc(ids, func(r audience.SeedRef) bool { return r.ID == lovers[0] }) {
				t.Errorf("the erased seed is still named: %d seeds, %v", total, err)
			}
			if err := s.DropAudience(ctx, "c", "sailors"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Audience(ctx, "c", "sailors"); !errors.Is(err, index.ErrNotFound) {
				t.Errorf("after the drop: %v", err)
			}
		})
	}
}

// trickle yields n records, two in a hundred of them bad.
type trickle struct {
	n, at int
}

func (f *trickle) Next() (profile.Record, error) {
	if f.at == f.n {
		return profile.Record{}, io.EOF
	}
	f.at++
	if f.at%100 == 50 {
		return profile.Record{}, &ingest.RowError{Line: f.at, Reason: "bad on purpose"}
	}
	return profile.Record{ID: fmt.Sprintf("t%05d", f.at)}, nil
}

func TestImportCountsGoodAndBad(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	var seen, bad int
	out, err := s.Import(t.Context(), "c", &trickle{n: 2000}, func(done, refused int) { seen, bad = done, refused })
	if err != nil {
		t.Fatal(err)
	}
	if out.Accepted != 1980 || len(out.Refused) != 20 || seen != 2000 || bad != 20 {
		t.Errorf("accepted %d, refused %d, progress %d and %d", out.Accepted, len(out.Refused), seen, bad)
	}
}

func TestPutAddsFieldsAndRefusesConflicts(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	more := testSchema
	more.Fields = append(slices.Clone(more.Fields), profile.Field{Name: "spend", Type: profile.TypeNumber})
	cfg, created, err := s.Put(t.Context(), Config{Name: "c", Model: "words", Schema: more})
	if err != nil || created || len(cfg.Schema.Fields) != 7 {
		t.Fatalf("created %v, %d fields, %v", created, len(cfg.Schema.Fields), err)
	}
	bad := testSchema
	bad.Fields = []profile.Field{{Name: "age", Type: profile.TypeCategory}}
	_, _, err = s.Put(t.Context(), Config{Name: "c", Model: "words", Precision: index.Fp32, Schema: bad})
	if !errors.Is(err, index.ErrExists) || len(Faults(err)) != 2 {
		t.Errorf("conflicts: %v", err)
	}
	if err := s.Drop(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collection(t.Context(), "c"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("after the drop: %v", err)
	}
}

func TestJobsEndAsCancelledOrFailed(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	seedPopulation(t, s, 100)
	size := 10
	req := audience.Request{Name: "few", Seeds: audience.Seeds{IDs: []audience.SeedRef{{ID: "nobody"}}}, Size: audience.Size{Count: &size}}
	job, err := s.CreateAudience(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	if end := waitFor(t, s, job.ID); end.State != JobFailed || end.Problem == "" {
		t.Errorf("seeds that match nobody: job ended as %+v", end)
	}
	info, err := s.Audience(t.Context(), "c", "few")
	if err != nil || info.State != JobFailed || info.Problem == "" {
		t.Errorf("audience %+v, %v", info, err)
	}
	if _, err := s.Cancel("no-such-job"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("cancelling nothing: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.DropAudience(ctx, "c", "few"); err != nil {
		t.Error(err)
	}
}

// The columns of a file take the types of the collection's fields: by
// themselves, one value for all would be left out, and digits be a number.
func TestImportTakesTheFieldsTypes(t *testing.T) {
	dir := t.TempDir()
	var csv strings.Builder
	csv.WriteString("id,region,tags,age\n")
	for i := range 300 {
		fmt.Fprintf(&csv, "k%03d,7,same,%d\n", i, 20+i%50)
	}
	if err := os.WriteFile(filepath.Join(dir, "in.csv"), []byte(csv.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newService(t, Options{ImportRoot: dir})
	mustPut(t, s)
	job, err := s.StartImport(t.Context(), "c", ImportRequest{Path: "in.csv"})
	if err != nil {
		t.Fatal(err)
	}
	if end := waitFor(t, s, job.ID); end.State != JobDone || end.Accepted != 300 {
		t.Fatalf("the import ended as %+v", end)
	}
	got, err := s.Customer(t.Context(), "c", "k007")
	if err != nil {
		t.Fatal(err)
	}
	if tags, ok := got.Fields["tags"].([]string); got.Fields["region"] != "7" || !ok || !slices.Equal(tags, []string{"same"}) || got.Fields["age"] != 27.0 {
		t.Errorf("fields %#v", got.Fields)
	}
	if _, err := s.StartImport(t.Context(), "c", ImportRequest{Path: filepath.Join(t.TempDir(), "out.csv")}); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("a path outside the root: %v", err)
	}
}
