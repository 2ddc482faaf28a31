package hnsw

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
)

// Engine is a collection with a graph. What it does not answer itself is the
// base engine's.
type Engine struct {
	index.Engine
	opt   *Options
	least int    // rows from which on there is a graph
	path  string // of the graph's file, "" for none

	graph  atomic.Pointer[graph]
	kick   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup

	// Of the goroutine that builds, and of Close after it.
	last    *rows.View // the newest view that rows were inserted from
	changed int        // rows inserted or lost since the graph was kept
	loose   int        // rows inserted since the graph was mended
	kept    time.Time

	mu     sync.Mutex
	caught uint64        // version whose rows are all dealt with
	news   chan struct{} // closed and replaced when caught changes
	broken error         // why building ended
}

var errNotRows = errors.New("hnsw: the base engine's snapshots are not views of package rows")

// Stats says how far a graph is.
type Stats struct {
	Rows    int  // live rows
	Covered int  // rows, dead ones included, that the graph has or need not have
	Ready   bool // whether searches are answered by the graph
}

// Stats returns the state of the graph.
func (e *Engine) Stats(ctx context.Context) (Stats, error) {
	v, err := e.view(ctx)
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Rows: int(v.Live().GetCardinality())}
	if g := e.graph.Load(); g != nil && v.SameRows(g.home) {
		s.Covered, s.Ready = int(g.covered.Load()), true
	}
	return s, nil
}

func (e *Engine) view(ctx context.Context) (*rows.View, error) {
	snap, err := e.Engine.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v, ok := snap.(*rows.View)
	if !ok {
		return nil, errNotRows
	}
	return v, nil
}

// Upsert stores rows; see index.Engine. The graph follows.
func (e *Engine) Upsert(ctx context.Context, batch []index.Row) error {
	err := e.Engine.Upsert(ctx, batch)
	e.wake()
	return err
}

// Delete removes ids; see index.Engine.
func (e *Engine) Delete(ctx context.Context, ids []string) (int, error) {
	n, err := e.Engine.Delete(ctx, ids)
	e.wake()
	return n, err
}

// Costs, as multiples of scoring one row in a scan under a mask.
const (
	walkRow   = 2      // one row met by a walk
	scanAlone = 50_000 // from how many rows on a scan on all cores is worth setting up
)

// Search answers by the graph where that pays. See the package's guide.
func (e *Engine) Search(ctx context.Context, q index.Query) ([]index.Hit, error) {
	g := e.graph.Load()
	if g == nil || q.Exact || q.Vector == nil || q.Limit <= 0 || q.Offset < 0 || len(q.Exclude) > 1000 {
		return e.Engine.Search(ctx, q)
	}
	v, err := e.view(ctx)
	if err != nil {
		return nil, err
	}
	if !v.SameRows(g.home) || q.Limit > v.Len() || q.Offset > v.Len() {
		return v.Search(ctx, q)
	}
	hits, err := e.search(ctx, g, v, &q)
	if hits == nil && err == nil {
		return v.Search(ctx, q)
	}
	return hits, err
}

// search returns nil where the exact search must answer, or had better.
func (e *Engine) search(ctx context.Context, g *graph, v *rows.View, q *index.Query) ([]index.Hit, error) {
	s, err := v.Scorer(q.Vector)
	if err != nil {
		return nil, err
	}
	covered := min(g.covered.Load(), uint32(v.Len()))
	live := v.Live()
	all, rest := int(live.GetCardinality()), live // rest: allowed rows
	var mask *roaring.Bitmap
	if q.Filter != nil {
		if mask, err = v.Match(q.Filter); err != nil {
			return nil, err
		}
		all, rest = int(mask.GetCardinality()), mask
	}
	var out []uint32
	for _, id := range q.Exclude {
		if row, ok := v.Find(id); ok && !slices.Contains(out, row) && rest.Contains(row) {
			out = append(out, row)
		}
	}
	want := min(q.Limit+q.Offset, all-len(out))
	if want <= 0 {
		q.Say(index.Found{Path: index.PathScan, Exact: true})
		return []index.Hit{}, nil
	}
	t := tally{view: v, score: s, out: out, want: want, least: -2}
	tail := int(rest.GetCardinality() - rest.Rank(covered-1))
	if covered == 0 {
		tail = all
	}
	effort := q.Effort
	if effort <= 0 {
		effort = e.opt.Effort
	}
	effort = max(effort, want+len(out))
	inside := all - tail
	// A walk meets about M rows for each candidate it keeps, and has to keep
	// 1/share candidates for each that is allowed.
	share := float64(inside) / float64(max(1, covered))
	walk := float64(effort*g.M*walkRow) / max(share, 1e-9)
	if !e.opt.always && walk > float64(inside) || !aimable(q.Vector) {
		if all > scanAlone || all > v.Len()/4 {
			return nil, nil
		}
		return t.exact(ctx, rest, q)
	}
	if tail > v.Len()/4 && tail > 1000 {
		return nil, nil
	}
	if tail > 0 {
		it := rest.Iterator()
		it.AdvanceIfNeeded(covered)
		for it.HasNext() {
			t.add(it.Next())
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !t.walk(g, q.Vector, mask, covered, effort, int(4*walk)+inside) {
		return nil, nil
	}
	if len(t.hits) < want {
		return nil, nil
	}
	t.sort()
	// Rows without a vector are not nodes; they score 0.
	if g.bare.Load() > 0 && t.hits[want-1].score <= 0 {
		return nil, nil
	}
	q.Say(index.Found{Path: index.PathHNSW})
	return t.page(q), nil
}

// tally collects scored rows.
type tally struct {
	view  *rows.View
	score *rows.Scorer
	out   []uint32 // excluded
	want  int      // the best so many are kept
	least float32  // what a row must score to be among them
	hits  []scored
}

type scored struct {
	score float32
	row   uint32
}

func (t *tally) add(row uint32) {
	if len(t.out) > 0 && slices.Contains(t.out, row) {
		return
	}
	x := t.score.Score(row)
	if x < t.least {
		return
	}
	t.hits = append(t.hits, scored{x, row})
	if len(t.hits) >= 4*t.want+256 {
		t.sort()
		t.least = t.hits[t.want-1].score
	}
}

// exact scores the rows of a mask.
func (t *tally) exact(ctx context.Context, mask *roaring.Bitmap, q *index.Query) ([]index.Hit, error) {
	it := mask.Iterator()
	for n := 0; it.HasNext(); n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		t.add(it.Next())
	}
	t.sort()
	q.Say(index.Found{Path: index.PathScan, Exact: true})
	return t.page(q), nil
}

// walk adds what the graph finds. It returns false when the walk gave up.
func (t *tally) walk(g *graph, vector []float32, mask *roaring.Bitmap, covered uint32, effort, budget int) bool {
	w := g.pool.Get().(*walker)
	defer g.pool.Put(w)
	tab, entry, level, ok := g.start()
	if !ok {
		return true
	}
	w.begin(tab)
	w.aim(vector)
	from := w.descend(w.keyOf(entry), level, 0)
	live := t.view.Live()
	dead := live.GetCardinality() < uint64(t.view.Len())
	allowed := func(row uint32) bool {
		return row < covered && (mask == nil || mask.Contains(row)) && (mask != nil || !dead || live.Contains(row))
	}
	var found []key
	if mask == nil && !dead {
		found = w.near(from, 0, effort)
	} else {
		one := func(row uint32) bool {
			for ; row != none; row = g.twin(row) {
				if allowed(row) {
					return true
				}
			}
			return false
		}
		if !w.nearAllowed(from, effort, budget, one) {
			return false
		}
		found = w.best
	}
	// A node whose codes say that it cannot be among the best is not scored from
	// its vector. The codes' cosine is off by 0.3 scales of either side (standard
	// deviation of rounding to whole codes), so two scales are a wide margin.
	for i, k := range found {
		if i == t.want+len(t.out) || i > t.want && i%16 == 0 {
			t.sort()
			if len(t.hits) == t.want {
				t.least = t.hits[t.want-1].score
			}
		}
		if k.sim()+2*(w.scale+tab.scale(k.row())) < t.least {
			continue
		}
		for row := k.row(); row != none; row = g.twin(row) {
			if allowed(row) {
				t.add(row)
			}
		}
	}
	return true
}

// sort orders by score, then id, and keeps the best.
func (t *tally) sort() {
	slices.SortFunc(t.hits, func(a, b scored) int {
		if a.score != b.score {
			return cmp.Compare(b.score, a.score)
		}
		return t.view.Tie(a.row, b.row)
	})
	t.hits = t.hits[:min(t.want, len(t.hits))]
}

func (t *tally) page(q *index.Query) []index.Hit {
	part := t.hits[min(q.Offset, len(t.hits)):min(q.Offset+q.Limit, len(t.hits))]
	out := make([]index.Hit, len(part))
	for i := range part {
		out[i] = index.Hit{ID: t.view.ID(part[i].row), Score: part[i].score}
	}
	return out
}

// aimable says whether a vector has a direction.
func aimable(v []float32) bool {
	for _, x := range v {
		if x != 0 {
			return true
		}
	}
	return false
}
