package milvus

import (
	"slices"
	"testing"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

// TestExamineGenerations: collections whose names Milvus writes otherwise are known again,
// also those that were embedded anew.
func TestExamineGenerations(t *testing.T) {
	srv, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	opt := Options{Client: client.Config{Address: srv.Addr()}}
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a-b", "shop", "shop~1"}
	for _, name := range want {
		if _, err := s.Create(t.Context(), index.Spec{Name: name, Dim: 2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range Examine(t.Context(), opt) {
		if f.Wrong {
			t.Errorf("%s: %s", f.What, f.Found)
		}
		if f.Collection != nil && f.Collection.Name != "" {
			got = append(got, f.Collection.Name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
