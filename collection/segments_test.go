package collection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/audience/tag"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

func discover(t *testing.T, s *Service, req segment.Params) *SegmentSet {
	t.Helper()
	job, err := s.DiscoverSegments(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("job %+v", job)
	}
	set, err := s.Segments(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestSegments(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	if _, err := s.Segments(t.Context(), "c"); !errors.Is(err, index.ErrNotFound) {
		t.Fatalf("before the first run: %v", err)
	}
	lovers := seedPopulation(t, s, 2000)
	set := discover(t, s, segment.Params{K: 2, Features: feature("age")})
	if len(set.Segments) != 2 || set.Customers != 2000 || !set.Text {
		t.Fatalf("%+v", set)
	}
	small, large := set.Segments[1], set.Segments[0]
	if small.Size != len(lovers) || large.Size != 2000-len(lovers) || large.Number != 1 || small.Number != 2 {
		t.Errorf("sizes %d and %d, numbers %d and %d", large.Size, small.Size, large.Number, small.Number)
	}
	if !strings.Contains(small.Label, "sailing") || !strings.Contains(large.Label, "cooking") {
		t.Errorf("labels %q and %q", large.Label, small.Label)
	}
	if len(small.Typical) != 5 || !slices.Contains(lovers, small.Typical[0]) || small.Cohesion <= 0 || small.Silhouette <= 0 {
		t.Errorf("%+v", small)
	}
	for i, id := range []string{lovers[3], "c0001"} {
		of, err := s.SegmentOf(t.Context(), "c", id)
		if err != nil || of.Number != 2-i || of.Silhouette <= 0 || of.Label == "" {
			t.Errorf("segment of %s: %+v, %v", id, of, err)
		}
	}
	page, err := s.SegmentCustomers(t.Context(), "c", 2, ListRequest{Limit: 3, Filter: &index.Filter{Field: "age", Gte: 60.0}, Fields: []string{"age"}})
	if err != nil || len(page.Hits) != 3 || page.Count == 0 || page.Count >= len(lovers) {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, h := range page.Hits {
		if !slices.Contains(lovers, h.ID) || h.Fields["age"].(float64) < 60 {
			t.Errorf("%+v", h)
		}
	}
	for _, q := range []SimilarSegmentsRequest{{Text: "sailing boats"}, {Customer: lovers[0]}} {
		near, err := s.SimilarSegments(t.Context(), "c", q)
		if err != nil || len(near) != 2 || near[0].Number != 2 || near[0].Score <= near[1].Score {
			t.Errorf("%+v: %+v, %v", q, near, err)
		}
	}
	near, err := s.SimilarSegments(t.Context(), "c", SimilarSegmentsRequest{Segment: 1})
	if err != nil || len(near) != 1 || near[0].Number != 2 {
		t.Errorf("near 1: %+v, %v", near, err)
	}
	// A second run gives the same, but for its job and time.
	again := discover(t, s, segment.Params{K: 2, Features: feature("age")})
	again.Job, again.Created = set.Job, set.Created
	a, _ := json.Marshal(set)
	b, _ := json.Marshal(again)
	if !bytes.Equal(a, b) {
		t.Errorf("another run gives\n%s\nnot\n%s", b, a)
	}
	// An erased customer is typical no more.
	if _, err := s.Erase(t.Context(), "c", small.Typical[0]); err != nil {
		t.Fatal(err)
	}
	if set, err = s.Segments(t.Context(), "c"); err != nil || slices.Contains(set.Segments[1].Typical, small.Typical[0]) {
		t.Errorf("%v, %v", set.Segments[1].Typical, err)
	}
	if err := s.DropSegments(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SegmentOf(t.Context(), "c", "c0001"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("after dropping: %v", err)
	}
}

func feature(columns ...string) audience.Features { return audience.Features{Columns: columns} }

func TestSegmentsRefuse(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	seedPopulation(t, s, 40)
	for _, req := range []segment.Params{{K: 1}, {K: -3}, {K: 500}, {MaxK: 1}, {Features: feature("nope")}} {
		if _, err := s.DiscoverSegments(t.Context(), "c", req); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	job, err := s.DiscoverSegments(t.Context(), "c", segment.Params{K: 20})
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobFailed || !strings.Contains(job.Problem, "200 at least") {
		t.Errorf("%+v", job)
	}
	discover(t, s, segment.Params{K: 2})
	for _, q := range []SimilarSegmentsRequest{{}, {Segment: 1, Text: "x"}, {Segment: 1, Limit: -1}} {
		if _, err := s.SimilarSegments(t.Context(), "c", q); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := s.SimilarSegments(t.Context(), "c", SimilarSegmentsRequest{Segment: 99}); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("segment 99: %v", err)
	}
	if _, err := s.SegmentCustomers(t.Context(), "c", 99, ListRequest{}); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("customers of segment 99: %v", err)
	}
}

func TestTags(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 400)
	var others []string
	for i := range 20 {
		others = append(others, fmt.Sprintf("c%04d", 4*i+1))
	}
	req := TagRequest{Name: "hobby", Labels: []TagLabel{
		{Label: "sailor", IDs: append(lovers[:8:8], "gone"), Texts: []string{"sails at sea", "boats"}},
		{Label: "cook", IDs: others[:8]},
	}}
	job, err := s.CreateTag(t.Context(), "c", req)
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	info, err := s.Tag(t.Context(), "c", "hobby")
	if err != nil {
		t.Fatal(err)
	}
	if info.Quality.Accuracy < 0.9 || info.Quality.Examples != 18 || !slices.Equal(info.Unmatched, []string{"gone"}) {
		t.Errorf("%+v", info)
	}
	if info.Counts[0].Customers+info.Counts[1].Customers+info.Unsure+info.Without != 400 || info.Counts[0].Customers < 90 {
		t.Errorf("%+v", info.Counts)
	}
	got, err := s.CustomerTags(t.Context(), "c", lovers[50])
	if err != nil || len(got) != 1 || got[0].Label != "sailor" || got[0].Confidence < 0.7 || len(got[0].Labels) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if sum := got[0].Labels[0].Confidence + got[0].Labels[1].Confidence; math.Abs(sum-1) > 1e-9 {
		t.Errorf("confidences add up to %v", sum)
	}
	page, err := s.Tagged(t.Context(), "c", "hobby", TaggedRequest{Label: "sailor", ListRequest: ListRequest{Limit: 500}})
	if err != nil || page.Count != info.Counts[0].Customers || len(page.Hits) != page.Count {
		t.Fatalf("%d of %d, %v", len(page.Hits), page.Count, err)
	}
	for i, h := range page.Hits {
		if !slices.Contains(lovers, h.ID) || i > 0 && h.Score > page.Hits[i-1].Score {
			t.Errorf("%+v", h)
		}
		// A scan and a look at one customer say the same.
		one, err := s.CustomerTags(t.Context(), "c", h.ID)
		if err != nil || math.Abs(one[0].Confidence-float64(h.Score)) > 1e-3 {
			t.Errorf("%s: %v in the list, %+v alone, %v", h.ID, h.Score, one, err)
		}
	}
	if _, err := s.CreateTag(t.Context(), "c", req); !errors.Is(err, index.ErrExists) {
		t.Errorf("again: %v", err)
	}
	// A customer without text has no tag; an erased example is named no more.
	if _, err := s.Upsert(t.Context(), "c", []Input{{Line: 1, Record: record(t, s, `{"id":"mute","fields":{"age":3}}`)}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.CustomerTags(t.Context(), "c", "mute"); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Erase(t.Context(), "c", lovers[0]); err != nil {
		t.Fatal(err)
	}
	if info, err = s.Tag(t.Context(), "c", "hobby"); err != nil || slices.Contains(info.Request.Labels[0].IDs, lovers[0]) {
		t.Errorf("%v, %v", info.Request.Labels[0].IDs, err)
	}
	if err := s.DropTag(t.Context(), "c", "hobby"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.CustomerTags(t.Context(), "c", "c0001"); err != nil || len(got) != 0 {
		t.Errorf("after dropping: %+v, %v", got, err)
	}
}

func TestTagsRefuse(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	seedPopulation(t, s, 200)
	ids := func(from, step int) (out []string) {
		for i := range 10 {
			out = append(out, fmt.Sprintf("c%04d", from+step*i))
		}
		return out
	}
	for _, c := range []struct {
		req  TagRequest
		says string
	}{
		{TagRequest{Name: "A B", Labels: []TagLabel{{Label: "x"}, {Label: "y"}}}, "name"},
		{TagRequest{Name: "a", Labels: []TagLabel{{Label: "x"}}}, "want 2 to"},
		{TagRequest{Name: "a", Labels: []TagLabel{{Label: "x"}, {Label: "x"}}}, "there twice"},
		{TagRequest{Name: "a", Labels: []TagLabel{{Label: "x", IDs: ids(1, 4)}, {Label: "y", IDs: ids(1, 4)}}}, "keep it in one"},
		{TagRequest{Name: "a", MinConfidence: math.NaN(), Labels: []TagLabel{{Label: "x"}, {Label: "y"}}}, "min_confidence"},
		{TagRequest{Name: "a", Labels: []TagLabel{{Label: "x", Texts: []string{" "}}, {Label: ""}}}, "not all spaces"},
	} {
		if _, err := s.CreateTag(t.Context(), "c", c.req); !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	for _, c := range []struct {
		labels []TagLabel
		says   string
	}{
		{[]TagLabel{{Label: "x", IDs: ids(1, 4)[:3]}, {Label: "y", IDs: ids(0, 4)}}, "at least 4"},
		// Both labels are of cooks, drawn alike.
		{[]TagLabel{{Label: "x", IDs: ids(1, 8)}, {Label: "y", IDs: ids(5, 8)}}, tag.ErrNotSeparable.Error()[:20]},
	} {
		job, err := s.CreateTag(t.Context(), "c", TagRequest{Name: "a", Labels: c.labels})
		if err != nil {
			t.Fatal(err)
		}
		if job = waitFor(t, s, job.ID); job.State != JobFailed || !strings.Contains(job.Problem, c.says) {
			t.Errorf("%+v", job)
		}
	}
	if list, err := s.Tags(t.Context(), "c"); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A segment's customers and those with a label are seeds. Who is one of them now is
// no member, also when written after the list was built.
func TestGroupsAsSeeds(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV()})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 400)
	discover(t, s, segment.Params{K: 2, Features: feature()})
	of, err := s.SegmentOf(t.Context(), "c", lovers[0])
	if err != nil {
		t.Fatal(err)
	}
	job, err := s.CreateTag(t.Context(), "c", TagRequest{Name: "hobby", Labels: []TagLabel{{Label: "sailor", IDs: lovers[:8]}, {Label: "cook", IDs: []string{"c0001", "c0002", "c0003", "c0005", "c0006", "c0007", "c0009", "c0010"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	fifty := 50
	for name, seeds := range map[string]audience.Seeds{"by-segment": {Segment: of.Number}, "by-tag": {Tag: &audience.SeedTag{Name: "hobby", Label: "sailor"}}} {
		job, err := s.CreateAudience(t.Context(), "c", audience.Request{Name: name, Method: "centroid", Seeds: seeds, Size: audience.Size{Count: &fifty}})
		if err != nil {
			t.Fatal(err)
		}
		if job = waitFor(t, s, job.ID); job.State != JobDone {
			t.Fatalf("%s: %+v", name, job)
		}
		members, err := s.Members(t.Context(), "c", name, 0, 1000)
		if err != nil || len(members) != fifty {
			t.Fatalf("%s: %d members, %v", name, len(members), err)
		}
		for _, m := range members {
			if slices.Contains(lovers, m.ID) {
				t.Errorf("%s: %s is a seed", name, m.ID)
			}
		}
	}
	// After a restart, too.
	next := newService(t, Options{Store: store, KV: store.KV()})
	if _, err := next.Upsert(t.Context(), "c", []Input{{Line: 1, Record: record(t, next, `{"id":"late","fields":{"age":55,"note":"likes sailing boats sea"}}`)}}); err != nil {
		t.Fatal(err)
	}
	if in, err := next.AudiencesOf(t.Context(), "c", "late"); err != nil || len(in) != 0 {
		t.Errorf("a late sailor is in %q, %v", in, err)
	}
	if again, err := next.SegmentOf(t.Context(), "c", "late"); err != nil || again.Number != of.Number || again.Label != of.Label {
		t.Errorf("%+v, was %+v, %v", again, of, err)
	}
	for _, c := range []struct {
		seeds audience.Seeds
		says  string
	}{
		{audience.Seeds{Segment: 77}, "seeds.segment"},
		{audience.Seeds{Segment: -1}, "seeds.segment -1"},
		{audience.Seeds{Tag: &audience.SeedTag{Name: "mood", Label: "x"}}, "seeds.tag"},
		{audience.Seeds{Tag: &audience.SeedTag{Name: "hobby", Label: "pilot"}}, `"pilot" is not one of`},
	} {
		_, err := next.CreateAudience(t.Context(), "c", audience.Request{Name: "bad", Seeds: c.seeds, Size: audience.Size{Count: &fifty}})
		if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.seeds, err)
		}
	}
}

// A segment and a label limit members: of the list, of those who come later, and of what
// is proposed to change.
func TestGroupsLimitMembers(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV()})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 400)
	discover(t, s, segment.Params{K: 2, Features: feature()})
	sea, err := s.SegmentOf(t.Context(), "c", lovers[0])
	if err != nil {
		t.Fatal(err)
	}
	job, err := s.CreateTag(t.Context(), "c", TagRequest{Name: "hobby", Labels: []TagLabel{{Label: "sailor", IDs: lovers[:8]}, {Label: "cook", IDs: []string{"c0001", "c0002", "c0003", "c0005", "c0006", "c0007", "c0009", "c0010"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	var cooks []audience.SeedRef // who are like nobody at sea
	for i := range 400 {
		if id := fmt.Sprintf("c%04d", i); !slices.Contains(lovers, id) && len(cooks) < 30 {
			cooks = append(cooks, audience.SeedRef{ID: id})
		}
	}
	all := 1.0
	sailor := &audience.SeedTag{Name: "hobby", Label: "sailor"}
	for name, within := range map[string]audience.Within{"by-segment": {Segment: sea.Number}, "by-tag": {Tag: sailor}, "by-both": {Segment: sea.Number, Tag: sailor}} {
		mustAudience(t, s, audience.Request{Name: name, Method: "centroid", Seeds: audience.Seeds{IDs: cooks}, Within: within, Size: audience.Size{Ratio: &all}})
		members := mustMembers(t, s, name, 0)
		if len(members) < len(lovers)/2 || len(members) > len(lovers) {
			t.Errorf("%s: %d members, of %d at sea", name, len(members), len(lovers))
		}
		for _, m := range members {
			if !slices.Contains(lovers, m.ID) {
				t.Errorf("%s: %s is not at sea", name, m.ID)
			}
		}
	}
	for _, line := range []string{`{"id":"late-sailor","fields":{"age":30,"note":"likes sailing boats sea"}}`, `{"id":"late-cook","fields":{"age":30,"note":"likes cooking garden"}}`} {
		if _, err := s.Upsert(t.Context(), "c", []Input{{Line: 1, Record: record(t, s, line)}}); err != nil {
			t.Fatal(err)
		}
	}
	if in, err := s.AudiencesOf(t.Context(), "c", "late-cook"); err != nil || len(in) != 0 {
		t.Errorf("a late cook is in %q, %v", in, err)
	}
	check, err := s.Check(t.Context(), "c", "by-segment", []string{"late-sailor", "late-cook"})
	if err != nil || check[1].In || check[0].Score < mustInfo(t, s, "by-segment").Result.Threshold != !check[0].In {
		t.Errorf("%+v, %v", check, err)
	}
	for _, c := range []struct {
		within audience.Within
		says   string
	}{
		{audience.Within{Segment: 77}, "within.segment"},
		{audience.Within{Segment: -1}, "within.segment -1"},
		{audience.Within{Tag: &audience.SeedTag{Name: "mood", Label: "x"}}, "within.tag"},
		{audience.Within{Tag: &audience.SeedTag{Name: "hobby", Label: "pilot"}}, `within.tag.label: "pilot" is not one of`},
	} {
		_, err := s.CreateAudience(t.Context(), "c", audience.Request{Name: "bad", Seeds: audience.Seeds{IDs: cooks}, Within: c.within, Size: audience.Size{Ratio: &all}})
		if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.within, err)
		}
	}
	// The tag has gone: nobody new comes in by it, and a refresh says why there is none.
	if err := s.DropTag(t.Context(), "c", "hobby"); err != nil {
		t.Fatal(err)
	}
	if in, err := s.AudiencesOf(t.Context(), "c", "late-sailor"); err != nil || slices.Contains(in, "by-tag") {
		t.Errorf("without the tag a late sailor is in %q, %v", in, err)
	}
	job, err = s.Refresh(t.Context(), "c", "by-tag", RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobFailed || !strings.Contains(job.Problem, "within.tag.name") {
		t.Errorf("%+v", job)
	}
}

// An erased customer's id is in no stored byte but those of other collections.
func TestErasedIDsLeaveJobsAndTags(t *testing.T) {
	store := memory.Open()
	s := newService(t, Options{Store: store, KV: store.KV()})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 400)
	discover(t, s, segment.Params{K: 2, Features: feature()})
	set, err := s.Segments(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	id := set.Segments[1].Typical[0]
	seeds := append([]string{id, "nobody"}, lovers[:24]...)
	job, err := s.CreateTag(t.Context(), "c", TagRequest{Name: "hobby", Labels: []TagLabel{{Label: "sailor", IDs: seeds}, {Label: "cook", Texts: []string{"cooking", "likes cooking", "garden", "cooking garden"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	ten, req := 10, audience.Request{Name: "a", Method: "centroid"}
	for _, seed := range seeds {
		req.Seeds.IDs = append(req.Seeds.IDs, audience.SeedRef{ID: seed})
	}
	req.Size.Count = &ten
	if job, err = s.CreateAudience(t.Context(), "c", req); err != nil {
		t.Fatal(err)
	}
	if job = waitFor(t, s, job.ID); job.State != JobDone {
		t.Fatalf("%+v", job)
	}
	holding := func() (keys []string) {
		if err := s.each("", func(key string, value []byte) error {
			if strings.Contains(key, id) || bytes.Contains(value, []byte(`"`+id+`"`)) {
				keys = append(keys, key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if len(holding()) < 5 {
		t.Fatalf("only %q hold the id before", holding())
	}
	for gone, groups := range map[string]int{id: 2, "nobody": 1} {
		if rec, err := s.Erase(t.Context(), "c", gone); err != nil || rec.Groups != groups {
			t.Fatalf("%+v, %v", rec, err)
		}
	}
	if list, err := s.Tags(t.Context(), "c"); err != nil || len(list) != 1 || len(list[0].Request.Labels) != 2 || list[0].Request.Labels[0].IDs != nil {
		t.Errorf("a list of tags shows examples: %+v, %v", list, err)
	}
	if left := holding(); len(left) != 0 {
		t.Errorf("%s is still in %q", id, left)
	}
	if info, err := s.Tag(t.Context(), "c", "hobby"); err != nil || len(info.Unmatched) != 0 || len(info.Request.Labels[0].IDs) != 24 {
		t.Errorf("%+v, %v", info, err)
	}
}

// A job that is cancelled leaves no segments and no tag.
func TestCancelledGroupsAreNotStored(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	seedPopulation(t, s, 4000)
	job, err := s.DiscoverSegments(t.Context(), "c", segment.Params{MaxK: 128})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.jobs.cancelAndWait(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if job, err = s.Job(job.ID); err != nil || job.State != JobCancelled {
		t.Errorf("%+v, %v", job, err)
	}
	if _, err := s.Segments(t.Context(), "c"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
