package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

// pageFlags are what search and similar share.
type pageFlags struct {
	limit, offset int
	filter        string
}

func (p *pageFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&p.limit, "limit", 10, "most hits")
	flags.IntVar(&p.offset, "offset", 0, "hits to pass over")
	flags.StringVar(&p.filter, "filter", "", `filter as JSON, such as '{"field":"age","gte":40}'`)
}

// exactly adds the flag that search and similar have besides.
func exactly(flags *pflag.FlagSet, exact *bool) {
	flags.BoolVar(exact, "exact", false, "score everyone where an index (--engine hnsw, --milvus-index) might miss some")
}

func (p *pageFlags) tree() (*index.Filter, error) {
	if p.limit < 0 || p.offset < 0 {
		return nil, usagef("--limit %d --offset %d: want 1 or more, and 0 or more", p.limit, p.offset)
	}
	return filterOf("--filter", p.filter)
}

func (a *app) searchCommand() *cobra.Command {
	var p pageFlags
	var vector, customer string
	var exact bool
	cmd := &cobra.Command{
		Use: "search COLLECTION [TEXT]", Short: "The customers nearest to a text, a vector or a customer",
		Example: "  kindred search shop 'sails every weekend'\n  kindred search shop --customer c17 --filter '{\"field\":\"age\",\"gte\":40}'",
		Args:    arguments(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := p.tree()
			if err != nil {
				return err
			}
			q := collection.SearchRequest{Customer: customer, Filter: filter, Limit: p.limit, Offset: p.offset, Exact: exact}
			if len(args) == 2 {
				q.Text = args[1]
			}
			if q.Vector, err = parseVector(vector); err != nil {
				return err
			}
			given := 0
			for _, is := range []bool{q.Text != "", q.Vector != nil, customer != ""} {
				if is {
					given++
				}
			}
			if given != 1 {
				return usagef("give one of TEXT, --vector and --customer")
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				found, err := b.Search(cmd.Context(), args[0], q)
				if err != nil {
					return err
				}
				return a.hits(found)
			})
		},
	}
	p.add(cmd.Flags())
	exactly(cmd.Flags(), &exact)
	cmd.Flags().StringVar(&vector, "vector", "", "numbers with commas between")
	cmd.Flags().StringVar(&customer, "customer", "", "id of a customer")
	return cmd
}

func parseVector(s string) ([]float32, error) {
	if s == "" {
		return nil, nil
	}
	var out []float32
	for part := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseFloat(strings.TrimSpace(part), 32)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, usagef("--vector: %q is no finite number", part)
		}
		out = append(out, float32(v))
	}
	return out, nil
}

func (a *app) similarCommand() *cobra.Command {
	var p pageFlags
	var negative []string
	var strategy string
	var exact bool
	cmd := &cobra.Command{
		Use: "similar COLLECTION ID...", Short: "The customers like some and unlike others",
		Example: "  kindred similar shop c17 c42 --not c9",
		Args:    arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := p.tree()
			if err != nil {
				return err
			}
			q := collection.SimilarRequest{Strategy: strategy, Filter: filter, Limit: p.limit, Offset: p.offset, Exact: exact}
			for _, id := range args[1:] {
				q.Positive = append(q.Positive, collection.Example{ID: id})
			}
			for _, id := range negative {
				q.Negative = append(q.Negative, collection.Example{ID: id})
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				found, err := b.Similar(cmd.Context(), args[0], q)
				if err != nil {
					return err
				}
				return a.hits(found)
			})
		},
	}
	p.add(cmd.Flags())
	exactly(cmd.Flags(), &exact)
	cmd.Flags().StringSliceVar(&negative, "not", nil, "ids to be unlike")
	cmd.Flags().StringVar(&strategy, "strategy", "average_vector", "average_vector or best_score")
	return cmd
}

func (a *app) hits(list collection.Answer) error {
	if a.cfg.JSON {
		return a.json(list)
	}
	if !list.Found.Exact && list.Found.Path != "" {
		by := strings.Trim(list.Found.Path+" "+list.Found.Index, " ")
		a.say("found by %s: some of the nearest may be missing (--exact scores everyone)", by)
	}
	if list.Found.Note != "" {
		a.say("note: %s", list.Found.Note)
	}
	for _, h := range list.Hits {
		line := fmt.Sprintf("%8.4f  %s", h.Score, h.ID)
		for _, name := range slices.Sorted(maps.Keys(h.Fields)) {
			line += fmt.Sprintf("  %s=%v", name, h.Fields[name])
		}
		if err := a.printf("%s\n", inline(line)); err != nil {
			return err
		}
	}
	return nil
}
