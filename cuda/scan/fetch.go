package scan

import (
	"context"

	"github.com/kindred-search/kindred/cuda"
)

// fetchBytes is the size of the two slots of pinned memory through which long lists come: a list
// of a million rows is copied by the device alone, as fast as the bus is, and the device is others'
// while the host takes it from there.
const fetchBytes = 8 << 20

// fetch copies the first entries of b.
func (p *Population) fetch(ctx context.Context, to []uint64, b *cuda.Buffer) error {
	all := wordBytes(to)
	if len(all) < p.fetchBytes/8 { // is not worth it
		return p.d.Do(ctx, func(q *cuda.Queue) error { return cuda.Download(q, to, b, 0) })
	}
	if p.fetched == nil {
		pinned, err := p.d.Pin(cuda.Slots * p.fetchBytes)
		if err != nil {
			return err
		}
		p.fetched = pinned
	}
	size := p.fetchBytes
	take := func(at int) { // from its slot
		slot := at / size % cuda.Slots * size
		copy(all[at:min(at+size, len(all))], p.fetched.Bytes[slot:slot+size])
	}
	var ahead []int // what is under way
	err := p.d.Do(ctx, func(q *cuda.Queue) error {
		for at := 0; at < len(all); at += size {
			slot := at / size % cuda.Slots
			if len(ahead) == cuda.Slots {
				if err := q.Reached(slot); err != nil {
					return err
				}
				take(ahead[0])
				ahead = ahead[1:]
			}
			if err := q.DownloadPinned(p.fetched, slot*size, b, int64(at), min(size, len(all)-at)); err != nil {
				return err
			}
			if err := q.Mark(slot); err != nil {
				return err
			}
			ahead = append(ahead, at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, at := range ahead {
		take(at)
	}
	return nil
}
