package client

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"google.golang.org/protobuf/proto"
)

// Metric is how nearness is measured. Of IP and Cosine more is nearer, of L2 less.
type Metric string

// The metrics of float vectors.
const (
	IP     Metric = "IP"
	Cosine Metric = "COSINE"
	L2     Metric = "L2"
)

// SearchRequest asks for the nearest rows of one or more vectors.
type SearchRequest struct {
	Collection string
	Field      string    // of the vectors
	Vectors    []float32 // [queries, Dim] row-major
	Dim        int
	Metric     Metric
	Limit      int // of each query; with Offset at most MaxResults
	Offset     int
	Expr       string // "": all rows
	Fields     []string
	Partitions []string
	// Params are the index's, such as ef or nprobe. Radius and RangeFilter, where not
	// nil, bound the score: radius < score <= range filter (of L2 the reverse).
	Params      map[string]any
	Radius      *float64
	RangeFilter *float64
	Consistency Consistency
	// Key is the type of the primary key; VarChar where it is zero.
	Key FieldType
}

// Hits is the answer to one query: nearest first.
type Hits struct {
	IDs     []string // of a string key
	IntIDs  []int64  // of a number
	Scores  []float32
	Columns []Column // of Fields
}

// Len is the number of hits.
func (h *Hits) Len() int { return len(h.Scores) }

// Full says whether there were as many hits as may be: then there may be more.
func (h *Hits) Full(limit int) bool { return len(h.Scores) >= limit }

// Search returns one Hits for each query vector.
func (c *Client) Search(ctx context.Context, q SearchRequest) ([]Hits, error) {
	o := op{name: "search", coll: q.Collection, timeout: c.cfg.ReadTimeout, repeat: true}
	if q.Radius != nil || q.RangeFilter != nil {
		o.name = "range search"
	}
	if q.Dim < 1 || q.Dim > MaxDim || len(q.Vectors) == 0 || len(q.Vectors)%q.Dim != 0 {
		return nil, c.refuse(o, ErrInvalidRequest, "%d numbers are not one or more vectors of %d dimensions", len(q.Vectors), q.Dim)
	}
	if q.Limit < 1 || q.Offset < 0 || q.Limit+q.Offset > MaxResults {
		return nil, c.refuse(o, ErrInvalidRequest, "limit %d and offset %d; Milvus gives 1 to %d in one search", q.Limit, q.Offset, MaxResults)
	}
	if i := notFinite(q.Vectors); i >= 0 {
		return nil, c.refuse(o, ErrInvalidRequest, "the vector of query %d holds %v", i/q.Dim, q.Vectors[i])
	}
	nq := len(q.Vectors) / q.Dim
	group, err := placeholders(q.Vectors, q.Dim)
	if err != nil {
		return nil, c.refuse(o, ErrInvalidRequest, "%v", err)
	}
	params := maps.Clone(q.Params)
	if params == nil {
		params = map[string]any{}
	}
	if q.Radius != nil {
		params["radius"] = *q.Radius
	}
	if q.RangeFilter != nil {
		params["range_filter"] = *q.RangeFilter
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, c.refuse(o, ErrInvalidRequest, "the parameters of the index: %v", err)
	}
	level, after, seen := c.guarantee(q.Collection, q.Consistency)
	req := &milvuspb.SearchRequest{
		CollectionName: q.Collection, PartitionNames: q.Partitions, Dsl: q.Expr, DslType: commonpb.DslType_BoolExprV1,
		PlaceholderGroup: group, OutputFields: q.Fields, Nq: int64(nq),
		SearchParams: pairs(map[string]string{
			"anns_field": q.Field, "topk": strconv.Itoa(q.Limit), "params": string(raw), "metric_type": string(q.Metric),
			"round_decimal": "-1", "offset": strconv.Itoa(q.Offset), "ignore_growing": "false",
		}),
		ConsistencyLevel: level, GuaranteeTimestamp: after,
	}
	var out []Hits
	_, err = ask(ctx, c, o, c.api.Search, req, func(a *milvuspb.SearchResults) error {
		var err error
		out, err = readHits(a, q, nq)
		return err
	})
	if err == nil {
		seen()
	}
	return out, err
}

// placeholders is how Milvus wants query vectors: little-endian bytes in a message of
// their own.
func placeholders(v []float32, dim int) ([]byte, error) {
	p := &commonpb.PlaceholderValue{Tag: "$0", Type: commonpb.PlaceholderType_FloatVector}
	for at := 0; at < len(v); at += dim {
		b := make([]byte, 0, 4*dim)
		for _, x := range v[at : at+dim] {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		p.Values = append(p.Values, b)
	}
	return proto.Marshal(&commonpb.PlaceholderGroup{Placeholders: []*commonpb.PlaceholderValue{p}})
}

// readHits cuts the answer into the queries' parts and checks each: as many scores as
// keys, no key twice, scores finite and in order, none beyond the radius.
func readHits(a *milvuspb.SearchResults, q SearchRequest, nq int) ([]Hits, error) {
	r := a.GetResults()
	if r == nil {
		return nil, errors.New("the answer has no results")
	}
	strs, ints := r.GetIds().GetStrId().GetData(), r.GetIds().GetIntId().GetData()
	n := max(len(strs), len(ints))
	if len(r.GetScores()) != n {
		return nil, fmt.Errorf("%d scores for %d keys", len(r.GetScores()), n)
	}
	if n > 0 && (q.Key == Int64) == (ints == nil) {
		return nil, errors.New("the keys are of another type than the collection's")
	}
	tops := r.GetTopks()
	if len(tops) == 0 && n == 0 {
		tops = make([]int64, nq)
	}
	if len(tops) != nq {
		return nil, fmt.Errorf("%d parts for %d queries", len(tops), nq)
	}
	all, err := readBatch(r.GetFieldsData(), q.Fields, n)
	if err != nil {
		return nil, err
	}
	out := make([]Hits, nq)
	at := 0
	for i, top := range tops {
		if top < 0 || top > int64(q.Limit) || at+int(top) > n {
			return nil, fmt.Errorf("query %d has %d hits of %d asked for, with %d left in the answer", i, top, q.Limit, n-at)
		}
		to := at + int(top)
		h := Hits{Scores: r.GetScores()[at:to:to]}
		if q.Key == Int64 {
			h.IntIDs = ints[at:to:to]
		} else if strs != nil {
			h.IDs = strs[at:to:to]
		}
		for _, col := range all.Columns {
			h.Columns = append(h.Columns, col.Slice(at, to))
		}
		if err := h.check(q); err != nil {
			return nil, fmt.Errorf("query %d: %w", i, err)
		}
		out[i], at = h, to
	}
	if at != n {
		return nil, fmt.Errorf("%d hits came, and the queries have %d", n, at)
	}
	return out, nil
}

// slack is what a score may be out of order by: servers round on merging.
const slack = 1e-5

func (h *Hits) check(q SearchRequest) error {
	sign := float32(1)
	if q.Metric == L2 {
		sign = -1
	}
	for i, s := range h.Scores {
		if s-s != 0 {
			return fmt.Errorf("hit %d has a score of %v", i, s)
		}
		if i > 0 && sign*s > sign*h.Scores[i-1]+slack*max(1, abs(s)) {
			return fmt.Errorf("hit %d has a score of %v, nearer than the %v before it", i, s, h.Scores[i-1])
		}
	}
	if n := len(h.Scores); n > 0 && q.Radius != nil {
		if s, r := h.Scores[n-1], float32(*q.Radius); sign*s < sign*r-slack*max(1, abs(r)) {
			return fmt.Errorf("a score of %v lies beyond the radius %v", s, r)
		}
	}
	if q.Key == Int64 {
		return distinct(h.IntIDs)
	}
	return distinct(h.IDs)
}

func abs(x float32) float32 { return max(x, -x) }

func distinct[K comparable](ids []K) error {
	seen := make(map[K]struct{}, len(ids))
	for _, id := range ids {
		if _, twice := seen[id]; twice {
			return fmt.Errorf("the key %.80q came twice", fmt.Sprint(id))
		}
		seen[id] = struct{}{}
	}
	return nil
}

// Slice is rows from to to-1, sharing memory.
func (c *Column) Slice(from, to int) Column {
	out := *c
	switch c.Type {
	case Bool:
		out.Bools = c.Bools[from:to:to]
	case Int64:
		out.Ints = c.Ints[from:to:to]
	case Double:
		out.Doubles = c.Doubles[from:to:to]
	case VarChar:
		out.Strings = c.Strings[from:to:to]
	case JSON:
		out.JSON = c.JSON[from:to:to]
	case FloatVector:
		out.Vectors = c.Vectors[from*c.Dim : to*c.Dim : to*c.Dim]
	}
	return out
}

func isTooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }
