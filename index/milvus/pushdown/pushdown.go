// Package pushdown finds the best n of a whole collection inside Milvus, for any n,
// though Milvus gives at most 16,384 rows of one search.
//
// It is the scan of package index/milvus when the population does not fit the
// machine that asks; where it does, package mirror is faster and knows all heads.
//
// # How
//
// Every row carries a hash of its id, a number below 2^31, in a field. A bucket is a
// range of that number, and B buckets are B equal ranges, so that doubling B splits
// each in two, and one bucket can be split alone.
//
//  1. The rows of one small bucket are a sample: their scores say where the n-th best
//     of everyone lies, and a threshold is set a little below.
//  2. Each bucket is asked for its rows above the threshold. One that comes back full
//     may have been cut off: it is split, and asked again, until none is.
//  3. The answers are counted. If they are too few, the threshold goes down, and only
//     the rows between the new one and the old are asked for.
//  4. The n best are taken. A server's sums of products differ in their last bits from
//     ours, so rows within that error of the n-th are fetched and scored here.
//
// The caller holds the audience and a few rows more, never the population.
//
// # Exactness
//
// With an index that misses nothing (FLAT) the members are those that a scan in fp32
// finds; Result.Exact says whether that is so. Milvus has no snapshot over many
// searches: rows written meanwhile are seen or not, and Result.Changed says that the
// number of rows changed. The first count waits until the server has caught up with
// every write; the searches then ask for what this client wrote, without waiting each.
package pushdown

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/rows"
)

// HashSpan is one more than the greatest hash.
const HashSpan = int64(1) << 31

// Hash is what the hash field of a row holds: the upper 31 bits of a 64-bit hash of
// its id, [0, HashSpan). It never changes between versions.
func Hash(id string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	// FNV's upper bits move little with the last bytes; one multiplication mixes them.
	x := h.Sum64()
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return int64(x >> 33)
}

// Source is where the rows are. The vectors are unit length (or zero), and the index
// measures by inner product.
type Source struct {
	Client     *client.Client
	Collection string
	Key        string // the key field, a string
	Vector     string
	Hash       string // the field that holds Hash of the key
	Dim        int
	Exact      bool           // whether the index misses nothing
	Params     map[string]any // of the index's searches, such as nprobe
	Parallel   int            // searches at once; 0 is 4
	Limit      int            // most rows of one search; 0 is Milvus's; less is for tests
	Sample     int            // rows of the sample; 0 is 4,096
	// Consistency is of the first count, and so of all that follows: Strong (the zero
	// value) waits until the server has caught up with everyone, Session with what this
	// client wrote.
	Consistency client.Consistency
}

// Request asks for the Size best rows by Head, among those that Filter (an expression
// of Milvus; "": all) selects. The head has a vector, and perhaps a bias; no tables
// and no trees, which Milvus cannot score.
type Request struct {
	Head   index.Head
	Size   int
	Filter string
	// Keep, where given, says by id who of these may be on the list: what cannot be said
	// in an expression. It is called from one goroutine at a time. Those who may not
	// come over the line too, so a Filter that leaves few of them makes it cheap.
	Keep     func(id string) bool
	Eligible int64 // with Keep: how many it holds for, about
	// Progress, where given, hears how many of the buckets are done, from one goroutine
	// at a time. The total grows where buckets are split.
	Progress func(done, total int)
}

// Result is the answer.
type Result struct {
	Hits      []index.Hit // best first, of equal scores the smaller id
	Matched   int64       // rows that the filter selects, counted before
	Exact     bool        // the members are those of an exact scan in fp32
	Changed   bool        // the number of rows changed meanwhile
	Threshold float32     // the last one used, without the bias; the least finite number for none
	Searches  int         // all that were made
	Splits    int         // buckets that were full
	Rescored  int         // rows at the border that were fetched
}

// Path is how answers of this package are named.
const Path = "push-down"

type scan struct {
	Source
	req    Request
	unit   float32 // length of the head's vector: no score is beyond it
	margin float32 // how far two sums of the same products may be apart

	mu       sync.Mutex
	found    []index.Hit
	searches int
	splits   int
	done     int
	total    int
}

// Best runs a request. Errors are the client's; ErrInvalid where the head cannot be
// pushed down.
func Best(ctx context.Context, src Source, req Request) (Result, error) {
	s := &scan{Source: src, req: req}
	if s.Parallel <= 0 {
		s.Parallel = 4
	}
	if s.Limit <= 0 || s.Limit > client.MaxResults {
		s.Limit = client.MaxResults
	}
	if s.Sample <= 0 {
		s.Sample = 4096
	}
	if err := s.check(); err != nil {
		return Result{}, err
	}
	sum := 0.0
	for _, x := range req.Head.Vector {
		sum += float64(x) * float64(x)
	}
	s.unit = float32(math.Sqrt(sum))
	// A sum of n products in any order is within n*2^-24 of the true one, relative to
	// the sum of their sizes, which is at most the lengths' product. Two such sums, and
	// the bias added to each.
	s.margin = 2 * (float32(s.Dim)*s.unit + abs(req.Head.Bias) + s.unit) * 0x1p-24

	matched, err := s.count(ctx, s.Consistency)
	if err != nil {
		return Result{}, err
	}
	out := Result{Matched: matched, Exact: src.Exact}
	if matched > 0 {
		if err := s.collect(ctx, int(min(int64(req.Size), matched)), matched, &out); err != nil {
			return Result{}, err
		}
	}
	after, err := s.count(ctx, client.Session)
	if err != nil {
		return Result{}, err
	}
	out.Changed = after != matched
	out.Searches, out.Splits = s.searches, s.splits
	return out, nil
}

func (s *scan) check() error {
	h := &s.req.Head
	switch {
	case s.req.Size < 1:
		return fmt.Errorf("%w: an audience of %d; ask for one at least", index.ErrInvalid, s.req.Size)
	case len(h.Tables) > 0 || len(h.Trees) > 0:
		return fmt.Errorf("%w: a head with tables or trees cannot be pushed down into Milvus; use the mirror", index.ErrInvalid)
	case len(h.Vector) != s.Dim:
		return fmt.Errorf("%w: the head has %d dimensions, and the collection %d", index.ErrInvalid, len(h.Vector), s.Dim)
	}
	for _, f := range []string{s.Key, s.Vector, s.Hash} {
		if !client.ValidName(f) {
			return fmt.Errorf("%w: %q is no name of a field", index.ErrInvalid, f)
		}
	}
	return nil
}

func (s *scan) count(ctx context.Context, k client.Consistency) (int64, error) {
	return s.Client.Count(ctx, s.Collection, s.req.Filter, k)
}

// bucket is the hashes from lo to hi-1.
type bucket struct{ lo, hi int64 }

func (b bucket) expr(field, filter string) string {
	e := ""
	if b.lo > 0 {
		e = fmt.Sprintf("%s >= %d", field, b.lo)
	}
	if b.hi < HashSpan {
		if e != "" {
			e += " and "
		}
		e += fmt.Sprintf("%s < %d", field, b.hi)
	}
	switch {
	case e == "":
		return filter
	case filter == "":
		return e
	}
	return "(" + filter + ") and " + e
}

// split cuts the hashes into 2^k equal buckets.
func split(k int) []bucket {
	out := make([]bucket, 1<<k)
	step := HashSpan >> k
	for i := range out {
		out[i] = bucket{int64(i) * step, int64(i+1) * step}
	}
	return out
}

// floor is below every score.
func (s *scan) floor() float32 { return -1.01*s.unit - 1 }

// collect fills out with the n best.
func (s *scan) collect(ctx context.Context, n int, matched int64, out *Result) error {
	all, sample, err := s.sample(ctx, matched)
	if err != nil {
		return err
	}
	m := float64(len(sample))
	eligible := matched
	if s.req.Keep != nil {
		eligible = min(max(s.req.Eligible, int64(n)), matched)
	}
	rank := float64(n) / float64(eligible) * m
	at := 0.0 // of a sample of nobody: everyone is asked for
	if m > 0 {
		at = rank + 3*math.Sqrt(max(rank*(1-rank/m), 1)) + 3
	}
	// above is where the last round stopped; nothing is above the first.
	var above *float32
	for {
		t := s.floor()
		if i := int(at); i < len(sample) {
			t = sample[i]
		}
		if above == nil || t < *above {
			// Who may not be on the list comes back too.
			beyond, _ := slices.BinarySearchFunc(all, t, func(x, t float32) int { return cmp.Compare(t, x) })
			expect := float64(beyond+1) * float64(matched) / float64(max(len(all), 1))
			if err := s.round(ctx, t, above, expect); err != nil {
				return err
			}
		}
		out.Threshold = t
		if t == s.floor() {
			break
		}
		if len(s.found) >= n {
			rank := slices.SortedFunc(slices.Values(scores(s.found)), func(a, b float32) int { return cmp.Compare(b, a) })
			if rank[n-1]-s.margin > t {
				break
			}
		}
		above = &t
		at = at*1.5 + 16
	}
	return s.choose(ctx, n, out)
}

func scores(hits []index.Hit) []float32 {
	out := make([]float32, len(hits))
	for i, h := range hits {
		out[i] = h.Score
	}
	return out
}

// sample returns the scores, best first, of the rows of a small bucket, and those of who
// may be on the list.
func (s *scan) sample(ctx context.Context, matched int64) (all, kept []float32, err error) {
	b := bucket{0, HashSpan}
	if want := int64(min(s.Sample, s.Limit/2)); matched > want {
		b.hi = max(int64(float64(HashSpan)/float64(matched)*float64(want)), 1)
	}
	for {
		h, err := s.search(ctx, b, nil, nil)
		if err != nil {
			return nil, nil, err
		}
		if h.Len() < s.Limit || b.hi <= 1 {
			for i, id := range h.IDs {
				if s.req.Keep == nil || s.req.Keep(id) {
					kept = append(kept, h.Scores[i])
				}
			}
			return h.Scores, kept, nil
		}
		b.hi /= 2 // fuller than a hash should make it: half will do
	}
}

// round asks every bucket for its rows above t and, where that is given, not above
// the last round's threshold.
func (s *scan) round(ctx context.Context, t float32, above *float32, expect float64) error {
	// Buckets as small as to come back two thirds full at most.
	k := max(bits.Len(uint(math.Ceil(expect*1.5/float64(s.Limit))))-1, 0)
	if float64(s.Limit)*float64(int(1)<<k) < expect*1.5 {
		k++
	}
	todo := split(min(k, 20))
	s.done, s.total = 0, len(todo)
	for len(todo) > 0 {
		var again []bucket
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(s.Parallel)
		for _, b := range todo {
			g.Go(func() error {
				h, err := s.search(ctx, b, &t, above)
				if err != nil {
					return err
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if h.Len() >= s.Limit {
					// It may have been cut off. Nothing of it is used.
					if b.hi-b.lo < 2 {
						return fmt.Errorf("%w: more than %d rows share one hash in the field %q of %s: fill it with pushdown.Hash of the id", index.ErrInvalid, s.Limit, s.Hash, s.Collection)
					}
					mid := b.lo + (b.hi-b.lo)/2
					again = append(again, bucket{b.lo, mid}, bucket{mid, b.hi})
					s.splits++
					s.total += 2
				} else {
					for i, id := range h.IDs {
						if s.req.Keep != nil && !s.req.Keep(id) {
							continue
						}
						s.found = append(s.found, index.Hit{ID: id, Score: h.Scores[i]})
					}
				}
				s.done++
				if s.req.Progress != nil {
					s.req.Progress(s.done, s.total)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		todo = again
	}
	return nil
}

func (s *scan) search(ctx context.Context, b bucket, t, above *float32) (client.Hits, error) {
	q := client.SearchRequest{
		Collection: s.Collection, Field: s.Vector, Vectors: s.req.Head.Vector, Dim: s.Dim, Metric: client.IP,
		Limit: s.Limit, Expr: b.expr(s.Hash, s.req.Filter), Params: s.Params, Consistency: client.Session,
	}
	if t != nil {
		x := float64(*t)
		q.Radius = &x
	}
	if above != nil {
		x := float64(*above)
		q.RangeFilter = &x
	}
	s.mu.Lock()
	s.searches++
	s.mu.Unlock()
	h, err := s.Client.Search(ctx, q)
	if err != nil {
		return client.Hits{}, err
	}
	return h[0], nil
}

// choose takes the n best of what was found.
func (s *scan) choose(ctx context.Context, n int, out *Result) error {
	hits := s.found
	sortHits(hits)
	// A row that was written between two rounds can have been found in both.
	seen := make(map[string]bool, len(hits))
	hits = slices.DeleteFunc(hits, func(h index.Hit) bool {
		twice := seen[h.ID]
		seen[h.ID] = true
		return twice
	})
	for i := range hits {
		hits[i].Score += s.req.Head.Bias
	}
	n = min(n, len(hits))
	if n == 0 {
		return nil
	}
	cut := hits[n-1].Score
	from, _ := slices.BinarySearchFunc(hits, cut+s.margin, func(h index.Hit, x float32) int { return cmp.Compare(x, h.Score) })
	to, _ := slices.BinarySearchFunc(hits, cut-s.margin, func(h index.Hit, x float32) int {
		if h.Score < x {
			return 0
		}
		return -1
	})
	if to > n { // the border has rows on both sides
		if err := s.rescore(ctx, hits[from:to]); err != nil {
			return err
		}
		out.Rescored = to - from
		sortHits(hits[from:to])
		n = min(n, len(hits))
	}
	out.Hits = hits[:n:n]
	sortHits(out.Hits)
	return nil
}

func sortHits(hits []index.Hit) {
	slices.SortFunc(hits, func(a, b index.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
	})
}

// fetch is how many rows' vectors are asked for at once.
const fetch = 1000

// rescore replaces scores by those of the scan that engines in this process use.
func (s *scan) rescore(ctx context.Context, hits []index.Hit) error {
	table := rows.New(index.Spec{Name: "border", Dim: s.Dim, Precision: index.Fp32}, rows.Options{})
	for part := range slices.Chunk(hits, fetch) {
		ids := make([]string, len(part))
		for i, h := range part {
			ids[i] = h.ID
		}
		expr, err := client.InStrings(s.Key, ids)
		if err != nil {
			return fmt.Errorf("%w: %w", index.ErrInvalid, err)
		}
		b, err := s.Client.Query(ctx, client.QueryRequest{
			Collection: s.Collection, Expr: expr, Fields: []string{s.Key, s.Vector}, Consistency: client.Session,
		})
		if err != nil {
			return err
		}
		batch := make([]rows.Prepared, b.Rows)
		keys, vecs := b.Column(s.Key), b.Column(s.Vector)
		for i := range batch {
			// As it is: made unit length again, it could differ in its last bit.
			batch[i] = rows.Prepared{ID: keys.Strings[i], Vec: rows.Vector{Full: vecs.Vectors[i*s.Dim : (i+1)*s.Dim]}}
		}
		if err := table.Apply(batch, 0); err != nil {
			return err
		}
	}
	view := table.Snapshot()
	if view.Len() == 0 {
		return nil // all were deleted meanwhile
	}
	head := index.Head{Vector: s.req.Head.Vector, Bias: s.req.Head.Bias}
	got, err := view.Scan(ctx, index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{head}}}})
	if err != nil {
		return err
	}
	for i := range hits {
		if row, ok := view.Find(hits[i].ID); ok { // one deleted meanwhile keeps what it had
			hits[i].Score = got[0][row]
		}
	}
	return nil
}

func abs(x float32) float32 { return max(x, -x) }
