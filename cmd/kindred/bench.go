package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/trial"
	"github.com/kindred-search/kindred/internal/simd"
)

func (a *app) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure what this machine and a Milvus do", Example: "  kindred bench milvus --milvus localhost:19530", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.benchMilvusCommand())
	return cmd
}

// benchFlags are those of bench milvus.
type benchFlags struct {
	indexes                            []string
	rows, dim, questions, hits, atOnce int
	seconds                            time.Duration
	precision, file                    string
	seed                               uint64
}

func (a *app) benchMilvusCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: "milvus [COLLECTION]", Short: "Compare vector indexes of a Milvus with the scan and the graph of this process",
		Long: `Writes vectors into a collection of its own in the Milvus of --milvus, builds one index
after the other and asks each the same questions, as it asks the scan and the graph
(hnsw) of this process: recall against an exact scan in fp32, questions a second with
several at once, median and 99th percentile of one at a time, and how long building took.
The vectors are made up, those of a --file, or those of a COLLECTION in that Milvus, which
is only read. Memory is what vectors and index take here, and all that the query nodes
say they use in Milvus.
Nothing stays behind, also after Ctrl-C.`,
		Example: "  kindred bench milvus --milvus localhost:19530 --rows 50000 --dim 384\n  kindred bench milvus shop --milvus localhost:19530 --index hnsw:M=32 --index ivf_sq8:nlist=256 --json",
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.benchMilvus(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.indexes, "index", []string{"flat", "ivf_flat:nlist=1024,nprobe=32", "ivf_sq8:nlist=1024,nprobe=32", "hnsw:M=16,efConstruction=200,ef=96"}, "index to measure, as of --milvus-index; may be given several times")
	flags.StringVar(&f.file, "file", "", "vectors to take: .npy (a float32 matrix) or .fvecs")
	flags.IntVar(&f.rows, "rows", 100_000, "vectors to make up, or most of a file or collection")
	flags.IntVar(&f.dim, "dim", 384, "dimensions to make up")
	flags.IntVar(&f.questions, "queries", 300, "questions to ask")
	flags.IntVar(&f.hits, "k", 10, "hits of each")
	flags.IntVar(&f.atOnce, "at-once", 4, "questions at once for the rate")
	flags.DurationVar(&f.seconds, "time", 3*time.Second, "how long each rate is measured")
	flags.StringVar(&f.precision, "vectors", string(index.Int8), "how vectors are held here: int8, fp16 or fp32")
	flags.Uint64Var(&f.seed, "seed", 1, "of what is made up or chosen")
	return cmd
}

func (f *benchFlags) check() ([]milvus.VectorIndex, error) {
	for name, v := range map[string][3]int{"rows": {f.rows, 1000, 100_000_000}, "dim": {f.dim, 2, index.MaxDim}, "queries": {f.questions, 10, 100_000}, "k": {f.hits, 1, 1000}, "at-once": {f.atOnce, 1, 1024}} {
		if v[0] < v[1] || v[0] > v[2] {
			return nil, usagef("--%s %d: want %d to %d", name, v[0], v[1], v[2])
		}
	}
	if f.seconds < 100*time.Millisecond || f.seconds > time.Hour {
		return nil, usagef("--time %v: want 100ms to 1h", f.seconds)
	}
	switch index.Precision(f.precision) {
	case index.Int8, index.Fp16, index.Fp32:
	default:
		return nil, usagef("--vectors %q: want int8, fp16 or fp32", f.precision)
	}
	list := make([]milvus.VectorIndex, len(f.indexes))
	for i, s := range f.indexes {
		x, err := milvus.ParseIndex(s)
		if err == nil && x.Type == "" {
			err = errors.New("empty")
		}
		if err != nil {
			return nil, usagef("--index %q: %w", s, err)
		}
		list[i] = x
	}
	return list, nil
}

// benchReport is what bench milvus says as JSON.
type benchReport struct {
	Data    string       `json:"data"`
	Machine benchHost    `json:"machine"`
	When    time.Time    `json:"when"`
	Report  trial.Report `json:"report"`
}

// benchHost is the machine that asked; Milvus may be on another one.
type benchHost struct {
	Cores  int    `json:"cores"`
	In     string `json:"platform"`
	Vector string `json:"vector_code"`
	Memory string `json:"memory,omitempty"`
}

func thisHost() benchHost {
	h := benchHost{Cores: runtime.GOMAXPROCS(0), In: runtime.GOOS + "/" + runtime.GOARCH, Vector: simd.Features()}
	if n, ok := memorySize(); ok {
		h.Memory = gigabytes(n)
	}
	return h
}

func (a *app) benchMilvus(ctx context.Context, f benchFlags, args []string) error {
	list, err := f.check()
	if err != nil {
		return err
	}
	if a.cfg.Milvus == "" {
		return usagef("--milvus is not set: give host:port of the Milvus, such as localhost:19530")
	}
	m := a.meter()
	defer m.end()
	opt := trial.Options{
		Client: a.milvusClient(), Indexes: list, K: f.hits, Precision: index.Precision(f.precision), Workers: f.atOnce, Time: f.seconds,
		Progress: m.show,
	}
	out := benchReport{Machine: thisHost(), When: time.Now().UTC().Truncate(time.Second)}
	switch {
	case len(args) == 1 && f.file != "":
		return usagef("--file %q: a collection is named too: give one of them", f.file)
	case len(args) == 1:
		out.Data = "collection " + args[0]
		opt.Vectors, opt.Questions, err = a.vectorsOf(ctx, args[0], f)
	case f.file != "":
		out.Data = "file " + filepath.Base(f.file)
		m.show("reading vectors", 0, 0)
		var all [][]float32
		if all, err = trial.ReadFile(f.file, f.rows+f.questions); err == nil {
			r := rand.New(rand.NewPCG(f.seed, 23))
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			opt.Vectors, opt.Questions, err = f.aside(all)
		}
	default:
		out.Data = fmt.Sprintf("made up, seed %d", f.seed)
		m.show("making up vectors", 0, 0)
		opt.Vectors, opt.Questions = trial.Generated(f.rows, f.questions, f.dim, f.seed)
	}
	if err != nil {
		return err
	}
	out.Report, err = trial.Run(ctx, opt)
	m.end()
	if err != nil && len(out.Report.Results) == 0 {
		return err
	}
	return errors.Join(a.benched(out), err)
}

// vectorsOf reads vectors of a collection in Milvus, and sets some aside as questions.
func (a *app) vectorsOf(ctx context.Context, coll string, f benchFlags) (vectors, questions [][]float32, err error) {
	store, err := a.openMilvus(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	held, err := collection.Held(store.KV(), coll)
	if err != nil {
		return nil, nil, err
	}
	e, err := store.Open(ctx, held)
	if err != nil {
		return nil, nil, err
	}
	snap, err := e.Snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	dim := e.Spec().Dim
	ids := snap.Live().ToArray()
	r := rand.New(rand.NewPCG(f.seed, 23))
	r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:min(len(ids), f.rows+f.questions)]
	if dim == 0 {
		return nil, nil, fmt.Errorf("%w: collection %q has no vectors", index.ErrInvalid, coll)
	}
	flat := make([]float32, len(ids)*dim)
	if err := snap.Vectors(ids, flat); err != nil {
		return nil, nil, err
	}
	var all [][]float32
	for i := range ids {
		v := flat[i*dim : (i+1)*dim]
		for _, x := range v {
			if x != 0 { // those without a text have none
				all = append(all, v)
				break
			}
		}
	}
	return f.aside(all)
}

// aside sets some vectors aside as questions.
func (f *benchFlags) aside(all [][]float32) (vectors, questions [][]float32, err error) {
	if len(all) < f.questions+max(f.hits, 10) {
		return nil, nil, fmt.Errorf("%w: there are %d vectors: too few for %d questions and something to find", index.ErrInvalid, len(all), f.questions)
	}
	return all[f.questions:], all[:f.questions], nil
}

// benched prints a report.
func (a *app) benched(r benchReport) error {
	if a.cfg.JSON {
		return a.json(r)
	}
	rep := r.Report
	if err := a.printf("%d x %d (%s), held as %s; %d questions for %d; Milvus %s; %d cores here\nwritten in %.1f s, %.1f s into Milvus\n\n",
		rep.Rows, rep.Dim, r.Data, rep.Precision, rep.Questions, rep.K, rep.Server, r.Machine.Cores, rep.Local, rep.Written); err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "where\tindex\trecall@%d\tper second\tp50 ms\tp99 ms\tbuilt in\tmemory\n", rep.K) // Flush says what went wrong
	for _, x := range rep.Results {
		if x.Problem != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\t-\n", x.Where, x.Way)
			continue
		}
		memory := "-"
		if x.Memory > 0 {
			memory = fmt.Sprintf("%.0f MB", float64(x.Memory)/1e6)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.4f\t%.0f\t%.2f\t%.2f\t%.1f s\t%s\n", x.Where, x.Way, x.Recall, x.QPS, x.P50, x.P99, x.Build, memory)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range rep.Results {
		if x.Problem != "" {
			a.say("%s: %s", x.Way, x.Problem)
		}
	}
	return nil
}
