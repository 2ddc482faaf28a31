package audience

import (
	"math"
	"math/rand/v2"
	"slices"
)

// heldScores are the scores of held-out seeds and background, by fold, each fold's
// standardised on its background, and how the final score lies to that scale.
type heldScores struct {
	pos, neg [][]float64 // by fold
	mean, sd float64     // of the final score on the background
	// prevalence of the kind among who is no seed; 0: not known.
	prevalence float64
}

// weighted is a standardised score that stands for some customers.
type weighted struct{ z, n float64 }

// heldScores collects them. prevalence is of everyone who is no seed, 0: not known.
func (c *comparison) heldScores(scores []float32, background []int, prevalence float64) *heldScores {
	h := &heldScores{prevalence: prevalence}
	for fold := range c.folds {
		k, sum := c.out.seeds[fold], c.out.held(c.nested[fold], fold)
		mean, sd := moments(sum[k:])
		if sd == 0 {
			sd = 1
		}
		for i := range sum {
			sum[i] = (sum[i] - mean) / sd
		}
		h.pos, h.neg = append(h.pos, sum[:k]), append(h.neg, sum[k:])
	}
	final := make([]float64, len(background))
	for i, at := range background {
		final[i] = float64(scores[c.m.rows[at]])
	}
	if h.mean, h.sd = moments(final); h.sd == 0 {
		h.sd = 1
	}
	return h
}

// density is the probability of the seeds' kind as a logistic function of the
// standardised score: 1 / (1 + exp(-(a + b z))).
type density struct{ a, b float64 }

func (r density) probability(z float64) float64 { return sigmoid(r.a + r.b*z) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// fit learns the probability from seeds of the kind and from everyone, who may be of
// it or not (presence-only data: Ward and others, Biometrics 2009): the seeds' density
// is everyone's times p(z) over its mean, which is the prevalence. The likelihood of
// the seeds is highest; b is not below zero.
//
// Where the prevalence is not known, it is what the likelihood says. Seeds tell it
// only by where their density stops rising against everyone's, so the best-scored
// count as certainSeeds more seeds whose probability is near 1: that decides where
// the seeds do not.
func (h *heldScores) fit(pos, neg []weighted) density {
	if h.prevalence > 0 {
		return fitAt(pos, neg, h.prevalence)
	}
	return climb(pos, neg, fitAt(pos, neg, 0.1))
}

const certainSeeds = 2

// climb leads a probability to the highest likelihood, the prevalence free, by
// Newton's method, damped (Levenberg and Marquardt) so that each step goes up.
func climb(pos, neg []weighted, r density) density {
	seeds, everyone, top := 0.0, 0.0, weighted{neg[len(neg)-1].z, certainSeeds}
	for _, w := range pos {
		seeds += w.n
	}
	for _, w := range neg {
		everyone += w.n
	}
	sure := append(slices.Clone(pos), top)
	// value is the log-likelihood, with its gradient and second derivatives.
	value := func(r density) (l float64, g [2]float64, h [3]float64) {
		for _, w := range sure {
			p := r.probability(w.z)
			l += w.n * math.Log(math.Max(p, 1e-300))
			g[0], g[1] = g[0]+w.n*(1-p), g[1]+w.n*(1-p)*w.z
			v := w.n * p * (1 - p)
			h[0], h[1], h[2] = h[0]-v, h[1]-v*w.z, h[2]-v*w.z*w.z
		}
		var m, ma, mb, maa, mab, mbb float64
		for _, w := range neg {
			p := r.probability(w.z)
			n := w.n / everyone
			v := n * p * (1 - p)
			u := v * (1 - 2*p)
			m, ma, mb = m+n*p, ma+v, mb+v*w.z
			maa, mab, mbb = maa+u, mab+u*w.z, mbb+u*w.z*w.z
		}
		m = math.Max(m, 1e-300)
		l -= seeds * math.Log(m)
		g[0], g[1] = g[0]-seeds*ma/m, g[1]-seeds*mb/m
		h[0] -= seeds * (maa/m - ma*ma/(m*m))
		h[1] -= seeds * (mab/m - ma*mb/(m*m))
		h[2] -= seeds * (mbb/m - mb*mb/(m*m))
		return l, g, h
	}
	damp := 1.0
	l, g, h := value(r)
	for range 60 {
		aa, ab, bb := -h[0]+damp, -h[1], -h[2]+damp
		det := aa*bb - ab*ab
		if aa <= 0 || det <= 0 {
			damp *= 4
			continue
		}
		next := density{r.a + (bb*g[0]-ab*g[1])/det, math.Max(0, r.b+(aa*g[1]-ab*g[0])/det)}
		at, ng, nh := value(next)
		if !(at > l) {
			if damp *= 4; damp > 1e12 {
				break
			}
			continue
		}
		done := at-l < 1e-9
		r, l, g, h, damp = next, at, ng, nh, math.Max(damp/4, 1e-9)
		if done {
			break
		}
	}
	return r
}

// fitAt is the best probability whose mean over everyone is the prevalence.
func fitAt(pos, neg []weighted, prevalence float64) density {
	a := logit(prevalence)
	like := func(b float64) float64 {
		a = intercept(neg, b, prevalence, a)
		sum := 0.0
		for _, w := range pos {
			sum -= w.n * math.Log1p(math.Exp(-(a + b*w.z)))
		}
		return sum
	}
	b := math.Exp(golden(func(x float64) float64 { return like(math.Exp(x)) }, math.Log(0.01), math.Log(50), 24))
	if like(0) >= like(b) { // like leaves its intercept in a
		return density{a: logit(prevalence)}
	}
	return density{a, b}
}

// intercept is the a for which everyone's mean probability is the prevalence, by
// Newton's method in log-odds from a guess, kept within a bracket.
func intercept(neg []weighted, b, prevalence, guess float64) float64 {
	low, high := -800.0, 800.0
	a := guess
	for range 100 {
		mean, slope, n := 0.0, 0.0, 0.0
		for _, w := range neg {
			p := sigmoid(a + b*w.z)
			mean, slope, n = mean+w.n*p, slope+w.n*p*(1-p), n+w.n
		}
		mean, slope = mean/n, slope/n
		if mean > prevalence {
			high = a
		} else {
			low = a
		}
		if math.Abs(mean-prevalence) < 1e-9*prevalence || high-low < 1e-9 {
			break
		}
		next := a
		if slope > 0 && mean > 0 && mean < 1 {
			next = a + (logit(prevalence)-logit(mean))*mean*(1-mean)/slope
		}
		if !(next > low && next < high) {
			next = (math.Max(low, -100) + math.Min(high, 100)) / 2
			if !(next > low && next < high) {
				next = (low + high) / 2
			}
		}
		a = next
	}
	return a
}

// golden finds the place of a maximum between low and high, by golden sections.
func golden(f func(float64) float64, low, high float64, steps int) float64 {
	const inner = 0.6180339887498949
	x, y := high-inner*(high-low), low+inner*(high-low)
	fx, fy := f(x), f(y)
	for range steps {
		if fx >= fy {
			high, y, fy = y, x, fx
			x = high - inner*(high-low)
			fx = f(x)
		} else {
			low, x, fx = x, y, fy
			y = low + inner*(high-low)
			fy = f(y)
		}
	}
	return (low + high) / 2
}

// onScores is a probability on standardised scores as one on final scores.
func (h *heldScores) onScores(r density) Calibration {
	return Calibration{A: r.a - r.b*h.mean/h.sd, B: r.b / h.sd, Norm: 1}
}

// calibrate fits on all folds' held-out scores.
func (h *heldScores) calibrate() Calibration {
	return h.onScores(h.fit(ones(slices.Concat(h.pos...)), grouped(slices.Concat(h.neg...))))
}

func ones(z []float64) []weighted {
	out := make([]weighted, len(z))
	for i, x := range z {
		out[i] = weighted{x, 1}
	}
	return out
}

// refits are calibrations on seeds drawn again from the held-out ones, with
// replacement: how the calibration might have come out with other seeds.
func (h *heldScores) refits(n int, seed uint64) []Calibration {
	rng := rand.New(rand.NewPCG(seed, 0x726563616c6962))
	pos, neg := slices.Concat(h.pos...), grouped(slices.Concat(h.neg...))
	out := make([]Calibration, n)
	count := make([]float64, len(pos))
	drawn := make([]weighted, 0, len(pos))
	for d := range out {
		clear(count)
		for range pos {
			count[rng.IntN(len(pos))]++
		}
		drawn = drawn[:0]
		for i, n := range count {
			if n > 0 {
				drawn = append(drawn, weighted{pos[i], n})
			}
		}
		out[d] = h.onScores(h.fit(drawn, neg))
	}
	return out
}

// grouped puts scores that lie side by side together, in groups that are smaller the
// higher the scores, and in ascending order.
func grouped(z []float64) []weighted {
	const n = 200
	z = slices.Clone(z)
	slices.Sort(z)
	out := make([]weighted, 0, n)
	at := func(i int) int {
		rest := 1 - float64(i)/n
		return int(float64(len(z)) * (1 - rest*rest))
	}
	for i := range n {
		part := z[at(i):at(i+1)]
		if len(part) == 0 {
			continue
		}
		w := weighted{n: float64(len(part))}
		for _, x := range part {
			w.z += x / w.n
		}
		out = append(out, w)
	}
	return out
}

// Probability estimates that a customer of this score is of the seeds' kind or,
// once there are outcomes, that the outcome comes.
func (c Calibration) Probability(score float32) float64 {
	if c.Observed != nil {
		return c.Observed.Probability(c.Evidence(score))
	}
	if c.Norm <= 0 {
		return 0
	}
	return 1 / (1 + c.Norm*math.Exp(-(c.A+c.B*float64(score))))
}
