package milvus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/rows"
)

// Finding is one thing that Examine looked at. Found ends with how to mend what is Wrong.
type Finding struct {
	What  string
	Found string
	Wrong bool
	// Collection describes one of ours; nil for other findings.
	Collection *Examined
}

// Examined is a collection of a store as it lies in Milvus.
type Examined struct {
	Name        string `json:"name"`      // ours; "" of the key-value space
	InMilvus    string `json:"milvus"`    // its name there
	Rows        int64  `json:"rows"`      // -1 where that could not be asked
	Index       string `json:"index"`     // type of the vector index
	Indexed     int64  `json:"indexed"`   // rows in it
	Load        string `json:"load"`      // loaded, loading, not loaded
	Schema      string `json:"schema"`    // current, or what differs from what this version makes
	Shards      int    `json:"shards"`    // of the message queue
	MemoryBytes int64  `json:"memory"`    // about what its copy takes in each process
	Precision   string `json:"precision"` // of the copy
}

// Examine looks at a Milvus as Open would, and changes nothing there. It returns within
// the deadlines of the client, or when ctx ends.
func Examine(ctx context.Context, opt Options) []Finding {
	if opt.Prefix == "" {
		opt.Prefix = "kindred"
	}
	x := &examination{opt: opt}
	if !prefixRule.MatchString(opt.Prefix) {
		x.wrong("milvus", "the prefix %q must be 1 to 32 of a-z, 0-9 and _, and begin with a letter", opt.Prefix)
		return x.list
	}
	c, err := client.Dial(ctx, opt.Client)
	if err != nil {
		x.wrong("milvus", "%v", err)
		return x.list
	}
	x.c = c
	x.server(ctx)
	x.access(ctx)
	x.health(ctx)
	x.nodes(ctx)
	x.collections(ctx)
	if err := c.Close(); err != nil {
		x.wrong("milvus", "closing the connection: %v", err)
	}
	return x.list
}

type examination struct {
	opt  Options
	c    *client.Client
	list []Finding
}

func (x *examination) ok(what, format string, a ...any) {
	x.list = append(x.list, Finding{What: what, Found: fmt.Sprintf(format, a...)})
}

func (x *examination) wrong(what, format string, a ...any) {
	x.list = append(x.list, Finding{What: what, Found: fmt.Sprintf(format, a...), Wrong: true})
}

func (x *examination) server(ctx context.Context) {
	s, err := x.c.Server(ctx)
	if err != nil {
		x.wrong("milvus", "%v", err)
		return
	}
	start := time.Now()
	_, err = x.c.Report(ctx)
	took := time.Since(start).Round(100 * time.Microsecond)
	tested := "what tests run against is 2.3.5"
	if s.Major == 2 && s.Minor == 3 {
		tested = "tests run against 2.3.5"
	}
	answers := fmt.Sprintf("answers in %v", took)
	if err != nil {
		answers = "does not answer every call"
	}
	x.ok("milvus", "%s: %s%s, supported (2.3 or later of 2; %s), %s", x.c.Address(), s.Version, before(" ", strings.ToLower(s.Deploy)), tested, answers)
}

func before(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}

// access says how the connection is protected, and whether the server looks at it.
func (x *examination) access(ctx context.Context) {
	found := x.c.Secured()
	cfg := x.opt.Client
	if cfg.Username == "" && cfg.APIKey == "" {
		x.ok("milvus access", "%s, and the server asks for none: whoever reaches it reads and writes everything; common.security.authorizationEnabled in milvus.yaml changes that", found)
		return
	}
	if cfg.TLS == nil {
		found += "; without TLS they can be read on the way: --milvus-tls"
	}
	open := cfg
	open.Username, open.Password, open.APIKey = "", "", ""
	switch c, err := client.Dial(ctx, open); {
	case err == nil:
		_ = c.Close()
		x.ok("milvus access", "%s; the server takes calls without credentials too: common.security.authorizationEnabled in milvus.yaml changes that", found)
	case errors.Is(err, client.ErrAuth):
		x.ok("milvus access", "%s, which the server checks", found)
	default:
		x.ok("milvus access", "%s", found)
	}
}

func (x *examination) health(ctx context.Context) {
	r, err := x.c.Report(ctx)
	switch {
	case err != nil:
		x.wrong("milvus health", "%v", err)
	case !r.Healthy:
		x.wrong("milvus health", "%v", x.c.Unwell(r))
	case len(r.Quotas) > 0:
		x.wrong("milvus health", "%s: look at its memory and disk, and at quotaAndLimits in milvus.yaml", strings.Join(r.Quotas, ", "))
	default:
		x.ok("milvus health", "healthy, no quota is exceeded")
	}
	x.ok("milvus limits", "Milvus shows none by its API; Kindred stays within its defaults: %d results of a call, messages of 64 MiB, strings of %d bytes, %d dimensions; proxy.grpc and quotaAndLimits in milvus.yaml must allow that. Consistency is asked for with each call", client.MaxResults, client.MaxVarChar, client.MaxDim)
	if x.opt.Client.Database == "" {
		return
	}
	switch all, err := x.c.Databases(ctx); {
	case err != nil:
		x.ok("milvus database", "%s; which there are is not said: %v", x.opt.Client.Database, err)
	case !slices.Contains(all, x.opt.Client.Database):
		x.wrong("milvus database", "there is no %q: create it, or correct --milvus-database", x.opt.Client.Database)
	default:
		x.ok("milvus database", "%s", x.opt.Client.Database)
	}
}

// fullMemory is from which share of its memory on a query node is about to refuse:
// Milvus's own default of the high water mark is 0.95.
const fullMemory = 0.9

func (x *examination) nodes(ctx context.Context) {
	list, err := x.c.Nodes(ctx)
	if err != nil {
		x.ok("milvus nodes", "not shown: %v", err)
		return
	}
	size := func(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
	for _, n := range list {
		what := "milvus " + n.Kind
		var about []string
		if n.Memory > 0 {
			about = append(about, fmt.Sprintf("%s of %s memory in use", size(n.MemoryUsed), size(n.Memory)))
		}
		for _, s := range []struct{ key, format string }{{"segment_max_size", "segments of up to %s MB"}, {"simd_type", "vector code %s"}} {
			if v := n.Settings[s.key]; v != "" {
				about = append(about, fmt.Sprintf(s.format, v))
			}
		}
		text := n.Name + before(": ", strings.Join(about, ", "))
		switch {
		case n.Err != "":
			x.wrong(what, "%s cannot be asked: %s: look into its log", n.Name, n.Err)
		case n.Kind == "querynode" && n.Memory > 0 && float64(n.MemoryUsed) > fullMemory*float64(n.Memory):
			x.wrong(what, "%s: give it more memory, or release collections; writes are refused when it is full", text)
		case n.Kind == "querynode" || n.Kind == "datacoord" || n.Kind == "datanode" || n.Kind == "indexnode":
			x.ok(what, "%s", text)
		}
	}
}

// collections are those whose names begin with our prefix.
func (x *examination) collections(ctx context.Context) {
	all, err := x.c.List(ctx)
	if err != nil {
		x.wrong("milvus collections", "%v", err)
		return
	}
	mine := func(n string) bool { return strings.HasPrefix(n, x.opt.Prefix+"_") }
	all = slices.DeleteFunc(all, func(n string) bool { return !mine(n) })
	kvName, begin := kvSchema(x.opt.Prefix).Name, collectionName(x.opt.Prefix, "")
	if len(all) == 0 {
		x.ok("milvus collections", "none of %s_...: the first import or serve makes what is needed", x.opt.Prefix)
		return
	}
	var specs map[string]index.Spec // by name in Milvus; nil where they cannot be known
	switch {
	case !slices.Contains(all, kvName):
		x.wrong("milvus collections", "%s is not there, which says what the others are: someone dropped it; restore it, or choose another --milvus-prefix", kvName)
	case x.one(ctx, kvSchema(x.opt.Prefix), "", nil):
		if specs, err = x.specs(); err != nil {
			x.wrong("milvus collections", "what they should hold cannot be read: %v", err)
		}
	}
	if specs == nil {
		x.ok("milvus collections", "what the others hold is not known: the key-value space says that, and cannot be read until it is loaded and well")
	}
	for _, n := range all {
		spec, there := specs[n]
		switch {
		case n == kvName:
		case !strings.HasPrefix(n, begin) || specs == nil || !there:
			x.other(ctx, n, specs != nil && strings.HasPrefix(n, begin))
		default:
			delete(specs, n)
			x.one(ctx, schemaOf(x.opt.Prefix, spec, x.opt.Shards), spec.Name, &spec)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(specs)) {
		x.wrong("milvus collection", "%s is described and is not there: someone dropped it; delete it in Kindred too, or bring it back from a copy (kindred engine copy)", specs[n].Name)
	}
}

// specs reads what the key-value space says of the collections, by their names in Milvus.
func (x *examination) specs() (map[string]index.Spec, error) {
	s := &Store{kv: &kv{c: x.c, coll: kvSchema(x.opt.Prefix).Name, last: newKnown()}}
	list, err := s.specs("")
	if err != nil {
		return nil, err
	}
	out := map[string]index.Spec{}
	for _, spec := range list {
		out[collectionName(x.opt.Prefix, spec.Name)] = spec
	}
	return out, nil
}

// other looks at a collection that no spec describes. ours says that its name is that of
// a collection of customers.
func (x *examination) other(ctx context.Context, name string, ours bool) {
	info, err := x.c.Describe(ctx, name)
	switch {
	case errors.Is(err, client.ErrGone): // dropped since it was listed
	case err != nil:
		x.wrong("milvus collection", "%v", err)
	case !strings.HasPrefix(info.Description, marker):
		x.wrong("milvus collection", "%s is not of this store: choose another --milvus-prefix, or drop it", name)
	case ours:
		x.ok("milvus collection", "%s is what a creation or deletion left that is under way or did not finish: the next collection of its name takes its place, or drop it", name)
	default:
		x.ok("milvus collection", "%s is of this program", name)
	}
}

// one looks at a collection of ours; false where it cannot be read.
func (x *examination) one(ctx context.Context, want client.Schema, name string, spec *index.Spec) bool {
	e := &Examined{Name: name, InMilvus: want.Name, Rows: -1, Schema: "current"}
	what := "milvus collection"
	if spec == nil {
		what = "milvus keys"
	}
	bad := func(format string, a ...any) bool {
		x.list = append(x.list, Finding{What: what, Found: fmt.Sprintf(format, a...), Wrong: true, Collection: e})
		return false
	}
	info, err := x.c.Describe(ctx, want.Name)
	if err != nil {
		return bad("%v", err)
	}
	e.Shards = info.Shards
	if !strings.HasPrefix(info.Description, marker) {
		e.Schema = "of someone else"
		return bad("%s is not of this store: choose another --milvus-prefix, or drop it", want.Name)
	}
	if err := x.c.Mismatch(want, info); err != nil {
		e.Schema = err.Error()
		return bad("%v", err)
	}
	state, err := x.c.LoadState(ctx, want.Name)
	if err != nil {
		return bad("%v", err)
	}
	e.Load = map[client.LoadState]string{client.NotLoaded: "not loaded", client.Loading: "loading", client.Loaded: "loaded"}[state]
	ix, err := x.c.DescribeIndex(ctx, want.Name, fieldVector)
	switch {
	case errors.Is(err, client.ErrGone):
		e.Index = "none"
	case err != nil:
		return bad("%v", err)
	default:
		e.Index, e.Indexed = ix.Type, ix.Rows
	}
	if state == client.Loaded {
		e.Rows, err = x.c.Count(ctx, want.Name, "", client.Strong)
	} else {
		e.Rows, err = x.c.Rows(ctx, want.Name)
	}
	if err != nil {
		e.Rows = -1
		return bad("%v", err)
	}
	text := fmt.Sprintf("%s: %d rows, index %s (%d rows in it), %s, schema of this version", want.Name, e.Rows, e.Index, e.Indexed, e.Load)
	if spec != nil {
		e.Precision = string(spec.Precision)
		e.MemoryBytes = e.Rows * (rows.RowBytes(*spec) + 8)
		text += fmt.Sprintf(", about %d MB of memory in each process", (e.MemoryBytes+999_999)/1_000_000)
	}
	if state != client.Loaded {
		text += "; the next start loads it"
	}
	x.list = append(x.list, Finding{What: what, Found: text, Collection: e})
	return state == client.Loaded
}
