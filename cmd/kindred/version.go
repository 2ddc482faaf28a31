package main

import (
	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/internal/buildinfo"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which build this is", Example: "  kindred version --json", Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b := buildinfo.Read()
			if a.cfg.JSON {
				return a.json(b)
			}
			return a.printf("kindred %s %s (%s, %s)\n", b.Version, b.Commit, b.Go, b.Platform)
		},
	}
}
