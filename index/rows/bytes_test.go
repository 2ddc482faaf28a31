package rows

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// TestRowBytes: what a row is said to take is what the heap says of many, for
// every form of vector and kind of column: never less, and not much more. What is
// said has room for longer ids and for a chunk that is not full.
func TestRowBytes(t *testing.T) {
	const n = 64 << 10 // whole chunks
	columns := []index.Column{{Name: "n", Kind: index.Number}, {Name: "c", Kind: index.Category}, {Name: "s", Kind: index.Set}}
	for _, spec := range []index.Spec{
		{Dim: 100, Precision: index.Int8}, {Dim: 100, Precision: index.Fp16}, {Dim: 100, Precision: index.Fp32},
		{Dim: 384, Precision: index.Binary}, {Dim: 100, Precision: index.Binary}, {Columns: columns}, {Dim: 384, Precision: index.Binary, Columns: columns},
	} {
		spec.Name = "c"
		before := live()
		table := New(spec, Options{})
		vec := make([]float32, spec.Dim)
		for i := range vec {
			vec[i] = float32(i%7) - 3
		}
		for from := 0; from < n; from += 1024 {
			var batch []Prepared
			for i := from; i < from+1024; i++ {
				row := index.Row{ID: fmt.Sprintf("c%07d", i), Vector: vec}
				if len(spec.Columns) > 0 {
					row.Values = map[string]index.Value{"n": {Kind: index.Number, Num: float64(i)}, "c": {Kind: index.Category, Str: fmt.Sprint(i % 50)}, "s": {Kind: index.Set, Set: []string{fmt.Sprint(i % 20), "x"}}}
				}
				batch = append(batch, Prepare(&spec, &row))
			}
			if err := table.Apply(batch, 0); err != nil {
				t.Fatal(err)
			}
		}
		took, said := float64(live()-before)/n, float64(RowBytes(spec))
		t.Logf("%s of %d, %d columns: %.0f bytes a row, said to be %.0f", spec.Precision, spec.Dim, len(spec.Columns), took, said)
		if took > said || said > took+56 {
			t.Errorf("%s of %d, %d columns: %.0f bytes a row, said to be %.0f", spec.Precision, spec.Dim, len(spec.Columns), took, said)
		}
		runtime.KeepAlive(table)
	}
}

func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
