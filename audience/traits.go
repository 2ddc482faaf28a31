package audience

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// What packages segment and tag, which describe groups of customers as this
// one does, share with it.

// Draw returns up to n rows of a set, chosen by a hash of the id and seed and in
// order of that hash: a random sample that does not depend on row numbers.
func Draw(snap index.Rows, from *roaring.Bitmap, n int, seed uint64) []uint32 {
	return draw(snap, from, n, seed)
}

// BinsOf bins one value of a column: one bin, or a set's several, ascending.
func BinsOf(b index.Bins, v index.Value) []uint16 { return valueCodes(b, v) }

// Traits are binned columns of a population, ready to say what a group has more
// or less of than everyone.
type Traits struct {
	Bins   []index.Bins
	Codes  []profile.BinCodes
	Shares [][]float64 // of everyone by bin, smoothed; of a set, of customers that have the element
	Left   []string    // columns left out, with the reason

	everyone *roaring.Bitmap
}

// NewTraits bins the columns that want allows on everyone's values. Sensitive
// columns that are not allowed in writing, personal data and columns that are the
// same for everyone are left out. want.Text is not looked at.
func NewTraits(snap index.Rows, spec index.Spec, schema profile.Schema, want Features, everyone *roaring.Bitmap) (*Traits, error) {
	f := &features{snap: snap}
	if err := f.columns(snap, spec, schema, want, &resolved{everyone: everyone}); err != nil {
		return nil, err
	}
	return &Traits{Bins: f.bins, Codes: f.codes, Shares: f.share, Left: f.left, everyone: everyone}, nil
}

// Of returns the bins of a row in a column.
func (t *Traits) Of(column int, row uint32) []uint16 { return codesOf(t.Codes[column], row) }

// Reasons names the values that members have more or less of than everyone, as
// Result.Reasons does.
func (t *Traits) Reasons(members []uint32) []Reason {
	f := &features{bins: t.Bins, codes: t.Codes, share: t.Shares}
	return slices.Clip(f.reasons(members, t.everyone))
}
