// Package tag learns to tell labels apart (a sentiment, a topic) from a few
// labelled examples each, and tags everyone with the likeliest label and how sure
// it is.
//
// Train fits a softmax regression on text vectors, chooses its penalty and its
// temperature by cross-validation, and says how good it is on examples that it
// has not seen; examples that do not separate are refused. A label ends as an
// ordinary index.Head, so all are scored in a scan: its score is a log-odds up to
// what all labels of a customer share, and their softmax is the confidence.
package tag

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/kindred-search/kindred/index"
)

// Examples are vectors with labels. X is [len(Y), Dim] row-major; Y counts into
// Labels.
type Examples struct {
	Labels []string
	X      []float32
	Y      []int
	Dim    int
}

// Limits of a training.
const (
	LeastExamples = 4      // of each label
	MaxExamples   = 20_000 // in all
	MaxLabels     = 256
	few           = 8 // a label with fewer is warned of
)

// Model gives each label a head. The zero Model has none.
type Model struct {
	Labels []string     `json:"labels"`
	Heads  []index.Head `json:"heads"` // one a label
}

// Size is about how many numbers the model holds.
func (m *Model) Size() int {
	n := 0
	for i := range m.Heads {
		n += len(m.Heads[i].Vector) + 1
	}
	return n
}

// Label is how well one label is told from the others.
type Label struct {
	Label     string  `json:"label"`
	Examples  int     `json:"examples"`
	Precision float64 `json:"precision"` // of held-out examples that were given the label
	Recall    float64 `json:"recall"`    // of held-out examples that have it
	F1        float64 `json:"f1"`
}

// Sheet is measured by cross-validation: each example is judged by a model that
// has not seen it.
type Sheet struct {
	Examples int     `json:"examples"`
	Folds    int     `json:"folds"`
	Repeats  int     `json:"repeats"`
	Accuracy float64 `json:"accuracy"`
	Low      float64 `json:"accuracy_low"`  // 95 % interval (Wilson)
	High     float64 `json:"accuracy_high"` // 95 % interval (Wilson)
	Chance   float64 `json:"chance"`        // share of the commonest label
	P        float64 `json:"p"`             // chance that labels without meaning do as well
	MacroF1  float64 `json:"macro_f1"`
	LogLoss  float64 `json:"log_loss"`          // of the confidence, in nats
	ECE      float64 `json:"calibration_error"` // mean gap between confidence and accuracy over ten equal groups
	Penalty  float64 `json:"penalty"`           // chosen: of the squared weights
	Labels   []Label `json:"labels"`            // in the order given
	Words    string  `json:"words"`
}

// significant is the greatest P of examples that separate.
const significant = 0.05

// ErrNotSeparable means that held-out examples are told apart no better than by
// always naming the commonest label, or no surer than if labels were shuffled. It
// matches index.ErrInvalid.
var ErrNotSeparable = fmt.Errorf("the examples do not separate: %w", index.ErrInvalid)

func (e *Examples) check() ([]int, error) {
	if len(e.Labels) < 2 || len(e.Labels) > MaxLabels {
		return nil, fmt.Errorf("labels: %d: want 2 to %d: %w", len(e.Labels), MaxLabels, index.ErrInvalid)
	}
	if len(e.Y) > MaxExamples {
		return nil, fmt.Errorf("labels: %d examples: at most %d: %w", len(e.Y), MaxExamples, index.ErrInvalid)
	}
	if e.Dim < 1 || len(e.X) != len(e.Y)*e.Dim {
		return nil, fmt.Errorf("%d numbers for %d examples of %d: %w", len(e.X), len(e.Y), e.Dim, index.ErrInvalid)
	}
	count := make([]int, len(e.Labels))
	for _, y := range e.Y {
		count[y]++
	}
	for i, n := range count {
		if n < LeastExamples {
			return nil, fmt.Errorf("labels[%d] %q: %d examples with text: at least %d, %d and more are better: %w", i, e.Labels[i], n, LeastExamples, few, index.ErrInvalid)
		}
	}
	return count, nil
}

// Train learns from examples. The same examples and seed give the same bytes on
// one kind of CPU.
func Train(ctx context.Context, e Examples, seed uint64, progress func(done, total int)) (*Model, *Sheet, error) {
	count, err := e.check()
	if err != nil {
		return nil, nil, err
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	s := newSplits(&e, count, seed)
	v, err := s.validate(ctx, progress)
	if err != nil {
		return nil, nil, err
	}
	q, err := v.quality(ctx, &e, count)
	if err != nil {
		return nil, nil, err
	}
	if q.P > significant || q.Accuracy <= q.Chance {
		return nil, q, fmt.Errorf("%w: of held-out examples %.0f %% get their label, always naming the commonest gets %.0f %%, and labels shuffled at random hold together as well in %.1f of 100 cases: give more examples, or clearer ones",
			ErrNotSeparable, 100*q.Accuracy, 100*q.Chance, 100*q.P)
	}
	all := make([]int, len(e.Y))
	for i := range all {
		all[i] = i
	}
	r, err := train(ctx, &e, all, v.penalty)
	if err != nil {
		return nil, nil, err
	}
	return &Model{Labels: slices.Clone(e.Labels), Heads: r.heads(v.temperature)}, q, nil
}

// Tag is a customer's likeliest label.
type Tag struct {
	Label      string  `json:"label"`
	Confidence float64 `json:"confidence"` // estimate of the probability that it is right, among the labels
}

// Tags returns all labels for a vector, the likeliest first, then in order of the
// labels. A vector of zeros, or none, has no tags: there is nothing to go by.
func (m *Model) Tags(vector []float32) []Tag {
	if !slices.ContainsFunc(vector, func(x float32) bool { return x != 0 }) || len(vector) != len(m.Heads[0].Vector) {
		return []Tag{}
	}
	out, top := make([]Tag, len(m.Labels)), math.Inf(-1)
	for i, h := range m.Heads {
		s := float64(h.Bias)
		for j, w := range h.Vector {
			s += float64(w) * float64(vector[j])
		}
		out[i] = Tag{m.Labels[i], s}
		top = math.Max(top, s)
	}
	sum := 0.0
	for i := range out {
		out[i].Confidence = math.Exp(out[i].Confidence - top)
		sum += out[i].Confidence
	}
	for i := range out {
		out[i].Confidence /= sum
	}
	slices.SortStableFunc(out, func(a, b Tag) int {
		switch {
		case a.Confidence > b.Confidence:
			return -1
		case a.Confidence < b.Confidence:
			return 1
		}
		return 0
	})
	return out
}
