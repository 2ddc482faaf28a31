// Package segment finds the groups that a population falls into, without being
// told of any, and says in words what sets each apart.
//
// Flow: Discover draws a sample, places it in a Space (text and columns joined),
// chooses how many groups there are (choose.go), fits them (kmeans.go), assigns
// everyone in one scan, keeps the numbers of an earlier Model (match.go) and
// describes each group (label.go). A group's centre is an ordinary index.Head:
// whose head scores a customer best has the customer, so whoever comes later is
// assigned without another run.
//
// The same population and request give the same bytes on one kind of CPU.
package segment

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/phrases"
	"github.com/kindred-search/kindred/profile"
)

// Params asks for segments. The zero value takes all that is allowed and
// chooses their number.
type Params struct {
	K        int               `json:"k,omitempty" minimum:"0" maximum:"128" doc:"how many; 0: chosen, see choices"`
	MaxK     int               `json:"max_k,omitempty" minimum:"0" maximum:"128" doc:"the most to choose; default 24"`
	Features audience.Features `json:"features,omitzero" doc:"what to look at; sensitive columns only when allowed by name"`
	Seed     uint64            `json:"seed,omitempty" maximum:"9007199254740991" doc:"of the random draws"`
}

// Population is what segments are found in.
type Population struct {
	Snap   index.Snapshot
	Spec   index.Spec
	Schema profile.Schema
	// Texts returns what customers wrote, in order of ids, for labels. nil: labels
	// are of columns alone.
	Texts func(ctx context.Context, ids []string) ([][]string, error)
	// Before is the model of an earlier run, whose numbers are kept; nil: none.
	Before *Model
}

// Segment is one group.
type Segment struct {
	Number     int               `json:"number"` // kept from run to run while most of its customers stay together
	Label      string            `json:"label"`
	Size       int               `json:"size"`
	Share      float64           `json:"share"`      // of all customers
	Cohesion   float64           `json:"cohesion"`   // mean cosine to the centre, from everyone's centre, of a sample
	Silhouette float64           `json:"silhouette"` // mean of 1 - distance to the own centre over that to the next, of a sample
	Phrases    []phrases.Phrase  `json:"phrases"`    // that its customers write more than others
	Columns    []audience.Reason `json:"columns"`    // values that it has more or less of than everyone
	Typical    []string          `json:"typical"`    // ids of sampled customers nearest to the centre
}

// Choice is what a number of segments was chosen by.
type Choice struct {
	K          int     `json:"k"`
	Stability  float64 `json:"stability"`  // agreement of two halves of the customers, 0 by chance, 1 in full
	Silhouette float64 `json:"silhouette"` // on the half that the centres were not fitted on
	Explained  float64 `json:"explained"`  // share of the spread of that half within the whole that lies between its segments
	Chosen     bool    `json:"chosen,omitempty"`
}

// Set is a finished segmentation, in order of size, then number.
type Set struct {
	Segments  []Segment `json:"segments"`
	Choices   []Choice  `json:"choices"`
	Customers int       `json:"customers"`
	Sampled   int       `json:"sampled"` // whom the centres were fitted on
	Text      bool      `json:"text"`
	Columns   []string  `json:"columns"`
	Left      []string  `json:"left_out,omitempty"`
	Stamp     string    `json:"stamp,omitempty"` // of the vectors
	Version   uint64    `json:"version"`         // of the data
	Warnings  []string  `json:"warnings"`
}

// Model assigns any customer to a segment.
type Model struct {
	Space   *Space      `json:"space"`
	Centers [][]float32 `json:"centers"` // [segments][Space.Width]
	Numbers []int       `json:"numbers"` // of Centers
	Next    int         `json:"next"`    // the next new number
}

const (
	fitSample    = 20_000
	choiceSample = 6000
	defaultMaxK  = 24
	// MaxK is the most segments.
	MaxK = 128
	// leastPerSegment is how many customers there must be for each.
	leastPerSegment = 10
	typicals        = 5
)

// Validate reports what can be seen wrong without data.
func (r *Params) Validate() error {
	for at, v := range map[string]int{"k": r.K, "max_k": r.MaxK} {
		if v < 0 || v > MaxK || v == 1 {
			return fmt.Errorf("%s %d: want 2 to %d, or 0 to have it chosen: %w", at, v, MaxK, index.ErrInvalid)
		}
	}
	return nil
}

// Discover finds segments. progress may be nil.
func Discover(ctx context.Context, pop Population, req Params, progress func(stage string, done, total int)) (*Set, *Model, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	if progress == nil {
		progress = func(string, int, int) {}
	}
	live := pop.Snap.Live()
	n := int(live.GetCardinality())
	if least := leastPerSegment * max(2, req.K); n < least {
		return nil, nil, fmt.Errorf("%d customers are too few for segments: %d at least: %w", n, least, index.ErrInvalid)
	}
	progress("looking at columns", 0, 1)
	traits, err := audience.NewTraits(pop.Snap, pop.Spec, pop.Schema, req.Features, live)
	if err != nil {
		return nil, nil, err
	}
	rows := audience.Draw(pop.Snap, live, fitSample, req.Seed)
	space, z, err := newSpace(pop, req, traits, rows)
	if err != nil {
		return nil, nil, err
	}
	m := &matrix{data: z, rows: len(rows), cols: space.Width}
	set := &Set{
		Customers: n, Sampled: len(rows), Text: space.Dim > 0, Columns: []string{}, Warnings: []string{},
		Left: space.left, Stamp: pop.Spec.Stamp, Version: pop.Snap.Version(),
	}
	for _, b := range space.Bins {
		set.Columns = append(set.Columns, b.Column)
	}
	k, err := choose(ctx, m.head(choiceSample), req, set, progress)
	if err != nil {
		return nil, nil, err
	}
	progress("fitting", 0, 1)
	centers := fit(ctx, m, k, req.Seed, 4, 40)
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	model := &Model{Space: space, Centers: centers}
	of, _, err := model.scan(ctx, pop.Snap, live, progress)
	if err != nil {
		return nil, nil, err
	}
	if err := model.number(ctx, pop, rows, of); err != nil {
		return nil, nil, err
	}
	if err := describe(ctx, pop, traits, model, m, rows, of, set, progress); err != nil {
		return nil, nil, err
	}
	return set, model, nil
}

// heads returns the segments' heads: the best scorer of a customer is the
// nearest centre.
func (m *Model) heads() []index.HeadSet {
	out := make([]index.HeadSet, len(m.Centers))
	for i, c := range m.Centers {
		out[i] = index.HeadSet{Heads: []index.Head{m.Space.head(c)}}
	}
	return out
}

// scanHeads is how many segments are scored in one pass: a pass takes 4 bytes a
// customer and segment.
const scanHeads = 8

// scan returns the segment (an index into Centers) of every row of a mask, by row
// number, -1 for the others, and by how much its head beats the next: half of how
// much farther, squared, the next centre is. Ties go to the first.
func (m *Model) scan(ctx context.Context, snap index.Snapshot, mask *roaring.Bitmap, progress func(string, int, int)) (of []int16, margin []float32, err error) {
	n := snap.Len()
	of, margin = make([]int16, n), make([]float32, n) // the best score until the end
	second := make([]float32, n)
	for i := range of {
		of[i], second[i] = -1, -math.MaxFloat32
	}
	heads := m.heads()
	for from := 0; from < len(heads); from += scanHeads {
		to := min(from+scanHeads, len(heads))
		scores, err := snap.Scan(ctx, index.ScanRequest{Bins: m.Space.Bins, Sets: heads[from:to], Mask: mask})
		if err != nil {
			return nil, nil, err
		}
		for it := mask.Iterator(); it.HasNext(); {
			row := it.Next()
			for i := range scores {
				switch s := scores[i][row]; {
				case of[row] < 0:
					of[row], margin[row] = int16(from+i), s
				case s > margin[row]:
					of[row], margin[row], second[row] = int16(from+i), s, margin[row]
				default:
					second[row] = max(second[row], s)
				}
			}
		}
		if progress != nil {
			progress("assigning", to, len(heads))
		}
	}
	for i := range margin {
		margin[i] -= second[i]
	}
	return of, margin, nil
}

// Members returns the customers of a segment within a mask, ascending by row, and
// how clearly each row of the snapshot is in its own: half of how much farther,
// squared, the next centre is.
func (m *Model) Members(ctx context.Context, snap index.Snapshot, number int, mask *roaring.Bitmap) ([]uint32, []float32, error) {
	at := slices.Index(m.Numbers, number)
	if at < 0 {
		return nil, nil, fmt.Errorf("segment %d: %w", number, index.ErrNotFound)
	}
	of, margin, err := m.scan(ctx, snap, mask, nil)
	if err != nil {
		return nil, nil, err
	}
	var out []uint32
	for it := mask.Iterator(); it.HasNext(); {
		if row := it.Next(); of[row] == int16(at) {
			out = append(out, row)
		}
	}
	return out, margin, nil
}

// Size is about how many numbers the model holds.
func (m *Model) Size() int { return len(m.Centers)*m.Space.Width + 2*m.Space.Width }

// Assign returns a customer's segment and how clearly it is that: 1 less the
// distance to its centre over the distance to the next, between 0 and 1.
func (m *Model) Assign(vector []float32, values map[string]index.Value) (number int, silhouette float64) {
	z := m.Space.Place(vector, values)
	at, near, next := nearest(z, m.Centers)
	return m.Numbers[at], clearness(near, next)
}

// nearest returns the nearest centre, the first of equals, and the squared
// distances to it and to the next.
func nearest(z []float32, centers [][]float32) (at int, near, next float64) {
	near, next = math.Inf(1), math.Inf(1)
	for i, c := range centers {
		d := 0.0
		for j, x := range z {
			e := float64(x) - float64(c[j])
			d += e * e
		}
		if d < near {
			at, near, next = i, d, near
		} else if d < next {
			next = d
		}
	}
	return at, near, next
}

func clearness(near, next float64) float64 {
	if next == 0 || math.IsInf(next, 1) {
		return 0
	}
	return 1 - math.Sqrt(near/next)
}

// Near is a segment with its likeness to what was asked for.
type Near struct {
	Number int     `json:"number"`
	Score  float64 `json:"score"` // cosine, seen from everyone's centre
}

// Center returns a segment's centre.
func (m *Model) Center(number int) ([]float32, error) {
	at := slices.Index(m.Numbers, number)
	if at < 0 {
		return nil, fmt.Errorf("segment %d: %w", number, index.ErrNotFound)
	}
	return m.Centers[at], nil
}

// Nearest ranks all segments by their likeness to a point of the space, best
// first, then by number. With textOnly the columns do not count.
func (m *Model) Nearest(z []float32, textOnly bool) []Near {
	width := m.Space.Width
	if textOnly {
		width = m.Space.Dim
	}
	out := make([]Near, len(m.Centers))
	for i, c := range m.Centers {
		out[i] = Near{Number: m.Numbers[i], Score: cosine(z[:width], c[:width], m.Space.Origin[:width])}
	}
	slices.SortFunc(out, func(a, b Near) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Number, b.Number)) })
	return out
}

// cosine of a and b as seen from an origin; 0 where one is at it.
func cosine(a, b, origin []float32) float64 {
	var ab, aa, bb float64
	for j, o := range origin {
		x, y := float64(a[j])-float64(o), float64(b[j])-float64(o)
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}
