package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/cuda"
)

// working are the purposes of what a pass holds until it ends.
var working = []string{"heads", "mask", "histograms", "scores", "products", "members", "seeds"}

// use tells the device's budget what so many rows take, and what a pass over them needs:
// columns that were asked for too, which leave the device with rows.
func (p *Population) use(ctx context.Context, rows int) error {
	held := int64(0)
	for _, c := range p.columns {
		for _, s := range c.segments {
			held += s.bins.Size()
		}
	}
	return p.hold.Use(ctx, int64(rows)*p.rowBytes(), p.passBytes(rows)+max(0, p.beside-held))
}

// setBytes is what one more set of a pass takes: its scores of n rows, and its histogram.
func setBytes(n int) int64 { return 4*int64(n) + 4*bins }

// lease waits for the memory of a pass over the first n rows, of some sets, and says of how
// many at once, at least one. The plan is nil for plain heads. What there is room for by now is
// brought to the device before. It is called by who has the turn.
func (p *Population) lease(ctx context.Context, n, sets int, plan *Plan) (*cuda.Lease, int, error) {
	if plan != nil {
		_, p.beside = p.planBytes(plan)
	}
	if err := p.use(ctx, p.rows); err != nil {
		return nil, 0, err
	}
	if err := p.settle(ctx); err != nil {
		return nil, 0, err
	}
	more := int64(0)
	if plan != nil {
		more, _ = p.planBytes(plan)
	}
	for staged := p.stage != nil || p.streams(); ; staged = true {
		least := setBytes(n) + 8*int64(n) + int64(n)/8 + int64(p.tileBytes) + more // a set, the lists, the mask, products
		if staged && p.stage == nil {
			least += 2 * int64(p.perTile) * p.rowBytes()
		}
		ask := cuda.Ask{What: fmt.Sprintf("a pass over %d rows", n), Purposes: working, Least: least, Most: least + int64(min(sets, manyHeads)-1)*setBytes(n)}
		p.counted()
		p.mu.Unlock()
		lease, err := p.d.Lease(ctx, ask)
		p.mu.Lock()
		if err != nil {
			return nil, 0, err
		}
		if p.streams() && p.stage == nil {
			if !staged { // its own rows gave way for it
				lease.End()
				continue
			}
			if err := p.staged(); err != nil {
				lease.End()
				return nil, 0, err
			}
		}
		return lease, int(max(1, min(manyHeads, 1+(lease.Bytes()-least)/setBytes(n)))), nil
	}
}

// planBytes is what a plan takes beside its sets, its vectors and columns: those that are not
// there yet, and all of them.
func (p *Population) planBytes(plan *Plan) (missing, all int64) {
	sum, most, rooms := 0, manyHeads, 0
	for i := range plan.Sets {
		sum += len(plan.Sets[i].Heads) + 1
		most = max(most, len(plan.Sets[i].Heads))
	}
	vectors := min(sum, most) // of those that go through a pass at once
	if vectors > headsMost {
		vectors = (vectors + manyHeads - 1) / manyHeads * manyHeads
	}
	for _, s := range p.segments {
		rooms += s.room
	}
	missing = 2 * int64(vectors) * int64(p.stride+16)
	all = missing
	for _, c := range plan.Columns {
		all += 2 * int64(rooms)
		if !slices.ContainsFunc(p.columns, func(have *column) bool { return have.key == c.Key }) {
			missing += 2 * int64(rooms)
		}
	}
	return missing, all
}

// streams says whether any rows are.
func (p *Population) streams() bool {
	return slices.ContainsFunc(p.segments, func(s *segment) bool { return s.codes == nil })
}

// settle brings streamed rows to the device, from the first on, as far as there is room.
func (p *Population) settle(ctx context.Context) error {
	for {
		from := slices.IndexFunc(p.segments, func(s *segment) bool { return s.codes == nil })
		if from < 0 {
			if p.stage != nil {
				return p.unstage()
			}
			return nil
		}
		moved := false
		for _, most := range []int{p.roomFrom(p.segments[from].first), p.perSegment} {
			to, room := p.streamedFrom(from, most)
			ok, err := p.hold.Room(ctx, int64(room)*p.rowBytes())
			if err != nil {
				return err
			}
			if ok {
				if moved, err = p.move(ctx, from, to, room); err != nil {
					return err
				}
				break
			}
		}
		if !moved {
			return nil
		}
	}
}

// streamedFrom is the end of the streamed segments from one on that together have room for at
// most so many rows, at least that one, and their room.
func (p *Population) streamedFrom(from, most int) (to, room int) {
	for to = from; to < len(p.segments) && p.segments[to].codes == nil && (to == from || room+p.segments[to].room <= most); to++ {
		room += p.segments[to].room
	}
	return to, room
}

// move makes one segment on the device of streamed ones, unless memory lacks all the same.
func (p *Population) move(ctx context.Context, from, to, room int) (bool, error) {
	s := &segment{first: p.segments[from].first, room: room}
	if err := p.place(s); err != nil {
		if errors.Is(err, cuda.ErrOutOfMemory) {
			return false, nil
		}
		return false, err
	}
	for _, old := range p.segments[from:to] {
		for _, h := range old.hosted {
			if err := p.write(ctx, s, h.codes, h.scales); err != nil {
				return false, errors.Join(err, s.free())
			}
			s.rows += len(h.scales)
		}
	}
	p.segments = slices.Replace(p.segments, from, to, s)
	p.counted()
	return true, p.forget()
}

// give is for [cuda.Device.Hold]: the rows of the last segments leave the device, with what it
// keeps of columns; where no rows are left, the stage does.
func (p *Population) give(least, most int64) (freed int64) {
	if !p.mu.TryLock() {
		return 0
	}
	defer p.mu.Unlock()
	defer p.counted()
	for i := len(p.segments) - 1; i >= 0 && freed < least; i-- {
		s := p.segments[i]
		bytes := int64(s.room) * p.rowBytes()
		if s.codes == nil {
			continue
		}
		if freed+bytes > most {
			break
		}
		// What cannot be freed is of a lost device.
		_ = s.free()
		_ = p.forget()
		p.segments = slices.Replace(p.segments, i, i+1, s.split(p.dim, p.perTile)...)
		freed += bytes
	}
	if freed < least && p.stage != nil && !slices.ContainsFunc(p.segments, func(s *segment) bool { return s.codes != nil }) {
		_ = p.unstage()
		freed += 2 * int64(p.perTile) * p.rowBytes()
	}
	return freed
}

// split is a segment as streamed ones, of at most so many rows.
func (s *segment) split(dim, most int) []*segment {
	var out []*segment
	for _, h := range s.hosted {
		for len(h.scales) > 0 {
			if n := len(out); n == 0 || out[n-1].rows == most {
				out = append(out, &segment{first: s.first + n*most, room: most})
			}
			last := out[len(out)-1]
			n := min(len(h.scales), most-last.rows)
			last.host(h.codes[:n*dim], h.scales[:n])
			last.rows += n
			h = hosted{h.codes[n*dim:], h.scales[n:]}
		}
	}
	if s.rows == s.room && len(out) > 0 { // others may follow
		last := out[len(out)-1]
		last.room = last.rows
	}
	return out
}

// forget frees all columns, which are by segment: they come anew when they are asked for.
func (p *Population) forget() error {
	var all []error
	for _, c := range p.columns {
		all = append(all, c.free())
	}
	p.columns = nil
	return errors.Join(all...)
}
