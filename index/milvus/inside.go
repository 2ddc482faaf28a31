package milvus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/rows"
)

// Searching is where searches of vectors run.
type Searching string

// SearchAuto is SearchIndex where Options.Index misses some and a collection has one of
// its type, else SearchMirror: exact, on the copy in memory. SearchIndex asks Milvus.
const (
	SearchAuto   Searching = "auto"
	SearchMirror Searching = "mirror"
	SearchIndex  Searching = "index"
)

// Search ranks the mirror, exactly, or asks Milvus's index where that is configured. What
// Milvus cannot be asked, and everything while it is away, is answered by the mirror, and
// Found says why.
func (e *engine) Search(ctx context.Context, q index.Query) ([]index.Hit, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	view := e.m.Snapshot()
	note := ""
	if inside, why := e.inside(&q, view); inside {
		hits, found, err := e.searchInside(ctx, q, view)
		switch {
		case err == nil && hits != nil:
			q.Say(found)
			return hits, nil
		case err == nil:
			note = found.Note
		case client.Unavailable(err) && ctx.Err() == nil:
			note = "Milvus is away: " + err.Error()
		default:
			return nil, err
		}
	} else {
		note = why
	}
	if state := e.m.State(); note == "" && state.Err != nil {
		note = fmt.Sprintf("what other processes wrote since %s may be missing: %v", state.Swept.UTC().Format("15:04:05"), state.Err)
	}
	caller := q.Found
	q.Found = nil
	hits, err := view.Search(ctx, q)
	q.Found = caller
	q.Say(index.Found{Path: index.PathMirror, Exact: true, Note: note})
	return hits, err
}

// inside says whether Milvus is asked, and otherwise why not where that was expected.
func (e *engine) inside(q *index.Query, view *rows.View) (bool, string) {
	mode := e.s.opt.Search
	if mode == SearchMirror || q.Exact || q.Vector == nil || q.Limit < 1 || q.Offset < 0 || e.Spec().Dim == 0 {
		return false, ""
	}
	have := e.vectorIndex()
	if mode == SearchAuto {
		switch want := e.s.opt.Index; {
		case want.Exact():
			return false, ""
		case have.Type != want.Type:
			return false, fmt.Sprintf("the index in Milvus is %s and not %s: kindred engine index makes it so", have, want)
		}
	}
	most := have.most()
	if want := q.Limit + q.Offset + len(q.Exclude); q.Limit > most || q.Offset > most || want > most {
		return false, fmt.Sprintf("%d hits are more than the %d that %s gives", want, most, have.Type)
	}
	if len(q.Vector) != e.Spec().Dim || !slices.ContainsFunc(q.Vector, func(x float32) bool { return x != 0 }) || view.Len() == 0 {
		return false, "" // the mirror says what is wrong, or that nothing is near nothing
	}
	return true, ""
}

// spare is how many more than wanted Milvus is asked for: who was deleted a moment ago,
// or stands in Milvus and not yet in the mirror, takes a place.
func spare(want int) int { return 16 + want/8 }

// searchInside asks Milvus's index. What it names is scored here, from the vectors as the
// mirror holds them: with the same bits as an exact search, and in its order. No hits and
// no error: the mirror must answer, and Found.Note says why.
func (e *engine) searchInside(ctx context.Context, q index.Query, view *rows.View) ([]index.Hit, index.Found, error) {
	ix := e.vectorIndex()
	found := index.Found{Path: index.PathMilvusIndex, Index: ix.String(), Exact: ix.Exact()}
	expr, err := Expr(q.Filter, e.Spec().Columns)
	if errors.Is(err, ErrNotExpressed) {
		return nil, index.Found{Note: "the filter was applied here: " + err.Error()}, nil
	}
	if err != nil {
		return nil, found, err
	}
	want := q.Limit + q.Offset
	ask := min(want+len(q.Exclude)+spare(want), ix.most())
	vec, _ := rows.Unit(q.Vector)
	for len(vec) < vectorDim(len(q.Vector)) { // Milvus has no fewer
		vec = append(vec, 0)
	}
	res, err := e.s.c.Search(ctx, client.SearchRequest{
		Collection: e.coll, Field: fieldVector, Vectors: vec, Dim: len(vec), Metric: client.IP, Limit: ask,
		Expr: expr, Params: ix.params(ask, q.Effort), Consistency: client.Session,
	})
	if err != nil {
		return nil, found, err
	}
	score, err := view.Scorer(q.Vector)
	if err != nil {
		return nil, found, err
	}
	hits := make([]index.Hit, 0, res[0].Len())
	for _, id := range res[0].IDs {
		row, ok := view.Find(id)
		if !ok || slices.Contains(q.Exclude, id) {
			continue
		}
		hits = append(hits, index.Hit{ID: id, Score: min(max(score.Score(row), -1), 1)})
	}
	full := res[0].Len() >= ask // there may be more
	if full && len(hits) < want {
		return nil, index.Found{Note: fmt.Sprintf("of %d that Milvus named, %d are deleted or not yet here", res[0].Len(), res[0].Len()-len(hits))}, nil
	}
	slices.SortFunc(hits, func(a, b index.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
	})
	switch last := len(res[0].Scores) - 1; {
	case !found.Exact:
	case view.Spec().Precision != index.Fp32:
		found.Exact = false
		found.Note = fmt.Sprintf("%s finds the nearest in fp32, and this collection is scored in %s", ix.Type, view.Spec().Precision)
	// Whoever was not named is no nearer by Milvus's sums than the last who was: if the
	// last wanted is not clearly nearer, another one may belong there. The margin is that
	// of two sums of the same products.
	case full && hits[want-1].Score <= res[0].Scores[last]+4*float32(len(vec))*0x1p-24:
		found.Exact = false
		found.Note = "several are as near as the last"
	}
	return hits[min(q.Offset, len(hits)):min(want, len(hits))], found, nil
}

// vectorIndex is what the collection has in Milvus, as it was last seen.
func (e *engine) vectorIndex() VectorIndex {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.index
}

// lookAtIndex asks Milvus what the collection has; it is searched as want says, where
// that is of the same type.
func (e *engine) lookAtIndex(ctx context.Context, want VectorIndex) error {
	state, err := e.s.c.DescribeIndex(ctx, e.coll, fieldVector)
	if err != nil {
		return err
	}
	have := described(state.Type, state.Params, want)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.index = have
	return nil
}
