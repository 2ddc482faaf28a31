package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// Outcomes of an audience's members lie under audience/<collection>/<name>/
// outcome/<id>, one a customer: the last that was sent counts. Who is in the
// control group follows from the id and is not stored, unless chance was had
// elsewhere and the outcome says so. Evidence (audience.Observed) is taken from the list as
// it stands when the outcome comes in, so that a refresh does not change it.

// CustomerOutcome is what became of one member.
type CustomerOutcome struct {
	ID      string     `json:"id"`
	Outcome *Converted `json:"outcome"`
	Value   *float64   `json:"value,omitempty" doc:"what it was worth; absent: 0"`
	At      *time.Time `json:"at,omitempty" doc:"when"`
	// Group is for experiments whose groups were drawn elsewhere.
	Group string `json:"group,omitempty" enum:"treated,control" doc:"where the groups were drawn elsewhere"`
}

// Converted is 0 or 1; in JSON false and true as well.
type Converted bool

// UnmarshalJSON takes 0, 1, false and true.
func (c *Converted) UnmarshalJSON(raw []byte) error {
	switch string(bytes.TrimSpace(raw)) {
	case "1", "true":
		*c = true
	case "0", "false":
		*c = false
	default:
		return fmt.Errorf("outcome %.20s: want 0 or 1", raw)
	}
	return nil
}

// MarshalJSON writes 0 or 1.
func (c Converted) MarshalJSON() ([]byte, error) {
	if c {
		return []byte("1"), nil
	}
	return []byte("0"), nil
}

// storedOutcome is an outcome as it is kept.
type storedOutcome struct {
	CustomerOutcome
	Version  int     `json:"version"` // of the list that held the customer
	Evidence float64 `json:"evidence"`
}

func outcomesKey(coll, name string) string { return audienceKey(coll, name) + "outcome/" }

func outcomeKey(coll, name, id string) string { return outcomesKey(coll, name) + id }

func (o *CustomerOutcome) check() error {
	var faults []error
	if o.ID == "" {
		faults = append(faults, faultf("id", "empty"))
	}
	if o.Outcome == nil {
		faults = append(faults, faultf("outcome", "missing: want 0 or 1"))
	}
	if o.Value != nil && (math.IsNaN(*o.Value) || math.IsInf(*o.Value, 0)) {
		faults = append(faults, faultf("value", "%v: want a finite number", *o.Value))
	}
	if o.Group != "" && o.Group != "treated" && o.Group != "control" {
		faults = append(faults, faultf("group", "%q: want treated or control", o.Group))
	}
	return errors.Join(faults...)
}

// OutcomeInput is an outcome with its place in what the caller sent.
type OutcomeInput struct {
	Line    int
	Outcome CustomerOutcome
}

// AddOutcomes stores outcomes of members, of the list that counts or of an
// earlier version, in one durable step. Others are refused by name.
func (s *Service) AddOutcomes(ctx context.Context, coll, name string, in []OutcomeInput) (Outcome, error) {
	out := Outcome{Refused: []Verdict{}}
	if len(in) > s.opt.Limits.MaxBatch {
		return out, fmt.Errorf("%d outcomes in one batch: at most %d, send several: %w", len(in), s.opt.Limits.MaxBatch, index.ErrInvalid)
	}
	if _, err := s.config(coll); err != nil {
		return out, err
	}
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	lists, err := s.keptLists(coll, name)
	if err != nil {
		return out, err
	}
	held := lists[0].Result.Manifest.Control
	pairs := map[string][]byte{}
	for _, item := range in {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		o := item.Outcome
		refuse := func(why string) {
			out.Refused = append(out.Refused, Verdict{Line: item.Line, ID: clip(o.ID), Reason: why})
		}
		if err := o.check(); err != nil {
			refuse(reason(err))
			continue
		}
		if o.Group != "" && held != nil {
			refuse("group: the audience has a control group of its own: leave group out")
			continue
		}
		version, evidence, found, err := s.evidence(coll, o.ID, lists)
		if err != nil {
			return out, err
		}
		if !found {
			refuse("not a member of the audience, in any version that is kept")
			continue
		}
		key := outcomeKey(coll, name, o.ID)
		if pairs[key], err = json.Marshal(storedOutcome{o, version, evidence}); err != nil {
			return out, err
		}
		out.Accepted++
	}
	if len(pairs) == 0 {
		return out, nil
	}
	return out, s.opt.KV.Put(ctx, pairs)
}

// keptLists are an audience's lists, the one that counts first.
func (s *Service) keptLists(coll, name string) ([]AudienceInfo, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	if info.Result == nil {
		return nil, faultf("audience", "%q has no list", name)
	}
	out := []AudienceInfo{info}
	for i := len(info.Versions) - 1; i >= 0; i-- {
		old, err := s.at(coll, name, info.Versions[i].Version)
		if err != nil {
			return nil, err
		}
		out = append(out, old)
	}
	return out, nil
}

// evidence finds a customer on one of an audience's lists, by its score there.
func (s *Service) evidence(coll, id string, lists []AudienceInfo) (version int, evidence float64, found bool, err error) {
	for i := range lists {
		l := &lists[i]
		if score, in, err := s.scoreIn(coll, id, l); err != nil || in {
			return l.version(), l.Result.Quality.Platt.Evidence(score), in, err
		}
	}
	return 0, 0, false, nil
}

// eachOutcome visits an audience's outcomes in order of id, with the group of
// each customer.
func (s *Service) eachOutcome(ctx context.Context, coll string, info *AudienceInfo, visit func(o *storedOutcome, control bool) error) error {
	held := info.Result.Manifest.Control
	prefix := outcomesKey(coll, info.Name)
	return s.eachIn(prefix, 4096, func(key string, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var o storedOutcome
		if err := json.Unmarshal(value, &o); err != nil {
			return fmt.Errorf("audience %q, outcome of %q: %w", info.Name, clip(strings.TrimPrefix(key, prefix)), errors.Join(err, index.ErrCorrupt))
		}
		return visit(&o, o.Group == "control" || held.Holds(o.ID))
	})
}

// LiftRequest says how outcomes are read.
type LiftRequest struct {
	// Missing is what members without an outcome are: "ignore" (the default)
	// leaves them out, "zero" counts them as not converted, for files that list
	// conversions only.
	Missing string
}

// Lift compares the members who were exported with those held back.
func (s *Service) Lift(ctx context.Context, coll, name string, req LiftRequest) (*audience.Lift, error) {
	if req.Missing != "" && req.Missing != "ignore" && req.Missing != "zero" {
		return nil, faultf("missing", "%q: want ignore or zero", req.Missing)
	}
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	var treated, control audience.Group
	withValue, elsewhere := false, false
	seen := map[string]bool{}
	err = s.eachOutcome(ctx, coll, &info, func(o *storedOutcome, held bool) error {
		value := 0.0
		if o.Value != nil {
			value, withValue = *o.Value, true
		}
		elsewhere = elsewhere || o.Group != ""
		group := &treated
		if held {
			group = &control
		}
		group.Add(bool(*o.Outcome), value)
		if req.Missing == "zero" {
			seen[o.ID] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if req.Missing == "zero" {
		if elsewhere {
			return nil, faultf("missing", "zero needs the audience's own control group: of members without an outcome nobody knows the group")
		}
		if err := s.addMissing(ctx, coll, &info, seen, &treated, &control); err != nil {
			return nil, err
		}
	}
	out := audience.MeasureLift(treated, control, withValue)
	if info.Result.Manifest.Control != nil {
		out.CheckSplit(info.Result.Manifest.Control.Share())
	}
	if n := treated.Customers + control.Customers; n > 0 && treated.Converted+control.Converted == n {
		out.Verdict = audience.LiftUnfit
		out.Words = "Not measured: every outcome is a conversion. If the file lists conversions only, ask with missing=zero."
	}
	return &out, nil
}

// addMissing counts members without an outcome as not converted.
func (s *Service) addMissing(ctx context.Context, coll string, info *AudienceInfo, seen map[string]bool, treated, control *audience.Group) error {
	for page := 0; page*pageSize < info.Size; page++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		members, err := s.membersPage(coll, info, page)
		if err != nil {
			return err
		}
		for _, m := range members {
			switch {
			case seen[m.ID]:
			case m.Control:
				control.Add(false, 0)
			default:
				treated.Add(false, 0)
			}
		}
	}
	return nil
}

// Recalibrate fits the audience's probabilities to the outcomes of the treated.
// They are those of this list's members from then on, and of later lists'.
func (s *Service) Recalibrate(ctx context.Context, coll, name string) (*audience.Observed, error) {
	var out *audience.Observed
	err := s.edit(ctx, coll, name, func(info *AudienceInfo) error {
		if _, err := s.finished(coll, name); err != nil {
			return err
		}
		var evidence []float64
		var converted []bool
		err := s.eachOutcome(ctx, coll, info, func(o *storedOutcome, control bool) error {
			if !control {
				evidence, converted = append(evidence, o.Evidence), append(converted, bool(*o.Outcome))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if out, err = audience.Observe(evidence, converted); err != nil {
			return err
		}
		info.Result.Recalibrate(out)
		return nil
	})
	return out, err
}

// outcomeValues are the values of an audience's outcomes by id; where no value was
// sent, 1 for converted and 0 for not.
func (s *Service) outcomeValues(ctx context.Context, coll, name string) (map[string]float64, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	out, valued := map[string]float64{}, false
	plain := map[string]float64{}
	err = s.eachOutcome(ctx, coll, &info, func(o *storedOutcome, _ bool) error {
		out[o.ID] = 0
		if o.Value != nil {
			out[o.ID], valued = *o.Value, true
		}
		if *o.Outcome {
			plain[o.ID] = 1
		} else {
			plain[o.ID] = 0
		}
		return nil
	})
	if err != nil || valued {
		return out, err
	}
	return plain, nil
}
