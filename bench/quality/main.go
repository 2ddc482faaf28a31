// Command quality measures lookalike audiences against known outcomes, paired
// with the rivals of rivals.py: the same customers, seeds and features.
//
// Flow: a task (tasks.go) is a table of customers with a truth beside it. It is
// read by ingest, kept by collection and built by collection.Service.Run, as
// kindred lookalike does; the order of everyone but the seeds is judged by
// audience.Evaluate. Under -dir, one folder a task, it leaves for the rivals
// customers.csv, truth.json, plan.json, draws.json and vectors.npy, and
// ours.json with what was measured. run.sh ties both sides.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/ingest"
)

const (
	draws = 5
	// leastLeft is how many positives must be left to find after a draw.
	leastLeft = 100
	// deal names the draws. It was changed after methods were last worked on, so that
	// the draws which are reported are none that anybody had looked at.
	deal = "2026-11-25"
)

var sizes = []int{50, 200, 1000}

// measured is one build, judged.
type measured struct {
	Method  string  `json:"method"`
	Seeds   int     `json:"seeds"`
	Draw    int     `json:"draw"`
	N       int     `json:"n"`         // customers ranked
	Left    int     `json:"positives"` // among them
	AUC     float64 `json:"auc"`
	Lift5   float64 `json:"lift5"`
	Seconds float64 `json:"seconds"` // of Service.Run: comparing, scanning, measuring
	Chosen  string  `json:"chosen"`  // the method in words
	HoldAUC float64 `json:"holdout_auc"`
}

// ours is what ours.json holds.
type ours struct {
	Task      string     `json:"task"`
	What      string     `json:"what"`
	Model     string     `json:"model,omitempty"`
	Customers int        `json:"customers"`
	Positives int        `json:"positives"`
	Columns   []string   `json:"columns"`      // in heads
	Left      []string   `json:"left_out"`     // by the plan
	ImportS   float64    `json:"import_s"`     // texts from the cache cost nothing
	Encoded   int        `json:"encoded"`      // texts that were not in the cache
	Go        string     `json:"go"`           // toolchain
	Revision  string     `json:"git_revision"` // of this source, by -revision
	Results   []measured `json:"results"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

func run() error {
	data := flag.String("data", "", "folder of the labelled data")
	dir := flag.String("dir", filepath.Join("bench", "tmp", "quality"), "working folder")
	only := flag.String("tasks", "", "comma-separated names; empty for all")
	methods := flag.String("methods", audience.Auto, "comma-separated: auto, centroid, clusters, classifier")
	revision := flag.String("revision", "", "git commit of this source, to be noted")
	prepare := flag.Bool("prepare", false, "only write what the rivals need")
	flag.Parse()
	if *data == "" {
		return errors.New("name the folder of the labelled data with -data")
	}
	known := names()
	picked := known
	if *only != "" {
		picked = strings.Split(*only, ",")
	}
	for _, name := range picked {
		if !slices.Contains(known, name) && !slices.ContainsFunc(developTasks, func(t task) bool { return t.name == name }) {
			return fmt.Errorf("-tasks: no task is called %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	for _, t := range slices.Concat(tasks, developTasks) {
		if !slices.Contains(picked, t.name) {
			continue
		}
		b := &bench{task: t, dir: filepath.Join(*dir, t.name), methods: strings.Split(*methods, ","), revision: *revision}
		if err := b.run(context.Background(), *data, filepath.Join(*dir, "cache"), *prepare); err != nil {
			return fmt.Errorf("task %s: %w", t.name, err)
		}
	}
	return nil
}

// bench is one task being measured.
type bench struct {
	task     task
	dir      string
	methods  []string
	revision string
	truth    map[string]bool
	ids      []string // in order of the file
	plan     *ingest.Plan
	encoder  *cached // nil without a model
	svc      *collection.Service
}

func (b *bench) run(ctx context.Context, data, cache string, prepare bool) (err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.write(data); err != nil {
		return err
	}
	if b.plan, err = ingest.Inspect(ctx, filepath.Join(b.dir, "customers.csv"), b.task.reading()); err != nil {
		return err
	}
	if b.task.model != "" {
		if b.encoder, err = openCache(cache, b.task.model); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.encoder.close()) }()
	}
	drawn := b.draw()
	if err := errors.Join(save(b.dir, "draws.json", drawn), save(b.dir, "truth.json", b.truth), save(b.dir, "plan.json", b.plan.Schema())); err != nil {
		return err
	}
	if b.encoder != nil {
		if err := b.export(ctx); err != nil {
			return err
		}
	}
	if prepare {
		return nil
	}
	return b.measure(ctx, drawn)
}

// write puts the task's customers where ingest and the rivals read them.
func (b *bench) write(data string) error {
	rows, err := b.task.load(data)
	if err != nil {
		return err
	}
	table, truth, err := b.task.table(rows)
	if err != nil {
		return err
	}
	b.truth = truth
	for _, row := range table[1:] {
		b.ids = append(b.ids, row[0])
	}
	return writeCSV(filepath.Join(b.dir, "customers.csv"), table)
}

// draw picks the seeds of every size and draw: ids in ascending order of a
// shuffle that depends on task, size and draw alone.
func (b *bench) draw() map[int][][]string {
	var positives []string
	for _, id := range b.ids {
		if b.truth[id] {
			positives = append(positives, id)
		}
	}
	out := map[int][][]string{}
	for _, size := range sizes {
		if len(positives)-size < leastLeft {
			continue
		}
		for draw := range draws {
			h := fnv.New64a()
			fmt.Fprintf(h, "%s/%s/%d", deal, b.task.name, size)
			rng := rand.New(rand.NewPCG(h.Sum64(), uint64(draw)))
			deck := slices.Clone(positives)
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			out[size] = append(out[size], deck[:size])
		}
	}
	return out
}

// load imports the customers into a new collection. Close what it returns.
func (b *bench) load(ctx context.Context, precision index.Precision) (store *memory.Store, err error) {
	store = memory.Open()
	b.svc, err = collection.New(ctx, collection.Options{Store: store, KV: store.KV(), OpenModel: b.open})
	if err != nil {
		return nil, err
	}
	cfg := collection.Config{Name: b.task.name, Schema: b.plan.Schema(), Model: b.task.model, Precision: precision}
	if _, _, err := b.svc.Put(ctx, cfg); err != nil {
		return nil, err
	}
	src, err := b.plan.Open(ctx)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	out, err := b.svc.Import(ctx, b.task.name, src, func(done, _ int) {
		if b.encoder != nil && b.encoder.fresh > 0 && time.Since(start) > 20*time.Second {
			start = time.Now()
			fmt.Fprintf(os.Stderr, "%s: %d of %d customers, %d texts encoded\n", b.task.name, done, len(b.ids), b.encoder.fresh)
		}
	})
	if err := errors.Join(err, src.Close()); err != nil {
		return nil, err
	}
	if len(out.Refused) > 0 || out.Accepted != len(b.ids) {
		return nil, fmt.Errorf("%d of %d customers taken in; refused: %v", out.Accepted, len(b.ids), out.Refused)
	}
	return store, nil
}

func (b *bench) open(context.Context, string) (collection.Encoder, error) { return b.encoder, nil }

func (b *bench) unload(ctx context.Context, store *memory.Store) error {
	return errors.Join(b.svc.Close(ctx), store.Close())
}

// export writes the customers' vectors, one row a customer in the order of the
// file, in full precision: rivals pay nothing for our storage.
func (b *bench) export(ctx context.Context) error {
	store, err := b.load(ctx, index.Fp32)
	if err != nil {
		return err
	}
	eng, err := store.Open(ctx, b.task.name)
	if err != nil {
		return err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return err
	}
	at := make([]uint32, len(b.ids))
	for i, id := range b.ids {
		row, ok := snap.Find(id)
		if !ok {
			return fmt.Errorf("customer %s is not in the collection", id)
		}
		at[i] = row
	}
	dim := eng.Spec().Dim
	vectors := make([]float32, len(at)*dim)
	if err := snap.Vectors(at, vectors); err != nil {
		return err
	}
	if err := writeNPY(filepath.Join(b.dir, "vectors.npy"), vectors, len(at), dim); err != nil {
		return err
	}
	return errors.Join(snap.Close(), b.unload(ctx, store))
}

func (b *bench) measure(ctx context.Context, drawn map[int][][]string) error {
	start := time.Now()
	store, err := b.load(ctx, "")
	if err != nil {
		return err
	}
	out := ours{
		Task: b.task.name, What: b.task.what, Model: b.task.model, Customers: len(b.ids), Go: runtime.Version(), Revision: b.revision,
		ImportS: time.Since(start).Seconds(), Columns: []string{}, Left: []string{},
	}
	if b.encoder != nil {
		out.Encoded = b.encoder.fresh
	}
	for _, c := range b.plan.Columns {
		switch c.Use {
		case ingest.UseIgnore:
			out.Left = append(out.Left, c.Name+": "+c.Why)
		case ingest.UseField, ingest.UseText:
			out.Columns = append(out.Columns, c.Name)
		}
	}
	for _, is := range b.truth {
		if is {
			out.Positives++
		}
	}
	for _, size := range sizes {
		for draw, ids := range drawn[size] {
			for _, method := range b.methods {
				if method == audience.Clusters && b.encoder == nil {
					continue // clusters are of text: without it the request is refused
				}
				m, err := b.build(ctx, method, ids)
				if err != nil {
					return fmt.Errorf("%s, %d seeds, draw %d: %w", method, size, draw, err)
				}
				m.Seeds, m.Draw = size, draw
				out.Results = append(out.Results, m)
				fmt.Fprintf(os.Stderr, "%-22s %5d seeds, draw %d, %-10s AUC %.4f  lift@5%% %5.2f  %5.1f s  %s\n", b.task.name, size, draw, method, m.AUC, m.Lift5, m.Seconds, m.Chosen)
			}
		}
	}
	return errors.Join(save(b.dir, "ours.json", out), b.unload(ctx, store))
}

// build asks for everyone in order, without reasons, and judges the order.
func (b *bench) build(ctx context.Context, method string, ids []string) (measured, error) {
	all, no := 1.0, false
	req := audience.Request{Method: method, Size: audience.Size{Ratio: &all}, Explain: audience.Explain{Members: &no}}
	seeds := map[string]bool{}
	for _, id := range ids {
		req.Seeds.IDs = append(req.Seeds.IDs, audience.SeedRef{ID: id})
		seeds[id] = true
	}
	start := time.Now()
	res, err := b.svc.Run(ctx, b.task.name, req, nil)
	if err != nil {
		return measured{}, err
	}
	took := time.Since(start).Seconds()
	if len(res.Members)+len(ids) != len(b.ids) {
		return measured{}, fmt.Errorf("%d customers in order and %d seeds, of %d", len(res.Members), len(ids), len(b.ids))
	}
	scores, truth := make([]float32, len(res.Members)), make([]bool, len(res.Members))
	for i, m := range res.Members {
		is, known := b.truth[m.ID]
		if !known || seeds[m.ID] {
			return measured{}, fmt.Errorf("customer %q should not be in the order", m.ID)
		}
		scores[i], truth[i] = m.Score, is
	}
	e := audience.Evaluate(scores, truth)
	if e.N != len(scores) {
		return measured{}, fmt.Errorf("%d of %d customers have a score", e.N, len(scores))
	}
	return measured{
		Method: method, N: e.N, Left: e.Positives, AUC: e.AUC, Lift5: e.Lift[5], Seconds: took,
		Chosen: res.Manifest.Method, HoldAUC: res.Quality.Measure.AUC.Value,
	}, nil
}

func save(dir, name string, v any) error {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(raw, '\n'), 0o644)
}

// openModel opens an encoder of the cache of models.
func openModel(name string) (*embed.Model, error) {
	dir, ok := models.Find(name)
	if !ok {
		return nil, fmt.Errorf("model %s is not on this machine: run kindred models pull %s", name, name)
	}
	return embed.Open(dir, embed.Options{})
}
