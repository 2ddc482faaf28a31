// Package index keeps customers' vectors and columns and answers who is near.
//
// It is the contract between what asks (package audience, package collection)
// and what stores (packages flat, memory and, later, others). A Store owns many
// collections; an Engine is one open collection; a Snapshot is one consistent
// view of it that a scan of the whole population runs on.
//
// # Score
//
// A score is a cosine in [-1, 1] or a head's logit. Higher is nearer. Equal
// scores are ordered by the smaller id, compared bytewise. NaN never enters:
// Upsert refuses vectors and numbers that are not finite. Every engine gives
// the same order.
package index

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Store owns the collections of one data directory (or one remote server).
// Methods are safe for concurrent use.
type Store interface {
	// Create makes an empty collection. ErrExists when the name is taken.
	Create(ctx context.Context, spec Spec) (Engine, error)
	// Open returns an existing collection. ErrNotFound when there is none.
	// Opening twice returns the same Engine.
	Open(ctx context.Context, name string) (Engine, error)
	// Alter adds columns to a collection; it never removes or retypes one.
	Alter(ctx context.Context, name string, add []Column) error
	// Drop deletes the collection and everything in it.
	Drop(ctx context.Context, name string) error
	// List returns the specs in order of name.
	List(ctx context.Context) ([]Spec, error)
	// Close flushes and releases. Engines and snapshots are unusable after it.
	Close() error
}

// Pointer is a Store on a server that others read too. Point shows the collection held
// there under the name that people know, in place of what was shown before.
type Pointer interface {
	Point(ctx context.Context, name, held string) error
}

// Engine is one open collection. Methods are safe for concurrent use.
type Engine interface {
	Spec() Spec
	// Upsert stores rows, all or none. When it returns nil, the rows survive
	// kill -9 (on durable stores) and the next Search sees them. The engine
	// keeps no reference to rows after it returns. All faults of the batch are
	// reported together, as *RowError values joined.
	Upsert(ctx context.Context, rows []Row) error
	// Delete removes ids and returns how many existed.
	Delete(ctx context.Context, ids []string) (int, error)
	// Get returns one entry per id, nil where absent, all of one state: that
	// which a Search begun at the same time sees, or a later one. The caller
	// owns them.
	Get(ctx context.Context, ids []string) ([]*Row, error)
	// Search returns the best Limit rows after Offset, ordered by score
	// descending, then id.
	Search(ctx context.Context, q Query) ([]Hit, error)
	// Snapshot returns a consistent view. Close it when done.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Rows reads a snapshot's data. Row numbers run from 0 to Len()-1, are stable
// for the life of the snapshot, and may include dead rows; only rows in Live
// count.
type Rows interface {
	Len() int
	// Live is the set of current rows. The caller must not change it.
	Live() *roaring.Bitmap
	ID(row uint32) string
	// Find returns the live row of an id.
	Find(id string) (row uint32, ok bool)
	// Vectors copies the stored (dequantised) vectors of rows into dst,
	// [len(rows), dim] row-major. A row without a vector is all zeros.
	Vectors(rows []uint32, dst []float32) error
	// Column returns a copy of one column, indexed by row number.
	Column(name string) (ColumnData, error)
}

// LiveIDs are the ids of the live rows, ascending.
func LiveIDs(r Rows) []string {
	out := make([]string, 0, r.Live().GetCardinality())
	for it := r.Live().Iterator(); it.HasNext(); {
		out = append(out, r.ID(it.Next()))
	}
	slices.Sort(out)
	return out
}

// Scanner scores a snapshot.
type Scanner interface {
	// Match returns the live rows that satisfy the filter (nil: all live).
	// The caller owns the result.
	Match(f *Filter) (*roaring.Bitmap, error)
	// Scan scores every row of req.Mask with every head set in one pass over
	// memory; a set's scores are the same bytes alone and beside others. Result:
	// one slice per set, [Len()], row by row; rows outside the mask hold -Inf,
	// the others a finite number. The caller owns the result. When ctx ends, so
	// does the scan, within a few thousand rows, with its error.
	Scan(ctx context.Context, req ScanRequest) ([][]float32, error)
	// Best returns the best rows of every set, by score descending, then id: those
	// that would be chosen from what Scan returns, with the same scores, in one pass
	// over memory and without room for everyone's scores. A list is as long as asked,
	// or holds all who are in the mask and allowed. The caller owns the result.
	Best(ctx context.Context, req BestRequest) ([]Ranked, error)
	// Version changes whenever the collection's content does.
	Version() uint64
	// Close releases the view. Safe to call twice.
	Close() error
}

// Snapshot is one consistent view of a collection. Safe for concurrent use.
type Snapshot interface {
	Rows
	Scanner
}

// Precision is how vectors are held for scanning.
type Precision string

// Int8 holds one signed byte per dimension and a scale per row; Fp16 and Fp32
// hold IEEE floats; Binary holds the sign of each number of the unit vector as
// one bit, which stands for +1/sqrt(dim) (zero included) or -1/sqrt(dim). Int8
// and Binary scores are integer sums, so they are the same bit for bit on every
// CPU.
//
// Binary is an eighth of Int8 and loses order: package rows says how much.
const (
	Int8   Precision = "int8"
	Fp16   Precision = "fp16"
	Fp32   Precision = "fp32"
	Binary Precision = "binary"
)

// Kind is the type of a column.
type Kind string

// The kinds of column. A Time is held as seconds since 1970 UTC, a Bool as 0
// or 1, both as numbers; a Set is a list of categories.
const (
	Number   Kind = "number"
	Category Kind = "category"
	Set      Kind = "set"
	Bool     Kind = "bool"
	Time     Kind = "time"
)

// Numeric says whether values of this kind are held as numbers.
func (k Kind) Numeric() bool { return k == Number || k == Bool || k == Time }

// Column is one structured attribute of the rows.
type Column struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
}

// Spec describes a collection.
type Spec struct {
	Name      string    `json:"name"`      // see ValidName
	Dim       int       `json:"dim"`       // 0: no vectors
	Precision Precision `json:"precision"` // "" means Int8
	Columns   []Column  `json:"columns"`
	Stamp     string    `json:"stamp"` // what made the vectors; one per collection
	// Engine is how Search finds rows, on stores that know more than one way.
	Engine EngineKind `json:"engine,omitempty"` // "" means EngineFlat
}

// EngineKind is how Search finds rows. Scans, filters and counts are exact in any.
type EngineKind string

// EngineFlat scores every row. EngineHNSW walks a graph over the rows and may
// miss some. EngineAuto is flat while a collection is small and HNSW from then on.
const (
	EngineFlat EngineKind = "flat"
	EngineHNSW EngineKind = "hnsw"
	EngineAuto EngineKind = "auto"
)

// Value is one column's value. The zero Value is a missing one.
type Value struct {
	Kind Kind     // "" when missing
	Num  float64  // Number, Bool (0 or 1), Time (unix seconds)
	Str  string   // Category
	Set  []string // Set
}

// Row is one customer. Vector is nil (no text; stored as zeros, cosine 0) or
// has Spec.Dim finite numbers; it is normalised to unit length on entry.
// Values has the collection's columns by name; absent means missing. Record is
// opaque to the engine and returned by Get as it came.
type Row struct {
	ID     string // any valid UTF-8, 1 to 256 bytes
	Vector []float32
	Values map[string]Value
	Record []byte
}

// Query is a point look-up. Exactly the rows that satisfy Filter are ranked by
// the dot product of Vector (made unit length) with theirs. Exclude drops ids
// (the customer asked about, usually).
type Query struct {
	Vector  []float32
	Filter  *Filter
	Exclude []string
	Limit   int
	Offset  int
	// Exact asks an engine that may miss rows to score every one instead.
	Exact bool
	// Effort is how many candidates an engine that walks a graph keeps on its
	// way: more find more, and take longer. 0 leaves it to the engine.
	Effort int
	// Found, where not nil, is filled with how the answer came about.
	Found *Found
}

// Found is how a search came about.
type Found struct {
	Path  string `json:"path" enum:"scan,hnsw,mirror,milvus-index" doc:"what found them: a scan of everyone, our graph, the copy of a collection in Milvus, or its index there"`
	Index string `json:"index,omitempty" doc:"of milvus-index: its type and parameters"`
	Exact bool   `json:"exact" doc:"false: some of the nearest may be missing"`
	Note  string `json:"note,omitempty" doc:"why it was not done as configured, or what may be missing"`
}

// The paths of Found.
const (
	PathScan        = "scan"
	PathHNSW        = "hnsw"
	PathMirror      = "mirror"
	PathMilvusIndex = "milvus-index"
)

// Say fills Found, if anyone asks.
func (q *Query) Say(f Found) {
	if q.Found != nil {
		*q.Found = f
	}
}

// Hit is one answer.
type Hit struct {
	ID    string  `json:"id"`
	Score float32 `json:"score"`
}

// ColumnData is a column by row number. Numeric kinds fill Numbers (NaN where
// missing). Category fills Codes (-1 where missing) into Dict. Set fills
// Offsets [rows+1] and Codes, the elements of row r being
// Codes[Offsets[r]:Offsets[r+1]], ascending.
type ColumnData struct {
	Kind    Kind
	Numbers []float64
	Codes   []int32
	Offsets []uint32
	Dict    []string
}

// Bins cuts one column into small integers.
//
// Numeric kinds: bin 0 is missing, bin 1+i has i edges <= value, for i in
// 0..len(Edges); len(Edges)+2 bins. Category and Set: bin 0 is missing (an
// empty set is missing), bin 1 any value not in Values, bin 2+i is Values[i];
// len(Values)+2 bins.
type Bins struct {
	Column string    `json:"column"`
	Kind   Kind      `json:"kind"`
	Edges  []float64 `json:"edges,omitempty"`  // ascending, strictly
	Values []string  `json:"values,omitempty"` // ascending, strictly
}

// Count returns the number of bins.
func (b *Bins) Count() int {
	if b.Kind.Numeric() {
		return len(b.Edges) + 2
	}
	return len(b.Values) + 2
}

// Head scores a row as Vector . x + sum over columns f of Tables[f][bin] + sum
// over Trees of the leaf that the row falls into + Bias.
// A Set column adds the sum of its elements' entries divided by the square root
// of their number. Vector is nil or has the collection's dimension; Tables is
// nil or has one slice per entry of ScanRequest.Bins, each nil or Bins.Count()
// long.
type Head struct {
	Vector []float32   `json:"vector,omitempty"`
	Tables [][]float32 `json:"tables,omitempty"`
	Trees  []Tree      `json:"trees,omitempty"`
	Bias   float32     `json:"bias"`
}

// Tree is a symmetric decision tree: every row is asked all of 1 to MaxSplits
// questions, and bit i of its leaf's number is the answer to question i.
type Tree struct {
	Splits []Split   `json:"splits"`
	Leaves []float32 `json:"leaves"` // [1 << len(Splits)]
	// Cover is the share of everyone in each leaf, for explanations; a scan does
	// not look at it. Nil or as long as Leaves.
	Cover []float32 `json:"cover,omitempty"`
}

// Split is the question whether a row's bin in one column is among Right. For a
// Set: whether any element's bin is.
type Split struct {
	Bins  int    `json:"bins"`  // entry of ScanRequest.Bins
	Right []byte `json:"right"` // bit b&7 of byte b>>3 stands for bin b; Bins.Count() bits
}

// MaxSplits is the greatest depth of a Tree, MaxTrees the most trees of a head.
const (
	MaxSplits = 8
	MaxTrees  = 4096
)

// Reduce turns several heads' scores into one.
type Reduce string

// The reductions. A single head needs none ("" means Max).
const (
	Max       Reduce = "max"
	Mean      Reduce = "mean"
	LogSumExp Reduce = "logsumexp"
	// TopMean is the mean of the HeadSet.Top highest.
	TopMean Reduce = "topmean"
)

// HeadSet is what one audience is scored with.
type HeadSet struct {
	Heads  []Head `json:"heads"`
	Reduce Reduce `json:"reduce,omitempty"`
	Top    int    `json:"top,omitempty"`    // of TopMean, from 1; of fewer heads all are taken
	Common *Head  `json:"common,omitempty"` // its score is added to what Reduce makes of the heads'
}

// ScanRequest is one pass over the population.
type ScanRequest struct {
	Bins []Bins
	Sets []HeadSet
	Mask *roaring.Bitmap // nil: all live rows
	// Progress, where given, hears how many of the Len() rows are done: from one
	// goroutine at a time, ascending, ending with all of them.
	Progress func(done, total int)
}

// BestRequest asks for the best rows of each set of a scan.
type BestRequest struct {
	ScanRequest
	Size []int // of each set's list, from 1
	// Allowed, where not nil, has for each set the rows that may be on its list; nil
	// there: all of the mask.
	Allowed []*roaring.Bitmap
}

// Ranked is a list of rows, best first, with their scores.
type Ranked struct {
	Rows   []uint32
	Scores []float32
}
