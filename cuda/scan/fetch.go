package scan

import "github.com/kindred-search/kindred/cuda"

// fetchBytes is the size of the two slots of pinned memory through which long lists come: a list
// of a million rows is copied by the device alone, as fast as the bus is, and the device is others'
// while the host takes it from there.
const fetchBytes = 8 << 20

// fetch orders that the first entries of b be copied, within a work of the device. What it
// returns has them all in place, and is to be called when the work has ended.
func (p *Population) fetch(q *cuda.Queue, to []uint64, b *cuda.Buffer) (rest func(), err error) {
	all := wordBytes(to)
	if len(all) < p.fetchBytes/8 { // is not worth it
		return func() {}, cuda.Download(q, to, b, 0)
	}
	size := p.fetchBytes
	take := func(at int) { // from its slot
		slot := at / size % cuda.Slots * size
		copy(all[at:min(at+size, len(all))], p.fetched.Bytes[slot:slot+size])
	}
	var ahead []int // what is under way
	for at := 0; at < len(all); at += size {
		slot := at / size % cuda.Slots
		if len(ahead) == cuda.Slots {
			if err := q.Reached(slot); err != nil {
				return nil, err
			}
			take(ahead[0])
			ahead = ahead[1:]
		}
		if err := q.DownloadPinned(p.fetched, slot*size, b, int64(at), min(size, len(all)-at)); err != nil {
			return nil, err
		}
		if err := q.Mark(slot); err != nil {
			return nil, err
		}
		ahead = append(ahead, at)
	}
	return func() {
		for _, at := range ahead {
			take(at)
		}
	}, nil
}

// pinFetched makes sure of the memory that fetch needs for so many entries.
func (p *Population) pinFetched(entries int) (err error) {
	if p.fetched == nil && 8*entries >= p.fetchBytes/8 {
		p.fetched, err = p.d.Pin(cuda.Slots * p.fetchBytes)
	}
	return err
}
