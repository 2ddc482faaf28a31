package collection

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/profile"
)

// vocabulary is another encoder of words: of another dimension, with other vectors a word.
// deaf gives a text another vector each time. seen, where set, is called with every batch.
type vocabulary struct {
	name string
	dim  int
	deaf bool

	mu   sync.Mutex
	seen func(texts []string)
	n    int // texts that were encoded

	noise int
}

func (v *vocabulary) Info() embed.Info {
	return embed.Info{Name: v.name, Dim: v.dim, MaxTokens: 512, Stamp: v.name + "@1"}
}

func (v *vocabulary) Encode(ctx context.Context, texts []string, _ embed.EncodeOptions) (*embed.Result, error) {
	v.mu.Lock()
	seen := v.seen
	v.n += len(texts)
	v.mu.Unlock()
	if seen != nil {
		seen(texts)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	res := &embed.Result{}
	for _, text := range texts {
		res.Vectors = append(res.Vectors, v.vector(text)...)
		res.Tokens = append(res.Tokens, 1)
		res.Truncated = append(res.Truncated, false)
	}
	return res, nil
}

func (v *vocabulary) vector(text string) []float32 {
	sum := make([]float32, v.dim)
	sum[0] = 1e-3
	if v.deaf {
		v.noise++
		text = fmt.Sprint(v.noise)
	}
	for _, word := range strings.Fields(text) {
		h := fnv.New64a()
		_, _ = io.WriteString(h, v.name+word) // never fails
		x := h.Sum64()
		for i := range sum {
			x = x*6364136223846793005 + 1442695040888963407
			sum[i] += float32(int8(x>>56)) / 128
		}
	}
	return unit(sum)
}

type shelf map[string]Encoder

func (sh shelf) open(_ context.Context, name string) (Encoder, error) {
	enc, ok := sh[name]
	if !ok {
		return nil, fmt.Errorf("model %q: %w", name, index.ErrNotFound)
	}
	return enc, nil
}

func shelved() (shelf, *vocabulary) {
	next := &vocabulary{name: "next", dim: 48}
	return shelf{"words": &words{}, "next": next, "deaf": &vocabulary{name: "deaf", dim: 8, deaf: true}}, next
}

func to(model string) ReembedRequest { return ReembedRequest{Model: &model} }

func (r ReembedRequest) switched() ReembedRequest {
	r.Switch = true
	return r
}

func mustReembed(t *testing.T, s *Service, req ReembedRequest) Job {
	t.Helper()
	job, err := s.Reembed(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	return job
}

// settled waits until no job is under way.
func settled(t *testing.T, s *Service) {
	t.Helper()
	for _, job := range s.Jobs() {
		if job := waitFor(t, s, job.ID); job.State != JobDone {
			t.Fatalf("%+v", job)
		}
	}
	for _, job := range s.Jobs() {
		if !job.State.Final() {
			settled(t, s)
		}
	}
}

// checkEmbedded holds every customer's vector to what the encoder makes of its texts.
func checkEmbedded(t *testing.T, s *Service, v *vocabulary, want int) {
	t.Helper()
	eng, err := s.open(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := idsOf(t.Context(), eng)
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != want {
		t.Fatalf("%d customers, want %d", len(ids), want)
	}
	rows, err := eng.Get(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		c, err := s.Customer(t.Context(), "c", row.ID)
		if err != nil || len(c.Texts) == 0 {
			t.Fatalf("%s: %+v, %v", row.ID, c, err)
		}
		dot := 0.0
		for i, x := range v.vector(c.Texts[0].Body) {
			dot += float64(x) * float64(row.Vector[i])
		}
		if !(dot > 0.999) { // held as int8
			t.Fatalf("%s: the vector is not of %q by %s: cosine %v", row.ID, c.Texts[0].Body, v.name, dot)
		}
	}
}

func heldNames(t *testing.T, s *Service) []string {
	t.Helper()
	specs, err := s.opt.Store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, spec := range specs {
		out = append(out, spec.Name)
	}
	return out
}

// TestReembed: another generation is made beside the one that answers, compared, switched
// to, rolled back with what was written meanwhile, switched to again and confirmed.
func TestReembed(t *testing.T) {
	store := memory.Open()
	sh, next := shelved()
	s := newService(t, Options{Store: store, KV: store.KV(), OpenModel: sh.open})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 1200)
	mustAudience(t, s, springRequest(lovers, 200))
	if job, err := s.DiscoverSegments(t.Context(), "c", segment.Params{K: 3}); err != nil || waitFor(t, s, job.ID).State != JobDone {
		t.Fatal(job, err)
	}

	mustReembed(t, s, to("next"))
	r, err := s.Reembedding(t.Context(), "c")
	if err != nil || r.State != ReembedReady || r.Now.Model != "words" || r.Other.Model != "next" {
		t.Fatalf("%+v, %v", r, err)
	}
	g := r.Gate
	if g == nil || !g.Passed || g.Customers != 1200 || g.Embedded != 1200 || g.Lost+g.Gained != 0 || g.Sampled != 100 || len(g.Audiences) != 1 || g.Audiences[0].After.Value < 0.8 || !(g.Overlap > 0.3 && g.Overlap <= 1) {
		t.Fatalf("%+v", g)
	}
	if cfg := mustConfig(t, s); cfg.Model != "words" || cfg.Generation != 0 {
		t.Fatalf("switched unasked: %+v", cfg)
	}

	// What is written meanwhile is there after the switch, and only that is embedded.
	arrive(t, s, 0, 7)
	if err := s.Delete(t.Context(), "c", lovers[40]); err != nil {
		t.Fatal(err)
	}
	next.n = 0
	mustReembed(t, s, ReembedRequest{Switch: true, Relearn: new(bool)})
	if next.n != 7+1 { // and the reference of no audience
		t.Logf("%d texts were encoded for 7 customers", next.n)
	}
	if next.n > 20 {
		t.Errorf("%d texts were encoded for 7 customers", next.n)
	}
	cfg := mustConfig(t, s)
	if cfg.Model != "next" || cfg.Dim != 48 || cfg.Generation != 1 || !strings.HasPrefix(cfg.Stamp, "next@1/") {
		t.Fatalf("%+v", cfg)
	}
	checkEmbedded(t, s, next, 1206)
	ans, err := s.Search(t.Context(), "c", SearchRequest{Text: "likes sailing boats sea book3"})
	if err != nil || len(ans.Hits) == 0 || ans.Hits[0].Score < 0.99 {
		t.Fatalf("%+v, %v", ans, err)
	}

	// What was learned from the vectors of before: the list holds, the model is not asked.
	in, err := s.AudiencesOf(t.Context(), "c", mustMembers(t, s, "spring", 0)[0].ID)
	if err != nil || !slices.Equal(in, []string{"spring"}) {
		t.Errorf("%v, %v", in, err)
	}
	if in, err := s.AudiencesOf(t.Context(), "c", "n0001"); err != nil || len(in) != 0 {
		t.Errorf("a customer of another model is judged by the list alone: %v, %v", in, err)
	}
	for what, err := range map[string]error{
		"why":      second(s.Why(t.Context(), "c", "spring", lovers[50])),
		"reach":    second(s.Reach(t.Context(), "c", "spring", []int{10})),
		"segments": second(s.SegmentOf(t.Context(), "c", lovers[50])),
	} {
		if !errors.Is(err, ErrOtherModel) {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Back, with what was written since, and forth again.
	arrive(t, s, 100, 3)
	job, err := s.Rollback(t.Context(), "c")
	if err != nil || waitFor(t, s, job.ID).State != JobDone {
		t.Fatal(job, err)
	}
	if cfg := mustConfig(t, s); cfg.Model != "words" || cfg.Generation != 0 {
		t.Fatalf("%+v", cfg)
	}
	if ans, err := s.Search(t.Context(), "c", SearchRequest{Customer: "n0101"}); err != nil || len(ans.Hits) == 0 {
		t.Fatalf("%+v, %v", ans, err)
	}
	if c, err := s.Collection(t.Context(), "c"); err != nil || c.Customers != 1209 {
		t.Fatalf("%+v, %v", c, err)
	}
	if job, err = s.Rollback(t.Context(), "c"); err != nil || waitFor(t, s, job.ID).State != JobDone {
		t.Fatal(job, err)
	}
	settled(t, s)
	checkEmbedded(t, s, next, 1209)
	// By then audience and segments were learned again.
	info := mustInfo(t, s, "spring")
	if info.Result.Manifest.Stamp != mustConfig(t, s).Stamp || info.Version < 2 {
		t.Errorf("the audience is of %s, version %d", info.Result.Manifest.Stamp, info.Version)
	}
	if _, err := s.SegmentOf(t.Context(), "c", lovers[50]); err != nil {
		t.Error(err)
	}
	if got := heldNames(t, s); !slices.Equal(got, []string{"c", "c~1"}) {
		t.Errorf("held: %q", got)
	}
	if err := s.Confirm(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if got := heldNames(t, s); !slices.Equal(got, []string{"c~1"}) {
		t.Errorf("held after confirming: %q", got)
	}
	if _, err := s.Reembedding(t.Context(), "c"); !errors.Is(err, index.ErrNotFound) {
		t.Error(err)
	}
	if err := s.Drop(t.Context(), "c"); err != nil || len(heldNames(t, s)) != 0 {
		t.Errorf("dropped: %v, %q is left", err, heldNames(t, s))
	}
}

func second[T any](_ T, err error) error { return err }

// TestReembedGate: a model that hears nothing is not switched to, unless forced.
func TestReembedGate(t *testing.T) {
	store := memory.Open()
	sh, _ := shelved()
	s := newService(t, Options{Store: store, KV: store.KV(), OpenModel: sh.open})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 600)
	req := springRequest(lovers, 100)
	req.Features.Columns = []string{}
	mustAudience(t, s, req)
	job, err := s.Reembed(t.Context(), "c", to("deaf").switched())
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobFailed {
		r, err := s.Reembedding(t.Context(), "c")
		t.Fatalf("%+v, %v", r.Gate, err)
	}
	if !strings.Contains(job.Problem, "AUC") || !strings.Contains(job.Problem, "force") {
		t.Fatalf("%+v", job)
	}
	if cfg := mustConfig(t, s); cfg.Model != "words" {
		t.Fatalf("%+v", cfg)
	}
	if _, err := s.Reembed(t.Context(), "c", to("next")); !errors.Is(err, index.ErrExists) {
		t.Errorf("another target while one is being made: %v", err)
	}
	r, err := s.Reembedding(t.Context(), "c")
	if err != nil || r.State != ReembedReady || r.Gate.Passed || !(r.Gate.Change < -0.2) {
		t.Fatalf("%+v, %v", r, err)
	}
	force := ReembedRequest{Switch: true, Force: true, Relearn: new(bool)}
	mustReembed(t, s, force)
	if cfg := mustConfig(t, s); cfg.Model != "deaf" {
		t.Fatalf("%+v", cfg)
	}
	if err := s.Abort(t.Context(), "c"); !errors.Is(err, index.ErrExists) {
		t.Errorf("abort after a switch: %v", err)
	}
	if _, err := s.Reembed(t.Context(), "c", to("next")); !errors.Is(err, index.ErrExists) {
		t.Errorf("before the switch is confirmed: %v", err)
	}
}

func TestReembedRefusals(t *testing.T) {
	store := memory.Open()
	sh, _ := shelved()
	s := newService(t, Options{Store: store, KV: store.KV(), OpenModel: sh.open})
	mustPut(t, s)
	seedPopulation(t, s, 100)
	nan, deep, bad := math.NaN(), index.Precision("int3"), "{{nothing}"
	for what, req := range map[string]ReembedRequest{
		"nothing changes": {}, "the same model": to("words"), "no such model": to("nobody"), "force alone": {Force: true},
		"a loss": {MaxAUCLoss: &nan}, "a precision": {Precision: &deep}, "a template": {Template: &bad},
	} {
		if job, err := s.Reembed(t.Context(), "c", req); err == nil {
			t.Errorf("%s: %+v", what, job)
		}
	}
	for what, err := range map[string]error{
		"rollback": second(s.Rollback(t.Context(), "c")), "confirm": s.Confirm(t.Context(), "c"), "abort": s.Abort(t.Context(), "c"),
		"unknown": second(s.Reembed(t.Context(), "nobody", to("next"))),
	} {
		if !errors.Is(err, index.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := s.Put(t.Context(), Config{Name: "c~1", Schema: testSchema}); !errors.Is(err, index.ErrInvalid) {
		t.Errorf("a name of a generation: %v", err)
	}
	if _, _, err := s.Put(t.Context(), Config{Name: "c", Model: "next", Schema: testSchema}); !errors.Is(err, index.ErrExists) || !strings.Contains(err.Error(), "reembed") {
		t.Errorf("another model by put: %v", err)
	}
	mustReembed(t, s, to("next"))
	if err := s.Confirm(t.Context(), "c"); !errors.Is(err, index.ErrExists) {
		t.Errorf("confirm before a switch: %v", err)
	}
	if err := s.Abort(t.Context(), "c"); err != nil || !slices.Equal(heldNames(t, s), []string{"c"}) {
		t.Errorf("abort: %v, %q", err, heldNames(t, s))
	}
}

// TestReembedWhileWritten: customers come, change, go and are erased, and fields are added,
// while everyone is being embedded; a batch that was prepared before the switch and is
// stored after it is of the model of after.
func TestReembedWhileWritten(t *testing.T) {
	store := memory.Open()
	sh, next := shelved()
	s := newService(t, Options{Store: store, KV: store.KV(), OpenModel: sh.open})
	mustPut(t, s)
	seedPopulation(t, s, 1500)
	step := 0
	next.seen = func(texts []string) {
		if len(texts) < 100 || step == 3 {
			return
		}
		step++
		arrive(t, s, 10*step, 5)
		for i, err := range []error{
			s.Delete(t.Context(), "c", fmt.Sprintf("c%04d", 100*step)),
			second(s.Erase(t.Context(), "c", fmt.Sprintf("c%04d", 100*step+1))),
			second(s.Patch(t.Context(), "c", fmt.Sprintf("c%04d", 100*step+2), map[string]any{"note": "collects stamps"}, nil)),
		} {
			if err != nil {
				t.Errorf("step %d, write %d: %v", step, i, err)
			}
		}
		cfg := Config{Name: "c", Model: "words", Schema: profile.Schema{Fields: append(slices.Clone(testSchema.Fields), profile.Field{Name: fmt.Sprintf("extra%d", step), Type: profile.TypeNumber})}}
		if _, _, err := s.Put(t.Context(), cfg); err != nil {
			t.Error(err)
		}
		// In no generation is who was erased, at any moment.
		for _, name := range []string{"c", "c~1"} {
			eng, err := s.opt.Store.Open(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			if rows, err := eng.Get(t.Context(), []string{fmt.Sprintf("c%04d", 100*step+1)}); err != nil || rows[0] != nil {
				t.Errorf("%s: erased, and there: %v, %v", name, rows[0], err)
			}
		}
	}
	mustReembed(t, s, to("next").switched())
	if step != 3 {
		t.Fatalf("%d steps", step)
	}
	checkEmbedded(t, s, next, 1500+15-6)
	if c, err := s.Customer(t.Context(), "c", "c0102"); err != nil || c.Texts[0].Body != "collects stamps" {
		t.Errorf("%+v, %v", c, err)
	}
	if cfg := mustConfig(t, s); len(cfg.Schema.Fields) != len(testSchema.Fields)+3 {
		t.Errorf("%d fields", len(cfg.Schema.Fields))
	}

	// Prepared by the model of before, stored after the way back.
	var once sync.Once
	next.seen = func(texts []string) {
		if texts[0] != "likes slow boats" {
			return
		}
		once.Do(func() {
			job, err := s.Rollback(t.Context(), "c")
			if err != nil || waitFor(t, s, job.ID).State != JobDone {
				t.Error(job, err)
			}
		})
	}
	late := Input{Line: 1, Record: record(t, s, `{"id":"late","fields":{"note":"likes slow boats"}}`)}
	if out, err := s.Upsert(t.Context(), "c", []Input{late}); err != nil || out.Accepted != 1 {
		t.Fatal(out, err)
	}
	cfg := mustConfig(t, s)
	row, _, err := s.get(t.Context(), cfg, "late")
	if err != nil || cfg.Model != "words" || len(row.Vector) != wordsDim {
		t.Fatalf("%s, %d numbers, %v", cfg.Model, len(row.Vector), err)
	}
}

// TestReembedSurvivesAKillAtAnyWrite: whatever write of the key-value space is the last of a
// process, the next one goes on, and everyone is there.
func TestReembedSurvivesAKillAtAnyWrite(t *testing.T) {
	tried := 0
	for deaths := 0; ; deaths++ {
		store := memory.Open()
		kv := &mortal{KV: store.KV(), left: -1}
		sh, next := shelved()
		s := newService(t, Options{Store: store, KV: kv, OpenModel: sh.open})
		mustPut(t, s)
		lovers := seedPopulation(t, s, 300)
		mustAudience(t, s, springRequest(lovers, 100))
		job, err := s.Reembed(t.Context(), "c", to("next").switched())
		if err != nil {
			t.Fatal(err)
		}
		kv.mu.Lock()
		kv.left = deaths
		kv.mu.Unlock()
		job = waitFor(t, s, job.ID)
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		kv.mu.Lock()
		survived := kv.left > 0
		kv.left = -1
		kv.mu.Unlock()
		s = newService(t, Options{Store: store, KV: kv, OpenModel: sh.open})
		settled(t, s)
		checkEmbedded(t, s, next, 300)
		if info := mustInfo(t, s, "spring"); info.Result.Manifest.Stamp != mustConfig(t, s).Stamp {
			t.Fatalf("death at write %d: the audience is of %s: %+v", deaths, info.Result.Manifest.Stamp, s.Jobs())
		}
		tried++
		if survived {
			break
		}
	}
	if tried < 5 {
		t.Errorf("only %d deaths were tried", tried)
	}
}

// TestJobsTakeTurns: a job that waits has its turn.
func TestJobsTakeTurns(t *testing.T) {
	store := memory.Open()
	sh, next := shelved()
	now := &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s := newService(t, Options{Store: store, KV: store.KV(), Clock: now.now, OpenModel: sh.open})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 1300)
	var audience Job
	next.seen = func([]string) {
		now.add(2 * turnAfter)
		if audience.ID == "" {
			var err error
			if audience, err = s.CreateAudience(t.Context(), "c", springRequest(lovers, 100)); err != nil {
				t.Error(err)
			}
		}
	}
	job := mustReembed(t, s, to("next"))
	if a := waitFor(t, s, audience.ID); a.State != JobDone || !a.Updated.Before(job.Updated) {
		t.Errorf("the audience ended at %v, the embedding at %v", a.Updated, job.Updated)
	}
	if next.n < 1300 || next.n > 1300+200 {
		t.Errorf("%d texts were encoded", next.n)
	}
}

// TestNoColumnsStaysNoColumns: that a definition goes by no columns must survive being
// stored: a refresh goes by the definition.
func TestNoColumnsStaysNoColumns(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	req := springRequest(seedPopulation(t, s, 600), 100)
	req.Features.Columns = []string{}
	mustAudience(t, s, req)
	for range 2 {
		if m := mustInfo(t, s, "spring").Result.Manifest; len(m.Columns) != 0 || !m.Text {
			t.Fatalf("goes by %q, text %v", m.Columns, m.Text)
		}
		mustRefresh(t, s, "spring", RefreshRequest{})
	}
}
