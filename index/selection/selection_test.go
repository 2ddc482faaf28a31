package selection

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// oracle is the sort that Select must agree with.
func oracle(scores []float32, k int, tie func(a, b uint32) int) []uint32 {
	var rows []uint32
	for i, s := range scores {
		if !math.IsInf(float64(s), -1) && s == s {
			rows = append(rows, uint32(i))
		}
	}
	slices.SortFunc(rows, func(a, b uint32) int {
		if c := cmp.Compare(scores[b], scores[a]); c != 0 {
			return c
		}
		return tie(a, b)
	})
	return rows[:min(k, len(rows))]
}

type selectCase struct {
	n      int
	shape  string
	k      int
	worker int
}

func (c selectCase) String() string {
	return fmt.Sprintf("n=%d %s k=%d workers=%d", c.n, c.shape, c.k, c.worker)
}

func makeScores(n int, shape string, rng *rand.Rand) []float32 {
	s := make([]float32, n)
	for i := range s {
		switch shape {
		case "normal":
			s[i] = float32(rng.NormFloat64())
		case "ties":
			s[i] = float32(rng.IntN(5)) / 4
		case "equal":
			s[i] = 0.25
		case "zeros":
			s[i] = []float32{0, float32(math.Copysign(0, -1))}[rng.IntN(2)]
		case "infs":
			s[i] = []float32{float32(math.Inf(1)), float32(math.Inf(-1)), 1, -math.MaxFloat32, math.SmallestNonzeroFloat32}[rng.IntN(5)]
		case "masked":
			s[i] = float32(math.Inf(-1))
			if rng.IntN(4) == 0 {
				s[i] = rng.Float32()
			}
		case "close":
			s[i] = math.Float32frombits(0x3f000000 + uint32(rng.IntN(300)))
		}
	}
	return s
}

func TestSelectAgainstSort(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 1))
	ran := 0
	for _, n := range []int{1, 2, 31, 255, 256, 257, 1000, 33000, 70001} {
		for _, shape := range []string{"normal", "ties", "equal", "zeros", "infs", "masked", "close"} {
			scores := makeScores(n, shape, rng)
			perm := make([]uint32, n)
			for i, p := range rng.Perm(n) {
				perm[i] = uint32(p)
			}
			tie := func(a, b uint32) int { return cmp.Compare(perm[a], perm[b]) }
			all := oracle(scores, n, tie)
			for _, k := range []int{0, 1, 2, n / 3, n - 1, n, n + 5} {
				c := selectCase{n, shape, k, 1 + ran%3}
				got := Select(scores, k, Options{Tie: tie, Workers: c.worker})
				want := all[:max(0, min(k, len(all)))]
				if !slices.Equal(got, want) {
					t.Fatalf("%v (seed %d): %d rows, differs from the sort's %d", c, seed, len(got), len(want))
				}
				ran++
			}
		}
	}
	if ran < 300 {
		t.Fatalf("only %d cases ran", ran)
	}
}

func TestImageIsMonotone(t *testing.T) {
	vals := []float32{float32(math.Inf(-1)), -math.MaxFloat32, -1, -math.SmallestNonzeroFloat32, 0, math.SmallestNonzeroFloat32, 1, math.MaxFloat32, float32(math.Inf(1))}
	for i, v := range vals {
		if Float(Image(v)) != v {
			t.Errorf("Float(Image(%v)) = %v", v, Float(Image(v)))
		}
		if i > 0 && Image(vals[i-1]) >= Image(v) {
			t.Errorf("Image(%v) is not below Image(%v)", vals[i-1], v)
		}
	}
	if Image(float32(math.Copysign(0, -1))) != Image(0) {
		t.Error("-0 and 0 have different images")
	}
	if Image(float32(math.NaN())) != 0 {
		t.Error("NaN is not below everything")
	}
}

func TestCountsAndCurve(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	scores := makeScores(50000, "masked", rng)
	h := NewHistogram(scores)
	if want := len(oracle(scores, len(scores), cmp.Compare[uint32])); h.Total() != want {
		t.Fatalf("total %d, want %d", h.Total(), want)
	}
	for _, s := range []float32{-1, 0, 0.25, 0.3, 0.77, 1, 2} {
		want := 0
		for _, x := range scores {
			if x >= s {
				want++
			}
		}
		if got := CountAbove(scores, s); got != want {
			t.Errorf("CountAbove(%v) = %d, want %d", s, got, want)
		}
		if lo, hi := h.AtLeast(s); lo > want || hi < want {
			t.Errorf("AtLeast(%v) = [%d, %d], want %d inside", s, lo, hi, want)
		}
	}
	curve := Curve(scores, 20)
	if len(curve) < 10 || curve[0].Size != 1 || curve[len(curve)-1].Size != h.Total() {
		t.Fatalf("curve %v", curve)
	}
	for i, p := range curve {
		if got := CountAbove(scores, p.Score); got < p.Size {
			t.Errorf("point %d: %d customers score %v, want at least %d", i, got, p.Score, p.Size)
		}
	}
}

func BenchmarkSelect100k(b *testing.B) {
	scores := makeScores(1_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	b.ResetTimer()
	for range b.N {
		Select(scores, 100_000, Options{})
	}
}
