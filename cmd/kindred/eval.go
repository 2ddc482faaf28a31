package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// leastLeft is how many customers of the kind must be left to find after a draw.
const leastLeft = 50

type evalFlags struct {
	file           fileFlags
	outcome, truth string
	sizes, at      []int
	methods        []string
	draws          int
	seed           uint64
}

func (a *app) evalCommand() *cobra.Command {
	var f evalFlags
	cmd := &cobra.Command{
		Use: "eval CUSTOMERS", Short: "Measure lookalike methods where the outcome is known",
		Long: "eval draws seed lists from the customers with a known outcome, builds an audience from each, and measures how everyone else is ordered\n" +
			"against that outcome: AUC, lift in the best 1, 5 and 10 %, precision at k, mean and standard deviation over the draws. The outcome's column\n" +
			"is seen by no method; leave out with --ignore what gives it away. It also says how the quality sheet, which knows only the seeds, compares:\n" +
			"the AUC it states and in how many draws its interval holds the AUC that the outcome gives.",
		Example: "  kindred eval customers.csv --outcome churn=Yes --sizes 50,200\n  kindred eval orders.csv --group-by customer_id --truth big-spenders.csv --methods auto,centroid --json",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.eval(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	f.file.add(flags)
	flags.StringVar(&f.outcome, "outcome", "", "column=value of the customers to find; the column is left out of what is learned from")
	flags.StringVar(&f.truth, "truth", "", "instead of --outcome: file with the ids of the customers to find")
	flags.IntSliceVar(&f.sizes, "sizes", []int{50, 200, 1000}, "seeds a list")
	flags.IntVar(&f.draws, "draws", 5, "lists of each size")
	flags.StringSliceVar(&f.methods, "methods", []string{audience.Auto}, methodHelp)
	flags.IntSliceVar(&f.at, "at", []int{100, 1000}, "sizes of precision at k")
	flags.Uint64Var(&f.seed, "seed", 0, "of the draws")
	return cmd
}

// check finds what can be wrong before a file is opened; column and value are those
// of --outcome.
func (f *evalFlags) check() (column, value string, err error) {
	var faults []error
	if (f.outcome == "") == (f.truth == "") {
		faults = append(faults, errors.New("give one of --outcome column=value and --truth FILE"))
	}
	if f.outcome != "" {
		var ok bool
		if column, value, ok = strings.Cut(f.outcome, "="); !ok || column == "" {
			faults = append(faults, fmt.Errorf("--outcome %q: want column=value", f.outcome))
		}
		if f.file.groupBy != "" {
			faults = append(faults, errors.New("--outcome with --group-by: rows of one customer may differ in it: name the customers with --truth FILE"))
		}
	}
	if f.draws < 1 || f.draws > 1000 {
		faults = append(faults, fmt.Errorf("--draws %d: want 1 to 1000", f.draws))
	}
	for _, n := range f.sizes {
		if n < 2 {
			faults = append(faults, fmt.Errorf("--sizes %d: want 2 or more", n))
		}
	}
	for _, k := range f.at {
		if k < 1 {
			faults = append(faults, fmt.Errorf("--at %d: want 1 or more", k))
		}
	}
	for _, m := range f.methods {
		if !slices.Contains(audience.Methods(), m) || m == audience.Description {
			faults = append(faults, fmt.Errorf("--methods %q: want auto, centroid, clusters, classifier, trees or knn", m))
		}
	}
	if len(f.sizes) == 0 || len(f.methods) == 0 {
		faults = append(faults, errors.New("--sizes and --methods: name at least one"))
	}
	if err := errors.Join(faults...); err != nil {
		return "", "", &usageError{err}
	}
	return column, value, nil
}

// spread is a mean with the standard deviation over draws, 0 of one draw.
type spread struct {
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"`
}

// evalDraw is one list of seeds, judged.
type evalDraw struct {
	audience.Evaluation
	// Everyone is the AUC of who was to be found against everyone, as the sheet has it.
	Everyone float64           `json:"auc_against_everyone"`
	Sheet    audience.Interval `json:"sheet_auc"`
	Verdict  string            `json:"verdict"`
	Chosen   string            `json:"chosen"`
	Seconds  float64           `json:"seconds"`
}

// evalCell is one method at one size.
type evalCell struct {
	Method    string         `json:"method"`
	Seeds     int            `json:"seeds"`
	AUC       spread         `json:"auc"`
	Lift      map[int]spread `json:"lift"`      // by per cent
	Precision map[int]spread `json:"precision"` // by k
	// Off is the sheet's AUC less the one the outcome gives; Held is in how many draws
	// the sheet's interval holds the latter.
	Off     spread     `json:"sheet_off"`
	Held    int        `json:"sheet_held"`
	Seconds spread     `json:"seconds"`
	Draws   []evalDraw `json:"draws"`
}

type evaluated struct {
	File      string     `json:"file"`
	Outcome   string     `json:"outcome"`
	Customers int        `json:"customers"`
	Positives int        `json:"positives"`
	Skipped   []int      `json:"skipped"` // sizes that leave too few to find
	Cells     []evalCell `json:"cells"`
}

func (a *app) eval(ctx context.Context, path string, f evalFlags) (err error) {
	column, value, err := f.check()
	if err != nil {
		return err
	}
	opt, err := f.file.options()
	if err != nil {
		return err
	}
	if column != "" {
		opt.Ignore = append(opt.Ignore, column)
	}
	plan, err := ingest.Inspect(ctx, path, opt)
	if err != nil {
		return err
	}
	a.say("%s", strings.TrimRight(plan.String(), "\n"))
	truth, err := f.known(ctx, plan, opt, column, value)
	if err != nil {
		return err
	}
	cfg, err := f.file.configure(plan)
	if err != nil {
		return err
	}
	in, err := a.inMemory(ctx, cfg, plan, slices.Min(f.sizes))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close(ctx)) }()
	out := evaluated{File: filepath.Base(path), Outcome: cmp.Or(f.outcome, f.truth), Customers: in.got.Accepted, Positives: len(truth), Skipped: []int{}, Cells: []evalCell{}}
	for _, size := range f.sizes {
		if len(truth)-size < leastLeft {
			out.Skipped = append(out.Skipped, size)
			a.say("note: %d seeds of %d leave fewer than %d to find: left out", size, len(truth), leastLeft)
			continue
		}
		for _, method := range f.methods {
			cell := evalCell{Method: method, Seeds: size}
			for draw := range f.draws {
				d, err := a.evalDraw(ctx, in.svc, f, truth, method, size, draw)
				if err != nil {
					return fmt.Errorf("%s, %d seeds, draw %d: %w", method, size, draw, err)
				}
				cell.Draws = append(cell.Draws, d)
			}
			cell.sum(f.at)
			out.Cells = append(out.Cells, cell)
		}
	}
	if len(out.Cells) == 0 {
		return fmt.Errorf("%s: %d customers have %s, too few to draw %d seeds and find %d more", out.File, len(truth), out.Outcome, slices.Min(f.sizes), leastLeft)
	}
	if a.cfg.JSON {
		return a.json(out)
	}
	return a.evalTable(out, f.at)
}

// known reads who is to be found: a file of ids, or the outcome's column, which the
// plan of the customers leaves out.
func (f *evalFlags) known(ctx context.Context, plan *ingest.Plan, opt ingest.Options, column, value string) (is map[string]bool, err error) {
	is = map[string]bool{}
	if f.truth != "" {
		refs, err := readSeeds(ctx, f.truth, "", plan.IDColumn, plan.GroupBy)
		if err != nil {
			return nil, err
		}
		for _, r := range refs {
			is[r.ID] = true
		}
		return is, f.among(ctx, plan, is)
	}
	opt.Types = map[string]profile.FieldType{column: profile.TypeCategory}
	opt.TextColumns, opt.IDColumn, opt.Ignore = nil, plan.IDColumn, nil
	for _, c := range plan.Columns {
		if c.Name != column && c.Name != plan.IDColumn {
			opt.Ignore = append(opt.Ignore, c.Name)
		}
	}
	only, err := ingest.Inspect(ctx, plan.Path, opt)
	if err != nil {
		return nil, err
	}
	others := map[string]int{}
	_, err = eachRecord(ctx, only, func(rec profile.Record) bool {
		v := strings.TrimSpace(rec.Fields[column].Str)
		if v == value {
			is[rec.ID] = true
		} else if len(others) < 1000 {
			others[v]++
		}
		return true
	})
	if err == nil && len(is) == 0 {
		some := slices.SortedFunc(maps.Keys(others), func(x, y string) int {
			return cmp.Or(cmp.Compare(others[y], others[x]), cmp.Compare(x, y))
		})
		err = usagef("--outcome: nobody has %s=%q; values there are such as %q", column, value, some[:min(5, len(some))])
	}
	return is, err
}

// among keeps of the ids those that are customers.
func (f *evalFlags) among(ctx context.Context, plan *ingest.Plan, is map[string]bool) error {
	given, seen := len(is), map[string]bool{}
	if _, err := eachRecord(ctx, plan, func(rec profile.Record) bool {
		if is[rec.ID] {
			seen[rec.ID] = true
		}
		return true
	}); err != nil {
		return err
	}
	maps.DeleteFunc(is, func(id string, _ bool) bool { return !seen[id] })
	if len(is) == 0 {
		return fmt.Errorf("--truth: none of %d ids is a customer of %s", given, plan.Path)
	}
	return nil
}

// evalDraw draws seeds, asks for everyone in order, and judges the order.
func (a *app) evalDraw(ctx context.Context, svc *collection.Service, f evalFlags, truth map[string]bool, method string, size, draw int) (evalDraw, error) {
	deck := slices.Sorted(maps.Keys(truth))
	h := fnv.New64a()
	if _, err := fmt.Fprintf(h, "%d/%d", size, f.seed); err != nil {
		return evalDraw{}, err
	}
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(draw)))
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	all, no := 1.0, false
	req := audience.Request{Method: method, Size: audience.Size{Ratio: &all}, Explain: audience.Explain{Members: &no}, Seed: f.seed}
	for _, id := range deck[:size] {
		req.Seeds.IDs = append(req.Seeds.IDs, audience.SeedRef{ID: id})
	}
	bar := a.meter()
	defer bar.end()
	start := time.Now()
	res, err := svc.Run(ctx, population, req, func(stage string, done, total int) {
		bar.show(fmt.Sprintf("%s, %d seeds, draw %d: %s", method, size, draw+1, stage), int64(done), int64(total))
	})
	if err != nil {
		return evalDraw{}, err
	}
	scores, is := make([]float32, len(res.Members)), make([]bool, len(res.Members))
	for i, m := range res.Members {
		scores[i], is[i] = m.Score, truth[m.ID]
	}
	d := evalDraw{
		Evaluation: audience.Evaluate(scores, is, f.at...), Sheet: res.Quality.Measure.AUC, Verdict: res.Quality.Verdict,
		Chosen: res.Manifest.Method, Seconds: time.Since(start).Seconds(),
	}
	// Against everyone: the kind against itself is a half.
	kind := float64(d.Positives) / float64(d.N)
	d.Everyone = (1-kind)*d.AUC + kind/2
	return d, nil
}

// sum fills means and deviations from the draws.
func (c *evalCell) sum(at []int) {
	over := func(of func(*evalDraw) float64) spread {
		var s spread
		n := float64(len(c.Draws))
		for i := range c.Draws {
			s.Mean += of(&c.Draws[i]) / n
		}
		for i := range c.Draws {
			s.SD += math.Pow(of(&c.Draws[i])-s.Mean, 2) / max(n-1, 1)
		}
		s.SD = math.Sqrt(s.SD)
		return s
	}
	c.AUC = over(func(d *evalDraw) float64 { return d.AUC })
	c.Off = over(func(d *evalDraw) float64 { return d.Sheet.Value - d.Everyone })
	c.Seconds = over(func(d *evalDraw) float64 { return d.Seconds })
	c.Lift, c.Precision = map[int]spread{}, map[int]spread{}
	for _, q := range []int{1, 5, 10} {
		c.Lift[q] = over(func(d *evalDraw) float64 { return d.Lift[q] })
	}
	for _, k := range at {
		if _, ok := c.Draws[0].Precision[k]; ok { // not more than there are customers
			c.Precision[k] = over(func(d *evalDraw) float64 { return d.Precision[k] })
		}
	}
	for _, d := range c.Draws {
		if d.Sheet.Low <= d.Everyone && d.Everyone <= d.Sheet.High {
			c.Held++
		}
	}
}

func (a *app) evalTable(out evaluated, at []int) error {
	head := fmt.Sprintf("%-11s %6s  %-15s %-13s %-13s %-13s", "METHOD", "SEEDS", "AUC", "LIFT@1%", "LIFT@5%", "LIFT@10%")
	for _, k := range at {
		head += fmt.Sprintf(" %-15s", fmt.Sprintf("PRECISION@%d", k))
	}
	if err := a.printf("%s: %d customers, %d of them %s\n%s %-16s %s\n", out.File, out.Customers, out.Positives, out.Outcome, head, "SHEET OFF BY", "HELD"); err != nil {
		return err
	}
	for _, c := range out.Cells {
		line := fmt.Sprintf("%-11s %6d  %.4f ± %.4f", c.Method, c.Seeds, c.AUC.Mean, c.AUC.SD)
		for _, q := range []int{1, 5, 10} {
			line += fmt.Sprintf(" %5.2f ± %-5.2f", c.Lift[q].Mean, c.Lift[q].SD)
		}
		for _, k := range at {
			cell := "-"
			if p, ok := c.Precision[k]; ok {
				cell = fmt.Sprintf("%.3f ± %.3f", p.Mean, p.SD)
			}
			line += fmt.Sprintf(" %-15s", cell)
		}
		if err := a.printf("%s %+.4f ± %.4f %d/%d\n", line, c.Off.Mean, c.Off.SD, c.Held, len(c.Draws)); err != nil {
			return err
		}
	}
	return nil
}
