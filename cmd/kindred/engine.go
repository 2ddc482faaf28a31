package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/index/transfer"
)

func (a *app) engineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "engine", Short: "Move between the data directory and a Milvus", Example: "  kindred engine copy --from flat --to milvus --milvus localhost:19530", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var from, to string
	copying := &cobra.Command{
		Use: "copy [COLLECTION...]", Short: "Copy collections and all that belongs to them, and prove the copy",
		Long: `Copies customers, audiences, jobs and keys between the data directory (flat) and the
Milvus of --milvus. Without names, all collections are copied, and afterwards every
row is compared. Nothing else may write meanwhile. A copy that was broken off goes on
when it is asked for again.`,
		Example: "  kindred engine copy --from flat --to milvus --milvus localhost:19530\n  kindred engine copy shop --from milvus --to flat --milvus localhost:19530",
		Args:    arguments(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.engineCopy(cmd.Context(), from, to, args)
		},
	}
	copying.Flags().StringVar(&from, "from", "", "flat (the data directory) or milvus")
	copying.Flags().StringVar(&to, "to", "", "flat (the data directory) or milvus")
	cmd.AddCommand(copying)
	return cmd
}

func (a *app) engineCopy(ctx context.Context, from, to string, names []string) (err error) {
	if from == to || from != "flat" && from != "milvus" || to != "flat" && to != "milvus" {
		return fmt.Errorf("--from %q --to %q: one must be flat and the other milvus", from, to)
	}
	if a.cfg.Milvus == "" {
		return errors.New("--milvus is not set: give host:port of the Milvus, such as localhost:19530")
	}
	local, err := a.openStore(a.cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	remote, err := a.openMilvus(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remote.Close()) }()
	source, target := transfer.Store(local), transfer.Store(remote)
	if from == "milvus" {
		source, target = target, source
	}
	if len(names) == 0 {
		specs, err := source.List(ctx)
		if err != nil {
			return err
		}
		for _, s := range specs {
			names = append(names, s.Name)
		}
	}
	type copied struct {
		Collection string `json:"collection"`
		Rows       int    `json:"rows"`
		Checksum   string `json:"checksum"`
	}
	var list []copied
	for _, name := range names {
		err := transfer.Collection(ctx, source, target, name, transfer.Options{Progress: func(name string, done, total int) {
			a.say("%s: %d of %d", name, done, total)
		}})
		if err != nil {
			return err
		}
		rep, err := transfer.Verify(ctx, source, target, name)
		if err != nil {
			return err
		}
		if err := transfer.Finish(ctx, target, name); err != nil {
			return err
		}
		list = append(list, copied{name, rep.Rows, fmt.Sprintf("%016x", rep.Checksum)})
	}
	pairs, err := transfer.Space(ctx, source, target)
	if err != nil {
		return err
	}
	if a.cfg.JSON {
		return a.json(map[string]any{"collections": list, "pairs": pairs})
	}
	for _, c := range list {
		if err := a.printf("%s: %d customers, every row compared, checksum %s\n", c.Collection, c.Rows, c.Checksum); err != nil {
			return err
		}
	}
	return a.printf("%d settings, audiences and jobs\n", pairs)
}
