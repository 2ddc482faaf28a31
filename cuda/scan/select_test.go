//go:build cuda

package scan

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kindred-search/kindred/cuda/cudatest"
)

// TestLaunches: lists of vectors take one launch of each kernel for all lists and segments,
// as long as what is collected is no more than half of the rows.
func TestLaunches(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(19, 20))
	const n, dim = 2000, 16
	b := random(rng, n, dim, 127)
	p, err := New(d, dim)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.perSegment = 128
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	mask := randomMask(rng, n, 100)
	for _, c := range []struct {
		lists, size, few int
		want             map[string]int64
	}{
		{1, 9, fewBytes, map[string]int64{"scan_int8": 1, "collect": 1}},
		{8, 9, 0, map[string]int64{"scan_int8": 1, "collect": 1, "refine_entries": 1, "collect_entries": 1}},
		{9, 9, 0, map[string]int64{"scan_many": 1, "refine": 1, "collect": 1, "refine_entries": 1, "collect_entries": 1}},
		// More are wanted than are collected and narrowed: all scores are read for it, twice.
		{1, n - 9, 0, map[string]int64{"scan_int8": 1, "refine": 2, "collect": 1}},
		{1, n, 0, map[string]int64{"scan_int8": 1, "refine": 2, "collect": 1}},
		{1, n + 9, 0, map[string]int64{"scan_int8": 1, "collect": 1}},
		{3, n - 9, 0, map[string]int64{"scan_int8": 1, "refine": 2, "collect": 3}},
		{3, 0, 0, map[string]int64{"scan_int8": 1}},
	} {
		p.fewBytes = c.few
		heads, plan := randomHeads(rng, c.lists, dim), &Plan{}
		for _, h := range heads {
			plan.Sets = append(plan.Sets, Set{Heads: []SumHead{{Head: h}}})
		}
		size := slices.Repeat([]int{c.size}, c.lists)
		for _, ask := range []func() ([][]uint64, error){
			func() ([][]uint64, error) { return p.Best(t.Context(), n, mask, heads, size) },
			func() ([][]uint64, error) { return p.BestOf(t.Context(), n, mask, plan, size) },
		} {
			d.Trace()
			if _, err := ask(); err != nil {
				t.Fatal(err)
			}
			got := map[string]int64{}
			for kernel, traced := range d.Trace() {
				got[kernel] = traced.Launches
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%d lists of %d: launches %v, want %v", c.lists, c.size, got, c.want)
			}
		}
		check(t, p, b, n, mask, heads, size)
		checkPlan(t, p, b, n, mask, plan, nil, size)
	}
}

// TestSelection: lists of every length, of scores that crowd into few bins or one, are all the
// same, are none or lie apart, whether they are narrowed on the device or not.
func TestSelection(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(61, 62))
	const n, dim = 700, 16
	one := func(scale, bias float64) Head {
		h := randomHeads(rng, 1, dim)[0]
		h.Scale, h.Bias = scale, bias
		return h
	}
	for _, c := range []struct {
		name  string
		heads []Head
		spoil func(b *base)
	}{
		{"one bin", []Head{one(1e-12, 3), one(1e-12, -3), one(1e-9, 1)}, nil},
		{"ties", []Head{one(1e-7, 1e6), {Codes: make([]int16, dim), Scale: 1, Bias: -2}, {Codes: make([]int16, dim), Scale: 1}}, nil},
		{"apart", []Head{one(1e30, 0), one(1e-40, 0), one(math.MaxFloat64, 1)}, nil},
		{"no numbers", []Head{one(1, 0), one(-1, 2)}, func(b *base) {
			for r := range n {
				if r%3 > 0 {
					b.scales[r] = float32(math.NaN())
				}
			}
		}},
		{"many", randomHeads(rng, 67, dim), nil},
	} {
		b := random(rng, n, dim, 9)
		if c.spoil != nil {
			c.spoil(b)
		}
		p, err := New(d, dim)
		if err != nil {
			t.Fatal(err)
		}
		p.perSegment = 128
		if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
			t.Fatal(err)
		}
		for _, few := range []int{0, 8 * n / 8, fewBytes} {
			p.fewBytes, p.fetchBytes = few, 128+8*few // few slots for long lists, and many
			if err := p.fetched.Free(); err != nil {
				t.Fatal(err)
			}
			p.fetched = nil
			sizes := []int{1, 2, 63, n / 4, n/2 - 1, n - 1, n, n + 7}
			if testing.Short() {
				sizes = []int{1, n / 4, n - 1, n + 7}
			}
			for _, percent := range []int{100, 40, 0} {
				mask := randomMask(rng, n, percent)
				for _, k := range sizes {
					size := slices.Repeat([]int{k}, len(c.heads))
					for h := range size {
						size[h] = max(0, size[h]-h*k/5) // not all the same, and some none
					}
					t.Run(fmt.Sprintf("%s, %d bytes are few, %d %% of the rows, the best %d", c.name, few, percent, k), func(t *testing.T) {
						check(t, p, b, n, mask, c.heads, size)
					})
				}
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMask: a mask that is asked for again is not copied again, one that differs is, also where
// the copy before failed and where rows have come.
func TestMask(t *testing.T) {
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(63, 64))
	const n, dim = 300, 16
	b := random(rng, n, dim, 127)
	p, err := New(d, dim)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	heads, size := randomHeads(rng, 1, dim), []int{n}
	copied := func(rows int, mask []uint64) int64 {
		t.Helper()
		was := d.Metrics().Uploaded
		check(t, p, b, rows, mask, heads, size)
		return d.Metrics().Uploaded - was
	}
	half, all := randomMask(rng, 200, 50), randomMask(rng, n, 100)
	if err := p.Append(t.Context(), b.codes[:200*dim], b.scales[:200]); err != nil {
		t.Fatal(err)
	}
	first := copied(200, half)
	if again := copied(200, half); again != first-8*int64(len(half)) {
		t.Errorf("%d bytes are copied, and with the same mask %d", first, again)
	}
	other := slices.Clone(half)
	other[3] ^= 1 << 7
	if third := copied(200, other); third != first {
		t.Errorf("%d bytes are copied, and with another mask %d", first, third)
	}
	if err := p.Append(t.Context(), b.codes[200*dim:], b.scales[200:]); err != nil {
		t.Fatal(err)
	}
	copied(n, all)
	copied(200, half)
	failing := 0
	if err := d.Inject(func(call string) error {
		if call == "upload" {
			if failing++; failing == 1 {
				return fmt.Errorf("on purpose")
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	defer d.Inject(nil)
	if _, err := p.Best(t.Context(), 200, other, heads, size); err == nil {
		t.Error("a copy that fails is no error")
	}
	copied(200, other)
}

// TestLongList: one block collects and narrows a list of which each of its warps has more than it
// puts together at a time; scores that differ in their last bits alone are narrowed twice.
func TestLongList(t *testing.T) {
	d := cudatest.Open(t)
	const n = 8000
	mask := randomMask(rand.New(rand.NewPCG(65, 66)), n, 100)
	for narrowings, apart := range []float32{1: 1. / (5 * n), 2: 0x1p-23 / 8} {
		if apart == 0 {
			continue
		}
		b := &base{dim: 1}
		for r := range n {
			x := float32(1) / 8
			if r*7919%n < n/2-100 { // all in one bin
				x = 1 + float32(r*31%n)*apart
			}
			b.codes, b.scales = append(b.codes, 1), append(b.scales, x)
		}
		p, err := New(d, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.fewBytes, p.blocksMost = 0, 1
		if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
			t.Fatal(err)
		}
		d.Trace()
		check(t, p, b, n, mask, []Head{{Codes: []int16{1}, Scale: 1}}, []int{3000})
		traced := d.Trace()
		if refine, collect := traced["refine_entries"].Launches, traced["collect_entries"].Launches; refine != int64(narrowings) || collect != 1 {
			t.Errorf("%v apart: %d launches of refine_entries, want %d, and %d of collect_entries", apart, refine, narrowings, collect)
		}
	}
}

// TestWide: rows so long that few heads fit a block's shared memory, the scan's beside their
// histograms fewer than a plan's.
func TestWide(t *testing.T) {
	t.Setenv("KINDRED_SIM_CAPABILITY", "86") // of which a block has 99 KB
	d := cudatest.Open(t)
	rng := rand.New(rand.NewPCG(67, 68))
	const n, dim = 20, 6500
	b := random(rng, n, dim, 127)
	p, err := New(d, dim)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Append(t.Context(), b.codes, b.scales); err != nil {
		t.Fatal(err)
	}
	heads := randomHeads(rng, 9, dim)
	mask := randomMask(rng, n, 80)
	check(t, p, b, n, mask, heads, slices.Repeat([]int{n / 2}, len(heads)))
	plan := &Plan{Sets: []Set{{Reduce: Mean}}}
	for _, h := range heads {
		plan.Sets[0].Heads = append(plan.Sets[0].Heads, SumHead{Head: h})
	}
	checkPlan(t, p, b, n, mask, plan, nil, []int{n / 2})
	if d.Info().SharedPerBlock >= 1<<17 {
		return // more fit
	}
	for _, more := range []int{0, 4 * bins} {
		w := p.newPass(n, len(heads), heads)
		if err := w.choose(more); err != nil || w.many || w.each == 1 || w.each == headsMost {
			t.Errorf("%d heads at once, many: %v, %v: want some, but not all", w.each, w.many, err)
		}
	}
	q, err := New(d, 1<<15)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w := q.newPass(0, 1, make([]Head, 1))
	if err := w.choose(4 * bins); err != nil || w.each != 1 {
		t.Errorf("the longest rows: %d heads at once, %v", w.each, err)
	}
}
