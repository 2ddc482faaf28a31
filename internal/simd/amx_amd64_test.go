//go:build amd64 && !noasm

package simd

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func needAMX(t *testing.T) {
	t.Helper()
	if best() < variantAMX {
		t.Skip("no AMX on this machine, or no permission to use it")
	}
}

// TestAMXLayout holds the argument blocks to the offsets the generator has.
func TestAMXLayout(t *testing.T) {
	var tile intTile
	var work amxWork
	var config amxConfig
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"intTile.work", unsafe.Offsetof(tile.work), 256},
		{"intTile.panels", unsafe.Offsetof(tile.panels), 264},
		{"intTile.next", unsafe.Offsetof(tile.next), 272},
		{"amxWork.step", unsafe.Offsetof(work.step), 64},
		{"amxWork.state", unsafe.Offsetof(work.state), 72},
		{"amxWork.sums", unsafe.Offsetof(work.sums), 256},
		{"amxConfig", unsafe.Sizeof(config), 64},
		{"amxConfig.lineBytes", unsafe.Offsetof(config.lineBytes), 16},
		{"amxConfig.rows", unsafe.Offsetof(config.rows), 48},
	} {
		if c.got != c.want {
			t.Errorf("%s is at %d, the generator has %d", c.what, c.got, c.want)
		}
	}
}

// TestAMXGenerated runs the generator and wants the committed files.
func TestAMXGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "main")
	if out, err := exec.Command("go", "build", "-o", bin, "./gen/amx").CombinedOutput(); err != nil {
		t.Fatalf("building the generator: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "-out", "amx_amd64.s", "-stubs", "amx_amd64.go", "-pkg", "simd")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generating: %v\n%s", err, out)
	}
	for _, f := range []string{"amx_amd64.s", "amx_amd64.go"} {
		want, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if body(want) != body(got) {
			t.Errorf("%s is stale or edited by hand: run go generate ./internal/simd", f)
		}
	}
}

// intProduct is one whole product under the variant in use.
func intProduct(t testing.TB, pack packInts, c gemmCase, seed uint64) []float32 {
	t.Helper()
	r := newRand(t, seed)
	a, b, stride, epi := intOperands(r, c)
	p, err := pack(b, c.k, c.n, stride)
	if err != nil {
		t.Fatal(err)
	}
	var q Quantised
	q.From(a, p)
	out := Dense(make([]float32, c.m*c.n), c.m, c.n)
	MatMulInt(out, &q, p, epi)
	return out.Data
}

// TestAMXAgrees holds whole products, GELU included, to the bits of VNNI: many
// panels, rows on both sides of a block, more than one slice of K.
func TestAMXAgrees(t *testing.T) {
	needAMX(t)
	saved := impl
	defer func() { impl = saved }()
	for name, pack := range intPacks {
		for _, m := range []int{1, 2, 15, 16, 17, 31, 32, 33, 47, 120, 255, 256, 257, 300} {
			for _, k := range []int{48, 64, 384, 769} {
				c := gemmCase{m: m, k: k, n: 200, bias: true, gelu: m%2 == 0, resid: m%3 == 0}
				impl = variantVNNI
				want := intProduct(t, pack, c, uint64(m*k))
				impl = variantAMX
				equalBits(t, fmt.Sprintf("%s %v", name, c), intProduct(t, pack, c, uint64(m*k)), want)
			}
		}
	}
}

// TestAMXExtremes multiplies the largest integers of either sign: the high and
// low bytes of both operands at the ends of their ranges.
func TestAMXExtremes(t *testing.T) {
	needAMX(t)
	saved := impl
	defer func() { impl = saved }()
	for name, pack := range intPacks {
		for _, k := range []int{1, 2, 8, 64, 384} {
			var got [2][]float32
			for v, at := range map[variant]int{variantVNNI: 0, variantAMX: 1} {
				impl = v
				r := newRand(t, uint64(k))
				const m, n = 17, 65
				a, b := Dense(make([]float32, m*k), m, k), make([]float32, n*k)
				edge := func() float32 { // of 13 bits: also around whole multiples of 256
					q := []float32{8191, -8191, 0, 255, 256, -1, -256, -255, 127, 128, -128, -129, 7936, -7937}
					return q[r.IntN(len(q))]
				}
				for i := range a.Data {
					a.Data[i] = edge()
				}
				for i := range b {
					b[i] = edge()
				}
				p, err := pack(b, k, n, k)
				if err != nil {
					t.Fatal(err)
				}
				var q Quantised
				q.From(a, p)
				got[at] = make([]float32, m*n)
				MatMulInt(Dense(got[at], m, n), &q, p, Epilogue{})
			}
			equalBits(t, fmt.Sprintf("%s k %d", name, k), got[1], got[0])
			if math.IsNaN(float64(got[1][0])) {
				t.Fatal("NaN")
			}
		}
	}
}

// TestAMXUnderSignals multiplies on many goroutines while the collector stops
// the world and a profiler interrupts: tile registers must survive signals and
// never be left to another goroutine.
func TestAMXUnderSignals(t *testing.T) {
	needAMX(t)
	saved := impl
	defer func() { impl = saved }()
	c := gemmCase{m: 130, k: 384, n: 128, bias: true}
	impl = variantVNNI
	want := map[string][]float32{}
	for name, pack := range intPacks {
		want[name] = intProduct(t, pack, c, 3)
	}
	impl = variantAMX
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Log("without a profiler:", err)
	} else {
		defer pprof.StopCPUProfile()
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	var wrong, done atomic.Int64
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				for name, pack := range intPacks {
					got := intProduct(t, pack, c, 3)
					for i, v := range want[name] {
						if math.Float32bits(got[i]) != math.Float32bits(v) {
							wrong.Add(1)
						}
					}
					done.Add(1)
				}
			}
		})
	}
	var kept [][]byte
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for range 100 {
			kept = append(kept, make([]byte, 1<<14))
		}
		kept = kept[len(kept)/2:]
		runtime.GC()
	}
	stop.Store(true)
	wg.Wait()
	if wrong.Load() > 0 || done.Load() == 0 {
		t.Errorf("%d wrong elements in %d products", wrong.Load(), done.Load())
	}
}
