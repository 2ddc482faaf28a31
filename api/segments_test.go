package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/collection"
)

// job posts a body that starts a job and waits for its end.
func (f *fixture) job(path string, body any) collection.Job {
	f.t.Helper()
	var job collection.Job
	f.do("POST", path, body).want(202).into(&job)
	return f.finish(job.ID)
}

func TestSegmentsOverHTTP(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	const at = "/v1/collections/shop/segments"
	f.do("GET", at, nil).problem(404, "not_found")
	f.do("POST", at, map[string]any{"k": 1}).problem(422, "invalid")
	f.do("POST", at, map[string]any{"features": map[string]any{"columns": []string{"nope"}}}).problem(422, "invalid")
	if end := f.job(at, map[string]any{"k": 2, "features": map[string]any{"columns": []string{}}}); end.State != collection.JobDone || end.Kind != "segments" {
		t.Fatalf("%+v", end)
	}
	var set collection.SegmentSet
	f.do("GET", at, nil).want(200).into(&set)
	if len(set.Segments) != 2 || set.Segments[0].Size+set.Segments[1].Size != 400 {
		t.Fatalf("%+v", set)
	}
	var of collection.CustomerSegment
	f.do("GET", "/v1/collections/shop/customers/"+sailors[0]+"/segment", nil).want(200).into(&of)
	f.do("GET", "/v1/collections/shop/customers/nobody/segment", nil).problem(404, "not_found")
	if !strings.Contains(of.Label, "sailing") {
		t.Errorf("a sailor's segment is %+v", of)
	}
	var page collection.Listed
	path := fmt.Sprintf("%s/%d/customers", at, of.Number)
	f.do("POST", path, map[string]any{"limit": 500}).want(200).into(&page)
	if page.Count != len(sailors) || len(page.Hits) != page.Count {
		t.Errorf("%d customers in the segment of %d sailors", page.Count, len(sailors))
	}
	for _, h := range page.Hits {
		if !slices.Contains(sailors, h.ID) {
			t.Errorf("%s is no sailor", h.ID)
		}
	}
	f.do("POST", at+"/99/customers", map[string]any{}).problem(404, "not_found")
	var near struct{ Segments []collection.NearSegment }
	f.do("POST", at+"/similar", map[string]any{"text": "sailing boats", "limit": 1}).want(200).into(&near)
	if len(near.Segments) != 1 || near.Segments[0].Number != of.Number {
		t.Errorf("%+v", near)
	}
	f.do("POST", at+"/similar", map[string]any{}).problem(422, "invalid")
	f.do("DELETE", at, nil).want(204)
	f.do("GET", at, nil).problem(404, "not_found")
}

func TestTagsOverHTTP(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	const at = "/v1/collections/shop/tags"
	body := map[string]any{"name": "hobby", "labels": []any{
		map[string]any{"label": "sailor", "ids": sailors[:8]},
		map[string]any{"label": "cook", "texts": []string{"likes cooking garden", "cooking", "garden herbs cooking", "cooking garden book1", "likes cooking garden book2", "garden", "likes garden", "cooking and garden"}},
	}}
	if end := f.job(at, body); end.State != collection.JobDone || end.Kind != "tag" || end.Target != "hobby" {
		t.Fatalf("%+v", end)
	}
	f.do("POST", at, body).problem(409, "conflict")
	var info collection.TagInfo
	f.do("GET", at+"/hobby", nil).want(200).into(&info)
	if info.Quality.Accuracy < 0.8 || info.Quality.P > 0.05 || info.Counts[0].Customers < len(sailors)*9/10 {
		t.Errorf("%+v", info)
	}
	var list struct{ Tags []collection.TagInfo }
	f.do("GET", at, nil).want(200).into(&list)
	if len(list.Tags) != 1 || list.Tags[0].Name != "hobby" {
		t.Errorf("%+v", list)
	}
	var of struct{ Tags []collection.CustomerTag }
	f.do("GET", "/v1/collections/shop/customers/"+sailors[20]+"/tags", nil).want(200).into(&of)
	if len(of.Tags) != 1 || of.Tags[0].Label != "sailor" || of.Tags[0].Confidence < 0.5 {
		t.Errorf("%+v", of)
	}
	var page collection.Listed
	f.do("POST", at+"/hobby/customers", map[string]any{"label": "sailor", "above": 0.5, "limit": 5}).want(200).into(&page)
	if page.Count != info.Counts[0].Customers || len(page.Hits) != 5 {
		t.Errorf("%d listed, %d counted", page.Count, info.Counts[0].Customers)
	}
	f.do("POST", at+"/hobby/customers", map[string]any{"label": "pilot"}).problem(422, "invalid")
	f.do("POST", at, map[string]any{"name": "x", "labels": []any{map[string]any{"label": "a"}, map[string]any{"label": "a"}}}).problem(422, "invalid")
	f.do("DELETE", at+"/hobby", nil).want(204)
	f.do("GET", at+"/hobby", nil).problem(404, "not_found")
}
