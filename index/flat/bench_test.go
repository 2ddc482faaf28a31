package flat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/index"
)

// BenchmarkUpsertColumns writes 100,000 rows of twelve columns and a record, no
// vector, in batches of ten thousand: what an import of a table is to the engine.
func BenchmarkUpsertColumns(b *testing.B) {
	const rows, batch = 100_000, 10_000
	ctx := context.Background()
	spec := index.Spec{Name: "c"}
	for i := range 6 {
		spec.Columns = append(spec.Columns, index.Column{Name: fmt.Sprintf("number_%d", i), Kind: index.Number})
	}
	for i := range 4 {
		spec.Columns = append(spec.Columns, index.Column{Name: fmt.Sprintf("category_%d", i), Kind: index.Category})
	}
	spec.Columns = append(spec.Columns, index.Column{Name: "flag", Kind: index.Bool}, index.Column{Name: "when", Kind: index.Time})
	rng := rand.New(rand.NewPCG(1, 1))
	all := make([]index.Row, rows)
	for i := range all {
		r := index.Row{ID: fmt.Sprintf("customer-%06d", i), Values: map[string]index.Value{}}
		for _, c := range spec.Columns {
			v := index.Value{Kind: c.Kind}
			switch c.Kind {
			case index.Category:
				v.Str = fmt.Sprintf("value %d", rng.IntN(1+20*len(c.Name)))
			case index.Bool:
				v.Num = float64(rng.IntN(2))
			default:
				v.Num = rng.NormFloat64()
			}
			r.Values[c.Name] = v
		}
		r.Record = fmt.Appendf(nil, `{"id":%q,"attributes":{"a":1,"b":"two","c":3.5,"d":"four","e":5,"f":"six"}}`, r.ID)
		all[i] = r
	}
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		s, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		e, err := s.Create(ctx, spec)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for lo := 0; lo < rows; lo += batch {
			if err := e.Upsert(ctx, all[lo:lo+batch]); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
