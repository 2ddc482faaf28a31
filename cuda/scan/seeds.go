package scan

import (
	"context"
	"errors"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/seeds"
)

// bySeeds says whether a set is scored by package seeds, which writes no product: one of
// more vectors than go through a pass at once, and nothing else, of which the highest
// count.
func (p *Population) bySeeds(s *Set) bool {
	if len(s.Heads) <= headsMost || s.Common != nil || s.Reduce != Max && s.Reduce != TopMean || seeds.Fits(p.d, p.dim, s.highest()) != nil {
		return false
	}
	for h := range s.Heads {
		if s.Heads[h].Codes == nil || len(s.Heads[h].Tables)+len(s.Heads[h].Trees) > 0 {
			return false
		}
	}
	return s.highest() >= 1 && s.highest() <= min(len(s.Heads), TopMost)
}

// highest is how many of the heads' scores count.
func (s *Set) highest() int {
	if s.Reduce == TopMean {
		return s.Top
	}
	return 1
}

// beforeSeeds is how many of these sets come before the first that package seeds scores.
func (p *Population) beforeSeeds(sets []Set) int {
	for i := range sets {
		if p.bySeeds(&sets[i]) {
			return i
		}
	}
	return len(sets)
}

// seeded scores the first n rows under such a set, and gives the pass to then.
func (p *Population) seeded(ctx context.Context, n int, mask []uint64, set *Set, progress func(done, total int), then func(w *pass) error) (err error) {
	heads := make([]seeds.Head, len(set.Heads))
	for h := range heads {
		heads[h] = seeds.Head(set.Heads[h].Head)
	}
	s, err := seeds.New(ctx, p.d, p.dim, heads)
	if err != nil {
		return err
	}
	w := p.newPass(n, 1, nil)
	defer func() { err = errors.Join(err, s.Close(), w.free()) }()
	if err := w.takeScores(); err != nil {
		return err
	}
	if err := p.putMask(ctx, mask); err != nil {
		return err
	}
	err = w.works(ctx, w.tile(), 1, nil, func(q *cuda.Queue, _ int, t tile, at lying) error {
		first := int64(p.segments[t.i].first + t.from)
		return s.Score(q, seeds.Rows{
			N: int64(t.n), Codes: at.codes, CodesAt: at.codesAt, Scales: at.scales, ScalesAt: at.scalesAt,
			Mask: p.mask, MaskAt: first / 8,
		}, set.highest(), set.Reduce == Max, w.scores, first*4)
	}, progress)
	if err != nil {
		return err
	}
	return then(w)
}
