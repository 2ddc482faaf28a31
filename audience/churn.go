package audience

import (
	"cmp"
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// Incumbent is the list that a refresh replaces.
type Incumbent struct {
	IDs     []string
	Churn   float64   // most members replaced, as a share of IDs; 1: any
	Control *Holdback // kept, so that nobody changes sides
}

// Churn is how a refresh changed the list. A member is replaced when somebody
// leaves and somebody else takes the place; a list that is asked to grow or to
// shrink does so besides.
type Churn struct {
	Was     int `json:"was"`     // members before
	Kept    int `json:"kept"`    // before and now
	Entered int `json:"entered"` // now and not before
	Left    int `json:"left"`    // before and not now
	Gone    int `json:"gone"`    // of who left: may not be a member any more (deleted, filtered out, excluded)
	Wanted  int `json:"wanted"`  // replacements if nothing held them back
	Allowed int `json:"allowed"` // replacements that the budget allows
	// Retained are members who would have left and stay because the budget is
	// spent: the best of them by today's score.
	Retained int `json:"retained"`
}

// retain chooses a refreshed list's rows: the asked ones, as far as the budget of
// churn lets members be replaced. Who may not be a member any more leaves in any
// case, and counts. Both lists are in order of score, best first, ties by id.
func (b *build) retain(scores []float32, rows []uint32) ([]uint32, error) {
	old := b.pop.Incumbent
	if old == nil {
		return rows, nil
	}
	if old.Churn < 1 && b.req.Fairness != nil {
		return nil, fmt.Errorf("refresh.churn: not together with fairness: members who are kept would undo its bound: %w", index.ErrInvalid)
	}
	was := roaring.New() // members before who may be members still
	for _, id := range old.IDs {
		if row, ok := b.pop.Snap.Find(id); ok && b.r.eligible.Contains(row) {
			was.Add(row)
		}
	}
	asked := roaring.BitmapOf(rows...)
	n, before, still := len(rows), len(old.IDs), int(was.GetCardinality())
	common := int(was.AndCardinality(asked))
	c := &Churn{Was: before, Gone: before - still, Allowed: int(math.Floor(old.Churn*float64(before) + 1e-9))}
	c.Wanted = min(n-common, before-common)
	keep := common
	if c.Wanted > c.Allowed {
		// On a list that shrinks the entering are the replacements, on one that
		// grows the leaving.
		keep = min(min(n, before)-c.Allowed, still)
		keep = max(keep, common)
	}
	if keep > common {
		stay := roaring.AndNot(was, asked)
		rows = append(b.best(scores, roaring.And(was, asked), common), b.best(scores, stay, keep-common)...)
		rows = append(rows, b.best(scores, roaring.AndNot(asked, was), n-keep)...)
		rows = b.best(scores, roaring.BitmapOf(rows...), n)
	}
	c.Kept, c.Entered, c.Left, c.Retained = keep, n-keep, before-keep, keep-common
	b.res.Churn = c
	return rows, nil
}

// best are the k best rows of a set, best first, ties by id.
func (b *build) best(scores []float32, of *roaring.Bitmap, k int) []uint32 {
	some := make([]float32, len(scores))
	for i := range some {
		some[i] = float32(math.Inf(-1))
	}
	for it := of.Iterator(); it.HasNext(); {
		row := it.Next()
		some[row] = scores[row]
	}
	return selection.Select(some, min(k, int(of.GetCardinality())), selection.Options{Tie: func(x, y uint32) int {
		return cmp.Compare(b.pop.Snap.ID(x), b.pop.Snap.ID(y))
	}})
}

// holdBack draws the control group, or keeps that of the list that is refreshed.
func (b *build) holdBack(rows []uint32) error {
	old := b.pop.Incumbent
	if old != nil && old.Control != nil {
		kept := *old.Control
		kept.Members = 0
		b.res.Manifest.Control = &kept
	} else if b.req.Control != nil {
		ids := make([]string, len(rows))
		for i, row := range rows {
			ids[i] = b.pop.Snap.ID(row)
		}
		var err error
		if b.res.Manifest.Control, err = HoldBack(b.req.Control, b.req.Name, b.req.Seed, ids); err != nil {
			return err
		}
	}
	h := b.res.Manifest.Control
	if h == nil {
		return nil
	}
	h.Members = 0
	for i := range b.res.Members {
		if m := &b.res.Members[i]; h.Holds(m.ID) {
			m.Control = true
			h.Members++
		}
	}
	return nil
}
