package rows

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
)

// Match returns the live rows that satisfy the filter. Faults of the filter
// match ErrInvalid. Equality on categories, sets and bools is answered from
// roaring bitmaps, one a value, made at first use and extended as rows arrive;
// ranges and prefixes by a pass over the column.
func (v *View) Match(f *index.Filter) (*roaring.Bitmap, error) {
	p, err := f.Compile(v.spec.Columns)
	if err != nil {
		return nil, err
	}
	return v.eval(p), nil
}

func (v *View) eval(p *index.Predicate) *roaring.Bitmap {
	acc := v.live.Clone()
	for i := range p.Conds {
		acc.And(v.cond(&p.Conds[i]))
	}
	for i := range p.Must {
		acc.And(v.eval(&p.Must[i]))
	}
	if len(p.Should) > 0 {
		any := roaring.New()
		for i := range p.Should {
			any.Or(v.eval(&p.Should[i]))
		}
		acc.And(any)
	}
	for i := range p.MustNot {
		acc.AndNot(v.eval(&p.MustNot[i]))
	}
	return acc
}

// fewValues is how many postings are united rather than one pass made.
const fewValues = 16

// cond returns the rows of one condition, dead ones included. The result must
// not be changed.
func (v *View) cond(k *index.Cond) *roaring.Bitmap {
	switch {
	case k.Column < 0:
		return v.condID(k)
	case k.Kind.Numeric():
		return v.condNumeric(k)
	}
	if k.Op == index.OpExists {
		return v.where(func(ch *chunk, i int) bool {
			col := &ch.cols[k.Column]
			has := col.sets != nil && len(col.sets[i]) > 0 || col.codes != nil && col.codes[i] >= 0
			return has == k.Exists
		})
	}
	codes := v.codes(k)
	if len(codes) <= fewValues {
		out := roaring.New()
		for _, c := range codes {
			out.Or(v.post(k.Column, c))
		}
		return out
	}
	wanted := make([]bool, len(v.names[k.Column]))
	for _, c := range codes {
		wanted[c] = true
	}
	return v.where(func(ch *chunk, i int) bool {
		col := &ch.cols[k.Column]
		if col.codes != nil {
			return col.codes[i] >= 0 && wanted[col.codes[i]]
		}
		for _, c := range col.sets[i] {
			if wanted[c] {
				return true
			}
		}
		return false
	})
}

// codes lists the dictionary codes that satisfy a condition on text.
func (v *View) codes(k *index.Cond) []int32 {
	var out []int32
	names := v.names[k.Column]
	if k.Op == index.OpIn {
		v.core.mu.RLock()
		defer v.core.mu.RUnlock()
		for _, s := range k.Strs {
			if c, ok := v.core.dicts[k.Column].codes[s]; ok && int(c) < len(names) {
				out = append(out, c)
			}
		}
		return out
	}
	for c, s := range names {
		if k.HoldsStr(s) {
			out = append(out, int32(c))
		}
	}
	return out
}

func (v *View) condID(k *index.Cond) *roaring.Bitmap {
	switch k.Op {
	case index.OpIn:
		out := roaring.New()
		for _, id := range k.Strs {
			if row, ok := v.Find(id); ok {
				out.Add(row)
			}
		}
		return out
	case index.OpExists:
		if k.Exists {
			return v.live
		}
		return roaring.New()
	}
	return v.where(func(ch *chunk, i int) bool { return k.HoldsStr(ch.ids[i]) })
}

func (v *View) condNumeric(k *index.Cond) *roaring.Bitmap {
	switch {
	case k.Op == index.OpExists:
		return v.where(func(ch *chunk, i int) bool {
			return math.IsNaN(ch.cols[k.Column].nums[i]) != k.Exists
		})
	case k.Op == index.OpIn && k.Kind == index.Bool:
		out := roaring.New()
		for _, x := range k.Nums {
			out.Or(v.post(k.Column, int32(x)))
		}
		return out
	case k.Op == index.OpIn && len(k.Nums) > fewValues:
		set := make(map[float64]bool, len(k.Nums))
		for _, x := range k.Nums {
			set[x] = true
		}
		return v.where(func(ch *chunk, i int) bool { return set[ch.cols[k.Column].nums[i]] })
	case k.Op == index.OpIn:
		return v.where(func(ch *chunk, i int) bool { return k.HoldsNum(ch.cols[k.Column].nums[i]) })
	}
	lo, hi := math.Inf(-1), math.Inf(1)
	if k.Lo.Set {
		lo = k.Lo.Num
		if !k.Lo.Closed {
			lo = math.Nextafter(lo, math.Inf(1))
		}
	}
	if k.Hi.Set {
		hi = k.Hi.Num
		if !k.Hi.Closed {
			hi = math.Nextafter(hi, math.Inf(-1))
		}
	}
	return v.where(func(ch *chunk, i int) bool { // NaN fails both
		x := ch.cols[k.Column].nums[i]
		return x >= lo && x <= hi
	})
}

// where makes one pass over the rows, on all cores.
func (v *View) where(holds func(ch *chunk, i int) bool) *roaring.Bitmap {
	size := 1 << v.core.shift
	words := make([]uint64, (int(v.n)+63)/64)
	each(len(v.chunks), func(c int) {
		base := c * size
		m := min(size, int(v.n)-base)
		ch := v.chunks[c]
		for i := range max(0, m) {
			if holds(ch, i) {
				words[(base+i)>>6] |= 1 << (i & 63)
			}
		}
	})
	return roaring.FromDense(words, false)
}

// each runs fn for 0..n-1 on all cores.
func each(n int, fn func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		for i := range n {
			fn(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	wg.Wait()
}
