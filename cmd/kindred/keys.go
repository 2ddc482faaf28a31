package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/api"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "API keys of the data directory", Example: "  kindred keys add shop-writer --role write", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var role string
	var only []string
	add := &cobra.Command{
		Use: "add NAME", Short: "Make a key and show its secret once", Example: "  kindred keys add reader --role read --collection shop", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKeys(cmd.Context(), func(keys *api.KeyStore) error {
				secret, err := keys.Add(cmd.Context(), args[0], role, only)
				if err != nil {
					return err
				}
				a.say("this secret is not shown again:")
				if a.cfg.JSON {
					return a.json(map[string]string{"name": args[0], "role": role, "secret": secret})
				}
				return a.printf("%s\n", secret)
			})
		},
	}
	add.Flags().StringVar(&role, "role", api.RoleRead, "read, write or admin")
	add.Flags().StringSliceVar(&only, "collection", nil, "collections the key is good for (default: all)")
	ls := &cobra.Command{
		Use: "ls", Short: "List the keys", Example: "  kindred keys ls", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withKeys(cmd.Context(), func(keys *api.KeyStore) error {
				list, err := keys.List()
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, k := range list {
					where := strings.Join(k.Collections, ",")
					if where == "" {
						where = "all collections"
					}
					if err := a.printf("%-20s %-6s %-20s %s\n", k.Name, k.Role, where, k.Created.Format("2006-01-02")); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Delete a key", Example: "  kindred keys rm reader", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKeys(cmd.Context(), func(keys *api.KeyStore) error { return keys.Remove(cmd.Context(), args[0]) })
		},
	}
	cmd.AddCommand(add, ls, rm)
	return cmd
}

func (a *app) withKeys(ctx context.Context, do func(*api.KeyStore) error) (err error) {
	store, err := a.openData(ctx, a.cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return do(api.NewKeyStore(store.KV()))
}
