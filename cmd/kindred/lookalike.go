package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/internal/buildinfo"
	"github.com/kindred-search/kindred/profile"
	"github.com/kindred-search/kindred/report"
)

// population names the one collection of a run without a server.
const population = "population"

// fileFlags say how a file of customers is read.
type fileFlags struct {
	id, groupBy, delimiter, encoding, model string
	halfLife, asOf, timeColumn              string
	text, ignore, exclude, sensitive, types []string
	immutable                               []string
	noHeader                                bool
}

func (f *fileFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.id, "id", "", "column that holds the customer's id (default: looked for)")
	flags.StringVar(&f.groupBy, "group-by", "", "fold rows with the same value of this column into one customer")
	flags.StringVar(&f.halfLife, "half-life", "", "with --as-of: days after which a row of --group-by, or a dated element of a list in NDJSON, counts half, such as 90d")
	flags.StringVar(&f.asOf, "as-of", "", "time that ages are counted from, such as 2011-12-01; later rows of --group-by are left out")
	flags.StringVar(&f.timeColumn, "time-column", "", "column with the rows' times for --half-life (default: the only one)")
	flags.StringVar(&f.delimiter, "delimiter", "", "one character between cells (default: looked for)")
	flags.StringVar(&f.encoding, "encoding", "", "utf-8, gb18030, utf-16le, utf-16be or windows-1252 (default: looked for)")
	flags.BoolVar(&f.noHeader, "no-header", false, "the first line is a customer; columns are c1, c2, ...")
	flags.StringSliceVar(&f.text, "text", nil, "columns to read as text")
	flags.StringArrayVar(&f.types, "type", nil, "column=type, type one of number, category, set, text, bool, time")
	flags.StringSliceVar(&f.ignore, "ignore", nil, "columns to leave out")
	flags.StringSliceVar(&f.exclude, "exclude-column", nil, "the same as --ignore, such as for an outcome")
	flags.StringSliceVar(&f.sensitive, "sensitive", nil, "columns never scored by, but reported on")
	flags.StringSliceVar(&f.immutable, "immutable", nil, "columns never proposed as a change, such as a year of birth")
	flags.StringVar(&f.model, "model", "auto", "encoder of the texts: auto, none or a name of kindred models ls")
}

func (f *fileFlags) options() (ingest.Options, error) {
	opt := ingest.Options{IDColumn: f.id, GroupBy: f.groupBy, Encoding: f.encoding, TextColumns: f.text, Ignore: slices.Concat(f.ignore, f.exclude), Types: map[string]profile.FieldType{}}
	var faults []error
	if f.noHeader {
		no := false
		opt.Header = &no
	}
	switch f.delimiter {
	case "":
	case `\t`, "tab":
		opt.Delimiter = '\t'
	default:
		if utf8.RuneCountInString(f.delimiter) != 1 {
			faults = append(faults, fmt.Errorf("--delimiter %q: want one character, or tab", f.delimiter))
		}
		opt.Delimiter, _ = utf8.DecodeRuneInString(f.delimiter)
	}
	faults = append(faults, f.decay(&opt))
	for _, pair := range f.types {
		at := strings.LastIndexByte(pair, '=')
		if at < 1 || !profile.FieldType(pair[at+1:]).Valid() {
			faults = append(faults, fmt.Errorf("--type %q: want column=number, category, set, text, bool or time", pair))
			continue
		}
		opt.Types[pair[:at]] = profile.FieldType(pair[at+1:])
	}
	if err := errors.Join(faults...); err != nil {
		return opt, &usageError{err}
	}
	return opt, nil
}

// configure turns a plan into a collection: schema, sensitive marks and model.
func (f *fileFlags) configure(plan *ingest.Plan) (collection.Config, error) {
	cfg := collection.Config{Name: population, Schema: plan.Schema()}
	var faults []error
	mark := func(flag string, names []string, set func(*profile.Field)) {
		for _, name := range names {
			at := slices.IndexFunc(cfg.Schema.Fields, func(x profile.Field) bool { return x.Name == name })
			if at < 0 {
				faults = append(faults, fmt.Errorf("--%s %s: the file has no such column, or it is not used", flag, name))
				continue
			}
			set(&cfg.Schema.Fields[at])
		}
	}
	mark("sensitive", f.sensitive, func(x *profile.Field) { x.Sensitive = true })
	mark("immutable", f.immutable, func(x *profile.Field) { x.Immutable = true })
	if err := errors.Join(faults...); err != nil {
		return cfg, &usageError{err}
	}
	switch f.model {
	case "none":
	case "auto":
		if len(cfg.Schema.TextFields()) > 0 {
			cfg.Model = "all-MiniLM-L6-v2"
			if plan.Chinese {
				cfg.Model = "bge-small-zh-v1.5"
			}
		}
	default:
		cfg.Model = f.model
	}
	return cfg, nil
}

type lookalikeFlags struct {
	file                      fileFlags
	who                       seedFlags
	size, out, report, method string
	minSeeds                  int
	reasons, plan, checkSeeds bool
	notice, title             string
	fair                      fairFlags
}

func (a *app) lookalikeCommand() *cobra.Command {
	var f lookalikeFlags
	cmd := &cobra.Command{
		Use: "lookalike CUSTOMERS", Short: "From seeds to an audience, from file to file, without a server",
		Long: "lookalike reads customers and seeds from CSV, NDJSON or Parquet files, plain or compressed, or from pipes (- is standard input), and\n" +
			"writes the customers most like the seeds. What the file is taken for is shown and can be overruled.",
		Example: "  kindred lookalike customers.csv --seeds seeds.csv --size 5% -o audience.csv --report report.html\n" +
			"  kindred lookalike orders.csv --group-by customer_id --seeds seeds.csv --size 500 -o -\n" +
			"  kindred lookalike customers.csv --plan",
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.lookalike(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	f.file.add(flags)
	f.who.add(flags, false)
	flags.StringVar(&f.size, "size", "5%", sizeHelp)
	flags.StringVarP(&f.out, "out", "o", "", "the audience: .csv, .ndjson or .parquet, or - for CSV on standard output; a file that is there is replaced")
	flags.StringVar(&f.report, "report", "", "HTML report")
	flags.StringVar(&f.method, "method", audience.Auto, methodHelp)
	f.fair.add(flags)
	flags.IntVar(&f.minSeeds, "min-seeds", 20, "fewest seeds that must match")
	flags.BoolVar(&f.reasons, "reasons", true, "say why each member is on the list")
	flags.BoolVar(&f.checkSeeds, "check-seeds", false, "only look at the seeds, build nothing")
	flags.BoolVar(&f.plan, "plan", false, "only show how the file would be read")
	return cmd
}

// What help says of flags that lookalike and audience create share.
const (
	sizeHelp    = "5% of the customers, 500 of them, threshold=SCORE, or precision=SHARE: the largest list that is expected to hold that share of the seeds' kind"
	seedsIDHelp = "column of the seeds that holds the ids (default: the customers' id column, or looked for)"
	methodHelp  = "auto, centroid, clusters, classifier, trees, knn, or text (needs a description)"
)

// parseSize reads --size.
func parseSize(s string) (audience.Size, error) {
	var size audience.Size
	switch {
	case strings.HasPrefix(s, "threshold="):
		v, err := strconv.ParseFloat(strings.TrimPrefix(s, "threshold="), 64)
		if err != nil || math.IsNaN(v) {
			return size, usagef("--size %q: want threshold=NUMBER", s)
		}
		size.Threshold = &v
	case strings.HasPrefix(s, "precision="):
		v, err := strconv.ParseFloat(strings.TrimPrefix(s, "precision="), 64)
		if err != nil || !(v > 0 && v <= 1) {
			return size, usagef("--size %q: want precision=SHARE with a share above 0 and up to 1", s)
		}
		size.MinPrecision = &v
	case strings.HasSuffix(s, "%"):
		v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || !(v > 0 && v <= 100) {
			return size, usagef("--size %q: want a share above 0%% and up to 100%%", s)
		}
		v /= 100
		size.Ratio = &v
	default:
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return size, usagef("--size %q: want a share such as 5%%, a whole number of customers such as 500, threshold=SCORE or precision=SHARE", s)
		}
		size.Count = &n
	}
	return size, nil
}

// check finds what can be wrong before a file is opened.
func (f *lookalikeFlags) check(path string) error {
	if !slices.Contains(audience.Methods(), f.method) {
		return usagef("--method %q: want %s", f.method, methodHelp)
	}
	if f.minSeeds < 1 {
		return usagef("--min-seeds %d: want 1 or more", f.minSeeds)
	}
	if f.out != "-" {
		if _, err := formOf(f.out); err != nil {
			return err
		}
	}
	return checkOutputs(append(f.who.inputs(), path), []string{f.out, f.report})
}

func (a *app) lookalike(ctx context.Context, path string, f lookalikeFlags) (err error) {
	opt, err := f.file.options()
	if err != nil {
		return err
	}
	size, err := parseSize(f.size)
	if err != nil {
		return err
	}
	if !f.who.given() && !f.plan {
		return usagef("--seeds is missing: name a file with the ids of the customers to look like")
	}
	if err := f.check(path); err != nil {
		return err
	}
	source := filepath.Base(path)
	path, done, err := regular(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	plan, err := ingest.Inspect(ctx, path, opt)
	if err != nil {
		return err
	}
	if f.plan && a.cfg.JSON {
		return a.json(plan)
	}
	a.say("%s", strings.TrimRight(plan.String(), "\n"))
	if f.plan {
		return nil
	}
	if plan.IDColumn == "" && plan.GroupBy == "" {
		a.say("note: no column is taken for the id: seeds are row numbers from 1; --id COLUMN names one")
	}
	cfg, err := f.file.configure(plan)
	if err != nil {
		return err
	}
	if note := unmarked(cfg.Schema); note != "" {
		a.say("note: %s", inline(note))
	}
	req := audience.Request{Size: size, Method: f.method, Explain: audience.Explain{Members: &f.reasons}}
	if err := f.fair.apply(&req); err != nil {
		return err
	}
	if err := a.fill(ctx, &f.who, &req, plan.IDColumn, plan.GroupBy); err != nil {
		return err
	}
	if only := f.who.filter == "" && f.who.text == ""; only && (cfg.Model != "" || plan.GroupBy == "") {
		// Encoding takes minutes: whether the seeds are in the file is seen first.
		if err := enoughSeeds(ctx, plan, req.Seeds.IDs, f.minSeeds); err != nil {
			return err
		}
	}
	in, err := a.inMemory(ctx, cfg, plan, f.minSeeds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close(ctx)) }()
	if size.Count != nil {
		now, err := in.svc.Collection(ctx, population)
		if err != nil {
			return err
		}
		if *size.Count > now.Customers {
			return fmt.Errorf("--size %d: there are only %d customers", *size.Count, now.Customers)
		}
	}
	if f.checkSeeds {
		got, err := in.svc.CheckSeeds(ctx, population, req)
		if err != nil {
			return err
		}
		return a.showSeeds(got)
	}
	res, err := a.build(ctx, in.svc, req)
	if err != nil {
		return err
	}
	meta := report.Meta{Title: f.title, Notice: f.notice, Source: source, Model: cfg.Model, Tool: tool(), Created: time.Now()}
	if f.report != "" {
		if meta.Why, err = a.examples(ctx, in.svc, population, req, res); err != nil {
			return err
		}
	}
	return a.deliver(res, meta, f)
}

func tool() string { return "kindred " + buildinfo.Read().Version }

// readSeeds reads a seed list. Its ids are in column, else in the first of like
// that it has, else where they are found.
func readSeeds(ctx context.Context, path, column string, like ...string) (_ []audience.SeedRef, err error) {
	path, done, err := regular(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("seeds: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	seeds, err := ingest.ReadSeeds(ctx, path, ingest.Options{IDColumn: column}, like...)
	if err != nil {
		return nil, fmt.Errorf("seeds: %w", err)
	}
	if len(seeds) == 0 {
		return nil, fmt.Errorf("seeds: %s names nobody", path)
	}
	refs := make([]audience.SeedRef, len(seeds))
	for i, s := range seeds {
		refs[i] = audience.SeedRef{ID: s.ID, Weight: s.Weight}
	}
	return refs, nil
}

// enoughSeeds reads the file's ids.
func enoughSeeds(ctx context.Context, plan *ingest.Plan, refs []audience.SeedRef, least int) error {
	want := make(map[string]bool, len(refs))
	for _, r := range refs {
		want[r.ID] = true
	}
	given := len(want)
	matched := func() int { return given - len(want) }
	rows, err := eachRecord(ctx, plan, func(rec profile.Record) bool {
		delete(want, rec.ID)
		return matched() < least
	})
	switch {
	case err != nil || matched() >= least:
		return err
	case rows == 0:
		return noRows(plan)
	}
	if len(want) == 0 {
		return fmt.Errorf("too few seeds: %d given, at least %d are needed: name more, or lower --min-seeds", given, least)
	}
	return fmt.Errorf("too few seeds: %d of %d given ids match customers of %s, at least %d are needed (unknown, for instance: %q): is the id column the right one (--id)?", matched(), given, plan.Path, least, slices.Sorted(maps.Keys(want))[:min(3, len(want))])
}

func noRows(plan *ingest.Plan) error {
	return fmt.Errorf("%s has a header and no rows below it", plan.Path)
}

// inMemory is a file's customers in a collection of this process, population.
type inMemory struct {
	svc   *collection.Service
	store *memory.Store
	got   loaded
}

// inMemory fetches the model that a file wants and reads the file. The caller closes
// the result.
func (a *app) inMemory(ctx context.Context, cfg collection.Config, plan *ingest.Plan, minSeeds int) (in *inMemory, err error) {
	if cfg.Model != "" {
		if _, err := a.pull(ctx, cfg.Model, false); err != nil {
			return nil, err
		}
	}
	in = &inMemory{store: memory.Open()}
	in.svc, err = collection.New(ctx, collection.Options{Store: in.store, KV: in.store.KV(), OpenModel: a.openModel, MaxMemory: a.cfg.customerMemory(), Limits: collection.Limits{MinSeeds: minSeeds, MinAudience: 1}})
	if err != nil {
		return nil, err
	}
	if _, _, err = in.svc.Put(ctx, cfg); err == nil {
		in.got, err = a.load(ctx, in.svc, cfg, plan)
	}
	if err != nil {
		return nil, errors.Join(err, in.close(ctx))
	}
	return in, nil
}

func (in *inMemory) close(ctx context.Context) error {
	return errors.Join(in.svc.Close(context.WithoutCancel(ctx)), in.store.Close())
}

// loaded is what became of a file's rows.
type loaded struct {
	Collection string               `json:"collection"`
	Accepted   int                  `json:"accepted"`
	Refused    int                  `json:"refused"`
	Errors     []collection.Verdict `json:"errors"` // the first refused
}

// load reads a file into a collection with progress.
func (a *app) load(ctx context.Context, svc *collection.Service, cfg collection.Config, plan *ingest.Plan) (got loaded, err error) {
	src, err := plan.Open(ctx)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	what := "reading"
	if cfg.Model != "" {
		what = "reading and encoding"
	}
	bar := a.meter()
	refused := 0
	out, err := svc.Import(ctx, cfg.Name, src, func(done, bad int) {
		refused = bad
		read, total := src.Progress()
		if total > 0 && read > 0 {
			bar.show(what, int64(done), max(int64(done), int64(float64(done)*float64(total)/float64(read))))
		} else {
			bar.show(what, int64(done), 0)
		}
	})
	bar.end()
	if err != nil {
		got.Accepted = out.Accepted
		return got, err
	}
	got = loaded{Collection: cfg.Name, Accepted: out.Accepted, Refused: refused, Errors: out.Refused}
	if plan.Sampled+plan.Refused == 0 && got.Accepted == 0 {
		return got, noRows(plan)
	}
	return got, a.taken(got, plan.Path)
}

// taken says what an import took in and refused.
func (a *app) taken(got loaded, path string) error {
	for _, v := range got.Errors[:min(len(got.Errors), 5)] {
		a.say("line %d refused: %s", v.Line, inline(v.Reason))
	}
	rest := ""
	if got.Refused > 0 {
		rest = fmt.Sprintf(", %d rows refused", got.Refused)
	}
	a.say("%d customers taken in%s", got.Accepted, rest)
	if got.Accepted == 0 {
		return fmt.Errorf("no customer could be read from %s", path)
	}
	return nil
}

func (a *app) build(ctx context.Context, svc *collection.Service, req audience.Request) (*audience.Result, error) {
	bar := a.meter()
	defer bar.end()
	return svc.Run(ctx, population, req, func(stage string, done, total int) { bar.show(stage, int64(done), int64(total)) })
}

// examples explains some members for the report, from the first to the last.
func (a *app) examples(ctx context.Context, svc *collection.Service, coll string, req audience.Request, res *audience.Result) ([]audience.Explanation, error) {
	const few = 6
	var ids []string
	for i := range min(len(res.Members), few) {
		at := i
		if len(res.Members) > few {
			at = i * (len(res.Members) - 1) / (few - 1)
		}
		ids = append(ids, res.Members[at].ID)
	}
	return svc.Explain(ctx, coll, req, res, ids)
}

// deliver prints the quality sheet and writes the files.
func (a *app) deliver(res *audience.Result, meta report.Meta, f lookalikeFlags) error {
	a.sheet(res, meta.Truth)
	if f.out != "" {
		if err := a.export(f.out, res.Members); err != nil {
			return err
		}
	}
	if f.report != "" {
		if err := writeAtomic(f.report, func(w *os.File) error { return report.Write(w, res, meta) }); err != nil {
			return err
		}
		a.say("report: %s", f.report)
	}
	if a.cfg.JSON && f.out != "-" {
		light := *res
		if f.out != "" {
			light.Members = nil
		}
		return a.json(light)
	}
	return nil
}

// sheet prints how good the list is.
func (a *app) sheet(res *audience.Result, truth *report.Truth) {
	d, q := res.Doctor, res.Quality
	a.say("seeds: %d given, %d matched a customer", d.Given, d.Matched)
	for _, n := range slices.Concat(d.Notes, res.Warnings) {
		a.say("note: %s", n)
	}
	a.interests(res.Interests, true)
	a.say("audience: %d of %d customers, method %s", res.Manifest.Size, res.Manifest.Customers, res.Manifest.Method)
	a.say("verdict: %s. %s", q.Verdict, q.Words)
	line := func(name string, m audience.Measure) {
		if len(m.Sizes) == 0 {
			return
		}
		auc, lift := m.AUC, m.Sizes[0].Lift
		a.say("  %-22s AUC %.3f (%.3f to %.3f)   lift %5.2f (%.2f to %.2f)", name, auc.Value, auc.Low, auc.High, lift.Value, lift.Low, lift.High)
	}
	if q.Verdict != audience.NotMeasured {
		line("held-out seeds", q.Measure)
		for _, b := range q.Baselines {
			line(b.Name, b)
		}
		line("null (random seeds)", q.Null)
		if r := q.Reliability; len(r.Bins) > 0 {
			known := "estimated"
			if r.Known {
				known = "as given"
			}
			a.say("  %-22s %.3f of customers are of the seeds' kind (%s); expected calibration error %.3f, Brier %.3f (%.3f without scores)", "probabilities", r.Prevalence, known, r.Error, r.Brier, r.Climate)
		}
	}
	for _, d := range res.Fairness {
		for _, g := range d.Groups {
			a.say("  %-22s selected %.3f (%.3f to %.3f), %.2f of the highest (%.2f to %.2f)", inline(d.Column+" "+g.Label), g.Rate.Value, g.Rate.Low, g.Rate.High, g.Ratio.Value, g.Ratio.Low, g.Ratio.High)
		}
		if len(d.Proxies) > 0 {
			a.say("  %-22s %s (0 tells nothing of the group, 1 everything)", inline(d.Column+" stand-ins"), standIns(d.Proxies))
		}
		if c := d.Cost; c != nil {
			a.say("  %-22s expected precision %.3f instead of %.3f, %d members differ", "evenness costs", c.Precision, c.Without, c.Changed)
		}
	}
	if truth != nil {
		a.say("  %-22s AUC %.3f   lift at 5 %% %.2f   precision of the %d members %.2f (everyone: %.2f)", "planted truth", truth.AUC, truth.Lift5, truth.Size, truth.Precision, truth.Base)
	}
}

// standIns lists what tells the groups of a sensitive column apart, the strongest first.
func standIns(proxies []audience.Proxy) string {
	list := make([]string, len(proxies))
	for i, p := range proxies {
		name := p.Column
		if p.Value != "" {
			name += " " + p.Value
		}
		list[i] = fmt.Sprintf("%s %.2f", inline(name), p.Strength)
	}
	return strings.Join(list, ", ")
}
