package main

import "github.com/spf13/cobra"

func (a *app) jobsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "jobs", Short: "List imports and audiences that run or ran", Example: "  kindred jobs --server http://127.0.0.1:7878", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				list, err := b.Jobs(cmd.Context())
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, j := range list {
					if err := a.printf("%s  %-8s %-16s %-16s %-9s %d of %d  %s\n", j.ID, j.Kind, j.Collection, j.Target, j.State, j.Done, j.Total, j.Problem); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
