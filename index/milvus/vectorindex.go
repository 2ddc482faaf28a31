package milvus

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// VectorIndex is a type of vector index in Milvus with its parameters, made by
// ParseIndex. The zero value leaves it to what a collection has, FLAT for new ones.
type VectorIndex struct {
	Type   string            // as Milvus writes it, such as HNSW; "" leaves it
	Build  map[string]string // sent when the index is made, all of them
	Search map[string]int    // of each search, such as ef
}

// parameter is one setting of an index type. Numbers have a range, words a list.
type parameter struct {
	name     string
	lo, hi   int
	def      string
	words    []string
	search   bool // of a search, not of building
	optional bool // not sent unless given
}

// indexType is what is known of a type. Ranges are the widest of the supported
// servers; one that takes less says so itself.
type indexType struct {
	name   string
	params []parameter
	exact  bool
	effort string // the search parameter that more candidates raise; "" has none
	atTop  bool   // effort may not be less than the results asked for
	most   int    // most results of a search; 0 is Milvus's own limit
	minDim int
	needs  string // what a server must have, in words
	points bool   // no range searches
}

var (
	lists  = parameter{name: "nlist", lo: 1, hi: 65536, def: "1024"}
	probes = parameter{name: "nprobe", lo: 1, hi: 65536, def: "32", search: true}
	parts  = parameter{name: "m", lo: 1, hi: 32768, def: "8"}
)

var indexTypes = []indexType{
	{name: "FLAT", exact: true},
	{name: "IVF_FLAT", params: []parameter{lists, probes}, effort: "nprobe"},
	{name: "IVF_SQ8", params: []parameter{lists, probes}, effort: "nprobe"},
	{name: "IVF_PQ", params: []parameter{lists, parts, {name: "nbits", lo: 1, hi: 16, def: "8"}, probes}, effort: "nprobe"},
	{name: "SCANN", params: []parameter{lists, {name: "with_raw_data", words: []string{"true", "false"}, def: "true"}, probes, {name: "reorder_k", lo: 1, hi: 65536, def: "200", search: true}}, effort: "reorder_k", atTop: true},
	{name: "HNSW", params: []parameter{{name: "M", lo: 2, hi: 2048, def: "16"}, {name: "efConstruction", lo: 1, hi: 65536, def: "200"}, {name: "ef", lo: 1, hi: 32768, def: "96", search: true}}, effort: "ef", atTop: true},
	{name: "DISKANN", params: []parameter{{name: "search_list", lo: 1, hi: 65535, def: "100", search: true}}, effort: "search_list", atTop: true, minDim: 32, needs: "a Milvus built with DiskANN and configured for it (enableDisk of queryNode and indexNode)"},
	{name: "GPU_BRUTE_FORCE", exact: true, most: 1024, needs: gpus, points: true},
	{name: "GPU_IVF_FLAT", params: []parameter{lists, probes}, effort: "nprobe", most: 1024, needs: gpus, points: true},
	{name: "GPU_IVF_PQ", params: []parameter{lists, parts, {name: "nbits", lo: 8, hi: 8, def: "8"}, probes}, effort: "nprobe", most: 1024, needs: gpus, points: true},
	{name: "GPU_CAGRA", params: []parameter{
		{name: "intermediate_graph_degree", lo: 2, hi: 1024, def: "64"}, {name: "graph_degree", lo: 1, hi: 1024, def: "32"},
		{name: "build_algo", words: []string{"IVF_PQ", "NN_DESCENT"}, def: "IVF_PQ"},
		{name: "cache_dataset_on_device", words: []string{"true", "false"}, optional: true},
		{name: "itopk_size", lo: 1, hi: 1024, def: "128", search: true}, {name: "search_width", lo: 1, hi: 1024, search: true, optional: true},
	}, effort: "itopk_size", atTop: true, most: 1024, needs: gpus, points: true},
}

const gpus = "a Milvus built for GPUs, on a machine with one"

// IndexTypes are the names that ParseIndex knows.
func IndexTypes() []string {
	out := make([]string, len(indexTypes))
	for i := range indexTypes {
		out[i] = indexTypes[i].name
	}
	return out
}

func typeOf(name string) *indexType {
	name = strings.ReplaceAll(name, "-", "_")
	for i := range indexTypes {
		if strings.EqualFold(indexTypes[i].name, name) {
			return &indexTypes[i]
		}
	}
	return nil
}

// ParseIndex reads TYPE[:parameter=value,...], such as hnsw:M=16,efConstruction=200,ef=64.
// Capitals do not matter, and what is left out has its default. All faults of the text
// are reported together, as index.ErrInvalid. "" is the zero value.
func ParseIndex(text string) (VectorIndex, error) {
	if text == "" {
		return VectorIndex{}, nil
	}
	name, rest, _ := strings.Cut(text, ":")
	t := typeOf(strings.TrimSpace(name))
	if t == nil {
		return VectorIndex{}, fmt.Errorf("%w: %q is no type of index: there are %s", index.ErrInvalid, clip(name), strings.Join(IndexTypes(), ", "))
	}
	given := map[string]string{}
	var faults []string
	for pair := range strings.SplitSeq(rest, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		p := t.param(k)
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("%q: want parameter=value", clip(pair)))
		case p == nil:
			faults = append(faults, fmt.Sprintf("%s has no parameter %q: %s", t.name, clip(k), t.takes()))
		case given[p.name] != "":
			faults = append(faults, p.name+" is given twice")
		default:
			if v, ok = p.check(v); !ok {
				faults = append(faults, fmt.Sprintf("%s is %q: want %s", p.name, clip(v), p.wants()))
				v = p.def
			}
			given[p.name] = v
		}
	}
	out := t.with(given)
	if out.Search["nprobe"] > number(out.Build["nlist"]) {
		if given["nprobe"] != "" {
			faults = append(faults, fmt.Sprintf("nprobe is %d, more than the %s lists of nlist", out.Search["nprobe"], out.Build["nlist"]))
		}
		out.Search["nprobe"] = number(out.Build["nlist"])
	}
	if g, i := number(out.Build["graph_degree"]), number(out.Build["intermediate_graph_degree"]); g > i {
		faults = append(faults, fmt.Sprintf("graph_degree is %d: want no more than the %d of intermediate_graph_degree", g, i))
	}
	if len(faults) > 0 {
		return VectorIndex{}, fmt.Errorf("%w: index %s: %s", index.ErrInvalid, t.name, strings.Join(faults, "; "))
	}
	return out, nil
}

// with fills in defaults.
func (t *indexType) with(given map[string]string) VectorIndex {
	out := VectorIndex{Type: t.name, Build: map[string]string{}, Search: map[string]int{}}
	for _, p := range t.params {
		v := given[p.name]
		if v == "" {
			if v = p.def; p.optional {
				continue
			}
		}
		if p.search {
			out.Search[p.name] = number(v)
		} else {
			out.Build[p.name] = v
		}
	}
	return out
}

func (t *indexType) param(name string) *parameter {
	for i := range t.params {
		if strings.EqualFold(t.params[i].name, name) {
			return &t.params[i]
		}
	}
	return nil
}

// takes lists the parameters in words.
func (t *indexType) takes() string {
	if len(t.params) == 0 {
		return "it takes none"
	}
	names := make([]string, len(t.params))
	for i, p := range t.params {
		names[i] = p.name
	}
	return "it takes " + strings.Join(names, ", ")
}

func (p *parameter) check(v string) (string, bool) {
	if p.words != nil {
		for _, w := range p.words {
			if strings.EqualFold(w, v) {
				return w, true
			}
		}
		return v, false
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < p.lo || n > p.hi {
		return v, false
	}
	return strconv.Itoa(n), true
}

func (p *parameter) wants() string {
	switch {
	case p.words != nil:
		return strings.Join(p.words, " or ")
	case p.lo == p.hi:
		return strconv.Itoa(p.lo)
	}
	return fmt.Sprintf("a number from %d to %d", p.lo, p.hi)
}

// number is 0 for what is none.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

func clip(s string) string {
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}

// String is what ParseIndex reads, with every parameter in it.
func (x VectorIndex) String() string {
	t := typeOf(x.Type)
	if t == nil {
		return x.Type
	}
	var list []string
	for _, p := range t.params {
		if v, ok := x.Build[p.name]; ok {
			list = append(list, p.name+"="+v)
		}
		if v, ok := x.Search[p.name]; ok {
			list = append(list, p.name+"="+strconv.Itoa(v))
		}
	}
	if len(list) == 0 {
		return t.name
	}
	return t.name + ":" + strings.Join(list, ",")
}

// Exact says whether searches of this index miss nothing.
func (x VectorIndex) Exact() bool {
	t := typeOf(x.Type)
	return x.Type == "" || t != nil && t.exact
}

// Same says whether two are built alike; how they are searched does not count.
func (x VectorIndex) Same(y VectorIndex) bool {
	return x.Type == y.Type && maps.Equal(x.Build, y.Build)
}

// most is how many results one search gives.
func (x VectorIndex) most() int {
	if t := typeOf(x.Type); t != nil && t.most > 0 {
		return t.most
	}
	return client.MaxResults
}

// fits says what stands against an index of vectors of a dimension.
func (x VectorIndex) fits(dim int) error {
	t := typeOf(x.Type)
	switch m := number(x.Build["m"]); {
	case t == nil:
		return fmt.Errorf("%w: %q is no type of index: there are %s", index.ErrInvalid, clip(x.Type), strings.Join(IndexTypes(), ", "))
	case dim < t.minDim:
		return fmt.Errorf("%w: %s needs vectors of at least %d dimensions, and these have %d", index.ErrInvalid, t.name, t.minDim, dim)
	case m > 0 && dim%m != 0:
		var some []string
		for d := 2; d <= dim && len(some) < 6; d++ {
			if dim%d == 0 {
				some = append(some, strconv.Itoa(d))
			}
		}
		return fmt.Errorf("%w: m of %s is %d, which does not divide the %d dimensions: %s do", index.ErrInvalid, t.name, m, dim, strings.Join(some, ", "))
	}
	return nil
}

// params are those of a search for so many results, with more effort where asked.
func (x VectorIndex) params(results, effort int) map[string]any {
	out := make(map[string]any, len(x.Search))
	for k, v := range x.Search {
		out[k] = v
	}
	t := typeOf(x.Type)
	if t == nil || t.effort == "" {
		return out
	}
	p := t.param(t.effort)
	n := x.Search[t.effort]
	if effort > 0 {
		n = effort
	}
	if t.atTop {
		n = max(n, results)
	}
	if lists := number(x.Build["nlist"]); t.effort == "nprobe" {
		n = min(n, max(lists, 1))
	}
	if t.name == "DISKANN" { // a server takes no more for so many
		n = min(n, max(200, 10*results))
	}
	out[t.effort] = min(max(n, p.lo), p.hi)
	return out
}

// described reads what Milvus says of an index; search is taken from want where that is
// of the same type, and otherwise the defaults.
func described(typ string, params map[string]string, want VectorIndex) VectorIndex {
	t := typeOf(typ)
	if t == nil {
		return VectorIndex{Type: typ, Build: maps.Clone(params)}
	}
	given := map[string]string{}
	for k, v := range params {
		if p := t.param(k); p != nil {
			given[p.name] = v
		}
	}
	out := t.with(given)
	if want.Type == t.name {
		out.Search = maps.Clone(want.Search)
	}
	if lists := number(out.Build["nlist"]); out.Search["nprobe"] > lists && lists > 0 {
		out.Search["nprobe"] = lists
	}
	return out
}
