package api

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/export"
)

// However many ids a request names, an audience is shown without them, a list of
// audiences is short, and the ids can be read in pages.
func TestAudiencesAreShownWithoutTheirIDs(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	ids := []any{map[string]any{"id": sailors[0], "weight": 2.5}}
	for _, id := range sailors[1:30] {
		ids = append(ids, id)
	}
	for i := range 3000 {
		ids = append(ids, fmt.Sprintf("stranger-%04d", i))
	}
	job := f.job("/v1/collections/shop/audiences", map[string]any{
		"name": "spring", "method": "centroid", "size": map[string]any{"count": 100},
		"seeds": map[string]any{"ids": ids}, "negatives": map[string]any{"ids": []string{"c0001"}}, "exclude": map[string]any{"ids": []string{"c0002", "c0003"}},
	})
	if job.State != collection.JobDone {
		t.Fatalf("%+v", job)
	}
	const at = "/v1/collections/shop/audiences"
	var info collection.AudienceInfo
	full := f.do("GET", at+"/spring", nil).want(200)
	full.into(&info)
	if info.Named == nil || *info.Named != (collection.NamedIDs{Seeds: 3030, Negatives: 1, Excluded: 2}) || info.Result == nil || len(info.Request.Seeds.IDs) != 0 || bytes.Contains(full.body, []byte("stranger-2000")) {
		t.Errorf("named %+v, request %+v", info.Named, info.Request)
	}
	if info.Request.Size.Count == nil || *info.Request.Size.Count != 100 {
		t.Errorf("the rest of the request has gone: %+v", info.Request)
	}
	var brief collection.AudienceInfo
	short := f.do("GET", at+"/spring?view=brief", nil).want(200)
	short.into(&brief)
	if brief.Result != nil || brief.Sheet == nil || brief.Sheet.Verdict != info.Result.Quality.Verdict || brief.Sheet.AUC != info.Result.Quality.Measure.AUC || brief.State != collection.JobDone || len(short.body) > 2000 {
		t.Errorf("%d bytes in brief: %s", len(short.body), short.body)
	}
	var list struct{ Audiences []collection.AudienceInfo }
	got := f.do("GET", at, nil).want(200)
	got.into(&list)
	if len(list.Audiences) != 1 || list.Audiences[0].Result != nil || list.Audiences[0].Sheet == nil || len(got.body) > 2000 {
		t.Errorf("%d bytes of a list of one: %s", len(got.body), got.body)
	}
	f.do("GET", at+"?view=full", nil).want(200).into(&list)
	if list.Audiences[0].Result == nil || list.Audiences[0].Named == nil {
		t.Errorf("the full list %+v", list)
	}
	// What is shown is not what is stored: the ids are all there.
	var page struct {
		IDs []struct {
			ID     string
			Weight float64
		}
		Total int
		Next  string
	}
	n, cursor := 0, ""
	for pages := 0; ; pages++ {
		page.Next = ""
		f.do("GET", at+"/spring/ids?limit=1000&cursor="+url.QueryEscape(cursor), nil).want(200).into(&page)
		if n == 0 && (page.IDs[0].ID != sailors[0] || page.IDs[0].Weight != 2.5 || page.IDs[1].ID != sailors[1] || page.IDs[1].Weight != 1) {
			t.Errorf("the first ids are %+v", page.IDs[:2])
		}
		n += len(page.IDs)
		if cursor = page.Next; cursor == "" || pages > 9 {
			break
		}
	}
	if n != 3030 || page.Total != 3030 {
		t.Errorf("%d ids in all, total %d", n, page.Total)
	}
	f.do("GET", at+"/spring/ids?of=excluded", nil).want(200).into(&page)
	if page.Total != 2 || page.IDs[1].ID != "c0003" {
		t.Errorf("excluded %+v", page)
	}
	f.do("GET", at+"/spring/ids?cursor=aTk5OTk5OTk5OTk5OTk5OTk5OTk", nil).problem(422, "invalid")
	f.do("GET", at+"/spring/ids?cursor=aTkyMjMzNzIwMzY4NTQ3NzU4MDc", nil).want(200).into(&page) // far behind the end
	if len(page.IDs) != 0 {
		t.Errorf("behind the end %+v", page)
	}
	f.do("GET", at+"/spring/ids?of=members", nil).problem(422, "invalid")
	f.do("GET", at+"/none/ids", nil).problem(404, "not_found")
	// The change of an audience shows it as well; a refresh still has its seeds.
	f.do("PATCH", at+"/spring", `{"ttl":"48h"}`).want(200).into(&info)
	if info.Named == nil || info.Named.Seeds != 3030 || len(info.Request.Seeds.IDs) != 0 {
		t.Errorf("changed %+v", info.Named)
	}
	if job := f.job(at+"/spring/refresh", nil); job.State != collection.JobDone {
		t.Errorf("refreshed as %+v", job)
	}
	f.do("GET", at+"/spring", nil).want(200).into(&info)
	if info.Result.Doctor.Given != 3030 || info.Version != 2 {
		t.Errorf("after the refresh %+v", info.Result.Doctor)
	}
}

// A manifest tells what the export of the same parameters is, and an archive holds both.
func TestExportsHaveAManifest(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinAudience: 90}})
	sailors := f.shop(400)
	f.build("spring", sailors[:30], 120)
	const at = "/v1/collections/shop/audiences/spring"
	f.do("PATCH", at, `{"control":{"count":15}}`).want(200)
	for _, query := range []string{"format=csv", "format=ndjson&reasons=true", "format=parquet", "format=csv&version=1"} {
		var m export.FileManifest
		f.do("GET", at+"/export/manifest?"+query, nil).want(200).into(&m)
		file := f.do("GET", at+"/export?"+query, nil).want(200).body
		if sum := fmt.Sprintf("%x", sha256.Sum256(file)); m.SHA256 != sum || m.Bytes != int64(len(file)) {
			t.Errorf("%s: the manifest says %s of %d bytes, the file has %s of %d", query, m.SHA256, m.Bytes, sum, len(file))
		}
		held := m.Control.Members
		if m.Rows != 120-held || m.Members != 120 || m.Minimum != 90 || m.Version != 1 || m.Collection != "shop" || m.Audience != "spring" || m.List.SeedsHash == "" || m.Layout != export.Plain || m.Built.IsZero() {
			t.Errorf("%s: %+v", query, m)
		}
		if strings.Contains(query, "csv") && bytes.Count(file, []byte("\n")) != m.Rows+1 {
			t.Errorf("%d lines for %d rows", bytes.Count(file, []byte("\n")), m.Rows)
		}
		packed := f.do("GET", at+"/export?bundle=zip&"+query, nil).want(200)
		again := f.do("GET", at+"/export?bundle=zip&"+query, nil).want(200)
		if !bytes.Equal(packed.body, again.body) || !strings.Contains(packed.header.Get("Content-Disposition"), m.File+".zip") {
			t.Errorf("%s: the archive differs from time to time, or is called %q", query, packed.header.Get("Content-Disposition"))
		}
		archive, err := zip.NewReader(bytes.NewReader(packed.body), int64(len(packed.body)))
		if err != nil {
			t.Fatal(err)
		}
		inside := map[string][]byte{}
		for _, entry := range archive.File {
			r, err := entry.Open()
			if err != nil {
				t.Fatal(err)
			}
			if inside[entry.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		var beside export.FileManifest
		if err := json.Unmarshal(inside[m.File+export.ManifestEnd], &beside); err != nil || len(inside) != 2 {
			t.Fatalf("%s: %d entries, %v", query, len(inside), err)
		}
		if !bytes.Equal(inside[m.File], file) || beside.SHA256 != m.SHA256 || beside.Rows != m.Rows {
			t.Errorf("%s: the archive's file or manifest is another: %+v", query, beside)
		}
	}
	f.do("GET", at+"/export/manifest?version=7", nil).problem(404, "not_found")
	f.do("GET", at+"/export?bundle=tar", nil).problem(422, "invalid")
	f.build("few", sailors[:30], 40)
	f.do("GET", "/v1/collections/shop/audiences/few/export/manifest", nil).problem(409, "audience_too_small")
}

// Who is held back is no part of a file: what is left must be enough.
func TestHeldBackMembersDoNotCount(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	f.build("spring", sailors[:30], 105)
	const at = "/v1/collections/shop/audiences/spring"
	f.do("GET", at+"/export", nil).want(200)
	f.do("PATCH", at, `{"control":{"count":30}}`).want(200)
	f.do("GET", at+"/export", nil).problem(409, "audience_too_small")
}

// An earlier version leaves without those who are on a list that the request names.
func TestEarlierVersionsAreSuppressedToo(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinAudience: 50}})
	sailors := f.shop(400)
	f.do("PUT", "/v1/collections/shop/suppressions/complaints", map[string]any{"ids": []string{"nobody"}}).want(200)
	f.job("/v1/collections/shop/audiences", map[string]any{
		"name": "spring", "method": "centroid", "size": map[string]any{"count": 100}, "seeds": map[string]any{"ids": sailors[:30]}, "exclude": map[string]any{"lists": []string{"complaints"}},
	})
	const at = "/v1/collections/shop/audiences/spring"
	f.job(at+"/refresh", nil)
	var page struct{ Members []struct{ ID string } }
	f.do("GET", at+"/members?version=1&limit=1000", nil).want(200).into(&page)
	gone := page.Members[0].ID
	f.do("POST", "/v1/collections/shop/suppressions/complaints/ids", map[string]any{"add": []string{gone}}).want(200)
	for _, version := range []string{"1", "2"} {
		if file := f.do("GET", at+"/export?version="+version, nil).want(200).body; bytes.Contains(file, []byte(gone)) {
			t.Errorf("%s is suppressed and in version %s", gone, version)
		}
	}
}

// Who is put on a suppression list leaves, and who comes off it enters, to who watches.
func TestSuppressionsAreEvents(t *testing.T) {
	f := start(t, setup{limits: collection.Limits{MinAudience: 5}})
	sailors := f.shop(400)
	f.build("spring", sailors[:30], 100)
	var page struct{ Members []struct{ ID string } }
	f.do("GET", "/v1/collections/shop/audiences/spring/members?limit=1000", nil).want(200).into(&page)
	a, b := page.Members[3].ID, page.Members[7].ID
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	in := f.watch(ctx, "/v1/collections/shop/audiences/spring/events")
	next := func(n int) map[string]string {
		t.Helper()
		got := map[string]string{}
		for len(got) < n && in.Scan() {
			if raw, ok := strings.CutPrefix(in.Text(), "data: "); ok {
				var c collection.Change
				if err := json.Unmarshal([]byte(raw), &c); err != nil {
					t.Fatal(err)
				}
				if c.Audience != "spring" || c.At.IsZero() {
					t.Errorf("%+v", c)
				}
				got[c.ID] = c.Change
			}
		}
		return got
	}
	const at = "/v1/collections/shop/suppressions/complaints"
	want := func(got, want map[string]string) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	// On a list that does not apply to the audience nobody moves: the first event is of
	// the list that always does.
	f.do("PUT", "/v1/collections/shop/suppressions/other", map[string]any{"ids": []string{page.Members[0].ID}}).want(200)
	f.do("PUT", at, map[string]any{"ids": []string{a, b, "nobody", sailors[0]}, "always": true}).want(200)
	want(next(2), map[string]string{a: "leave", b: "leave"})
	f.do("POST", at+"/ids", map[string]any{"remove": []string{a}}).want(200)
	want(next(1), map[string]string{a: "enter"})
	f.do("PUT", at, map[string]any{"ids": []string{b}, "always": false}).want(200) // applies no more
	want(next(1), map[string]string{b: "enter"})
	f.do("PUT", at, map[string]any{"ids": []string{b}, "always": true}).want(200)
	want(next(1), map[string]string{b: "leave"})
	f.do("DELETE", at, nil).want(204)
	want(next(1), map[string]string{b: "enter"})
}

// A comparison names nobody of a list that is too small to leave, nor who is suppressed.
func TestDiffNamesNobodyWhoMayNotLeave(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(400)
	f.build("few", sailors[:30], 40)
	f.build("many", sailors[:30], 120)
	const at = "/v1/collections/shop/audiences/"
	var d collection.Diff
	f.do("GET", at+"few/diff?with=many", nil).want(200).into(&d)
	if d.Kept != 40 || d.Left != 80 || len(d.IDs) != 0 {
		t.Errorf("%+v", d)
	}
	f.do("GET", at+"few/diff?with=many&show=kept", nil).problem(409, "audience_too_small")
	f.do("GET", at+"many/diff?with=few&show=left", nil).problem(409, "audience_too_small")
	f.do("GET", at+"few/diff?with=many&show=left", nil).want(200).into(&d)
	if len(d.IDs) != 80 {
		t.Errorf("%d of many alone", len(d.IDs))
	}
	gone := d.IDs[5]
	f.do("PUT", "/v1/collections/shop/suppressions/complaints", map[string]any{"ids": []string{gone}, "always": true}).want(200)
	f.do("GET", at+"few/diff?with=many&show=left", nil).want(200).into(&d)
	if len(d.IDs) != 79 || slices.Contains(d.IDs, gone) {
		t.Errorf("%d ids, the suppressed one among them: %v", len(d.IDs), slices.Contains(d.IDs, gone))
	}
}
