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

func TestCountAbove(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, shape := range []string{"masked", "infs", "ties", "zeros"} {
		scores := makeScores(50000, shape, rng)
		for _, s := range []float32{float32(math.Inf(-1)), -1, 0, 0.25, 0.3, 0.77, 1, 2, float32(math.Inf(1))} {
			want := 0
			for _, x := range scores {
				if x >= s && !math.IsInf(float64(x), -1) {
					want++
				}
			}
			if got := CountAbove(scores, s); got != want {
				t.Errorf("%s: CountAbove(%v) = %d, want %d", shape, s, got, want)
			}
		}
	}
}

// Every point of the curve against the sort: the score of a size is that of its
// last member, for every shape of scores and number of points.
func TestCurveAgainstSort(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 1))
	compared := 0
	for _, n := range []int{1, 2, 300, 20000, 70001} {
		for _, shape := range []string{"normal", "ties", "equal", "zeros", "infs", "masked", "close"} {
			scores := makeScores(n, shape, rng)
			all := oracle(scores, n, cmp.Compare[uint32])
			for _, points := range []int{0, 1, 2, 200, 100_000} {
				curve := Curve(scores, points)
				if len(all) == 0 || points == 0 {
					if curve != nil {
						t.Errorf("seed %d: n=%d %s points=%d: a curve of nobody: %v", seed, n, shape, points, curve)
					}
					continue
				}
				if last := curve[len(curve)-1].Size; last != len(all) || points > 1 && curve[0].Size != 1 || len(curve) > min(points, maxPoints) {
					t.Fatalf("seed %d: n=%d %s points=%d: %d points, from %d to %d of %d", seed, n, shape, points, len(curve), curve[0].Size, last, len(all))
				}
				for i, p := range curve {
					if want := scores[all[p.Size-1]]; p.Score != want || i > 0 && p.Size <= curve[i-1].Size {
						t.Fatalf("seed %d: n=%d %s points=%d: point %d is %v, the sort's score of that size is %v", seed, n, shape, points, i, p, want)
					}
					compared++
				}
			}
		}
	}
	if compared < 2000 {
		t.Fatalf("only %d points compared", compared)
	}
}

func BenchmarkSelect100k(b *testing.B) {
	scores := makeScores(1_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	b.ResetTimer()
	for range b.N {
		Select(scores, 100_000, Options{})
	}
}

func BenchmarkCurve200(b *testing.B) {
	scores := makeScores(1_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	b.ResetTimer()
	for range b.N {
		Curve(scores, 200)
	}
}

// BenchmarkCurveBySort is what Curve would cost as a selection of everyone.
func BenchmarkCurveBySort(b *testing.B) {
	scores := makeScores(1_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	b.ResetTimer()
	for range b.N {
		Select(scores, len(scores), Options{})
	}
}

// BenchmarkCount is the pass that a histogram made while scoring would save.
func BenchmarkCount(b *testing.B) {
	scores := makeScores(1_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	parts := split(len(scores), 0)
	b.ResetTimer()
	for range b.N {
		count(scores, parts)
	}
}

// TestSelectFewOfMany: the best few of many are guessed at by a sample; the
// answer is the sort's whether the guess was good, too high, too low or not made.
func TestSelectFewOfMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 2))
	const n = 300_000
	guessed, refused := 0, 0
	for _, shape := range []string{"normal", "ties", "equal", "zeros", "infs", "masked", "close", "hidden", "lured"} {
		scores := makeScores(n, shape, rng)
		stride := n / sampleSize
		if shape == "hidden" || shape == "lured" { // the sample sees the worst, or the best, alone
			for i := range scores {
				scores[i] = rng.Float32()
			}
			for i := range sampleSize {
				scores[i*stride+i%stride] = map[string]float32{"hidden": -1, "lured": 2}[shape] + rng.Float32()/2
			}
		}
		tie := func(a, b uint32) int { return cmp.Compare(b, a) }
		all := oracle(scores, n, tie)
		for _, k := range []int{1, 10, 1000, 20_000, n / 8} {
			if in := likely(scores, split(n, 2), k); in == nil {
				refused++
			} else if guessed++; len(in) < k {
				t.Fatalf("%s, %d: %d are likely", shape, k, len(in))
			}
			for workers := range 3 {
				got := Select(scores, k, Options{Tie: tie, Workers: workers + 1})
				if want := all[:min(k, len(all))]; !slices.Equal(got, want) {
					t.Fatalf("%s: the best %d of %d differ from the sort's", shape, k, n)
				}
			}
		}
	}
	if guessed < 10 || refused < 10 {
		t.Errorf("%d guesses were good, %d not: both ways are to be tested", guessed, refused)
	}
}

func BenchmarkSelect(b *testing.B) {
	scores := makeScores(4_000_000, "normal", rand.New(rand.NewPCG(1, 1)))
	for _, k := range []int{10, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(k), func(b *testing.B) {
			for b.Loop() {
				Select(scores, k, Options{})
			}
		})
	}
}

// TestBestLong: a list that several goroutines sort is what one sorts, ties included.
func TestBestLong(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	in := make([]Entry, 100_000)
	for i := range in {
		in[i] = MakeEntry(float32(rng.IntN(7000))/7-500, uint32(i*7919%len(in)))
	}
	want := slices.Clone(in)
	slices.Sort(want)
	for workers := range 7 {
		for _, k := range []int{len(in), 70_001} {
			rows, scores := Best(slices.Clone(in), k, Options{Workers: workers})
			for i := range k {
				if rows[i] != uint32(want[i]) || scores[i] != Float(^uint32(want[i]>>32)) {
					t.Fatalf("%d workers, the best %d: place %d has row %d, want %d", workers, k, i, rows[i], uint32(want[i]))
				}
			}
			if len(rows) != k {
				t.Fatalf("%d workers: %d rows of %d", workers, len(rows), k)
			}
		}
	}
}

func BenchmarkBestMillion(b *testing.B) {
	rng := rand.New(rand.NewPCG(11, 12))
	in := make([]Entry, 1_000_000)
	for i := range in {
		in[i] = MakeEntry(float32(rng.NormFloat64()), uint32(i))
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprint(workers, " workers"), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				e := slices.Clone(in)
				b.StartTimer()
				Best(e, len(e), Options{Workers: workers})
			}
		})
	}
}
