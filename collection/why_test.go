package collection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

func TestWhy(t *testing.T) {
	s := newService(t, Options{})
	schema := profile.Schema{Fields: append(slices.Clone(testSchema.Fields), profile.Field{Name: "secret", Type: profile.TypeText, PII: true})}
	schema.Fields[1].Immutable = true // region
	if _, _, err := s.Put(t.Context(), Config{Name: "c", Model: "words", Schema: schema}); err != nil {
		t.Fatal(err)
	}
	var in []Input
	var sailors []string
	for i := range 600 {
		id := fmt.Sprintf("c%04d", i)
		rec := profile.Record{ID: id, Fields: map[string]index.Value{
			"age": {Kind: index.Number, Num: float64(20 + i%30)}, "region": {Kind: index.Category, Str: fmt.Sprint("r", i%3)},
		}, Texts: []profile.Text{{Field: "note", Body: fmt.Sprintf("likes cooking garden book%d", i%17)}}}
		if i%4 == 0 {
			rec.Fields["age"] = index.Value{Kind: index.Number, Num: float64(35 + i%30)}
			rec.Texts = []profile.Text{{Field: "note", Body: fmt.Sprintf("sailing boats book%d", i%17)}, {Body: "reads the paper"}, {Field: "secret", Body: "lives at the harbour"}}
			sailors = append(sailors, id)
		}
		in = append(in, Input{Line: i + 1, Record: rec})
	}
	if out, err := s.Upsert(t.Context(), "c", in); err != nil || out.Accepted != len(in) {
		t.Fatalf("%+v, %v", out, err)
	}
	refs := make([]audience.SeedRef, 40)
	for i := range refs {
		refs[i].ID = sailors[i]
	}
	n := 80
	req := audience.Request{Name: "spring", Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &n}, Method: audience.Classifier, Filter: &index.Filter{Field: "age", Gte: 22}}
	mustAudience(t, s, req)
	members, err := s.Members(t.Context(), "c", "spring", 0, n)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Audience(t.Context(), "c", "spring")
	if err != nil {
		t.Fatal(err)
	}
	eng, err := s.opt.Store.Open(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{"c0001", "c0002", "c0005", "c0599", sailors[50]}
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	proposed, hidden := 0, 0
	for i, id := range ids {
		e, err := s.Why(t.Context(), "c", "spring", id)
		if err != nil {
			t.Fatal(err)
		}
		sum, text := 0.0, 0.0
		for _, p := range e.Reasons {
			if sum += float64(p.Value); p.Of == "text" {
				text = float64(p.Value)
			}
		}
		if math.Abs(sum-float64(e.Score)) > 1e-5 {
			t.Errorf("%s: reasons add up to %v, the score is %v", id, sum, e.Score)
		}
		at := slices.IndexFunc(members, func(m audience.Member) bool { return m.ID == id })
		if e.In != (at >= 0) || e.Rank != at+1 || e.Threshold != info.Result.Threshold {
			t.Errorf("%s: in %v at rank %d, the list has it at %d", id, e.In, e.Rank, at+1)
		}
		if at >= 0 && math.Abs(float64(members[at].Score-e.Score)) > 1e-5 {
			t.Errorf("%s: score %v, the list says %v", id, e.Score, members[at].Score)
		}
		passages := float64(e.Rounding)
		for _, p := range e.Passages {
			passages += float64(p.Value)
			if p.Field == "secret" {
				hidden++
			}
			if strings.Contains(p.Text, "harbour") {
				t.Errorf("%s: a personal text is shown", id)
			}
		}
		if len(e.Passages) == 0 || math.Abs(passages-text) > 1e-5 || math.Abs(float64(e.Rounding)) > 0.05*math.Max(1, math.Abs(text)) {
			t.Errorf("%s: %d passages and rounding %v add up to %v, the text gives %v", id, len(e.Passages), e.Rounding, passages, text)
		}
		if len(e.Nearest) != 3 || !slices.Contains(sailors[:40], e.Nearest[0].ID) {
			t.Errorf("%s: nearest seeds %+v", id, e.Nearest)
		}
		if i > 20 {
			continue
		}
		// A proposed change is made, and the service asked who is in.
		for _, c := range e.Counterfactuals[:min(len(e.Counterfactuals), 2)] {
			proposed++
			was, err := eng.Get(t.Context(), []string{id})
			if err != nil {
				t.Fatal(err)
			}
			values := map[string]index.Value{}
			for k, v := range was[0].Values {
				values[k] = v
			}
			for _, change := range c.Changes {
				to, ok := change.To.(float64)
				if change.Column != "age" || !ok {
					t.Fatalf("%s: %v is proposed", id, change)
				}
				values["age"] = index.Value{Kind: index.Number, Num: to}
			}
			put := func(v map[string]index.Value) {
				t.Helper()
				var st stored
				at := slices.IndexFunc(in, func(x Input) bool { return x.Record.ID == id })
				st.Texts = in[at].Record.Texts
				if out, err := s.Upsert(t.Context(), "c", []Input{{Line: 1, Record: profile.Record{ID: id, Fields: v, Texts: st.Texts}}}); err != nil || out.Accepted != 1 {
					t.Fatalf("%+v, %v", out, err)
				}
			}
			put(values)
			now, err := s.Check(t.Context(), "c", "spring", []string{id})
			if err != nil || now[0].In == e.In {
				t.Errorf("%s: after %v in is %v, before it was %v (%v)", id, c.Changes, now[0].In, e.In, err)
			}
			put(was[0].Values)
		}
	}
	if proposed < 5 || hidden < 20 {
		t.Errorf("%d changes tried, %d hidden passages", proposed, hidden)
	}
	seed, err := s.Why(t.Context(), "c", "spring", sailors[0])
	if err != nil || seed.In || len(seed.Counterfactuals) != 0 || !strings.Contains(strings.Join(seed.Notes, "\n"), "is a seed") || seed.Nearest[0].ID == sailors[0] {
		t.Errorf("a seed: %+v, %v", seed, err)
	}
	for _, bad := range [][2]string{{"spring", "nobody"}, {"autumn", "c0001"}} {
		if _, err := s.Why(t.Context(), "c", bad[0], bad[1]); !errors.Is(err, index.ErrNotFound) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	// Without storing it, the same is said.
	res, err := s.Run(t.Context(), "c", req, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Run(t.Context(), "c", req, nil)
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := json.Marshal(res)
	two, err2 := json.Marshal(again)
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("the same request gives other bytes (%v, %v)", err1, err2)
	}
	got, err := s.Explain(t.Context(), "c", req, res, []string{res.Members[30].ID, "c0005"})
	if err != nil || len(got) != 2 || !got[0].In || got[0].Rank != 31 || got[1].In || len(got[0].Passages) == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	phrasesAreTold(t, res)
}

func phrasesAreTold(t *testing.T, res *audience.Result) {
	t.Helper()
	for what, list := range map[string]int{"audience": len(res.Phrases.Audience), "seeds": len(res.Phrases.Seeds)} {
		if list == 0 {
			t.Errorf("no phrases of the %s: %+v", what, res.Phrases)
		}
	}
	told := fmt.Sprint(res.Phrases)
	if !strings.Contains(told, "sailing boats") || strings.Contains(told, "harbour") || strings.Contains(told, "cooking") {
		t.Errorf("phrases %s", told)
	}
	if r := res.Phrases.Read; r.Seeds != 40 || r.Audience != 80 || r.Everyone < 400 {
		t.Errorf("read %+v", r)
	}
}

// Each passage is encoded again here, alone, and multiplied with the head.
func TestPassagesAreTheVectors(t *testing.T) {
	s := newService(t, Options{})
	mustPut(t, s)
	lovers := seedPopulation(t, s, 400)
	long := record(t, s, `{"id":"both","fields":{"age":55,"note":"likes sailing boats sea"},"texts":["cooking garden pots","boats sea"]}`)
	if out, err := s.Upsert(t.Context(), "c", []Input{{Line: 1, Record: long}}); err != nil || out.Accepted != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	refs := make([]audience.SeedRef, 30)
	for i := range refs {
		refs[i].ID = lovers[i]
	}
	n := 50
	no := false
	req := audience.Request{Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Count: &n}, Method: audience.Centroid, Features: audience.Features{Columns: []string{}}, Explain: audience.Explain{Phrases: &no}}
	res, err := s.Run(t.Context(), "c", req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Phrases.Audience)+len(res.Phrases.Seeds)+res.Phrases.Read.Everyone != 0 {
		t.Errorf("phrases were not asked for: %+v", res.Phrases)
	}
	got, err := s.Explain(t.Context(), "c", req, res, []string{"both"})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.config("c")
	if err != nil {
		t.Fatal(err)
	}
	head := res.Model.Set.Heads[0].Vector
	passages := cfg.Schema.Compose(long, profile.ComposeOptions{})
	var vectors [][]float32
	sum := make([]float64, wordsDim)
	for _, p := range passages {
		enc, err := s.encode(context.Background(), cfg, []string{p.Body}, embed.EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		vectors = append(vectors, enc.Vectors)
		for j, x := range enc.Vectors {
			sum[j] += float64(x)
		}
	}
	norm := 0.0
	for _, x := range sum {
		norm += x * x
	}
	if len(got[0].Passages) != 3 || !strings.Contains(got[0].Passages[2].Text, "cooking") {
		t.Fatalf("%+v", got[0].Passages)
	}
	for _, p := range got[0].Passages {
		i := slices.IndexFunc(passages, func(x profile.Passage) bool { return x.Body == p.Text })
		want := 0.0
		for j, w := range head {
			want += float64(w) * (float64(vectors[i][j])/math.Sqrt(norm) - float64(res.Model.Center[j])/3)
		}
		if math.Abs(want-float64(p.Value)) > 1e-5 || math.Abs(p.Share-1.0/3) > 1e-9 {
			t.Errorf("%q gives %v of share %v, computed here %v", p.Text, p.Value, p.Share, want)
		}
	}
}
