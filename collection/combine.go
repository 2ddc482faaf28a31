package collection

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// The operations of a CombineRequest.
const (
	Union        = "union"
	Intersection = "intersection"
	Difference   = "difference" // of the first, those in none of the others
)

// CombineRequest makes an audience of the lists of others. Its score is a
// member's standing on those lists: 1 at the head of a list, 0 at its end; the
// best standing counts in a union, the worst in an intersection, the first list's
// in a difference. Who is held back from a parent's exports is held back from
// this one's.
type CombineRequest struct {
	Name      string   `json:"name" pattern:"^[a-z0-9_-]{1,64}$"`
	Operation string   `json:"operation" enum:"union,intersection,difference"`
	Audiences []string `json:"audiences" minItems:"2" maxItems:"64"`
	audience.Lifecycle
}

// Combine makes an audience from others as a job. Its refresh combines the lists
// that count then.
func (s *Service) Combine(ctx context.Context, coll string, req CombineRequest) (Job, error) {
	if _, err := s.config(coll); err != nil {
		return Job{}, err
	}
	var faults []error
	if !nameRule.MatchString(req.Name) {
		faults = append(faults, faultf("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", req.Name))
	}
	if !slices.Contains([]string{Union, Intersection, Difference}, req.Operation) {
		faults = append(faults, faultf("operation", "%q: want union, intersection or difference", req.Operation))
	}
	faults = append(faults, checkNames(req.Audiences), req.Lifecycle.Validate())
	if req.Refresh != nil && req.Refresh.Churn != nil {
		faults = append(faults, faultf("refresh.churn", "an audience combined from others has no scores of its own to keep members by"))
	}
	if slices.Contains(req.Audiences, req.Name) {
		faults = append(faults, faultf("name", "%q is one of the audiences to combine", req.Name))
	}
	for i, name := range req.Audiences {
		if _, err := s.finished(coll, name); err != nil {
			faults = append(faults, faultf(fmt.Sprintf("audiences[%d]", i), "%s", reason(err)))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return Job{}, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	return s.beginAudience(ctx, coll, AudienceInfo{
		Name: req.Name, Combine: &req, Request: audience.Request{Name: req.Name, Lifecycle: req.Lifecycle},
	}, &storedJob{Combine: &req})
}

// runCombine is the body of a job that combines, at first or anew.
func (s *Service) runCombine(ctx context.Context, job *storedJob, built time.Time) error {
	coll := job.Collection
	info, err := s.info(coll, job.Target)
	if err != nil {
		return err
	}
	req := info.Combine
	snap, err := s.snapshot(ctx, coll)
	if err != nil {
		return err
	}
	defer closeSnapshot(snap, s.log)
	n := &numbering{snap: snap, gone: map[string]uint32{}}
	// Standing and probability lie by row: what a list needs of memory does not
	// grow with the number of lists.
	c := &combination{op: req.Operation, score: make([]float32, snap.Len()), probability: make([]float32, snap.Len())}
	res := plainResult(info.Name, snap)
	var held []audience.Holdback
	for i, name := range req.Audiences {
		parent, err := s.finished(coll, name)
		if err != nil {
			return fmt.Errorf("audiences[%d]: %w", i, err)
		}
		s.jobs.update(job, func(v *Job) { v.Stage, v.Done, v.Total = "combining", int64(i), int64(len(req.Audiences)) })
		if err := s.addList(ctx, coll, &parent, n, c); err != nil {
			return err
		}
		res.Manifest.Parents = append(res.Manifest.Parents, audience.Parent{Audience: name, Version: parent.version(), Size: parent.Size})
		if parent.Result != nil && parent.Result.Manifest.Control != nil {
			held = append(held, *parent.Result.Manifest.Control)
		}
	}
	res.Manifest.Method, res.Manifest.Asked = req.Operation, req.Operation
	if len(n.names) > 0 {
		res.Warnings = append(res.Warnings, fmt.Sprintf("%d members of the combined lists are no customers any more and are left off", len(n.names)))
	}
	rows := c.ranked(snap)
	if len(rows) == 0 {
		res.Warnings = append(res.Warnings, "the list is empty: the lists have nobody to combine")
	}
	res.Manifest.Size = len(rows)
	if len(rows) > 0 {
		res.Threshold = c.score[rows[len(rows)-1]]
	}
	if err := s.holdBackCombined(&info, res, held, snap, rows); err != nil {
		return err
	}
	if info.State == JobDone {
		res.Quality.Platt.Observed = info.Result.Quality.Platt.Observed
		if res.Churn, err = s.churned(ctx, coll, &info, n, c.set); err != nil {
			return err
		}
	}
	return s.storeList(ctx, job, list{res, built, len(rows), func(from, to int) []audience.Member {
		page := make([]audience.Member, to-from)
		for i, row := range rows[from:to] {
			page[i] = audience.Member{ID: snap.ID(row), Score: c.score[row], Probability: c.probability[row], Rank: from + i + 1}
		}
		return page
	}})
}

// plainResult is the answer of an audience without a model.
func plainResult(name string, snap index.Snapshot) *audience.Result {
	return &audience.Result{
		Manifest:   audience.Manifest{Name: name, Version: snap.Version(), Customers: int(snap.Live().GetCardinality()), Columns: []string{}},
		Model:      audience.Model{Bins: []index.Bins{}},
		Quality:    audience.Quality{Verdict: audience.NotMeasured, Words: "Not measured: the list is combined from others, whose sheets say how good they are.", Baselines: []audience.Measure{}},
		Doctor:     audience.Doctor{Verdict: "go", Notes: []string{}},
		Curve:      []audience.Point{},
		Reasons:    []audience.Reason{},
		Fairness:   []audience.Disparity{},
		Candidates: []audience.Candidate{},
		Warnings:   []string{},
	}
}

// combination is the lists combined so far.
type combination struct {
	op                 string
	begun              bool
	set                *roaring.Bitmap
	score, probability []float32
}

// addList takes a list into the combination. Members that are no customers any
// more are left out.
func (s *Service) addList(ctx context.Context, coll string, info *AudienceInfo, n *numbering, c *combination) error {
	rows := uint32(n.snap.Len())
	here := func(row uint32) bool { return row < rows }
	size := float32(max(info.Size, 1))
	l, err := s.numberedList(ctx, coll, info, n, func(row uint32, m *audience.Member) {
		if !here(row) {
			return
		}
		standing := 1 - float32(m.Rank-1)/size
		had := c.begun && c.set.Contains(row)
		switch {
		case !c.begun, c.op == Union && !had:
			c.score[row], c.probability[row] = standing, m.Probability
		case c.op == Union:
			c.score[row], c.probability[row] = max(c.score[row], standing), max(c.probability[row], m.Probability)
		case c.op == Intersection && had:
			c.score[row], c.probability[row] = min(c.score[row], standing), min(c.probability[row], m.Probability)
		}
	})
	if err != nil {
		return err
	}
	l.set.RemoveRange(uint64(rows), uint64(rows)+uint64(len(n.names)))
	switch {
	case !c.begun:
		c.set, c.begun = l.set, true
	case c.op == Union:
		c.set.Or(l.set)
	case c.op == Intersection:
		c.set.And(l.set)
	default:
		c.set.AndNot(l.set)
	}
	return nil
}

// ranked are the combined rows, best first, ties by id.
func (c *combination) ranked(snap index.Snapshot) []uint32 {
	rows := c.set.ToArray()
	slices.SortFunc(rows, func(x, y uint32) int {
		return cmp.Or(cmp.Compare(c.score[y], c.score[x]), cmp.Compare(snap.ID(x), snap.ID(y)))
	})
	return rows
}

// holdBackCombined joins the parents' control groups and the audience's own.
func (s *Service) holdBackCombined(info *AudienceInfo, res *audience.Result, held []audience.Holdback, snap index.Snapshot, rows []uint32) error {
	if info.State == JobDone && info.Result.Manifest.Control != nil {
		// Nobody changes sides, but a parent may have got a group since.
		had := *info.Result.Manifest.Control
		held = append(slices.Clone(had.Several), held...)
		if had.Several = nil; had.Below > 0 {
			held = append(held, had)
		}
	}
	if info.Request.Control != nil && info.State != JobDone {
		ids := make([]string, len(rows))
		for i, row := range rows {
			ids[i] = snap.ID(row)
		}
		own, err := audience.HoldBack(info.Request.Control, info.Name, info.Request.Seed, ids)
		if err != nil {
			return err
		}
		held = append(held, *own)
	}
	all := &audience.Holdback{}
	for _, one := range held {
		one.Members = 0
		if !slices.ContainsFunc(all.Several, func(other audience.Holdback) bool { return sameRule(&one, &other) }) {
			all.Several = append(all.Several, one)
		}
	}
	if len(all.Several) == 0 {
		return nil
	}
	for _, row := range rows {
		if all.Holds(snap.ID(row)) {
			all.Members++
		}
	}
	res.Manifest.Control = all
	return nil
}

func sameRule(a, b *audience.Holdback) bool {
	x, errx := json.Marshal(a)
	y, erry := json.Marshal(b)
	return errx == nil && erry == nil && string(x) == string(y)
}

// churned compares a combined list with the one that it replaces.
func (s *Service) churned(ctx context.Context, coll string, info *AudienceInfo, n *numbering, now *roaring.Bitmap) (*audience.Churn, error) {
	before, err := s.numberedList(ctx, coll, info, n, nil)
	if err != nil {
		return nil, err
	}
	kept, size := int(before.set.AndCardinality(now)), int(now.GetCardinality())
	was := len(before.order)
	c := &audience.Churn{Was: was, Kept: kept, Entered: size - kept, Left: was - kept, Allowed: was}
	c.Wanted = min(c.Entered, c.Left)
	return c, nil
}
