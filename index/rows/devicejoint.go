package rows

import (
	"context"
	"errors"
	"slices"

	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/selection"
)

// jointMost is how many lists are made in one pass at most: as many heads as go through the
// rows together.
const jointMost = 64

// joint is what is asked for plain lists, of a vector and a bias each, under one mask: what is
// asked for at the same time over the same rows is made in one pass, by whose turn comes first.
type joint struct {
	n     int
	mask  []uint64
	heads []scan.Head
	size  []int

	// done is closed when another's pass has ended, of which this was: then made says whether
	// found are the candidates, and again that it was given up, which is not for this one.
	done  chan struct{}
	made  bool
	again bool
	found [][]uint64
}

// jointOf is a request that others may be made with: of plain lists, all of one mask. It is nil
// for others.
func (v *View) jointOf(p *plan, plan *scan.Plan, req *index.BestRequest, allowed [][]uint64) *joint {
	j := &joint{n: int(v.n), mask: p.mask, heads: plainHeads(plan), size: req.Size}
	switch apart := slices.ContainsFunc(allowed, func(a []uint64) bool { return a != nil }); {
	case !p.plain || len(req.Sets) == 0 || apart && len(req.Sets) > 1:
		return nil
	case apart:
		j.mask = both(p.mask, allowed[0])
	}
	return j
}

// plainHeads are the heads of a plain plan.
func plainHeads(plan *scan.Plan) []scan.Head {
	var out []scan.Head
	for s := range plan.Sets {
		out = append(out, plan.Sets[s].Heads[0].Head)
	}
	return out
}

// offer lets others make a request's lists, until it is taken or withdrawn.
func (d *deviceCopy) offer(j *joint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j.done, j.again = make(chan struct{}), false
	d.offers = append(d.offers, j)
}

// take withdraws a request and those that can be made with it, and reports false where another
// has taken it.
func (d *deviceCopy) take(j *joint) (others []*joint, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.offers, j) {
		return nil, false
	}
	lists := len(j.heads)
	d.offers = slices.DeleteFunc(d.offers, func(o *joint) bool {
		if o == j {
			return true
		}
		if o.n != j.n || lists+len(o.heads) > jointMost || !slices.Equal(o.mask, j.mask) {
			return false
		}
		lists += len(o.heads)
		others = append(others, o)
		return true
	})
	return others, true
}

// deviceJoint makes a request's lists on the device, alone or with those of others.
func (v *View) deviceJoint(ctx context.Context, j *joint) (bool, error) {
	d := v.core.device
	for {
		d.offer(j)
		select {
		case d.turn <- struct{}{}:
			others, ok := d.take(j)
			if !ok { // who took it has just ended
				d.leave(v.opt.Device)
				<-j.done
				break
			}
			return v.deviceTogether(ctx, j, others)
		case <-j.done:
		case <-ctx.Done():
			d.mu.Lock()
			d.offers = slices.DeleteFunc(d.offers, func(o *joint) bool { return o == j })
			d.mu.Unlock()
			return false, v.deviceGivenUp(ctx)
		}
		if !j.again {
			if j.made {
				v.opt.Device.Note(nil)
			}
			return j.made, nil
		}
	}
}

// deviceTogether makes the lists of some requests in the turn that the caller has, which it ends.
func (v *View) deviceTogether(ctx context.Context, j *joint, others []*joint) (made bool, err error) {
	all := append([]*joint{j}, others...)
	defer func() { // whatever came of it
		for _, o := range others {
			o.made, o.again = made, err != nil
			close(o.done)
		}
	}()
	err = errors.New("a list was not ended") // where it panics
	made, err = v.inTurn(ctx, func(ctx context.Context, pop Population) error {
		var heads []scan.Head
		var size []int
		for _, o := range all {
			heads, size = append(heads, o.heads...), append(size, o.size...)
		}
		found, err := pop.Best(ctx, j.n, j.mask, heads, size)
		if err != nil {
			return err
		}
		for _, o := range all {
			o.found, found = found[:len(o.heads)], found[len(o.heads):]
		}
		return nil
	})
	return made, err
}

// ranked are the lists of a request that was made.
func (v *View) ranked(j *joint) []index.Ranked {
	out := make([]index.Ranked, len(j.heads))
	for s := range out {
		rows, scores := selection.Best(j.found[s], j.size[s], selection.Options{Tie: v.Tie})
		out[s] = index.Ranked{Rows: rows, Scores: scores}
	}
	return out
}
