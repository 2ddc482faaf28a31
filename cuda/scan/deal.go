package scan

import "sort"

// piece is rows that follow each other, from all on of everyone's and from own on of one
// device's, up to the next piece.
type piece struct{ all, own, device int }

// span is rows [all, all + n) of everyone's, which are [own, own + n) of a device's.
type span struct{ all, own, n int }

// dealt is which of everyone's first rows one device has: its spans, in order.
type dealt struct {
	rows  int
	spans []span
	// near[j] is the span that holds the device's row j*step, or that is where the search begins
	// for one of the step rows that follow.
	step int
	near []int32
}

// deal sorts the pieces of the first n rows by device; n is not above rows, and step is some rows,
// above 0.
func deal(pieces []piece, rows, n, devices, step int) []dealt {
	out := make([]dealt, devices)
	for i, p := range pieces {
		end := rows
		if i+1 < len(pieces) {
			end = pieces[i+1].all
		}
		if count := min(end, n) - p.all; count > 0 {
			d := &out[p.device]
			d.spans = append(d.spans, span{p.all, p.own, count})
			d.rows = p.own + count
		}
	}
	for i := range out {
		d := &out[i]
		d.step = step
		at := 0
		for row := 0; row < d.rows; row += step {
			for row >= d.spans[at].own+d.spans[at].n {
				at++
			}
			d.near = append(d.near, int32(at))
		}
	}
	return out
}

// everyones is which of all rows is row i of the device.
func (d *dealt) everyones(i int) int {
	at := d.near[i/d.step]
	for i >= d.spans[at].own+d.spans[at].n {
		at++
	}
	return d.spans[at].all + i - d.spans[at].own
}

// runs calls f for what follows each other of the device's n rows from from on: where it
// begins there, where among everyone, and how long it is.
func (d *dealt) runs(from, n int, f func(own, all, n int)) {
	first := sort.Search(len(d.spans), func(i int) bool { return from < d.spans[i].own+d.spans[i].n })
	for _, s := range d.spans[first:] {
		if n <= 0 {
			return
		}
		skip := from - s.own
		m := min(n, s.n-skip)
		f(from, s.all+skip, m)
		from, n = from+m, n-m
	}
}

// mask is everyone's mask for the device's rows.
func (d *dealt) mask(all []uint64) []uint64 {
	own := make([]uint64, (d.rows+63)/64)
	for _, s := range d.spans {
		copyBits(own, s.own, all, s.all, s.n)
	}
	return own
}

// copyBits sets bits [at, at + n) of dst, which are 0, to those of src from from on.
func copyBits(dst []uint64, at int, src []uint64, from, n int) {
	for n > 0 {
		// As many as end a word of either.
		m := min(n, 64-at%64, 64-from%64)
		bits := src[from/64] >> (from % 64)
		if m < 64 {
			bits &= 1<<m - 1
		}
		dst[at/64] |= bits << (at % 64)
		at, from, n = at+m, from+m, n-m
	}
}
