package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
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
	indexing := &cobra.Command{
		Use: "index [COLLECTION...]", Short: "Give collections in a Milvus another vector index, and wait until it is built",
		Long: `Drops the vector index that collections have in the Milvus of --milvus and builds the one
of --milvus-index. Without names, all collections are taken; one that has it already is
left. Meanwhile searches and audiences run on the copies in memory of the processes that
have one, and customers' records cannot be read.`,
		Example: "  kindred engine index shop --milvus localhost:19530 --milvus-index hnsw:M=16,efConstruction=200",
		Args:    arguments(cobra.ArbitraryArgs),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.engineIndex(cmd.Context(), args) },
	}
	cmd.AddCommand(copying, indexing)
	return cmd
}

func (a *app) engineIndex(ctx context.Context, names []string) (err error) {
	if a.cfg.Milvus == "" || a.cfg.MilvusIndex == "" {
		return usagef("--milvus or --milvus-index is not set: name the server and the index, such as --milvus localhost:19530 --milvus-index hnsw")
	}
	ix, err := milvus.ParseIndex(a.cfg.MilvusIndex)
	if err != nil {
		return err
	}
	store, err := a.openMilvus(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	specs, err := generations(ctx, store, names)
	if err != nil {
		return err
	}
	type indexed struct {
		Collection string  `json:"collection"`
		Index      string  `json:"index"`
		Seconds    float64 `json:"seconds"`
	}
	list := []indexed{}
	for _, spec := range specs {
		name := spec.Name
		if spec.Dim == 0 && len(names) == 0 {
			continue
		}
		start := time.Now()
		err := store.Reindex(ctx, name, ix, func(done, total int64) { a.say("%s: %d of %d in the index", name, done, total) })
		if err != nil {
			return fmt.Errorf("collection %q: %w", name, err)
		}
		list = append(list, indexed{name, ix.String(), time.Since(start).Seconds()})
	}
	if a.cfg.JSON {
		return a.json(map[string]any{"collections": list})
	}
	for _, c := range list {
		if err := a.printf("%s: %s, after %.1f s\n", c.Collection, c.Index, c.Seconds); err != nil {
			return err
		}
	}
	return nil
}

// generations are the specs in a store of the collections named, of all where none is:
// one that was embedded anew may lie there twice, and under a name with a number.
func generations(ctx context.Context, store index.Store, names []string) ([]index.Spec, error) {
	all, err := store.List(ctx)
	if err != nil || len(names) == 0 {
		return all, err
	}
	var out []index.Spec
	for _, name := range names {
		found := false
		for _, spec := range all {
			if base, _, _ := strings.Cut(spec.Name, "~"); base == name {
				found, out = true, append(out, spec)
			}
		}
		if !found {
			return nil, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
		}
	}
	return out, nil
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
	specs, err := generations(ctx, source, names)
	if err != nil {
		return err
	}
	type copied struct {
		Collection string `json:"collection"`
		Rows       int    `json:"rows"`
		Checksum   string `json:"checksum"`
	}
	var list []copied
	for _, spec := range specs {
		name := spec.Name
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
