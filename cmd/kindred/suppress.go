package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
)

func (a *app) suppressCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "suppress", Short: "Stored lists of people who must not be in an audience",
		Long: "A suppression list applies when an audience is built, when it is read or exported later, and to live membership. Only hashes of the ids\n" +
			"are kept, so a list holds after a customer was erased and comes back.",
		Example: "  kindred suppress put shop complaints complaints.csv --always\n  kindred audience create shop spring --seeds seeds.csv --suppress complaints",
		Args:    arguments(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var always bool
	put := &cobra.Command{
		Use: "put COLLECTION LIST FILE", Short: "Make a list of a file's ids, in place of one that is there", Example: "  kindred suppress put shop complaints complaints.csv --always", Args: arguments(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.suppression(cmd.Context(), args, func(ctx context.Context, b backend, ids []string) (collection.SuppressionList, error) {
				return b.PutSuppression(ctx, args[0], args[1], ids, always)
			})
		},
	}
	put.Flags().BoolVar(&always, "always", false, "apply it to all audiences, not just to those that name it")
	change := func(use, short string, add bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " COLLECTION LIST FILE", Short: short, Example: "  kindred suppress " + use + " shop complaints more.csv", Args: arguments(cobra.ExactArgs(3)),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.suppression(cmd.Context(), args, func(ctx context.Context, b backend, ids []string) (collection.SuppressionList, error) {
					if add {
						return b.ChangeSuppression(ctx, args[0], args[1], ids, nil)
					}
					return b.ChangeSuppression(ctx, args[0], args[1], nil, ids)
				})
			},
		}
	}
	ls := &cobra.Command{
		Use: "ls COLLECTION", Aliases: []string{"list"}, Short: "Show the lists of a collection", Example: "  kindred suppress ls shop", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				all, err := b.Suppressions(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(all)
				}
				for _, l := range all {
					if err := a.printf("%s\n", suppressionLine(l)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	rm := &cobra.Command{
		Use: "rm COLLECTION LIST", Aliases: []string{"delete"}, Short: "Delete a list", Example: "  kindred suppress rm shop complaints", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error { return b.DropSuppression(cmd.Context(), args[0], args[1]) })
		},
	}
	cmd.AddCommand(put, change("add", "Add a file's ids to a list", true), change("remove", "Take a file's ids off a list", false), ls, rm)
	return cmd
}

// suppression reads ids from a file, args[2], and does something to a list with them.
func (a *app) suppression(ctx context.Context, args []string, do func(context.Context, backend, []string) (collection.SuppressionList, error)) error {
	refs, err := a.refs(ctx, "exclude", args[2], "")
	if err != nil {
		return err
	}
	ids := make([]string, len(refs))
	for i, r := range refs {
		ids[i] = r.ID
	}
	return a.withBackend(ctx, func(b backend) error {
		l, err := do(ctx, b, ids)
		if err != nil {
			return err
		}
		if a.cfg.JSON {
			return a.json(l)
		}
		return a.printf("%s\n", suppressionLine(l))
	})
}

func suppressionLine(l collection.SuppressionList) string {
	when := "where named"
	if l.Always {
		when = "always"
	}
	return fmt.Sprintf("%-24s %8d ids, %8d of them customers, applies %s", l.Name, l.IDs, l.Matched, when)
}
