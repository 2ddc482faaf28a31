package collection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

const (
	gateAudiences = 5   // stored audiences that are built on both generations
	gateSample    = 100 // customers whose neighbours are compared
	gateNeighbour = 10  // of each
	maxAUCLoss    = 0.02
)

// Gate compares two generations of a collection.
type Gate struct {
	Passed    bool     `json:"passed"`
	Reasons   []string `json:"reasons" doc:"why it was not passed"`
	Customers int      `json:"customers" doc:"in the generation that counts"`
	Embedded  int      `json:"embedded" doc:"of them, in the other"`
	Lost      int      `json:"lost" doc:"customers with a vector who would have none"`
	Gained    int      `json:"gained" doc:"customers without a vector who would have one"`
	// Overlap is the mean share of a customer's nearest that are its nearest in both.
	Overlap   float64        `json:"overlap" doc:"mean share of the nearest 10 that stay"`
	Sampled   int            `json:"sampled" doc:"customers whose nearest were compared"`
	Audiences []GateAudience `json:"audiences" doc:"stored audiences, built on both"`
	// Change is the mean change of the audiences' AUC.
	Change float64  `json:"auc_change"`
	Notes  []string `json:"notes,omitempty"`
}

// GateAudience is one stored audience, built on both generations: the hold-out AUC of its
// seeds.
type GateAudience struct {
	Name   string            `json:"name"`
	Before audience.Interval `json:"before"`
	After  audience.Interval `json:"after"`
}

func (g *Gate) words() string {
	if g.Passed {
		return "the gate is passed"
	}
	return strings.Join(g.Reasons, "; ")
}

// gate compares both generations and judges by what the job asks for.
func (c *carrier) gate(ctx context.Context) (*Gate, error) {
	g := &Gate{Reasons: []string{}, Audiences: []GateAudience{}}
	c.s.jobs.update(c.job, func(v *Job) { v.Stage, v.Done, v.Total = "comparing", 0, gateSample+gateAudiences })
	sample, err := c.vectors(ctx, g)
	if err != nil {
		return nil, err
	}
	if err := c.neighbours(ctx, g, sample); err != nil {
		return nil, err
	}
	if err := c.audiences(ctx, g); err != nil {
		return nil, err
	}
	ask := c.job.Reembed
	least := maxAUCLoss
	if ask.MaxAUCLoss != nil {
		least = *ask.MaxAUCLoss
	}
	if missing := g.Customers - g.Embedded; missing > 0 {
		g.Reasons = append(g.Reasons, fmt.Sprintf("%d of %d customers could not be embedded: the job names them", missing, g.Customers))
	}
	if g.Lost > 0 {
		g.Reasons = append(g.Reasons, fmt.Sprintf("%d customers with a vector would have none: they have no text that the template takes", g.Lost))
	}
	if len(g.Audiences) > 0 && !(g.Change >= -least) {
		g.Reasons = append(g.Reasons, fmt.Sprintf("the AUC of %d stored audiences falls by %.4f in the mean, and may by %.4f", len(g.Audiences), -g.Change, least))
	}
	if ask.MinOverlap != nil && !(g.Overlap >= *ask.MinOverlap) {
		g.Reasons = append(g.Reasons, fmt.Sprintf("%.0f %% of the nearest customers stay, and %.0f %% must", 100*g.Overlap, 100**ask.MinOverlap))
	}
	g.Passed = len(g.Reasons) == 0
	return g, nil
}

// vectors counts who has one, and draws customers who have one in both.
func (c *carrier) vectors(ctx context.Context, g *Gate) ([]string, error) {
	src, err := c.src.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(src, c.s.log)
	dst, err := c.dst.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(dst, c.s.log)
	type drawn struct {
		hash uint64
		id   string
	}
	var pool []drawn
	const step = 1024
	was, is := make([]float32, step*c.src.Spec().Dim), make([]float32, step*c.next.Dim)
	for rows := range slices.Chunk(src.Live().ToArray(), step) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g.Customers += len(rows)
		var pairs, others []uint32
		for _, row := range rows {
			if other, there := dst.Find(src.ID(row)); there {
				pairs, others = append(pairs, row), append(others, other)
			} else if c.late(src.ID(row)) { // written just now: it will be there
				g.Embedded++
			}
		}
		g.Embedded += len(pairs)
		if err := errors.Join(src.Vectors(pairs, was[:len(pairs)*c.src.Spec().Dim]), dst.Vectors(others, is[:len(pairs)*c.next.Dim])); err != nil {
			return nil, err
		}
		for i, row := range pairs {
			had := !isZero(was[i*c.src.Spec().Dim : (i+1)*c.src.Spec().Dim])
			has := !isZero(is[i*c.next.Dim : (i+1)*c.next.Dim])
			switch {
			case had && has:
				h := fnv.New64a()
				_, _ = io.WriteString(h, src.ID(row)) // never fails
				pool = append(pool, drawn{h.Sum64(), src.ID(row)})
			case had:
				g.Lost++
			case has:
				g.Gained++
			}
		}
		if len(pool) > 64*gateSample {
			pool = least(pool, gateSample, func(a, b drawn) int { return cmp.Compare(a.hash, b.hash) })
		}
	}
	pool = least(pool, gateSample, func(a, b drawn) int { return cmp.Compare(a.hash, b.hash) })
	ids := make([]string, len(pool))
	for i, d := range pool {
		ids[i] = d.id
	}
	return ids, nil
}

// least keeps the n least.
func least[T any](list []T, n int, order func(a, b T) int) []T {
	slices.SortFunc(list, order)
	return list[:min(n, len(list))]
}

// neighbours compares who is near to each of the sample in both generations.
func (c *carrier) neighbours(ctx context.Context, g *Gate, sample []string) error {
	sum := 0.0
	for i, id := range sample {
		var near [2]map[string]bool
		for side, eng := range []index.Engine{c.src, c.dst} {
			rows, err := eng.Get(ctx, []string{id})
			if err != nil {
				return err
			}
			if rows[0] == nil { // deleted since
				break
			}
			hits, err := eng.Search(ctx, index.Query{Vector: rows[0].Vector, Exclude: []string{id}, Limit: gateNeighbour, Exact: true})
			if err != nil {
				return err
			}
			near[side] = map[string]bool{}
			for _, h := range hits {
				near[side][h.ID] = true
			}
		}
		if len(near[0]) == 0 || near[1] == nil {
			continue
		}
		both := 0
		for id := range near[1] {
			if near[0][id] {
				both++
			}
		}
		g.Sampled++
		sum += float64(both) / float64(len(near[0]))
		c.s.jobs.update(c.job, func(v *Job) { v.Done = int64(i + 1) })
	}
	if g.Sampled > 0 {
		g.Overlap = sum / float64(g.Sampled)
	}
	return nil
}

// audiences builds the stored audiences that were built last on both generations.
func (c *carrier) audiences(ctx context.Context, g *Gate) error {
	coll := c.next.Name
	all, err := c.s.Audiences(ctx, coll)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(info AudienceInfo) bool {
		s := &info.Request.Seeds
		return info.State != JobDone || info.Combine != nil || s.Segment != 0 || s.Tag != nil || info.Request.Within.Segment != 0 || info.Request.Within.Tag != nil
	})
	slices.SortFunc(all, func(a, b AudienceInfo) int { return cmp.Or(b.Built.Compare(a.Built), cmp.Compare(a.Name, b.Name)) })
	now, err := c.s.config(coll)
	if err != nil {
		return err
	}
	sum := 0.0
	for _, info := range all {
		if len(g.Audiences) == gateAudiences {
			break
		}
		if err := c.s.whole(coll, &info); err != nil {
			return err
		}
		one := GateAudience{Name: info.Name}
		if err := c.s.buildOn(ctx, now, info.Request, &one.Before); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			g.Notes = append(g.Notes, fmt.Sprintf("audience %q was not compared: %s", info.Name, reason(err)))
			continue
		}
		if err := c.s.buildOn(ctx, c.next, info.Request, &one.After); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			g.Reasons = append(g.Reasons, fmt.Sprintf("audience %q could not be built any more: %s", info.Name, reason(err)))
			continue
		}
		g.Audiences = append(g.Audiences, one)
		sum += one.After.Value - one.Before.Value
		c.s.jobs.update(c.job, func(v *Job) { v.Done = int64(gateSample + len(g.Audiences)) })
	}
	if len(g.Audiences) > 0 {
		g.Change = sum / float64(len(g.Audiences))
	} else {
		g.Notes = append(g.Notes, "no stored audience could be compared: how good lists will be is not measured")
	}
	return nil
}

// buildOn builds an audience on one generation, for its hold-out AUC.
func (s *Service) buildOn(ctx context.Context, cfg Config, req audience.Request, auc *audience.Interval) error {
	pop, done, err := s.populationOf(ctx, cfg)
	if err != nil {
		return err
	}
	defer done()
	res, err := audience.Build(ctx, pop, req, nil)
	if err != nil {
		return err
	}
	if res.Quality.HeldOut == 0 {
		return errors.New("no seeds could be held out")
	}
	*auc = res.Quality.Measure.AUC
	return nil
}
