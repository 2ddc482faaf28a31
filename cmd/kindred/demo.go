package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/demo"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/hnsw"
	"github.com/kindred-search/kindred/profile"
	"github.com/kindred-search/kindred/report"
)

const (
	demoSeeds   = 200
	demoSegment = "runners"
	demoShare   = 0.05
)

type demoFlags struct {
	keep      bool
	customers int
	file      string
	look      lookalikeFlags
	dir       string
	zh        bool
	seed      uint64
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "A generated customer base, end to end, with a report to look at",
		Long: "demo fetches a model, generates customers (clearly labelled), encodes and stores them, draws seeds from a\n" +
			"planted segment, builds the audience and says how good it is, by held-out seeds and by the planted truth.",
		Example: "  kindred demo\n  kindred demo --customers 20000 --out ./first-demo\n  kindred demo --data customers.csv --seeds seeds.csv",
		Args:    arguments(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.customers, "customers", 8000, "customers to generate")
	flags.StringVar(&f.dir, "out", "", "folder for data, audience and report (default: a new one in the system's temporary folder)")
	// Here --data is a file of customers: the demo keeps its own data under --out.
	flags.StringVar(&f.file, "data", "", "your own customers instead of generated ones")
	flags.StringVar(&f.look.who.seeds, "seeds", "", "seeds for --data")
	flags.BoolVar(&f.keep, "keep", false, "leave a server running on the generated customers, at --listen")
	flags.BoolVar(&f.zh, "zh", false, "fetch the Chinese model too and make the Chinese collection")
	flags.Uint64Var(&f.seed, "seed", 1, "of the generator")
	return cmd
}

func (a *app) demo(ctx context.Context, f demoFlags) (err error) {
	opt := demo.Options{Customers: f.customers, Seed: f.seed}
	if err := opt.Validate(); err != nil {
		return usagef("--customers: %w", err)
	}
	if (f.file == "") != (f.look.who.seeds == "") {
		return usagef("--data and --seeds go together: your customers and the ones to look like")
	}
	if f.keep && f.file != "" {
		return usagef("--keep serves the generated customers: for your own, kindred import and then kindred serve")
	}
	if f.keep {
		// A taken port is better said now than after a minute's work.
		listener, err := a.listen(ctx)
		if err != nil {
			return err
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	if f.dir == "" {
		if dir, err = os.MkdirTemp("", "kindred-demo-"); err != nil {
			return err
		}
		defer func() {
			if err != nil { // a folder that nobody knows the name of
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}()
	} else if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if f.file != "" {
		look := f.look
		look.size, look.method, look.minSeeds, look.reasons = "5%", audience.Auto, 20, true
		look.file.model = "auto"
		look.out, look.report = filepath.Join(dir, "audience.csv"), filepath.Join(dir, "report.html")
		return a.lookalike(ctx, f.file, look)
	}
	start := time.Now()
	langs := []struct{ name, model string }{{"en", "all-MiniLM-L6-v2"}}
	if _, here := models.Find("bge-small-zh-v1.5"); here || f.zh {
		langs = append(langs, struct{ name, model string }{"zh", "bge-small-zh-v1.5"})
	}
	for _, lang := range langs {
		opt.Language = lang.name
		if err := a.demoBase(ctx, dir, lang.model, opt); err != nil {
			return err
		}
	}
	if len(langs) == 1 {
		a.say("Chinese customers too: %s demo --zh", program())
	}
	a.say("done in %s; the report to look at: %s", time.Since(start).Round(time.Second), filepath.Join(dir, "report.html"))
	next := demoNext{program: program(), data: filepath.Join(dir, "data"), seeds: filepath.Join(dir, "seeds.csv")}
	if f.keep {
		a.limits.MinAudience = 1 // generated customers: a short list singles out nobody
		return a.serve(ctx, next.data, "", cacheFlags{}, func(url string) { a.say("%s", next.words(url)) })
	}
	a.say("%s", next.words(""))
	return nil
}

// demoNext says what to try after a demo. Every line is a command to paste.
type demoNext struct{ program, data, seeds string }

func (d demoNext) words(url string) string {
	if url == "" {
		on := " --data " + quote(d.data)
		return "Try next:\n" +
			"  " + d.program + " search demo-en 'trains for a marathon' --limit 3" + on + "\n" +
			"  " + d.program + " similar demo-en gen-000001 --limit 3" + on + "\n" +
			"  " + d.program + " audience create demo-en mine --seeds " + quote(d.seeds) + " --size 2%" + on
	}
	return "Try next, in another terminal:\n" +
		"  curl -s " + url + "/v1/collections/demo-en/search -H 'Content-Type: application/json' -d '{\"text\": \"trains for a marathon\", \"limit\": 3}'\n" +
		"  curl -s '" + url + "/v1/collections/demo-en/audiences/" + demoSegment + "/members?limit=3'\n" +
		"  " + d.program + " audience create demo-en mine --seeds " + quote(d.seeds) + " --size 2% --server " + url
}

// program is how this program was called, so that a command that is shown can
// be pasted.
func program() string {
	exe, err := os.Executable()
	if err != nil {
		return "kindred"
	}
	if strings.Contains(exe, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/kindred"
	}
	if found, err := exec.LookPath("kindred"); err == nil {
		if found, err = filepath.Abs(found); err == nil && found == exe {
			return "kindred"
		}
	}
	return quote(exe)
}

// quote makes one word of a path for a shell.
func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@%,=", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// demoBase makes one collection and its audience. The English one has the
// plain names report.html, audience.csv and seeds.csv.
func (a *app) demoBase(ctx context.Context, dir, model string, opt demo.Options) (err error) {
	if _, err := a.pull(ctx, model, false); err != nil {
		return err
	}
	store, err := a.openStore(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV(), OpenModel: a.openModel, MaxMemory: a.cfg.customerMemory(), Limits: collection.Limits{MinAudience: 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close(context.WithoutCancel(ctx))) }()
	coll := "demo-" + opt.Language
	if _, err := svc.Collection(ctx, coll); err == nil {
		if info, err := svc.Audience(ctx, coll, demoSegment); err == nil && info.State == collection.JobDone {
			return fmt.Errorf("%s holds an earlier demo: choose another --out or delete that folder", dir)
		}
		a.say("%s was not finished: it is begun anew", coll)
		if err := svc.Drop(ctx, coll); err != nil {
			return err
		}
	}
	if _, _, err := svc.Put(ctx, collection.Config{Name: coll, Model: model, Schema: demo.Schema()}); err != nil {
		return err
	}
	a.say("%s: %d generated customers (no real person)", coll, opt.Customers)
	src := &generated{truth: map[string]bool{}}
	next, stop := iter.Pull(demo.Generate(opt))
	defer stop()
	src.next = next
	bar := a.meter()
	_, err = svc.Import(ctx, coll, src, func(done, _ int) { bar.show("encoding and storing", int64(done), int64(opt.Customers)) })
	bar.end()
	if err != nil {
		return err
	}
	suffix := ""
	if opt.Language != "en" {
		suffix = "-" + opt.Language
	}
	path := func(name, ext string) string { return filepath.Join(dir, name+suffix+ext) }
	return a.demoAudience(ctx, svc, store, demoRun{coll: coll, model: model, src: src, seeds: path("seeds", ".csv"), out: path("audience", ".csv"), report: path("report", ".html")})
}

type demoRun struct {
	coll, model        string
	src                *generated
	seeds, out, report string
}

func (a *app) demoAudience(ctx context.Context, svc *collection.Service, store *hnsw.Store, d demoRun) error {
	ids := d.src.positives
	take := min(demoSeeds, len(ids)/2)
	if take < 20 {
		return fmt.Errorf("only %d customers are in the planted segment: raise --customers to 1000 or more", len(ids))
	}
	seeds, refs := map[string]bool{}, make([]audience.SeedRef, 0, take)
	for i := range take {
		id := ids[i*len(ids)/take]
		seeds[id] = true
		refs = append(refs, audience.SeedRef{ID: id})
	}
	if err := writeAtomic(d.seeds, func(w *os.File) error { return writeIDs(w, refs) }); err != nil {
		return err
	}
	a.say("%d seeds drawn from the %d customers of the planted segment %q", take, len(ids), demoSegment)
	share := demoShare
	req := audience.Request{Name: demoSegment, Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Ratio: &share}}
	job, err := svc.CreateAudience(ctx, d.coll, req)
	if err != nil {
		return err
	}
	if err := a.follow(ctx, direct{svc}, job.ID); err != nil {
		return err
	}
	info, err := svc.Audience(ctx, d.coll, demoSegment)
	if err != nil {
		return err
	}
	res := info.Result
	if res.Members, err = svc.Members(ctx, d.coll, demoSegment, 0, math.MaxInt); err != nil {
		return err
	}
	truth, err := judge(ctx, store, d, res, seeds)
	if err != nil {
		return err
	}
	meta := report.Meta{Title: fmt.Sprintf("Demo: customers like %d %s", len(refs), demoSegment), Notice: demo.Notice, Source: d.coll, Model: d.model, Tool: tool(), Created: time.Now(), Truth: truth}
	if meta.Why, err = a.examples(ctx, svc, d.coll, req, res); err != nil {
		return err
	}
	return a.deliver(res, meta, lookalikeFlags{out: d.out, report: d.report})
}

func writeIDs(w io.Writer, refs []audience.SeedRef) error {
	out := bufio.NewWriter(w)
	_, err := fmt.Fprintln(out, "id")
	for _, r := range refs {
		if err == nil {
			_, err = fmt.Fprintln(out, r.ID)
		}
	}
	return errors.Join(err, out.Flush())
}

// judge sets the model's order of everyone but the seeds against the truth.
func judge(ctx context.Context, store *hnsw.Store, d demoRun, res *audience.Result, seeds map[string]bool) (_ *report.Truth, err error) {
	eng, err := store.Open(ctx, d.coll)
	if err != nil {
		return nil, err
	}
	snap, err := eng.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	all, err := snap.Scan(ctx, index.ScanRequest{Bins: res.Model.Bins, Sets: []index.HeadSet{res.Model.Set}})
	if err != nil {
		return nil, err
	}
	var scores []float32
	var is []bool
	for it := snap.Live().Iterator(); it.HasNext(); {
		row := it.Next()
		if id := snap.ID(row); !seeds[id] {
			scores, is = append(scores, all[0][row]), append(is, d.src.truth[id])
		}
	}
	size := len(res.Members)
	e := audience.Evaluate(scores, is, size)
	return &report.Truth{What: "planted segment " + demoSegment, AUC: e.AUC, Lift5: e.Lift[5], Precision: e.Precision[size], Base: float64(e.Positives) / math.Max(float64(e.N), 1), Size: size}, nil
}

// generated is the generator as a source of records, noting the truth.
type generated struct {
	next      func() (demo.Customer, bool)
	truth     map[string]bool
	positives []string
}

// Next yields the next customer.
func (g *generated) Next() (profile.Record, error) {
	c, ok := g.next()
	if !ok {
		return profile.Record{}, io.EOF
	}
	if c.Segment == demoSegment {
		g.truth[c.Record.ID] = true
		g.positives = append(g.positives, c.Record.ID)
	}
	return c.Record, nil
}
