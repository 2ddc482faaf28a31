package audience

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// Outside is a server that keeps the customers, for a population that is a copy of its.
type Outside struct {
	// Here says how a scan of the copy is made, and what is to be known about it.
	Here func() Scanned
	// Best finds a list on the server; nil: lists are always made here.
	Best func(ctx context.Context, list OutsideList) ([]index.Hit, Scanned, error)
	// Always refuses a list that the server cannot find, which is made here otherwise.
	Always bool
}

// Scanned says how the members of a list were found.
type Scanned struct {
	Path  string `json:"path" doc:"mirror: in this process's copy of the server's customers; push-down: on the server"`
	Exact bool   `json:"exact" doc:"whether they are the best of everyone; otherwise an index that may miss some found them"`
	Note  string `json:"note,omitempty"`
}

// OutsideList asks for the Size best of those for whom Keep holds, best first, of equal
// scores the smaller id. Filter holds for all of them; Eligible is how many they are.
type OutsideList struct {
	Head     index.Head // a vector and a bias
	Size     int
	Filter   *index.Filter
	Keep     func(id string) bool
	Eligible int
	Progress func(done, total int)
}

// local is why a server that scores vectors cannot find a list; "" where it can.
func local(set *index.HeadSet) string {
	switch h := &set.Heads[0]; {
	case len(set.Heads) > 1 || set.Common != nil:
		return "the model has several heads"
	case len(h.Trees) > 0:
		return "the model has trees"
	case len(h.Tables) > 0 && slices.ContainsFunc(h.Tables, func(t []float32) bool { return len(t) > 0 }):
		return "the model looks at columns"
	case h.Vector == nil:
		return "the model does not look at texts"
	}
	return ""
}

// outside finds the members that choose has found here on the server, where there is one
// and the model is one that it can score.
func (b *build) outside(ctx context.Context, scores []float32, rows []uint32) ([]uint32, error) {
	o := b.pop.Outside
	if o == nil {
		return rows, nil
	}
	here := o.Here()
	b.res.Manifest.Scan = &here
	if o.Best == nil || len(rows) == 0 {
		return rows, nil
	}
	if why := local(&b.res.Model.Set); why != "" {
		if o.Always {
			return nil, fmt.Errorf("the list cannot be found on the server, because %s: leave columns out (features.columns: []) and take the method centroid or text, or let it be made on the copy: %w", why, index.ErrInvalid)
		}
		here.Note = joined(here.Note, "not on the server, because "+why)
		return rows, nil
	}
	hits, how, err := o.Best(ctx, OutsideList{
		Head: index.Head{Vector: b.res.Model.Set.Heads[0].Vector, Bias: b.res.Model.Set.Heads[0].Bias}, Size: len(rows), Filter: b.req.Filter,
		Keep: func(id string) bool {
			row, ok := b.pop.Snap.Find(id)
			return ok && b.r.eligible.Contains(row)
		},
		Eligible: int(b.r.eligible.GetCardinality()),
		Progress: func(done, total int) { b.progress("scoring", done, total) },
	})
	if err != nil {
		return nil, err
	}
	found := make([]uint32, len(hits))
	for i, h := range hits {
		found[i], _ = b.pop.Snap.Find(h.ID) // Keep has seen it
		if b.pop.Spec.Precision != index.Fp32 {
			scores[found[i]] = h.Score // the server's has more bits than the copy's
		}
	}
	slices.SortFunc(found, func(x, y uint32) int {
		return cmp.Or(cmp.Compare(scores[y], scores[x]), cmp.Compare(b.pop.Snap.ID(x), b.pop.Snap.ID(y)))
	})
	if len(found) < len(rows) {
		how.Note = joined(how.Note, fmt.Sprintf("%d whom the copy has were deleted on the server meanwhile", len(rows)-len(found)))
	}
	b.res.Manifest.Scan = &how
	return found, nil
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
