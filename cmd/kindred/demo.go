package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/demo"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/index/flat"
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
		Example: "  kindred demo\n  kindred demo --customers 20000 --out ./demo\n  kindred demo --data customers.csv --seeds seeds.csv",
		Args:    arguments(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.customers, "customers", 3500, "customers to generate")
	flags.StringVar(&f.dir, "out", "", "folder for data, audience and report (default: a new one in the system's temporary folder)")
	// Here --data is a file of customers: the demo keeps its own data under --out.
	flags.StringVar(&f.file, "data", "", "your own customers instead of generated ones")
	flags.StringVar(&f.look.seeds, "seeds", "", "seeds for --data")
	flags.BoolVar(&f.keep, "keep", false, "leave a server running on the generated customers, at --listen")
	flags.BoolVar(&f.zh, "zh", false, "fetch the Chinese model too and make the Chinese collection")
	flags.Uint64Var(&f.seed, "seed", 1, "of the generator")
	return cmd
}

func (a *app) demo(ctx context.Context, f demoFlags) error {
	opt := demo.Options{Customers: f.customers, Seed: f.seed}
	if err := opt.Validate(); err != nil {
		return usagef("--customers: %w", err)
	}
	if (f.file == "") != (f.look.seeds == "") {
		return usagef("--data and --seeds go together: your customers and the ones to look like")
	}
	dir := f.dir
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "kindred-demo-"); err != nil {
			return err
		}
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
	if err := a.demoBase(ctx, dir, "en", "all-MiniLM-L6-v2", opt); err != nil {
		return err
	}
	if _, here := models.Find("bge-small-zh-v1.5"); here || f.zh {
		opt.Language = "zh"
		if err := a.demoBase(ctx, dir, "zh", "bge-small-zh-v1.5", opt); err != nil {
			return err
		}
	}
	a.say("done in %s. Try next:", time.Since(start).Round(time.Second))
	a.say("  open %s in a browser", filepath.Join(dir, "report.html"))
	a.say("  kindred search demo-en 'trains for a marathon' --data %s", filepath.Join(dir, "data"))
	a.say("  kindred lookalike YOUR.csv --seeds SEEDS.csv --size 5%% -o audience.csv --report report.html")
	if f.keep {
		return a.serve(ctx, filepath.Join(dir, "data"), "")
	}
	return nil
}

// demoBase makes one collection and its audience. The English one has the
// plain names report.html and audience.csv.
func (a *app) demoBase(ctx context.Context, dir, lang, model string, opt demo.Options) (err error) {
	opt.Language = lang
	if _, err := a.pull(ctx, model, false); err != nil {
		return err
	}
	store, err := flat.Open(filepath.Join(dir, "data"), flat.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV(), OpenModel: openModel, Limits: collection.Limits{MinAudience: 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close(context.WithoutCancel(ctx))) }()
	coll := "demo-" + lang
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
	return a.demoAudience(ctx, svc, store, demoRun{dir: dir, coll: coll, lang: lang, model: model, src: src})
}

type demoRun struct {
	dir, coll, lang, model string
	src                    *generated
}

func (a *app) demoAudience(ctx context.Context, svc *collection.Service, store *flat.Store, d demoRun) error {
	ids := d.src.positives
	take := min(demoSeeds, 2*len(ids)/3)
	if take < 20 {
		return fmt.Errorf("only %d customers are in the planted segment: raise --customers to 1000 or more", len(ids))
	}
	seeds, refs := map[string]bool{}, make([]audience.SeedRef, 0, take)
	for i := range take {
		id := ids[i*len(ids)/take]
		seeds[id] = true
		refs = append(refs, audience.SeedRef{ID: id})
	}
	a.say("%d seeds drawn from the %d customers of the planted segment %q", take, len(ids), demoSegment)
	everyone, share := 1.0, demoShare
	bar := a.meter()
	progress := func(stage string, done, total int) { bar.show(stage, int64(done), int64(total)) }
	req := audience.Request{Name: d.coll, Seeds: audience.Seeds{IDs: refs}, Size: audience.Size{Ratio: &share}}
	res, err := svc.Run(ctx, d.coll, req, progress)
	if err != nil {
		return err
	}
	// The truth judges the order of everyone: the same request, at full size.
	no := false
	req.Size, req.Explain = audience.Size{Ratio: &everyone}, audience.Explain{Members: &no}
	full, err := svc.Run(ctx, d.coll, req, progress)
	bar.end()
	if err != nil {
		return err
	}
	truth := judge(full.Members, d.src.truth, len(res.Members))
	meta := report.Meta{Title: fmt.Sprintf("Demo: customers like %d %s", len(refs), demoSegment), Notice: demo.Notice, Source: d.coll, Model: d.model, Tool: tool(), Created: time.Now(), Truth: truth}
	if meta.Groups, err = groups(ctx, store, d.coll, demo.Schema(), res); err != nil {
		return err
	}
	suffix := ""
	if d.lang != "en" {
		suffix = "-" + d.lang
	}
	return a.deliver(res, meta, lookalikeFlags{out: filepath.Join(d.dir, "audience"+suffix+".csv"), report: filepath.Join(d.dir, "report"+suffix+".html")})
}

// judge sets an order of everyone but the seeds against the truth.
func judge(order []audience.Member, truth map[string]bool, size int) *report.Truth {
	scores, is := make([]float32, len(order)), make([]bool, len(order))
	for i, m := range order {
		scores[i], is[i] = m.Score, truth[m.ID]
	}
	e := audience.Evaluate(scores, is, size)
	return &report.Truth{What: "planted segment " + demoSegment, AUC: e.AUC, Lift5: e.Lift[5], Precision: e.Precision[size], Base: float64(e.Positives) / math.Max(float64(e.N), 1), Size: size}
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
