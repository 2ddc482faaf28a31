// Command flame turns a processor profile of a server into a result: whose work the
// samples are, and the tree of calls that bench/render draws. profile.py beside it
// takes the profile.
//
//	flame CPU.pb.gz     writes JSON on standard output
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "flame:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	if len(os.Args) != 2 {
		return errors.New("want one file")
	}
	f, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p, err := profile.Parse(f)
	if err != nil {
		return err
	}
	out, err := summary(p)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

// Summary is a profile in short.
type Summary struct {
	Samples int                `json:"samples"`
	CPU     float64            `json:"processor_seconds"`
	Shares  map[string]float64 `json:"shares"` // by work, adding up to 1
	Tree    *Frame             `json:"tree"`
}

// Frame is a call and what it spent, with its callees by share.
type Frame struct {
	Name  string   `json:"n"`
	Work  string   `json:"w,omitempty"` // of most of its samples
	Share float64  `json:"s"`           // of all samples, callees included
	Calls []*Frame `json:"c,omitempty"`

	value int64
	by    map[string]int64
}

// least is the share of a call that is drawn by itself.
const least = 0.002

func summary(p *profile.Profile) (*Summary, error) {
	at := slices.IndexFunc(p.SampleType, func(v *profile.ValueType) bool { return v.Type == "cpu" })
	if at < 0 {
		return nil, errors.New("this is no profile of processor time")
	}
	root := &Frame{Name: "kindred serve", by: map[string]int64{}}
	out := &Summary{Shares: map[string]float64{}, Tree: root}
	for _, s := range p.Sample {
		stack := frames(s)
		value, work := s.Value[at], workOf(stack)
		out.Samples += int(s.Value[0])
		root.add(value, work)
		node := root
		for _, name := range folded(stack) {
			node = node.call(name)
			node.add(value, work)
		}
	}
	if root.value == 0 {
		return nil, errors.New("no samples: was the server idle?")
	}
	out.CPU = float64(root.value) / 1e9
	for work, v := range root.by {
		out.Shares[work] = round(float64(v) / float64(root.value))
	}
	root.finish(root.value)
	return out, nil
}

func round(x float64) float64 { return float64(int64(x*1e5+0.5)) / 1e5 }

func (f *Frame) add(value int64, work string) {
	f.value += value
	f.by[work] += value
}

func (f *Frame) call(name string) *Frame {
	for _, c := range f.Calls {
		if c.Name == name {
			return c
		}
	}
	c := &Frame{Name: name, by: map[string]int64{}}
	f.Calls = append(f.Calls, c)
	return c
}

// finish turns values into shares, drops small calls and sorts the rest.
func (f *Frame) finish(all int64) {
	f.Share = round(float64(f.value) / float64(all))
	var most int64
	for work, v := range f.by {
		if v > most || v == most && work < f.Work {
			f.Work, most = work, v
		}
	}
	f.Calls = slices.DeleteFunc(f.Calls, func(c *Frame) bool { return float64(c.value) < least*float64(all) })
	slices.SortFunc(f.Calls, func(a, b *Frame) int { return cmp.Or(cmp.Compare(b.value, a.value), cmp.Compare(a.Name, b.Name)) })
	for _, c := range f.Calls {
		c.finish(all)
	}
}

const module = "github.com/kindred-search/kindred/"

// frames are a sample's functions from the outermost call to the innermost.
func frames(s *profile.Sample) []string {
	var out []string
	for _, loc := range slices.Backward(s.Location) {
		for _, line := range slices.Backward(loc.Line) {
			if line.Function != nil {
				out = append(out, line.Function.Name)
			}
		}
	}
	return out
}

// works says by the innermost function of ours whose work a sample is.
var works = []struct{ prefix, work string }{
	{"embed/tokenize.", "tokenizer"},
	{"embed.(*Queue)", "queue"},
	{"embed.", "encoder"},
	{"internal/simd.", "encoder"},
	{"api.", "bodies and routes"},
}

func workOf(stack []string) string {
	for _, name := range slices.Backward(stack) {
		own, ok := strings.CutPrefix(name, module)
		if !ok {
			continue
		}
		for _, w := range works {
			if strings.HasPrefix(own, w.prefix) {
				return w.work
			}
		}
		return "other"
	}
	for _, name := range stack {
		switch {
		case strings.HasPrefix(name, "runtime.gcBgMarkWorker"), strings.HasPrefix(name, "runtime.bgsweep"), strings.HasPrefix(name, "runtime.bgscavenge"):
			return "collector"
		case strings.HasPrefix(name, "net/http"):
			return "net/http"
		}
	}
	return "scheduler"
}

// plumbing are packages whose calls of each other say nothing.
var plumbing = []string{"net/http.", "github.com/gin-gonic/gin.", "github.com/danielgtaylor/huma", module + "api."}

// folded shortens names, of a run of calls in the plumbing keeps the first and the
// last, and leaves out what the runtime calls within itself.
func folded(stack []string) []string {
	pipe := make([]bool, len(stack))
	for i, name := range stack {
		pipe[i] = slices.ContainsFunc(plumbing, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	var out []string
	for i, name := range stack {
		if i > 0 && strings.HasPrefix(name, "runtime.") && strings.HasPrefix(stack[i-1], "runtime.") && stack[i-1] != "runtime.goexit" || name == "runtime.asyncPreempt" {
			break
		}
		if name == "runtime.goexit" || name == "runtime.main" || i > 0 && i < len(stack)-1 && pipe[i-1] && pipe[i] && pipe[i+1] {
			continue
		}
		name = strings.TrimPrefix(name, module)
		if cut := strings.LastIndex(name, "/"); cut >= 0 && strings.Contains(name[:cut], ".") { // another module
			name = name[cut+1:]
		}
		out = append(out, strings.ReplaceAll(name, "[...]", ""))
	}
	return out
}
