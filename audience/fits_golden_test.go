package audience

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/internal/lbfgs"
	"github.com/kindred-search/kindred/profile"
)

// fitsGolden is what testdata/fits.py made with scikit-learn.
type fitsGolden struct {
	Seeds, Dim       int
	Scale            float64
	X                []float32
	Weight           []float64
	Category, Number []uint16
	Sets             [][]uint16
	Fits             []struct {
		Name          string
		Text, Columns float64
		Lines         bool
		Bias          float64
		Vector        []float64
		Tables        [][]float64
	}
	Whiten struct {
		Dim            int
		Rows           []float32
		Target, Solved []float64
	}
	KMeans []struct {
		K, Dim int
		Points []float32
		Loss   float64
	}
	Odds []struct {
		Values, Weights, Others []float64
		Slope, Bias             float64
	}
}

func readFits(t *testing.T) *fitsGolden {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "fits.json"))
	if err != nil {
		t.Fatal(err)
	}
	g := &fitsGolden{}
	if err := json.Unmarshal(raw, g); err != nil {
		t.Fatal(err)
	}
	if len(g.Fits) != 5 || len(g.KMeans) != 4 || len(g.Odds) != 4 || len(g.Whiten.Solved) != 8 {
		t.Fatal("the goldens are not whole")
	}
	return g
}

// nearly wants values within a share of the golden's largest.
func nearly(t *testing.T, share float64, what string, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	top := 0.0
	for _, w := range want {
		top = math.Max(top, math.Abs(w))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= share*top) {
			t.Errorf("%s[%d]: %.7f, scikit-learn %.7f (%.1e of the largest)", what, i, got[i], want[i], d/top)
		}
	}
}

// The coefficients of the same regression on the same customers.
func TestLogisticAgainstScikitLearn(t *testing.T) {
	g := readFits(t)
	n := len(g.Weight)
	everyone := worldOf(t, index.Spec{Name: "w", Columns: []index.Column{{Name: "x", Kind: index.Number}}}, make1(n))
	r := &resolved{everyone: everyone.pop.Snap.Live()}
	f := &features{dim: g.Dim, center: make([]float32, g.Dim), scale: g.Scale}
	f.bins = []index.Bins{
		{Column: "category", Kind: index.Category, Values: []string{"a", "b"}},
		{Column: "number", Kind: index.Number, Edges: []float64{1, 2, 3, 4, 5}},
		{Column: "set", Kind: index.Set, Values: []string{"a", "b", "c"}},
	}
	sets := profile.BinCodes{Offsets: []uint32{0}}
	for _, s := range g.Sets {
		sets.Codes = append(sets.Codes, s...)
		sets.Offsets = append(sets.Offsets, uint32(len(sets.Codes)))
	}
	f.codes = []profile.BinCodes{{Codes: g.Category}, {Codes: g.Number}, sets}
	for c := range f.bins {
		share, _ := f.shares(f.bins[c], f.codes[c], r)
		f.share = append(f.share, share)
	}
	m := &material{f: f, weight: g.Weight, x: g.X, seeds: g.Seeds}
	for i := range n {
		m.rows = append(m.rows, uint32(i))
	}
	m.gather()
	for _, want := range g.Fits {
		t.Run(want.Name, func(t *testing.T) {
			u := use{text: want.Text > 0, columns: want.Columns > 0}
			l := newLogistic(m, subset{span(0, g.Seeds), span(g.Seeds, n)}, u, penalty{want.Text, want.Columns}, want.Lines)
			// A fit ends when a step gains less than 1e-7 of the loss: coefficients are then
			// within 2e-3 of the optimum's.
			theta := make([]float64, l.params)
			if err := lbfgs.Minimise(t.Context(), theta, l.loss); err != nil {
				t.Fatal(err)
			}
			h := l.head(theta)
			nearly(t, 2e-3, "first vector", h.Vector, want.Vector)
			for c := range h.Tables {
				nearly(t, 2e-3, "first "+f.bins[c].Column, h.Tables[c], want.Tables[c])
			}
			// The optimum of our own loss, by its gradient alone.
			descend(l, theta)
			h = l.head(theta)
			nearly(t, 1e-4, "intercept", []float32{h.Bias}, []float64{want.Bias})
			nearly(t, 1e-4, "vector", h.Vector, want.Vector)
			for c := range h.Tables {
				nearly(t, 1e-4, f.bins[c].Column, h.Tables[c], want.Tables[c])
			}
		})
	}
}

// descend goes down the gradient with Nesterov's momentum.
func descend(l *logistic, theta []float64) {
	grad, before, ahead := make([]float64, l.params), append([]float64(nil), theta...), make([]float64, l.params)
	const step, momentum = 1.0 / 3000, 0.95
	for range 4000 {
		for j := range theta {
			ahead[j] = theta[j] + momentum*(theta[j]-before[j])
		}
		l.loss(ahead, grad)
		copy(before, theta)
		for j := range theta {
			theta[j] = ahead[j] - step*grad[j]
		}
	}
}

func make1(n int) []index.Row {
	rows := make([]index.Row, n)
	for i := range rows {
		rows[i] = index.Row{ID: idOf(i)}
	}
	return rows
}

// The linear discriminant on a shrunk covariance: scikit-learn's shrunk_covariance and
// NumPy's solver.
func TestWhitenerAgainstScikitLearn(t *testing.T) {
	g := readFits(t).Whiten
	m := &material{f: &features{dim: g.Dim}, x: g.Rows}
	for i := range len(g.Rows) / g.Dim {
		m.rows = append(m.rows, uint32(i))
	}
	w := newWhitener(m)
	if w == nil {
		t.Fatal("no whitener")
	}
	got := w.solve(g.Target)
	for i, want := range g.Solved {
		if math.Abs(got[i]-want) > 1e-6*math.Max(1, math.Abs(want)) {
			t.Errorf("%d: %.9f, want %.9f", i, got[i], want)
		}
	}
}

// Clusters are not worse by more than one in a hundred than the best of 20 runs of
// scikit-learn's k-means on the same unit vectors.
func TestKMeansAgainstScikitLearn(t *testing.T) {
	for _, g := range readFits(t).KMeans {
		var units [][]float32
		for from := 0; from < len(g.Points); from += g.Dim {
			units = append(units, g.Points[from:from+g.Dim])
		}
		_, loss := bestMeans(units, g.K, 1)
		single, once := 0.0, kmeans(units, g.K)
		for _, u := range units {
			_, cos := closest(u, once)
			single += 1 - cos
		}
		t.Logf("k %d of %d: %.4f, one run %.4f, scikit-learn %.4f", g.K, g.Dim, loss, single, g.Loss)
		if loss > 1.01*g.Loss {
			t.Errorf("k %d: the sum of 1 - cosine is %.4f, scikit-learn's %.4f", g.K, loss, g.Loss)
		}
	}
}

// The line that puts clusters on one scale is scikit-learn's logistic regression.
func TestLogOddsAreScikitLearns(t *testing.T) {
	for i, o := range readFits(t).Odds {
		slope, bias := logOdds(o.Values, o.Weights, o.Others)
		if math.Abs(slope-o.Slope) > 1e-6*(1+math.Abs(o.Slope)) || math.Abs(bias-o.Bias) > 1e-6*(1+math.Abs(o.Bias)) {
			t.Errorf("case %d: %v x + %v, want %v x + %v", i, slope, bias, o.Slope, o.Bias)
		}
	}
	for what, o := range map[string][3][]float64{
		"no seeds": {nil, nil, {1, 2}}, "no others": {{1}, {1}, nil}, "others all alike": {{1}, {1}, {2, 2}}, "seeds below": {{-3, -4}, {1, 1}, {0, 1, 2, 3}}, "no weight": {{1}, {0}, {1, 2}},
	} {
		if slope, bias := logOdds(o[0], o[1], o[2]); slope != 0 || bias != 0 {
			t.Errorf("%s: %v x + %v, want nothing", what, slope, bias)
		}
	}
}
