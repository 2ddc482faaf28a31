package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
)

func (a *app) importCommand() *cobra.Command {
	var f fileFlags
	var dim int
	cmd := &cobra.Command{
		Use: "import COLLECTION FILE", Short: "Take a file of customers into a collection",
		Long: "import makes the collection when it is not there, and adds fields when it is. With --dim, NDJSON lines\n" +
			"{\"id\", \"fields\", \"vector\"} bring their own vectors. With --server the file is sent there and read as a job.",
		Example: "  kindred import shop customers.csv\n  kindred import shop vectors.ndjson --dim 384",
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dim > 0 && f.model != "auto" && f.model != "none" {
				return usagef("--dim and --model exclude each other: vectors are brought or made")
			}
			return a.importFile(cmd.Context(), args, f, dim)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().IntVar(&dim, "dim", 0, "the lines bring vectors of this many numbers")
	return cmd
}

func (a *app) importFile(ctx context.Context, args []string, f fileFlags, dim int) (err error) {
	opt, err := f.options()
	if err != nil {
		return err
	}
	path, done, err := regular(ctx, args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	plan, err := ingest.Inspect(ctx, path, opt)
	if err != nil {
		return err
	}
	a.say("%s", strings.TrimRight(plan.String(), "\n"))
	if dim > 0 {
		f.model = "none"
	}
	cfg, err := f.configure(plan)
	if err != nil {
		return err
	}
	cfg.Name, cfg.Dim = args[0], dim
	if a.cfg.Server != "" {
		r := newRemote(a.cfg.Server, a.cfg.Key)
		if there, err := r.Collection(ctx, cfg.Name); err == nil && f.model == "auto" && dim == 0 {
			cfg.Model, cfg.Dim = there.Model, there.Dim
		}
		return a.importRemote(ctx, r, cfg, path, opt)
	}
	return a.withData(ctx, func(svc *collection.Service) error {
		switch there, err := svc.Collection(ctx, cfg.Name); {
		case err == nil && f.model == "auto" && dim == 0: // one collection, one model
			cfg.Model, cfg.Dim = there.Model, there.Dim
		case err != nil && !errors.Is(err, index.ErrNotFound):
			return err
		}
		if cfg.Model != "" {
			if _, err := a.pull(ctx, cfg.Model, false); err != nil {
				return err
			}
		}
		if _, _, err := svc.Put(ctx, cfg); err != nil {
			return err
		}
		got, err := a.load(ctx, svc, cfg, plan)
		if err != nil && got.Accepted > 0 {
			a.say("%d customers are stored; the same import again goes over them and on", got.Accepted)
		}
		if err == nil && a.cfg.JSON {
			err = a.json(got)
		}
		return err
	})
}
