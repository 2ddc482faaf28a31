package collection

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// Lists of any size are compared as bitmaps of row numbers: a bit a member. Who
// is on a list and no customer any more gets a number above the rows'.

// numbering gives ids numbers, the same for all lists of one comparison.
type numbering struct {
	snap  index.Snapshot
	gone  map[string]uint32
	names []string // of gone, from snap.Len() on
}

func (n *numbering) number(id string) uint32 {
	if row, ok := n.snap.Find(id); ok {
		return row
	}
	row, ok := n.gone[id]
	if !ok {
		row = uint32(n.snap.Len() + len(n.names))
		n.gone[id], n.names = row, append(n.names, id)
	}
	return row
}

func (n *numbering) id(row uint32) string {
	if at := int(row) - n.snap.Len(); at >= 0 {
		return n.names[at]
	}
	return n.snap.ID(row)
}

// numbered is one list: its members by rank and as a set.
type numbered struct {
	info  AudienceInfo
	order []uint32
	set   *roaring.Bitmap
}

// numberedList reads a list page by page; visit, where given, sees each member.
func (s *Service) numberedList(ctx context.Context, coll string, info *AudienceInfo, n *numbering, visit func(row uint32, m *audience.Member)) (numbered, error) {
	out := numbered{info: *info, order: make([]uint32, 0, info.Size), set: roaring.New()}
	for page := 0; page*pageSize < info.Size; page++ {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		members, err := s.membersPage(coll, info, page)
		if err != nil {
			return out, err
		}
		for i := range members {
			row := n.number(members[i].ID)
			out.order = append(out.order, row)
			if visit != nil {
				visit(row, &members[i])
			}
		}
	}
	out.set.AddMany(out.order)
	return out, nil
}

// ListRef names a version of an audience's list; 0 is the one that counts.
type ListRef struct {
	Audience string `json:"audience"`
	Version  int    `json:"version"`
}

// ComparedList is a list as it was compared.
type ComparedList struct {
	ListRef
	Size  int       `json:"size"` // members, less those erased since
	Built time.Time `json:"built,omitzero"`
}

// The sides of a Diff.
const (
	ShowEntered = "entered"
	ShowLeft    = "left"
	ShowKept    = "kept"
)

// DiffRequest compares two lists of a collection.
type DiffRequest struct {
	From, To ListRef
	Show     string // whose ids to list: "entered", "left", "kept"; "": nobody's
	After    string // ids greater than this
	Limit    int
}

// Diff is how one list differs from another.
type Diff struct {
	From    ComparedList `json:"from"`
	To      ComparedList `json:"to"`
	Entered int          `json:"entered"` // in to and not in from
	Left    int          `json:"left"`    // in from and not in to
	Kept    int          `json:"kept"`    // in both
	Jaccard float64      `json:"jaccard"` // kept over all
	// RankCorrelation is Spearman's of those who are in both; absent below two.
	RankCorrelation *float64 `json:"rank_correlation,omitempty"`
	IDs             []string `json:"ids"` // of the side asked for, in order of id, without who is suppressed now
	Next            string   `json:"next,omitempty"`
}

// Diff compares two lists. Without a To, it is the list that counts; without a
// From, the version before To.
func (s *Service) Diff(ctx context.Context, coll string, req DiffRequest) (*Diff, error) {
	if !slices.Contains([]string{"", ShowEntered, ShowLeft, ShowKept}, req.Show) {
		return nil, faultf("show", "%q: want entered, left or kept", req.Show)
	}
	to, err := s.at(coll, req.To.Audience, req.To.Version)
	if err != nil {
		return nil, err
	}
	if req.From.Audience == req.To.Audience && req.From.Version == 0 {
		if req.From.Version = to.version() - 1; req.From.Version < 1 {
			return nil, faultf("with", "this is the first version of %q: name another audience to compare it with", to.Name)
		}
	}
	from, err := s.at(coll, req.From.Audience, req.From.Version)
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshot(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	n := &numbering{snap: snap, gone: map[string]uint32{}}
	a, err := s.numberedList(ctx, coll, &from, n, nil)
	if err != nil {
		return nil, err
	}
	b, err := s.numberedList(ctx, coll, &to, n, nil)
	if err != nil {
		return nil, err
	}
	kept := roaring.And(a.set, b.set)
	out := &Diff{From: a.listed(), To: b.listed(), Kept: int(kept.GetCardinality()), IDs: []string{}}
	out.Entered, out.Left = len(b.order)-out.Kept, len(a.order)-out.Kept
	out.Jaccard = jaccard(len(a.order), len(b.order), out.Kept)
	out.RankCorrelation = spearman(a.order, b.order, kept)
	if req.Show == "" {
		return out, nil
	}
	side := map[string]*roaring.Bitmap{ShowEntered: roaring.AndNot(b.set, a.set), ShowLeft: roaring.AndNot(a.set, b.set), ShowKept: kept}[req.Show]
	of := req.To.Audience
	if req.Show == ShowLeft {
		of = req.From.Audience
	}
	off, err := s.suppressedFrom(coll, of)
	if err != nil {
		return nil, err
	}
	if off != nil {
		shown := roaring.New()
		for it := side.Iterator(); it.HasNext(); {
			if row := it.Next(); !off(n.id(row)) {
				shown.Add(row)
			}
		}
		side = shown
	}
	limit := max(1, req.Limit)
	out.IDs = smallest(n, side, req.After, limit+1)
	if len(out.IDs) > limit {
		out.IDs = out.IDs[:limit]
		out.Next = out.IDs[limit-1]
	}
	return out, nil
}

func (l *numbered) listed() ComparedList {
	return ComparedList{ListRef{l.info.Name, l.info.version()}, len(l.order), l.info.Built}
}

// jaccard is the intersection over the union; two empty lists are the same.
func jaccard(a, b, both int) float64 {
	if a+b == 0 {
		return 1
	}
	return float64(both) / float64(a+b-both)
}

// smallest are the k smallest ids of a set above after, in order. It holds no
// more than 2k at a time.
func smallest(n *numbering, of *roaring.Bitmap, after string, k int) []string {
	out := []string{}
	cut := func() {
		slices.Sort(out)
		out = out[:min(k, len(out))]
	}
	for it := of.Iterator(); it.HasNext(); {
		id := n.id(it.Next())
		if id <= after {
			continue
		}
		if out = append(out, strings.Clone(id)); len(out) == 2*k {
			cut()
		}
	}
	cut()
	return out
}

// spearman is the rank correlation of two orders on the members of both. Ranks
// are places among those, so there are no ties.
func spearman(a, b []uint32, both *roaring.Bitmap) *float64 {
	m := both.GetCardinality()
	if m < 2 {
		return nil
	}
	place := make([]uint32, both.Maximum()+1)
	at := uint32(0)
	for _, row := range a {
		if both.Contains(row) {
			place[row], at = at, at+1
		}
	}
	at = 0
	sum := 0.0
	for _, row := range b {
		if both.Contains(row) {
			d := float64(at) - float64(place[row])
			sum, at = sum+d*d, at+1
		}
	}
	n := float64(m)
	rho := 1 - 6*sum/(n*(n*n-1))
	return &rho
}

// Overlap is how much the lists of several audiences have in common: row i,
// column j.
type Overlap struct {
	Audiences []ComparedList `json:"audiences"`
	Counts    [][]int        `json:"counts"`  // members of both
	Jaccard   [][]float64    `json:"jaccard"` // over members of either
	Shares    [][]float64    `json:"shares"`  // of row i's members, those in column j's list
	Union     int            `json:"union"`   // members of any
	Common    int            `json:"common"`  // members of all
}

// maxCompared is how many audiences are compared or combined at a time.
const maxCompared = 64

// Overlap compares the lists of 2 to 64 audiences.
func (s *Service) Overlap(ctx context.Context, coll string, names []string) (*Overlap, error) {
	if err := checkNames(names); err != nil {
		return nil, err
	}
	snap, err := s.snapshot(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	n := &numbering{snap: snap, gone: map[string]uint32{}}
	out := &Overlap{}
	sets := make([]*roaring.Bitmap, len(names))
	for i, name := range names {
		info, err := s.finished(coll, name)
		if err != nil {
			return nil, err
		}
		l, err := s.numberedList(ctx, coll, &info, n, nil)
		if err != nil {
			return nil, err
		}
		l.set.RunOptimize()
		sets[i], out.Audiences = l.set, append(out.Audiences, l.listed())
	}
	for i, a := range sets {
		counts, jac, shares := make([]int, len(sets)), make([]float64, len(sets)), make([]float64, len(sets))
		for j, b := range sets {
			counts[j] = int(a.AndCardinality(b))
			jac[j] = jaccard(out.Audiences[i].Size, out.Audiences[j].Size, counts[j])
			if out.Audiences[i].Size > 0 {
				shares[j] = float64(counts[j]) / float64(out.Audiences[i].Size)
			}
		}
		out.Counts, out.Jaccard, out.Shares = append(out.Counts, counts), append(out.Jaccard, jac), append(out.Shares, shares)
	}
	out.Union = int(roaring.FastOr(sets...).GetCardinality())
	out.Common = int(roaring.FastAnd(sets...).GetCardinality())
	return out, nil
}

func checkNames(names []string) error {
	if len(names) < 2 || len(names) > maxCompared {
		return faultf("audiences", "%d names: want 2 to %d", len(names), maxCompared)
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return faultf("audiences", "%q is named twice", name)
		}
	}
	return nil
}
