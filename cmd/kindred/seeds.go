package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// seedFlags say who an audience should be like, unlike, and who stays off it. All of
// them can be given at once.
type seedFlags struct {
	seeds, seedsID, filter, text, audience string
	negatives, value                       string
	segment                                int
	tag                                    string
	exclude, excludeAudiences, suppress    []string
	keepSeeds                              bool
}

// add defines the flags; stored says that there are stored audiences and lists.
func (f *seedFlags) add(flags *pflag.FlagSet, stored bool) {
	flags.StringVar(&f.seeds, "seeds", "", "file with the seeds' ids, and weights in a column named weight")
	flags.StringVar(&f.seedsID, "seeds-id", "", seedsIDHelp)
	flags.StringVar(&f.filter, "seeds-filter", "", `customers who are seeds, as JSON, such as '{"field":"plan","eq":"gold"}', beside or instead of --seeds`)
	text := "text"
	if !stored { // where --text names columns of a file
		text = "seeds-text"
	}
	flags.StringVar(&f.text, text, "", "a description of who is wanted, beside or instead of --seeds")
	flags.StringVar(&f.value, "seeds-value", "", "column that seeds weigh by, such as spend; its logarithm counts")
	flags.StringVar(&f.negatives, "negatives", "", "file with the ids of customers to be unlike, and weights in a column named weight")
	flags.StringArrayVar(&f.exclude, "exclude", nil, "file with ids to keep off the list; may be given again")
	flags.BoolVar(&f.keepSeeds, "include-seeds", false, "seeds may be members too")
	if stored {
		flags.StringVar(&f.audience, "seeds-audience", "", "stored audience whose members are seeds")
		flags.IntVar(&f.segment, "seeds-segment", 0, "number of a segment whose customers are seeds")
		flags.StringVar(&f.tag, "seeds-tag", "", "a tag and label, such as mood=unhappy, whose customers are seeds")
		flags.StringArrayVar(&f.excludeAudiences, "exclude-audience", nil, "stored audience whose members stay off the list; may be given again")
		flags.StringArrayVar(&f.suppress, "suppress", nil, "stored suppression list to apply (kindred suppress); may be given again")
	}
}

// given says whether there is anything to look like.
func (f *seedFlags) given() bool {
	return f.seeds != "" || f.filter != "" || f.text != "" || f.audience != "" || f.segment != 0 || f.tag != ""
}

// inputs are the files that are read.
func (f *seedFlags) inputs() []string {
	return append(slices.Clone(f.exclude), f.seeds, f.negatives)
}

// fill reads the files into a request. Ids are in the column asked for, else in the
// first of like that a file has, else where they are found.
func (a *app) fill(ctx context.Context, f *seedFlags, req *audience.Request, like ...string) error {
	var err error
	if req.Seeds.Filter, err = filterOf("--seeds-filter", f.filter); err != nil {
		return err
	}
	req.Seeds.Text, req.Seeds.Audience, req.Seeds.Segment = f.text, f.audience, f.segment
	if f.value != "" {
		req.Seeds.Value = &audience.SeedValue{Column: f.value}
	}
	if f.segment < 0 {
		return usagef("--seeds-segment %d: want a number from 1 up", f.segment)
	}
	if req.Seeds.Tag, err = tagOf("--seeds-tag", f.tag); err != nil {
		return err
	}
	if f.seeds != "" {
		if req.Seeds.IDs, err = a.refs(ctx, "seeds", f.seeds, f.seedsID, like...); err != nil {
			return err
		}
	}
	if f.negatives != "" {
		if req.Negatives.IDs, err = a.refs(ctx, "negatives", f.negatives, "", like...); err != nil {
			return err
		}
	}
	for _, path := range f.exclude {
		list, err := a.refs(ctx, "exclude", path, "", like...)
		if err != nil {
			return err
		}
		for _, r := range list {
			req.Exclude.IDs = append(req.Exclude.IDs, r.ID)
		}
	}
	req.Exclude.Audiences, req.Exclude.Lists = f.excludeAudiences, f.suppress
	if f.keepSeeds {
		no := false
		req.Exclude.Seeds = &no
	}
	return nil
}

// tagOf reads a tag and its label, divided by =; nil for "".
func tagOf(flag, text string) (*audience.SeedTag, error) {
	if text == "" {
		return nil, nil
	}
	name, label, ok := strings.Cut(text, "=")
	if !ok || name == "" || label == "" {
		return nil, usagef("%s %q: want a tag and a label, such as mood=unhappy", flag, text)
	}
	return &audience.SeedTag{Name: name, Label: label}, nil
}

// refs reads a list of ids; those of weight 0 are left out, and it is said.
func (a *app) refs(ctx context.Context, what, path, column string, like ...string) ([]audience.SeedRef, error) {
	list, err := readSeeds(ctx, path, column, like...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, withoutPrefix(err))
	}
	n := len(list)
	if what != "exclude" {
		list = slices.DeleteFunc(list, func(r audience.SeedRef) bool { return r.Weight == 0 })
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: all %d ids of %s have the weight 0", what, n, path)
	}
	if len(list) < n {
		a.say("note: %d of %d %s have the weight 0 and are left out", n-len(list), n, what)
	}
	return list, nil
}

// withoutPrefix is an error of readSeeds that does not say seeds of other lists.
func withoutPrefix(err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "seeds: ") {
		return inner
	}
	return errors.New(strings.TrimPrefix(err.Error(), "seeds: "))
}

// filterOf reads a filter; nil for "".
func filterOf(flag, text string) (*index.Filter, error) {
	if text == "" {
		return nil, nil
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var f index.Filter
	if err := dec.Decode(&f); err != nil {
		return nil, usagef("%s: %w", flag, err)
	}
	return &f, nil
}

func (a *app) seedsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "seeds", Short: "Look at seeds before an audience is built", Example: "  kindred seeds check shop --seeds seeds.csv", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f seedFlags
	var filter string
	check := &cobra.Command{
		Use: "check COLLECTION", Short: "Say what is wrong with seeds and what can be expected of them",
		Long: "check counts unknown, repeated and contradictory ids, compares the seeds with each other and with random customers, names outliers and\n" +
			"interests, and says what more seeds would add. It exits with 1 when an audience cannot be built. For a file of customers:\n" +
			"kindred lookalike CUSTOMERS --seeds SEEDS --check-seeds.",
		Example: "  kindred seeds check shop --seeds seeds.csv --negatives churned.csv\n  kindred seeds check shop --seeds-filter '{\"field\":\"plan\",\"eq\":\"gold\"}' --json",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.given() {
				return usagef("--seeds, --seeds-filter, --seeds-audience or --text is missing: say who the seeds are")
			}
			var req audience.Request
			if err := a.fill(cmd.Context(), &f, &req); err != nil {
				return err
			}
			var err error
			if req.Filter, err = filterOf("--filter", filter); err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				got, err := b.CheckSeeds(cmd.Context(), args[0], req)
				if err != nil {
					return err
				}
				return a.showSeeds(got)
			})
		},
	}
	f.add(check.Flags(), true)
	check.Flags().StringVar(&filter, "filter", "", "who may be a member, as JSON")
	cmd.AddCommand(check)
	return cmd
}

// showSeeds prints what the doctor found; a refusal is an error.
func (a *app) showSeeds(c *audience.SeedCheck) error {
	if a.cfg.JSON {
		if err := a.json(c); err != nil {
			return err
		}
	}
	d := &c.Doctor
	a.say("seeds: %d given, %d matched a customer; %d of %d customers could be members", d.Given, d.Matched, c.Eligible, c.Customers)
	for _, n := range d.Notes {
		a.say("note: %s", inline(n))
	}
	if d.Coherence > 0 {
		a.say("alike: %.3f; random customers: %.3f (%.3f to %.3f)", d.Coherence, d.Background, d.BackgroundLow, d.BackgroundHigh)
	}
	for _, o := range d.Outliers {
		a.say("  outlier %s: %.1f deviations from the others", inline(o.ID), o.Deviations)
	}
	a.interests(c.Interests, false)
	if l := c.Learning; l != nil {
		for _, p := range l.Points {
			a.say("  learned from %5d seeds  AUC %.3f (%.3f to %.3f)", p.Seeds, p.AUC.Value, p.AUC.Low, p.AUC.High)
		}
		a.say("%s", l.Words)
	}
	if d.Verdict == audience.Refuse {
		return errors.New("the seeds cannot be built from")
	}
	if a.cfg.JSON {
		return nil
	}
	return a.printf("%s\n", d.Verdict)
}

// interests prints the seeds' clusters where there are several.
func (a *app) interests(list []audience.Interest, built bool) {
	if len(list) < 2 {
		return
	}
	a.say("interests: the seeds fall into %d clusters", len(list))
	for i, in := range list {
		line := fmt.Sprintf("  interest %d: %.0f %% of seeds, %.0f %% of everyone", i+1, 100*in.SeedShare, 100*in.PopulationShare)
		if built {
			line += fmt.Sprintf(", %.0f %% of the audience", 100*in.AudienceShare)
		}
		a.say("%s; typical: %s", line, inline(strings.Join(in.Seed, ", ")))
	}
}
