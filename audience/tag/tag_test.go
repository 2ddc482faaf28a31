package tag

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

type goldenFits struct {
	Labels, Dim int
	X, Probe    []float32
	Y, Truth    []int
	Fits        []struct {
		Penalty, Accuracy float64
		Probability       []float64
	}
}

func golden(t *testing.T) (g goldenFits, e Examples) {
	t.Helper()
	raw, err := os.ReadFile("testdata/softmax.json")
	if err == nil {
		err = json.Unmarshal(raw, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	e = Examples{X: g.X, Y: g.Y, Dim: g.Dim}
	for i := range g.Labels {
		e.Labels = append(e.Labels, fmt.Sprint("l", i))
	}
	return g, e
}

func TestSoftmaxIsScikitLearns(t *testing.T) {
	g, e := golden(t)
	all := make([]int, len(e.Y))
	for i := range all {
		all[i] = i
	}
	for _, want := range g.Fits {
		r, err := train(t.Context(), &e, all, want.Penalty)
		if err != nil {
			t.Fatal(err)
		}
		m := Model{Labels: e.Labels, Heads: r.heads(1)}
		worst := 0.0
		for i := range g.Truth {
			got := map[string]float64{}
			for _, tag := range m.Tags(g.Probe[i*g.Dim : (i+1)*g.Dim]) {
				got[tag.Label] = tag.Confidence
			}
			for c, l := range e.Labels {
				worst = math.Max(worst, math.Abs(got[l]-want.Probability[i*g.Labels+c]))
			}
		}
		if worst > 2e-3 {
			t.Errorf("penalty %v: probabilities differ by up to %v", want.Penalty, worst)
		}
		t.Logf("penalty %v: probabilities differ by up to %.1e", want.Penalty, worst)
	}
}

// What cross-validation promises is what customers see who had no part in it.
func TestQualityIsWhatOthersSee(t *testing.T) {
	g, e := golden(t)
	m, q, err := Train(t.Context(), e, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	right, confidence := 0.0, 0.0
	for i, y := range g.Truth {
		top := m.Tags(g.Probe[i*g.Dim : (i+1)*g.Dim])[0]
		confidence += top.Confidence / float64(len(g.Truth))
		if top.Label == e.Labels[y] {
			right += 1 / float64(len(g.Truth))
		}
	}
	if right < q.Low || right > q.High {
		t.Errorf("accuracy %.3f is outside %.3f to %.3f", right, q.Low, q.High)
	}
	if math.Abs(confidence-right) > 0.06 {
		t.Errorf("mean confidence %.3f, accuracy %.3f", confidence, right)
	}
	best := 0.0
	for _, f := range g.Fits {
		best = math.Max(best, f.Accuracy)
	}
	if right < best-0.02 {
		t.Errorf("accuracy %.3f, scikit-learn's best penalty %.3f", right, best)
	}
	again, _, err := Train(t.Context(), e, 1, nil)
	if err != nil || !reflect.DeepEqual(m, again) {
		t.Errorf("another training gives another model (%v)", err)
	}
}

// Of labels without meaning, few are taken for real ones.
func TestMeaninglessLabelsAreRefused(t *testing.T) {
	taken := 0
	const tries = 60
	for try := range tries {
		rng := rand.New(rand.NewPCG(5, uint64(try)))
		e := Examples{Labels: []string{"a", "b"}, Dim: 24}
		for i := range 24 {
			e.Y = append(e.Y, i%2)
			for range e.Dim {
				e.X = append(e.X, float32(rng.NormFloat64()/5))
			}
		}
		_, q, err := Train(t.Context(), e, 0, nil)
		switch {
		case err == nil:
			taken++
		case !errors.Is(err, ErrNotSeparable) || !errors.Is(err, index.ErrInvalid) || q == nil:
			t.Fatal(err)
		}
	}
	if taken > 8 { // 3 are expected; more than 8 of 60 happen once in 300
		t.Errorf("%d of %d were taken", taken, tries)
	}
}

func TestTrainRefuses(t *testing.T) {
	_, e := golden(t)
	one := e
	one.Labels = e.Labels[:1]
	short := e
	short.X = e.X[1:]
	few := Examples{Labels: []string{"a", "b"}, Dim: 1, X: []float32{1, 2, 3, 4, 5, 6, 7}, Y: []int{0, 0, 0, 0, 1, 1, 1}}
	for _, bad := range []Examples{{}, one, short, few} {
		if _, _, err := Train(t.Context(), bad, 0, nil); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%d labels, %d examples: %v", len(bad.Labels), len(bad.Y), err)
		}
	}
	same := Examples{Labels: []string{"a", "b"}, Dim: 2}
	for i := range 20 {
		same.X, same.Y = append(same.X, 0.6, 0.8), append(same.Y, i%2)
	}
	if _, _, err := Train(t.Context(), same, 0, nil); !errors.Is(err, ErrNotSeparable) {
		t.Errorf("equal vectors: %v", err)
	}
}

// A scan gives every customer what Tags gives.
func TestScanIsTags(t *testing.T) {
	g, e := golden(t)
	m, _, err := Train(t.Context(), e, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	eng, err := memory.Open().Create(t.Context(), index.Spec{Name: "x", Dim: g.Dim, Precision: index.Fp32})
	if err != nil {
		t.Fatal(err)
	}
	rows := []index.Row{{ID: "mute"}}
	for i := range g.Truth {
		rows = append(rows, index.Row{ID: fmt.Sprint(i), Vector: g.Probe[i*g.Dim : (i+1)*g.Dim]})
	}
	if err := eng.Upsert(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	snap, err := eng.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	scored, err := m.Scan(t.Context(), snap, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range g.Truth {
		row, _ := snap.Find(fmt.Sprint(i))
		want := m.Tags(g.Probe[i*g.Dim : (i+1)*g.Dim])[0]
		if got := scored.Label[row]; m.Labels[got] != want.Label || math.Abs(float64(scored.Confidence[row])-want.Confidence) > 1e-4 {
			t.Errorf("%d: %s with %v, want %+v", i, m.Labels[got], scored.Confidence[row], want)
		}
	}
	if row, _ := snap.Find("mute"); scored.Label[row] != -1 || scored.Confidence[row] != 0 {
		t.Error("a customer without text has a tag")
	}
}
