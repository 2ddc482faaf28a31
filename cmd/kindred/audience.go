package main

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"
)

func (a *app) audienceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audience", Short: "Stored audiences: list, show, export", Example: "  kindred audience ls shop", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{
		Use: "ls COLLECTION", Short: "List the audiences of a collection", Example: "  kindred audience ls shop --json", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				list, err := b.Audiences(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, info := range list {
					if err := a.printf("%-24s %-10s %8d\n", info.Name, info.State, info.Size); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	show := &cobra.Command{
		Use: "show COLLECTION AUDIENCE", Short: "Show how good an audience is", Example: "  kindred audience show shop spring", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				info, err := b.Audience(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(info)
				}
				if info.Result != nil {
					a.sheet(info.Result, nil)
				}
				return a.printf("%s: %s, %d members\n", info.Name, info.State, info.Size)
			})
		},
	}
	var out string
	var smallest int
	export := &cobra.Command{
		Use: "export COLLECTION AUDIENCE", Short: "Write an audience's members to a file", Example: "  kindred audience export shop spring -o spring.csv", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				members, err := b.Members(cmd.Context(), args[0], args[1], 0, math.MaxInt)
				if err != nil {
					return err
				}
				if len(members) < smallest {
					return fmt.Errorf("audience %s has %d members, fewer than --min-audience %d: a list that short can single people out", args[1], len(members), smallest)
				}
				return a.export(out, members)
			})
		},
	}
	export.Flags().StringVarP(&out, "out", "o", "-", ".csv, .ndjson or .parquet, or - for standard output")
	export.Flags().IntVar(&smallest, "min-audience", 100, "refuse lists shorter than this")
	cmd.AddCommand(ls, show, export)
	return cmd
}
