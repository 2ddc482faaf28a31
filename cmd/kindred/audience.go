package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

func (a *app) audienceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audience", Short: "Stored audiences: create, list, show, explain, export, delete", Example: "  kindred audience create shop spring --seeds seeds.csv --size 5%\n  kindred audience ls shop", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{
		Use: "ls COLLECTION", Aliases: []string{"list"}, Short: "List the audiences of a collection", Example: "  kindred audience ls shop --json", Args: arguments(cobra.ExactArgs(1)),
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
				return a.showAudience(info)
			})
		},
	}
	var leave exportFlags
	export := &cobra.Command{
		Use: "export COLLECTION AUDIENCE", Short: "Write an audience's members to a file",
		Long: "export writes the members with scores and reasons, or, with --layout, what an advertising platform takes: the hashes of the members'\n" +
			"contact data, which come from a file of yours. A manifest with the file's SHA-256 is written beside it.",
		Example: "  kindred audience export shop spring -o spring.csv\n  kindred audience export shop spring --layout meta --contacts customers.csv --region DE -o meta.csv",
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := leave.check(); err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				members, err := a.outgoing(cmd.Context(), b, &leave, args[0], args[1])
				if err != nil {
					return err
				}
				return a.exportAudience(cmd.Context(), leave, args[0], args[1], members)
			})
		},
	}
	leave.add(export.Flags())
	rm := &cobra.Command{
		Use: "rm COLLECTION AUDIENCE", Aliases: []string{"delete"}, Short: "Delete an audience", Example: "  kindred audience rm shop spring", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error { return b.DropAudience(cmd.Context(), args[0], args[1]) })
		},
	}
	cmd.AddCommand(a.audienceCreate(), ls, show, a.audienceExplain(), export, rm)
	cmd.AddCommand(a.lifecycleCommands()...)
	return cmd
}

// audienceFlags are the settings of a stored audience.
type audienceFlags struct {
	who                  seedFlags
	size, method, filter string
	segment              int
	tag                  string
	columns              []string
	fair                 fairFlags
	reasons, background  bool
	life                 lifecycleFlags
}

func (a *app) audienceCreate() *cobra.Command {
	var f audienceFlags
	cmd := &cobra.Command{
		Use: "create COLLECTION AUDIENCE", Short: "Build an audience from seeds and keep it",
		Long:    "create builds the audience where the customers are, on the data directory or on --server, and shows how good it is.",
		Example: "  kindred audience create shop spring --seeds seeds.csv --size 5%\n  kindred audience create shop sailors --text 'sails every weekend' --size 500 --server http://127.0.0.1:7878\n  kindred audience create shop at-risk --seeds-tag mood=unhappy --size 10%",
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd.Context(), a, args[1])
			if err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error { return a.createAudience(cmd.Context(), b, args[0], req, f.background) })
		},
	}
	flags := cmd.Flags()
	f.who.add(flags, true)
	flags.StringVar(&f.size, "size", "5%", sizeHelp)
	flags.StringVar(&f.method, "method", audience.Auto, methodHelp)
	flags.StringVar(&f.filter, "filter", "", `who may be a member, as JSON, such as '{"field":"age","gte":40}'`)
	flags.IntVar(&f.segment, "within-segment", 0, "number of a segment whose customers alone may be members")
	flags.StringVar(&f.tag, "within-tag", "", "a tag and label, such as mood=unhappy, whose customers alone may be members")
	flags.StringSliceVar(&f.columns, "columns", nil, "score by these columns only (default: all that are not sensitive)")
	flags.BoolVar(&f.reasons, "reasons", true, "say why each member is on the list")
	f.fair.add(flags)
	f.life.add(flags)
	flags.BoolVar(&f.background, "background", false, "with --server: do not wait, print the job's id")
	return cmd
}

func (f *audienceFlags) request(ctx context.Context, a *app, name string) (audience.Request, error) {
	req := audience.Request{Name: name, Method: f.method, Explain: audience.Explain{Members: &f.reasons}, Features: audience.Features{Columns: f.columns}}
	if !f.who.given() {
		return req, usagef("--seeds or --text is missing: name a file with the ids of the customers to look like, or describe them; --seeds-segment and --seeds-tag take a group that is there")
	}
	if err := f.fair.apply(&req); err != nil {
		return req, err
	}
	var err error
	if req.Size, err = parseSize(f.size); err != nil {
		return req, err
	}
	if req.Lifecycle, err = f.life.read(); err != nil {
		return req, err
	}
	if req.Filter, err = filterOf("--filter", f.filter); err != nil {
		return req, err
	}
	if f.segment < 0 {
		return req, usagef("--within-segment %d: want a number from 1 up", f.segment)
	}
	req.Within.Segment = f.segment
	if req.Within.Tag, err = tagOf("--within-tag", f.tag); err != nil {
		return req, err
	}
	return req, a.fill(ctx, &f.who, &req)
}

// createAudience builds and stores an audience and shows its sheet. One that
// is not finished here, in this process, does not stay behind; a server goes on
// building when nobody waits any more.
func (a *app) createAudience(ctx context.Context, b backend, coll string, req audience.Request, background bool) error {
	_, here := b.(direct)
	if background && here {
		return usagef("--background needs --server: a job of this process ends with it")
	}
	job, err := b.CreateAudience(ctx, coll, req)
	if err != nil {
		return err
	}
	if background {
		if a.cfg.JSON {
			return a.json(job)
		}
		return a.printf("%s\n", job.ID)
	}
	if err := a.follow(ctx, b, job.ID); err != nil {
		if here {
			return errors.Join(err, b.DropAudience(context.WithoutCancel(ctx), coll, req.Name))
		}
		if ctx.Err() != nil {
			a.say("the server goes on: kindred jobs cancel %s stops it", job.ID)
		}
		return err
	}
	info, err := b.Audience(ctx, coll, req.Name)
	if err != nil {
		return err
	}
	return a.showAudience(info)
}

func (a *app) showAudience(info *collection.AudienceInfo) error {
	if a.cfg.JSON {
		return a.json(info)
	}
	if info.Result != nil {
		a.sheet(info.Result, nil)
	}
	if info.Problem != "" {
		a.say("problem: %s", info.Problem)
	}
	return a.printf("%s: %s, %d members\n", info.Name, info.State, info.Size)
}
