package milvus

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

func TestParseIndex(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"flat":                                "FLAT",
		"FLAT:":                               "FLAT",
		"hnsw":                                "HNSW:M=16,efConstruction=200,ef=96",
		"hnsw : m = 8,EFCONSTRUCTION=64":      "HNSW:M=8,efConstruction=64,ef=96",
		"ivf-flat:nlist=64":                   "IVF_FLAT:nlist=64,nprobe=32",
		"IVF_SQ8:nlist=16":                    "IVF_SQ8:nlist=16,nprobe=16",
		"ivf_pq:m=4,nbits=4":                  "IVF_PQ:nlist=1024,m=4,nbits=4,nprobe=32",
		"diskann":                             "DISKANN:search_list=100",
		"scann:with_raw_data=FALSE":           "SCANN:nlist=1024,with_raw_data=false,nprobe=32,reorder_k=200",
		"gpu_brute_force":                     "GPU_BRUTE_FORCE",
		"gpu_cagra:build_algo=nn_descent":     "GPU_CAGRA:intermediate_graph_degree=64,graph_degree=32,build_algo=NN_DESCENT,itopk_size=128",
		"gpu_cagra:cache_dataset_on_device=1": "!cache_dataset_on_device is \"1\": want true or false",
		"hnws":                                "!there are FLAT, IVF_FLAT",
		"hnsw:16":                             "!\"16\": want parameter=value",
		"hnsw:M=1":                            "!M is \"1\": want a number from 2 to 2048",
		"hnsw:M=4,M=5":                        "!M is given twice",
		"hnsw:nlist=5":                        "!HNSW has no parameter \"nlist\": it takes M, efConstruction, ef",
		"flat:ef=5":                           "!it takes none",
		"ivf_flat:nlist=70000":                "!from 1 to 65536",
		"ivf_flat:nlist=10,nprobe=11":         "!nprobe is 11, more than the 10 lists",
		"gpu_ivf_pq:nbits=4":                  "!want 8",
		"gpu_cagra:graph_degree=65":           "!no more than the 64",
		"hnsw:M=x,ef=-3":                      "!ef is \"-3\"",
		"hnsw:M=9999999999999999999999":       "!M is",
	} {
		got, err := ParseIndex(text)
		if bad, is := strings.CutPrefix(want, "!"); is {
			if err == nil || !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), bad) {
				t.Errorf("%q: %v %v, want an error with %q", text, got, err, bad)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q: %q %v, want %q", text, got.String(), err, want)
			continue
		}
		again, err := ParseIndex(got.String())
		if err != nil || !again.Same(got) || !maps.Equal(again.Search, got.Search) {
			t.Errorf("%q read again: %v %v", got.String(), again, err)
		}
	}
	if _, err := ParseIndex("hnsw:M=1,ef=0,nlist=3"); err == nil || strings.Count(err.Error(), ";") != 2 {
		t.Errorf("all faults together: %v", err)
	}
}

func TestIndexOfASearch(t *testing.T) {
	parse := func(s string) VectorIndex {
		t.Helper()
		x, err := ParseIndex(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct {
		text            string
		results, effort int
		param           string
		want            any
	}{
		{"hnsw:ef=64", 10, 0, "ef", 64}, {"hnsw:ef=64", 100, 0, "ef", 100}, {"hnsw:ef=64", 10, 500, "ef", 500}, {"hnsw", 10, 1 << 20, "ef", 32768},
		{"ivf_flat:nlist=64,nprobe=8", 1000, 0, "nprobe", 8}, {"ivf_flat:nlist=64,nprobe=8", 10, 99, "nprobe", 64},
		{"diskann", 10, 0, "search_list", 100}, {"diskann", 500, 0, "search_list", 500}, {"diskann", 10, 5000, "search_list", 200},
		{"flat", 10, 50, "ef", nil}, {"scann:reorder_k=5", 20, 0, "reorder_k", 20},
	} {
		if got := parse(c.text).params(c.results, c.effort)[c.param]; got != c.want {
			t.Errorf("%s for %d with effort %d: %v, want %v", c.text, c.results, c.effort, got, c.want)
		}
	}
	for text, dims := range map[string][2]int{"diskann": {31, 32}, "ivf_pq:m=8": {12, 16}, "hnsw": {0, 1}} {
		x := parse(text)
		if err := x.fits(dims[1]); err != nil {
			t.Errorf("%s of %d: %v", text, dims[1], err)
		}
		if err := x.fits(dims[0]); text != "hnsw" && !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%s of %d: %v", text, dims[0], err)
		}
	}
	// What a server says of an index, its own additions left out.
	got := described("HNSW", map[string]string{"M": "8", "efConstruction": "64", "mmap.enabled": "false"}, parse("hnsw:ef=200"))
	if got.String() != "HNSW:M=8,efConstruction=64,ef=200" || got.Same(parse("hnsw")) || !got.Same(parse("hnsw:M=8,efConstruction=64")) {
		t.Error(got)
	}
	if got := described("RHNSW", map[string]string{"M": "8"}, VectorIndex{}); got.Exact() || got.String() != "RHNSW" {
		t.Error(got)
	}
	if !parse("flat").Exact() || !(VectorIndex{}).Exact() || parse("hnsw").Exact() {
		t.Error("which are exact")
	}
}

func FuzzParseIndex(f *testing.F) {
	for _, s := range []string{"hnsw:M=16,ef=3", "ivf_flat:nlist=3", ":", "gpu_cagra:,=,", "a:b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseIndex(s)
		if err != nil {
			if !errors.Is(err, index.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseIndex(x.String())
		if err != nil || !again.Same(x) || !maps.Equal(again.Search, x.Search) {
			t.Fatalf("%q is %v, and that %v (%v)", s, x, again, err)
		}
		for _, n := range []int{1, 16384} {
			for k, v := range x.params(n, n) {
				if v.(int) < 1 {
					t.Fatalf("%s is %v", k, v)
				}
			}
		}
	})
}
