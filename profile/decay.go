package profile

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kindred-search/kindred/index"
)

// Decay makes what customers did lose weight with age: half of it every HalfLife days
// before Reference. The reference is part of the definition, so that the same events
// give the same profile on every day.
type Decay struct {
	HalfLife  float64   `json:"half_life_days"`
	Reference time.Time `json:"reference"` // ages are counted from here
}

// Event is an item that a customer bought, saw or did, at a time.
type Event struct {
	Item   string
	At     float64 // seconds since 1970; 0: not dated
	Weight float64 // 0 means 1
}

const (
	// recentMark is behind an item whose decayed weight is a half or more: bought once
	// within a half-life, or more often before.
	recentMark  = " (recent)"
	recentFrom  = 0.5
	forgottenTo = 1.0 / 128 // an item below is not part of the profile any more
	leastDecay  = 30.0      // half-lives, beyond which nothing gets lighter
)

// Weight is the share of its weight that an event keeps, above 0 and up to 1. What is
// not dated, or after the reference, keeps all; so does everything without a decay.
func (d *Decay) Weight(at float64) float64 {
	if d == nil || at == 0 {
		return 1
	}
	age := (float64(d.Reference.UnixNano())/1e9 - at) / 86400 / d.HalfLife
	return math.Exp2(-math.Min(math.Max(age, 0), leastDecay))
}

func (d *Decay) validate() error {
	switch {
	case !(d.HalfLife > 0) || d.HalfLife > 1e6:
		return fmt.Errorf("half_life_days %v: want days, above 0 and up to 1,000,000: %w", d.HalfLife, index.ErrInvalid)
	case d.Reference.IsZero():
		return fmt.Errorf("reference is missing: give the time that ages are counted from, such as 2026-03-01T00:00:00Z: %w", index.ErrInvalid)
	case d.Reference.Year() < 1700 || d.Reference.Year() > 2200:
		return fmt.Errorf("reference %v: want a time from 1700 to 2200: %w", d.Reference, index.ErrInvalid)
	}
	return nil
}

// Elements are the elements of a set of events, ascending: each item, and beside it
// the item with " (recent)" where its decayed weights add up to a half or more. So a
// head can give recent events a weight of their own, and what compares sets counts
// them twice. An item whose weight has fallen below 1/128 (seven half-lives) is
// forgotten. Without a decay it is the items.
func (d *Decay) Elements(events []Event) []string {
	weights := map[string]float64{}
	for _, e := range events {
		w := e.Weight
		if w == 0 {
			w = 1
		}
		weights[e.Item] += w * d.Weight(e.At)
	}
	return d.Marked(weights)
}

// Marked are the elements of items with these decayed weights, see Elements.
func (d *Decay) Marked(weights map[string]float64) []string {
	out := make([]string, 0, len(weights))
	for item, w := range weights {
		if d == nil {
			out = append(out, item)
			continue
		}
		if w >= forgottenTo {
			out = append(out, item)
		}
		if w >= recentFrom {
			out = append(out, item+recentMark)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
