// Package selection finds the best k of N scores, exactly, for every k from 1
// to N.
//
// A float's bits, with the sign folded in, order as the floats do (Image), so
// the k-th best score is found by counting: one pass fills a histogram of the
// upper bits of every image, the bucket that holds the k-th is known from its
// running sum, and further passes over that bucket alone fix the remaining
// bits. No heap and no sort of the population; only the k winners are sorted.
// The work is split over the cores by ranges of rows, and the result does not
// depend on how.
//
// -Inf means masked: such rows are never selected and never counted.
//
// # Why the scan does not fill the histogram
//
// It could count each score as it is made. That would save the first pass over
// the scores: 0.9 ms of a scan and selection that take 40 for 1 M x 384 int8
// (BenchmarkCount beside bench/scan), less than their spread from run to run.
// It would cost a histogram per head set in the scan's contract, and it would be
// of no use to most callers, who mask rows after scoring (seeds are scored, but
// are no members). So a scan returns scores and this package counts them. Who wants
// the best rows alone asks index.Scanner.Best, which keeps, while it scores, only
// those above a score guessed from a sample, and has [Best] put them in order.
package selection

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"
)

// Options adjusts Select. The zero value works.
type Options struct {
	// Tie orders two rows of equal score; the lesser is selected first. nil
	// orders by row number. It must be a strict order and safe to call from
	// several goroutines.
	Tie func(a, b uint32) int
	// Workers is the number of goroutines; 0 means one per core.
	Workers int
	// Room is memory that sorting may use and keeps for the caller's next selection, or
	// nil. It belongs to one selection at a time.
	Room *[]Entry
}

const (
	upperBits = 13
	upperLen  = 1 << upperBits
	upperShft = 32 - upperBits
)

// Image maps a float to an unsigned integer so that a < b exactly when
// Image(a) < Image(b). -0 and +0 have one image. NaN is mapped to 0, below
// everything.
func Image(f float32) uint32 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return 0
	}
	if b == 0x80000000 {
		b = 0
	}
	return b ^ (uint32(int32(b)>>31) | 0x80000000)
}

// Float is the inverse of Image.
func Float(u uint32) float32 {
	if u&0x80000000 != 0 {
		return math.Float32frombits(u &^ 0x80000000)
	}
	return math.Float32frombits(^u)
}

// masked is the image of -Inf; it and everything below do not count.
var masked = Image(float32(math.Inf(-1)))

// Select returns the min(k, unmasked) best rows of scores, ordered by score
// descending, then by Tie. The caller owns the result.
func Select(scores []float32, k int, opt Options) []uint32 {
	if k <= 0 || len(scores) == 0 {
		return nil
	}
	tie := opt.Tie
	if tie == nil {
		tie = cmp.Compare[uint32]
	}
	parts := split(len(scores), opt.Workers)
	if in := likely(scores, parts, k); in != nil {
		out := best(in, k, 32, tie)
		sortKeys(out, parts, tie, opt.Room)
		return rowsOf(out)
	}
	hist := count(scores, parts)
	total := 0
	for _, c := range hist {
		total += int(c)
	}
	k = min(k, total)
	if k == 0 {
		return nil
	}
	// The bucket of the k-th best, and how many of it are wanted.
	bucket, want := upperLen-1, k
	for want > int(hist[bucket]) {
		want -= int(hist[bucket])
		bucket--
	}
	above, inside := gather(scores, parts, uint32(bucket), k-want, int(hist[bucket]))
	inside = best(inside, want, upperShft, tie)
	out := append(above, inside...)
	sortKeys(out, parts, tie, opt.Room)
	return rowsOf(out)
}

// An Entry is a row with its score, in one word: ascending entries are descending
// scores, and of equal ones ascending rows.
type Entry = uint64

// MakeEntry is the entry of a row. NaN is below everything.
func MakeEntry(score float32, row uint32) Entry { return makeEntry(Image(score), row) }

// Best is [Select] on entries, which it reorders: the min(k, len(in)) best, and their
// scores. No score is -Inf. The caller owns the results.
func Best(in []Entry, k int, opt Options) (rows []uint32, scores []float32) {
	if k <= 0 || len(in) == 0 {
		return nil, nil
	}
	tie := opt.Tie
	if tie == nil {
		tie = cmp.Compare[uint32]
	}
	out := best(in, min(k, len(in)), 32, tie)
	sortKeys(out, split(len(out), opt.Workers), tie, opt.Room)
	scores = make([]float32, len(out))
	for i, e := range out {
		scores[i] = Float(^uint32(e >> 32))
	}
	return rowsOf(out), scores
}

// rowsOf are the rows of entries, in their order.
func rowsOf(e []entry) []uint32 {
	rows := make([]uint32, len(e))
	for i, x := range e {
		rows[i] = uint32(x)
	}
	return rows
}

// sampleSize is how many scores are looked at for a guess.
const sampleSize = 1 << 14

// likely collects, where k is a small part of many scores, all that are at least
// a score guessed from a sample, so that the population is read once and not
// twice. The k best are among them, for they are k or more. nil says that the
// guess was no good, or not worth while; nothing but time hangs on it.
func likely(scores []float32, parts []part, k int) []entry {
	n := len(scores)
	if n < 16*sampleSize || k > n/8 {
		return nil
	}
	sample := make([]uint32, 0, sampleSize)
	for i := range sampleSize {
		sample = append(sample, Image(scores[i*(n/sampleSize)+i%(n/sampleSize)]))
	}
	slices.Sort(sample)
	// Three standard deviations more than the share of k, so that it is rarely
	// too few.
	share := float64(k) * sampleSize / float64(n)
	floor := sample[sampleSize-1-int(share+3*math.Sqrt(share)+8)]
	if floor <= masked {
		return nil
	}
	least := Float(floor)
	most := max(4*k, n/256) + 1024 // of one part: a guess that lets much more through is no good
	got := make([][]entry, len(parts))
	each(parts, func(i int, p part) {
		out := make([]entry, 0, (k+k/2)/len(parts)+1024)
		for r, s := range scores[p.lo:p.hi] {
			if s >= least {
				if len(out) == most {
					return
				}
				out = append(out, makeEntry(Image(s), uint32(p.lo+r)))
			}
		}
		got[i] = out
	})
	var all []entry
	for _, g := range got {
		if g == nil {
			return nil
		}
		all = append(all, g...)
	}
	if len(all) < k {
		return nil
	}
	return all
}

// An entry is the complement of a score's image above a row number, so that
// ascending entries are descending scores.
type entry = Entry

func makeEntry(image, row uint32) entry { return uint64(^image)<<32 | uint64(row) }

// best keeps the want first entries, in in's memory, of those that differ in the lower
// n bits of their score alone: radix by those, then ties by order of id.
func best(in []entry, want, n int, tie func(a, b uint32) int) []entry {
	if want >= len(in) {
		return in
	}
	// Eight-bit digits, from the highest. What is surely wanted gathers at in's beginning,
	// behind which every entry has been read.
	lo, hi := in, 0
	for shift := 32 + n - 8; ; shift -= 8 {
		shift = max(shift, 32)
		var h [256]int
		for _, e := range lo {
			h[e>>shift&255]++
		}
		d := 0
		for need := want - hi; need > h[d]; d++ {
			need -= h[d]
		}
		keep := make([]entry, 0, h[d])
		for _, e := range lo {
			switch digit := int(e >> shift & 255); {
			case digit < d:
				in[hi] = e
				hi++
			case digit == d:
				keep = append(keep, e)
			}
		}
		lo = keep
		if shift == 32 {
			break
		}
	}
	// lo now holds equal scores only.
	need := want - hi
	if need < len(lo) {
		slices.SortFunc(lo, func(a, b entry) int { return tie(uint32(a), uint32(b)) })
	}
	return append(in[:hi], lo[:need]...)
}

type part struct{ lo, hi int }

func split(n, workers int) []part {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = max(1, min(workers, n/16384))
	out := make([]part, workers)
	for i := range out {
		out[i] = part{n * i / workers, n * (i + 1) / workers}
	}
	return out
}

func each(parts []part, fn func(i int, p part)) {
	if len(parts) == 1 {
		fn(0, parts[0])
		return
	}
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() { fn(i, p) })
	}
	wg.Wait()
}

func count(scores []float32, parts []part) *[upperLen]uint32 {
	hists := make([][upperLen]uint32, len(parts))
	each(parts, func(i int, p part) {
		h := &hists[i]
		for _, s := range scores[p.lo:p.hi] {
			if u := Image(s); u > masked {
				h[u>>upperShft]++
			}
		}
	})
	sum := &hists[0]
	for i := 1; i < len(hists); i++ {
		for j, c := range hists[i] {
			sum[j] += c
		}
	}
	return sum
}

// gather collects the entries above a bucket and those inside it, in order of
// row.
func gather(scores []float32, parts []part, bucket uint32, nAbove, nInside int) (above, inside []entry) {
	type pair struct{ above, inside []entry }
	got := make([]pair, len(parts))
	floor := max(bucket<<upperShft, masked+1)
	each(parts, func(i int, p part) {
		share := len(parts)
		a := make([]entry, 0, nAbove/share+nAbove/8+16)
		b := make([]entry, 0, nInside/share+nInside/8+16)
		for r := p.lo; r < p.hi; r++ {
			u := Image(scores[r])
			if u < floor {
				continue
			}
			if u>>upperShft == bucket {
				b = append(b, makeEntry(u, uint32(r)))
			} else {
				a = append(a, makeEntry(u, uint32(r)))
			}
		}
		got[i] = pair{a, b}
	})
	above = make([]entry, 0, nAbove+nInside)
	inside = make([]entry, 0, nInside)
	for _, g := range got {
		above = append(above, g.above...)
		inside = append(inside, g.inside...)
	}
	return above, inside
}

// sortKeys orders entries by score descending, then tie. Scores are ordered by
// a radix sort of the upper half; runs of equal scores by the comparison.
func sortKeys(e []entry, parts []part, tie func(a, b uint32) int, room *[]entry) {
	if len(e) < 256 {
		slices.Sort(e)
	} else {
		if room == nil {
			room = new([]entry)
		}
		if cap(*room) < len(e) {
			*room = make([]entry, len(e))
		}
		radixSort(e, (*room)[:len(e)], split(len(e), len(parts)))
	}
	type run struct{ lo, hi int }
	var runs []run
	for lo := 0; lo < len(e); {
		hi := lo + 1
		for hi < len(e) && e[hi]>>32 == e[lo]>>32 {
			hi++
		}
		if hi-lo > 1 {
			runs = append(runs, run{lo, hi})
		}
		lo = hi
	}
	each(split(len(runs)*16384, len(parts)), func(_ int, p part) {
		for _, r := range runs[p.lo/16384 : p.hi/16384] {
			slices.SortFunc(e[r.lo:r.hi], func(a, b entry) int { return tie(uint32(a), uint32(b)) })
		}
	})
}

// radixSort orders by the upper 32 bits, stably, in three passes of 11 bits. tmp is as
// long as e. Each part of e is counted and moved by a goroutine of its own: of equal digits,
// those of an earlier part come first.
func radixSort(e, tmp []entry, parts []part) {
	src, dst := e, tmp
	counts := make([][2048]int, len(parts))
	for _, shift := range [3]uint{32, 43, 54} {
		each(parts, func(i int, p part) {
			h := &counts[i]
			clear(h[:])
			for _, x := range src[p.lo:p.hi] {
				h[x>>shift&2047]++
			}
		})
		sum := 0
		for d := range 2048 {
			for i := range counts {
				counts[i][d], sum = sum, sum+counts[i][d]
			}
		}
		each(parts, func(i int, p part) {
			h := &counts[i]
			for _, x := range src[p.lo:p.hi] {
				d := x >> shift & 2047
				dst[h[d]] = x
				h[d]++
			}
		})
		src, dst = dst, src
	}
	copy(e, src) // three passes end in tmp
}
