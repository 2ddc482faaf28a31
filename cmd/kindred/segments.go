package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/collection"
)

func (a *app) segmentsCommand() *cobra.Command {
	var p segment.Params
	var columns []string
	var noText, show bool
	cmd := &cobra.Command{
		Use: "segments COLLECTION", Short: "Find the groups that customers fall into, and name them",
		Long:    "segments groups customers by their text and columns, chooses how many groups there are, labels each with what sets it apart, and keeps them. A later run keeps a segment's number where it holds the same customers. Sensitive columns are left out.",
		Example: "  kindred segments shop\n  kindred segments shop --k 8 --columns age,region --json\n  kindred segments shop --show\n  kindred segments like shop 'sails every weekend'\n  kindred segments customers shop 3 --limit 20",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Features.Columns = columns
			if noText {
				text := false
				p.Features.Text = &text
			}
			if err := p.Validate(); err != nil {
				return usagef("--%s", strings.ReplaceAll(err.Error(), "max_k", "max-k"))
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				if !show {
					job, err := b.DiscoverSegments(cmd.Context(), args[0], p)
					if err != nil {
						return err
					}
					if err := a.await(cmd.Context(), b, job.ID); err != nil {
						return err
					}
				}
				set, err := b.Segments(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.showSegments(set)
			})
		},
	}
	cmd.Flags().IntVar(&p.K, "k", 0, "how many segments (default: chosen)")
	cmd.Flags().IntVar(&p.MaxK, "max-k", 0, "the most to choose (default 24)")
	cmd.Flags().StringSliceVar(&columns, "columns", nil, "look at these columns only (default: all that are not sensitive)")
	cmd.Flags().StringSliceVar(&p.Features.AllowSensitive, "allow-sensitive", nil, "sensitive columns to look at all the same")
	cmd.Flags().BoolVar(&noText, "no-text", false, "look at columns only")
	cmd.Flags().BoolVar(&show, "show", false, "show the segments that are there")
	cmd.AddCommand(a.segmentsLike(), a.segmentCustomers(), a.segmentOf())
	return cmd
}

func (a *app) showSegments(set *collection.SegmentSet) error {
	if a.cfg.JSON {
		return a.json(set)
	}
	for _, w := range set.Warnings {
		a.say("%s", w)
	}
	for _, c := range set.Choices {
		if c.Chosen {
			a.say("%d segments of %d customers: two halves agree on them by %.2f of 1, and they explain %.0f %% of how customers differ", c.K, set.Customers, c.Stability, 100*c.Explained)
		}
	}
	for _, g := range set.Segments {
		if err := a.printf("%4d %9d %5.1f %%  %s\n", g.Number, g.Size, 100*g.Share, inline(g.Label)); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) segmentsLike() *cobra.Command {
	var q collection.SimilarSegmentsRequest
	cmd := &cobra.Command{
		Use: "like COLLECTION [TEXT]", Short: "Rank segments by likeness to a text, a customer, a segment or an audience",
		Example: "  kindred segments like shop 'sails every weekend'\n  kindred segments like shop --customer c17\n  kindred segments like shop --segment 3\n  kindred segments like shop --audience spring",
		Args:    arguments(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				q.Text = args[1]
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				list, err := b.SimilarSegments(cmd.Context(), args[0], q)
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, n := range list {
					if err := a.printf("%8.4f %4d %9d  %s\n", n.Score, n.Number, n.Size, inline(n.Label)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&q.Segment, "segment", 0, "number of a segment")
	cmd.Flags().StringVar(&q.Customer, "customer", "", "id of a customer")
	cmd.Flags().StringVar(&q.Audience, "audience", "", "name of a stored audience")
	cmd.Flags().IntVar(&q.Limit, "limit", 10, "how many")
	return cmd
}

func (a *app) segmentCustomers() *cobra.Command {
	var p pageFlags
	cmd := &cobra.Command{
		Use: "customers COLLECTION SEGMENT", Short: "A segment's customers, those most clearly in it first",
		Example: "  kindred segments customers shop 3 --filter '{\"field\":\"age\",\"gte\":40}'",
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := parseCount(args[1])
			if err != nil {
				return err
			}
			q, err := p.list()
			if err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				got, err := b.SegmentCustomers(cmd.Context(), args[0], number, q)
				if err != nil {
					return err
				}
				return a.listed(got)
			})
		},
	}
	p.add(cmd.Flags())
	return cmd
}

func (a *app) segmentOf() *cobra.Command {
	return &cobra.Command{
		Use: "of COLLECTION CUSTOMER", Short: "The segment of a customer", Example: "  kindred segments of shop c17", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				got, err := b.SegmentOf(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(got)
				}
				return a.printf("%d  %s\n", got.Number, inline(got.Label))
			})
		},
	}
}
