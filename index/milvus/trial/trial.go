package trial

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/hnsw"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// Options says what is measured. Client, Vectors and Questions are required.
type Options struct {
	Client    client.Config
	Indexes   []milvus.VectorIndex // in Milvus, in this order; alike ones in a row are built once
	Vectors   [][]float32          // all of one dimension; not changed
	Questions [][]float32
	K         int             // hits of a question; 0 is 10
	Precision index.Precision // of the collections; "" is int8
	Workers   int             // questions at once for the rate; 0 is 4
	Time      time.Duration   // of each measurement of the rate; 0 is 3 s
	Batch     int             // rows of a write; 0 is 5,000
	// Progress, where given, hears of each step how much of it is done, one call at a time;
	// total is 0 where that is not known.
	Progress func(step string, done, total int64)
}

// Result is one way to find the nearest.
type Result struct {
	Way    string  `json:"way"`   // "flat", "hnsw" or the index in Milvus with its parameters
	Where  string  `json:"where"` // "kindred" or "milvus"
	Build  float64 `json:"build_seconds"`
	Recall float64 `json:"recall"`
	QPS    float64 `json:"qps"`    // with Workers at once
	P50    float64 `json:"p50_ms"` // one at a time
	P99    float64 `json:"p99_ms"` // one at a time
	// Memory is about what the vectors and their index take here, and in Milvus all that
	// its query nodes say they use, whatever else is in them; 0 where that is not known.
	Memory  int64  `json:"memory_bytes,omitempty"`
	Problem string `json:"problem,omitempty"` // why it was not measured
}

// Report is all of it.
type Report struct {
	Server    string          `json:"milvus"`
	Rows      int             `json:"rows"`
	Dim       int             `json:"dim"`
	Questions int             `json:"questions"`
	K         int             `json:"k"`
	Precision index.Precision `json:"precision"`
	Workers   int             `json:"workers"`
	// Written is how long the rows took into Milvus, sealed there, and Local into this process.
	Written float64  `json:"write_milvus_seconds"`
	Local   float64  `json:"write_local_seconds"`
	Results []Result `json:"results"`
}

// prefix begins the names of stores that Run makes, before the time in seconds as hex.
const prefix = "kindredbench_"

func (o *Options) defaults() error {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.K, 10)
	set(&o.Workers, 4)
	set(&o.Batch, 5000)
	if o.Time == 0 {
		o.Time = 3 * time.Second
	}
	if o.Precision == "" {
		o.Precision = index.Int8
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if len(o.Vectors) == 0 || len(o.Questions) == 0 || o.K < 1 || o.K > len(o.Vectors) || o.Workers < 1 || o.Batch < 1 {
		return fmt.Errorf("%w: %d vectors and %d questions for %d hits with %d at once: give some of each, and no more hits than vectors", index.ErrInvalid, len(o.Vectors), len(o.Questions), o.K, o.Workers)
	}
	return nil
}

// Run measures. An index that the server does not build is a Result with a Problem; other
// errors end the run, with what was measured until then. Whatever happens, nothing stays
// in Milvus; what a killed process left is dropped after a day.
func Run(ctx context.Context, opt Options) (rep Report, err error) {
	if err := opt.defaults(); err != nil {
		return rep, err
	}
	rep = Report{Rows: len(opt.Vectors), Dim: len(opt.Vectors[0]), Questions: len(opt.Questions), K: opt.K, Precision: opt.Precision, Workers: opt.Workers, Results: []Result{}}
	store, err := milvus.Open(ctx, milvus.Options{
		Client: opt.Client, Prefix: fmt.Sprintf("%s%x_%04x", prefix, time.Now().Unix(), rand.Uint32()&0xffff), Search: milvus.SearchIndex,
		Logf: func(format string, a ...any) { opt.Progress(fmt.Sprintf(format, a...), 0, 0) },
	})
	if err != nil {
		return rep, err
	}
	defer func() {
		opt.Progress("clearing up", 0, 0)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, store.Destroy(end), store.Close())
	}()
	if err := dropOld(ctx, store.Client()); err != nil {
		return rep, err
	}
	server, err := store.Client().Server(ctx)
	if err != nil {
		return rep, err
	}
	rep.Server = server.Version
	truth, err := opt.local(ctx, &rep)
	if err != nil {
		return rep, err
	}
	flat, err := milvus.ParseIndex("flat")
	if err != nil {
		return rep, err
	}
	e, err := store.Create(ctx, opt.spec("bench"))
	if err != nil {
		return rep, err
	}
	if rep.Written, err = opt.write(ctx, e, "writing to Milvus"); err != nil {
		return rep, err
	}
	start := time.Now()
	if err := store.Reindex(ctx, "bench", flat, func(done, total int64) { opt.Progress("sealing", done, total) }); err != nil {
		return rep, err
	}
	rep.Written += time.Since(start).Seconds()
	for _, ix := range opt.Indexes {
		step := "building " + ix.String()
		err := store.Supports(ctx, ix, rep.Dim)
		start := time.Now()
		if err == nil {
			err = store.Reindex(ctx, "bench", ix, func(done, total int64) { opt.Progress(step, done, total) })
		}
		res := Result{Way: ix.String(), Where: "milvus", Build: time.Since(start).Seconds()}
		switch {
		case errors.Is(err, index.ErrInvalid) && ctx.Err() == nil:
			res.Problem = err.Error()
		case err != nil:
			return rep, err
		default:
			if err := opt.measure(ctx, e, false, truth, &res); err != nil {
				return rep, err
			}
			if res.Memory, err = store.Client().MemoryUsed(ctx); err != nil { // not said, or not to us
				res.Memory = 0
			}
		}
		rep.Results = append(rep.Results, res)
	}
	return rep, nil
}

func (o *Options) spec(name string) index.Spec {
	return index.Spec{Name: name, Dim: len(o.Vectors[0]), Precision: o.Precision}
}

// dropOld drops what a killed run left.
func dropOld(ctx context.Context, c *client.Client) error {
	names, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		rest, is := strings.CutPrefix(n, prefix)
		at, _, _ := strings.Cut(rest, "_")
		made, err := strconv.ParseInt(at, 16, 64)
		if !is || err != nil || time.Since(time.Unix(made, 0)) < 24*time.Hour {
			continue
		}
		if err := c.Drop(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// local finds the truth, and measures the scan and the graph of this process.
func (o *Options) local(ctx context.Context, rep *Report) (truth [][]string, err error) {
	exact := memory.Open()
	defer func() { err = errors.Join(err, exact.Close()) }()
	spec := o.spec("exact")
	spec.Precision = index.Fp32
	e, err := exact.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	if _, err := o.write(ctx, e, "writing to memory in fp32"); err != nil {
		return nil, err
	}
	for i, q := range o.Questions {
		o.Progress("finding the nearest exactly", int64(i), int64(len(o.Questions)))
		hits, err := e.Search(ctx, index.Query{Vector: q, Limit: o.K})
		if err != nil {
			return nil, err
		}
		truth = append(truth, idsOf(hits))
	}
	s, err := hnsw.Wrap(memory.Open(), hnsw.Options{MinRows: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	flat, err := s.Create(ctx, o.spec("flat"))
	if err != nil {
		return nil, err
	}
	if rep.Local, err = o.write(ctx, flat, "writing to memory"); err != nil {
		return nil, err
	}
	size := func(spec index.Spec) int64 { return s.RowBytes(spec) * int64(len(o.Vectors)) }
	res := Result{Way: "flat", Where: "kindred", Memory: size(flat.Spec())}
	if err := o.measure(ctx, flat, true, truth, &res); err != nil {
		return nil, err
	}
	rep.Results = append(rep.Results, res)
	spec = o.spec("graph")
	spec.Engine = index.EngineHNSW
	graph, err := s.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if _, err := o.write(ctx, graph, "writing to the graph"); err != nil {
		return nil, err
	}
	if g, ok := graph.(*hnsw.Engine); ok {
		o.Progress("building the graph", 0, 0)
		if err := g.Wait(ctx); err != nil {
			return nil, err
		}
	}
	res = Result{Way: "hnsw", Where: "kindred", Build: time.Since(start).Seconds(), Memory: size(graph.Spec())}
	if err := o.measure(ctx, graph, false, truth, &res); err != nil {
		return nil, err
	}
	rep.Results = append(rep.Results, res)
	return truth, nil
}

// write stores all vectors and says how many seconds that took.
func (o *Options) write(ctx context.Context, e index.Engine, step string) (float64, error) {
	start := time.Now()
	for from := 0; from < len(o.Vectors); from += o.Batch {
		o.Progress(step, int64(from), int64(len(o.Vectors)))
		part := o.Vectors[from:min(from+o.Batch, len(o.Vectors))]
		batch := make([]index.Row, len(part))
		for i, v := range part {
			batch[i] = index.Row{ID: fmt.Sprintf("c%08d", from+i), Vector: v}
		}
		if err := e.Upsert(ctx, batch); err != nil {
			return 0, err
		}
	}
	o.Progress(step, int64(len(o.Vectors)), int64(len(o.Vectors)))
	return time.Since(start).Seconds(), nil
}

func idsOf(hits []index.Hit) []string {
	out := make([]string, len(hits))
	for i, h := range hits {
		out[i] = h.ID
	}
	return out
}

// measure asks all questions one at a time, which gives recall and times, and then many
// at once for the rate. An index that answers in one place must do so each time.
func (o *Options) measure(ctx context.Context, e index.Engine, exact bool, truth [][]string, res *Result) error {
	step := "asking " + res.Way
	query := func(i int) (index.Query, *index.Found) {
		how := &index.Found{}
		return index.Query{Vector: o.Questions[i%len(o.Questions)], Limit: o.K, Exact: exact, Found: how}, how
	}
	for i := range min(10, len(o.Questions)) { // warm
		q, _ := query(i)
		if _, err := e.Search(ctx, q); err != nil {
			return err
		}
	}
	var took []time.Duration
	found := 0
	for i := range o.Questions {
		o.Progress(step, int64(i), int64(len(o.Questions)))
		q, how := query(i)
		start := time.Now()
		hits, err := e.Search(ctx, q)
		if err != nil {
			return err
		}
		took = append(took, time.Since(start))
		if res.Where == "milvus" && how.Path != index.PathMilvusIndex {
			return fmt.Errorf("%w: a question to %s was answered by the %s: %s", index.ErrInvalid, res.Way, how.Path, how.Note)
		}
		for _, id := range idsOf(hits) {
			if slices.Contains(truth[i], id) {
				found++
			}
		}
	}
	slices.Sort(took)
	res.Recall = float64(found) / float64(len(o.Questions)*o.K)
	res.P50 = ms(took[len(took)/2])
	res.P99 = ms(took[min(len(took)*99/100, len(took)-1)])
	// A question that runs when the time is over is waited for: one that is given up costs
	// the server as much, and may end as its error.
	var next, asked atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, o.Workers)
	start := time.Now()
	for w := range o.Workers {
		group.Go(func() {
			for time.Since(start) < o.Time && errs[w] == nil {
				q, _ := query(int(next.Add(1)))
				if _, errs[w] = e.Search(ctx, q); errs[w] == nil {
					asked.Add(1)
				}
				if w == 0 {
					o.Progress(step+" many at once", min(time.Since(start), o.Time).Milliseconds(), o.Time.Milliseconds())
				}
			}
		})
	}
	group.Wait()
	res.QPS = float64(asked.Load()) / time.Since(start).Seconds()
	return errors.Join(errs...)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
