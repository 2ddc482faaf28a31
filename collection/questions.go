package collection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/profile"
)

// Search answers with the customers nearest to a text, a vector or a customer.
func (s *Service) Search(ctx context.Context, coll string, q SearchRequest) (Answer, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Answer{}, err
	}
	limit, err := s.page(cfg, q.Limit, q.Offset, q.Fields)
	if err != nil {
		return Answer{}, err
	}
	given := 0
	for _, is := range []bool{q.Text != "", q.Vector != nil, q.Customer != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return Answer{}, faultf("body", "give exactly one of text, vector and customer")
	}
	if cfg.Dim == 0 {
		return Answer{}, faultf("collection", "%q has no vectors to search: create it with a model", coll)
	}
	query := index.Query{Vector: q.Vector, Filter: q.Filter, Limit: limit, Offset: q.Offset, Exact: q.Exact}
	switch {
	case q.Vector != nil:
		if len(q.Vector) != cfg.Dim || !finite(q.Vector) || isZero(q.Vector) {
			return Answer{}, faultf("vector", "want %d finite numbers, not all zero; have %d", cfg.Dim, len(q.Vector))
		}
	case q.Text != "":
		if query.Vector, err = s.encodeQuery(ctx, cfg, q.Text); err != nil {
			return Answer{}, err
		}
	case q.Customer != "":
		row, _, err := s.get(ctx, cfg, q.Customer)
		if err != nil {
			return Answer{}, err
		}
		if isZero(row.Vector) {
			return Answer{}, faultf("customer", "%q has no text, so nothing is near it: search by filter or give it a text", clip(q.Customer))
		}
		query.Vector = row.Vector
		query.Exclude = []string{q.Customer}
	}
	return s.search(ctx, cfg, query, q.Fields)
}

func (s *Service) search(ctx context.Context, cfg Config, query index.Query, fields []string) (Answer, error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return Answer{}, err
	}
	var out Answer
	query.Found = &out.Found
	hits, err := eng.Search(ctx, query)
	if err != nil {
		return Answer{}, err
	}
	out.Hits, err = s.dress(ctx, eng, hits, fields)
	return out, err
}

// dress adds the fields asked for to hits.
func (s *Service) dress(ctx context.Context, eng index.Engine, hits []index.Hit, fields []string) ([]Hit, error) {
	out := make([]Hit, len(hits))
	ids := make([]string, len(hits))
	for i, h := range hits {
		out[i] = Hit{ID: h.ID, Score: h.Score}
		ids[i] = h.ID
	}
	if fields != nil && len(fields) == 0 || len(ids) == 0 {
		return out, nil
	}
	rows, err := s.columnsOf(ctx, eng, ids)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		if row != nil { // deleted since the search: the hit stays, without fields
			out[i].Fields = fieldsOf(row, fields)
		}
	}
	return out, nil
}

// columnsOf is eng.Get without the records, which lie elsewhere where the store is shared:
// a search then needs nothing but what it ran on, and works while the server is away.
func (s *Service) columnsOf(ctx context.Context, eng index.Engine, ids []string) ([]*index.Row, error) {
	if !s.opt.Shared {
		return eng.Get(ctx, ids)
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	view, ok := snap.(*rows.View)
	if !ok {
		return eng.Get(ctx, ids)
	}
	spec := eng.Spec()
	out := make([]*index.Row, len(ids))
	for i, id := range ids {
		row, there := view.Find(id)
		if !there {
			continue
		}
		out[i] = view.Row(row)
		maps.DeleteFunc(out[i].Values, func(name string, _ index.Value) bool {
			return !slices.ContainsFunc(spec.Columns, func(c index.Column) bool { return c.Name == name })
		})
	}
	return out, nil
}

// page checks which part of a list is asked for, and which fields of it.
func (s *Service) page(cfg Config, limit, offset int, fields []string) (int, error) {
	if limit == 0 {
		limit = 10
	}
	var faults []error
	if limit < 0 {
		faults = append(faults, faultf("limit", "%d: want 1 or more", limit))
	}
	if offset < 0 {
		faults = append(faults, faultf("offset", "%d: want 0 or more", offset))
	}
	if limit > s.opt.Limits.MaxHits || offset > s.opt.Limits.MaxHits-limit {
		faults = append(faults, faultf("limit", "limit + offset is above %d: build an audience for longer lists", s.opt.Limits.MaxHits))
	}
	for i, name := range fields {
		if f, ok := cfg.Schema.Field(name); !ok {
			faults = append(faults, faultf(fmt.Sprintf("fields[%d]", i), "%q is not a field of the collection", name))
		} else if f.Type == profile.TypeText {
			faults = append(faults, faultf(fmt.Sprintf("fields[%d]", i), "%q is a text: hits carry columns, GET the customer for its texts", name))
		}
	}
	return limit, errors.Join(faults...)
}

// encodeQuery encodes a query text, with the model's query prompt.
func (s *Service) encodeQuery(ctx context.Context, cfg Config, text string) ([]float32, error) {
	if cfg.Model == "" {
		return nil, faultf("text", "collection %q has no model to encode a text with: search by vector or customer", cfg.Name)
	}
	if len(text) > s.opt.Limits.MaxTextLen {
		return nil, faultf("text", "%d bytes: at most %d", len(text), s.opt.Limits.MaxTextLen)
	}
	enc, err := s.encoderOf(ctx, cfg)
	if err != nil {
		return nil, err
	}
	res, err := enc.Encode(ctx, []string{text}, embed.EncodeOptions{Prompt: enc.Info().QueryPrompt})
	if err != nil {
		return nil, err
	}
	return res.Vectors, nil
}

// Similar answers with the customers like the positives and unlike the
// negatives. With "average_vector" the query is the positives' mean minus the
// negatives' mean; with "best_score" a customer's score is its best score
// against any positive, and customers nearer to a negative are dropped. The
// examples themselves are left out.
func (s *Service) Similar(ctx context.Context, coll string, q SimilarRequest) (Answer, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Answer{}, err
	}
	limit, err := s.page(cfg, q.Limit, q.Offset, q.Fields)
	if err != nil {
		return Answer{}, err
	}
	if cfg.Dim == 0 {
		return Answer{}, faultf("collection", "%q has no vectors: build an audience on its columns instead", coll)
	}
	if len(q.Positive) == 0 {
		return Answer{}, faultf("positive", "empty: give at least one id or vector")
	}
	pos, ids, err := s.examples(ctx, cfg, "positive", q.Positive)
	neg, negIDs, err2 := s.examples(ctx, cfg, "negative", q.Negative)
	if err := errors.Join(err, err2); err != nil {
		return Answer{}, err
	}
	exclude := slices.Concat(ids, negIDs)
	switch q.Strategy {
	case "", "average_vector":
		mean := meanOf(pos, cfg.Dim)
		if len(neg) > 0 {
			for i, x := range meanOf(neg, cfg.Dim) {
				mean[i] -= x
			}
		}
		if isZero(mean) {
			return Answer{}, faultf("positive", "the examples cancel out: nothing is left to look for")
		}
		return s.search(ctx, cfg, index.Query{Vector: mean, Filter: q.Filter, Exclude: exclude, Limit: limit, Offset: q.Offset, Exact: q.Exact}, q.Fields)
	case "best_score":
		return s.bestScore(ctx, cfg, q, heads(pos), heads(neg), exclude, limit)
	}
	return Answer{}, faultf("strategy", "%q is unknown: average_vector or best_score", q.Strategy)
}

type weighted struct {
	vector []float32
	weight float64
}

func (s *Service) examples(ctx context.Context, cfg Config, at string, list []Example) ([]weighted, []string, error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return nil, nil, err
	}
	var faults []error
	var out []weighted
	var ids []string
	for i, e := range list {
		where := fmt.Sprintf("%s[%d]", at, i)
		w := weighted{vector: e.Vector, weight: e.Weight}
		if w.weight == 0 {
			w.weight = 1
		}
		switch {
		case math.IsNaN(w.weight) || math.IsInf(w.weight, 0) || w.weight < 0:
			faults = append(faults, faultf(where+".weight", "want a finite number above 0"))
			continue
		case (e.ID == "") == (e.Vector == nil):
			faults = append(faults, faultf(where, "give an id or a vector"))
			continue
		case e.Vector != nil:
			if len(e.Vector) != cfg.Dim || !finite(e.Vector) {
				faults = append(faults, faultf(where, "want %d finite numbers, have %d", cfg.Dim, len(e.Vector)))
				continue
			}
			w.vector = unit(e.Vector)
		default:
			rows, err := s.columnsOf(ctx, eng, []string{e.ID})
			if err != nil {
				return nil, nil, err
			}
			if rows[0] == nil || isZero(rows[0].Vector) {
				faults = append(faults, faultf(where, "customer %q is not in the collection or has no text", clip(e.ID)))
				continue
			}
			w.vector = rows[0].Vector
			ids = append(ids, e.ID)
		}
		out = append(out, w)
	}
	return out, ids, errors.Join(faults...)
}

func (s *Service) bestScore(ctx context.Context, cfg Config, q SimilarRequest, pos, neg []index.Head, exclude []string, limit int) (Answer, error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return Answer{}, err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer closeSnapshot(snap, s.log)
	mask, err := snap.Match(q.Filter)
	if err != nil {
		return Answer{}, err
	}
	for _, id := range exclude {
		if row, ok := snap.Find(id); ok {
			mask.Remove(row)
		}
	}
	sets := []index.HeadSet{{Heads: pos, Reduce: index.Max}}
	if len(neg) > 0 {
		sets = append(sets, index.HeadSet{Heads: neg, Reduce: index.Max})
	}
	scores, err := snap.Scan(ctx, index.ScanRequest{Sets: sets, Mask: mask})
	if err != nil {
		return Answer{}, err
	}
	hits := make([]index.Hit, 0, mask.GetCardinality())
	for it := mask.Iterator(); it.HasNext(); {
		row := it.Next()
		if len(neg) > 0 && scores[1][row] > scores[0][row] {
			continue
		}
		hits = append(hits, index.Hit{ID: snap.ID(row), Score: scores[0][row]})
	}
	slices.SortFunc(hits, func(a, b index.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
	})
	hits = hits[min(q.Offset, len(hits)):min(q.Offset+limit, len(hits))]
	out := Answer{Found: index.Found{Path: index.PathScan, Exact: true}}
	out.Hits, err = s.dress(ctx, eng, hits, q.Fields)
	return out, err
}

// Count counts exactly.
func (s *Service) Count(ctx context.Context, coll string, q CountRequest) (int, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return 0, err
	}
	if (q.Query == "") != (q.Above == nil) {
		return 0, faultf("above", "query and above go together: give both or neither")
	}
	snap, err := s.snapshotOf(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer closeSnapshot(snap, s.log)
	mask, err := snap.Match(q.Filter)
	if err != nil {
		return 0, err
	}
	if q.Query == "" {
		return int(mask.GetCardinality()), nil
	}
	vector, err := s.encodeQuery(ctx, cfg, q.Query)
	if err != nil {
		return 0, err
	}
	scores, err := snap.Scan(ctx, index.ScanRequest{Sets: []index.HeadSet{{Heads: []index.Head{{Vector: vector}}}}, Mask: mask})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, sc := range scores[0] {
		if sc >= *q.Above && !math.IsInf(float64(sc), -1) {
			n++
		}
	}
	return n, nil
}

func heads(list []weighted) []index.Head {
	out := make([]index.Head, len(list))
	for i, w := range list {
		out[i] = index.Head{Vector: w.vector}
	}
	return out
}

func meanOf(list []weighted, dim int) []float32 {
	sum := make([]float64, dim)
	total := 0.0
	for _, w := range list {
		total += w.weight
		for i, x := range w.vector {
			sum[i] += w.weight * float64(x)
		}
	}
	out := make([]float32, dim)
	for i, x := range sum {
		out[i] = float32(x / total)
	}
	return out
}

func unit(v []float32) []float32 {
	n := 0.0
	for _, x := range v {
		n += float64(x) * float64(x)
	}
	if n == 0 {
		return v
	}
	n = math.Sqrt(n)
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(float64(x) / n)
	}
	return out
}

func finite(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) })
}

func isZero(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return x != 0 })
}
