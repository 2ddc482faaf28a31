package api

import (
	"slices"
	"testing"

	"github.com/kindred-search/kindred/collection"
)

func TestDrafts(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinSeeds: 5}})
	sailors := f.shop(400)
	lists := []map[string]any{
		{"ids": sailors[:20]},
		{"ids": []any{map[string]any{"id": sailors[20], "weight": 2}, sailors[21], sailors[22], sailors[23], sailors[24], "nobody"}},
	}
	var got, alone struct{ Drafts []collection.Draft }
	f.do("POST", "/v1/collections/shop/drafts", map[string]any{"lists": lists, "size": 30}).want(200).into(&got)
	if len(got.Drafts) != 2 || got.Drafts[0].Matched != 20 || got.Drafts[1].Given != 6 || got.Drafts[1].Matched != 5 {
		t.Fatalf("drafts %+v", got)
	}
	for i, d := range got.Drafts {
		found := 0
		for k, m := range d.Members {
			if k > 0 && m.Score > d.Members[k-1].Score {
				t.Fatalf("draft %d: rank %d scores more than the one before", i, k+1)
			}
			if slices.Contains(sailors, m.ID) {
				found++
			}
		}
		if len(d.Members) != 30 || d.Threshold != d.Members[29].Score || found < 20 || slices.Contains(sailors[:20], d.Members[0].ID) && i == 0 {
			t.Errorf("draft %d: %d members, %d of them sailors, threshold %v", i, len(d.Members), found, d.Threshold)
		}
	}
	f.do("POST", "/v1/collections/shop/drafts", map[string]any{"lists": lists[1:], "size": 30}).want(200).into(&alone)
	if !slices.Equal(alone.Drafts[0].Members, got.Drafts[1].Members) {
		t.Error("a list is another one alone")
	}
	f.do("POST", "/v1/collections/shop/drafts", map[string]any{"lists": []map[string]any{{"ids": []string{"nobody"}}}, "size": 3}).want(422)
	f.do("POST", "/v1/collections/shop/drafts", map[string]any{"lists": lists, "size": 0}).want(422)
	f.do("POST", "/v1/collections/none/drafts", map[string]any{"lists": lists, "size": 1}).want(404)
}
