package main

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// lifecycle is what happens to an audience after it was built, as backends offer it.
type lifecycle interface {
	Refresh(ctx context.Context, coll, name string, req collection.RefreshRequest) (collection.Job, error)
	Diff(ctx context.Context, coll string, req collection.DiffRequest) (*collection.Diff, error)
	Overlap(ctx context.Context, coll string, names []string) (*collection.Overlap, error)
	Combine(ctx context.Context, coll string, req collection.CombineRequest) (collection.Job, error)
	ChangeAudience(ctx context.Context, coll, name string, c collection.AudienceChange) (*collection.AudienceInfo, error)
	SendOutcomes(ctx context.Context, coll, name, path string) (collection.Outcome, error)
	Lift(ctx context.Context, coll, name string, req collection.LiftRequest) (*audience.Lift, error)
	Recalibrate(ctx context.Context, coll, name string) (*audience.Observed, error)
}

func (a *app) lifecycleCommands() []*cobra.Command {
	return []*cobra.Command{a.audienceRefresh(), a.audienceSet(), a.audienceDiff(), a.audienceOverlap(), a.audienceCombine(), a.audienceOutcomes(), a.audienceLift(), a.audienceRecalibrate()}
}

// lifecycleFlags are the schedule, the end and the control group of an audience.
type lifecycleFlags struct {
	every, at, churn, ttl, control string
}

func (f *lifecycleFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.every, "every", "", "refresh the list at this interval, such as 24h, while a server runs")
	flags.StringVar(&f.at, "at", "", "or daily at this time in UTC, such as 03:30")
	flags.StringVar(&f.churn, "churn", "", "most members that a refresh replaces, such as 10% (default: any)")
	flags.StringVar(&f.ttl, "ttl", "", "delete the audience after this time, such as 720h")
	flags.StringVar(&f.control, "control", "", "hold this share (10%) or number of members back from every export, to measure against")
}

// share reads "10%" or "0.1".
func share(flag, s string) (float64, error) {
	digits, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, usagef("%s %q: want a share such as 10%%", flag, s)
	}
	return v, nil
}

func (f *lifecycleFlags) read() (audience.Lifecycle, error) {
	out := audience.Lifecycle{TTL: f.ttl}
	if f.every != "" || f.at != "" || f.churn != "" {
		out.Refresh = &audience.Refresh{Every: f.every, At: f.at}
	}
	if f.churn != "" {
		v, err := share("--churn", f.churn)
		if err != nil {
			return out, err
		}
		out.Refresh.Churn = &v
	}
	if f.control != "" {
		out.Control = &audience.Control{}
		if n, err := strconv.Atoi(f.control); err == nil {
			out.Control.Count = n
		} else if out.Control.Share, err = share("--control", f.control); err != nil {
			return out, err
		}
	}
	if err := out.Validate(); err != nil {
		return out, &usageError{err}
	}
	return out, nil
}

// waitFor follows the job of a new list and shows the audience.
func (a *app) waitFor(ctx context.Context, b backend, job *collection.Job, coll, name string) (*collection.AudienceInfo, error) {
	if err := a.follow(ctx, b, job.ID); err != nil {
		return nil, err
	}
	return b.Audience(ctx, coll, name)
}

func (a *app) audienceRefresh() *cobra.Command {
	var churn string
	cmd := &cobra.Command{
		Use: "refresh COLLECTION AUDIENCE", Short: "Build an audience's list anew on today's customers",
		Long:    "refresh keeps the list of before as an earlier version. With --churn, at most that share of the members is replaced; those who would leave stay, best first.",
		Example: "  kindred audience refresh shop spring --churn 10%", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var req collection.RefreshRequest
			if churn != "" {
				v, err := share("--churn", churn)
				if err != nil {
					return err
				}
				req.Churn = &v
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				job, err := b.Refresh(cmd.Context(), args[0], args[1], req)
				if err != nil {
					return err
				}
				info, err := a.waitFor(cmd.Context(), b, &job, args[0], args[1])
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(info)
					}
					return err
				}
				if c := info.Result.Churn; c != nil {
					a.say("%d kept, %d entered, %d left; %d replacements wanted, %d allowed", c.Kept, c.Entered, c.Left, c.Wanted, c.Allowed)
				}
				return a.printf("%s: version %d, %d members\n", info.Name, info.Version, info.Size)
			})
		},
	}
	cmd.Flags().StringVar(&churn, "churn", "", "most members that are replaced, such as 10% (default: as the audience says)")
	return cmd
}

func (a *app) audienceSet() *cobra.Command {
	var f lifecycleFlags
	cmd := &cobra.Command{
		Use: "set COLLECTION AUDIENCE", Short: "Change an audience's schedule, end or control group",
		Example: "  kindred audience set shop spring --every 24h --churn 10% --ttl 720h", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			next, err := f.read()
			if err != nil {
				return err
			}
			change := collection.AudienceChange{Refresh: next.Refresh, Control: next.Control}
			if f.ttl != "" {
				change.TTL = &f.ttl
			}
			if change == (collection.AudienceChange{}) {
				return usagef("nothing to change: give --every, --at, --churn, --ttl or --control")
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				info, err := b.ChangeAudience(cmd.Context(), args[0], args[1], change)
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(info)
					}
					return err
				}
				if !info.Next.IsZero() {
					a.say("next refresh: %s, while a server runs", info.Next.Format(time.RFC3339))
				}
				if !info.Expires.IsZero() {
					a.say("expires: %s", info.Expires.Format(time.RFC3339))
				}
				if h := controlOf(info); h != nil {
					a.say("held back: %d of %d", h.Members, info.Size)
				}
				return nil
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func controlOf(info *collection.AudienceInfo) *audience.Holdback {
	if info.Result == nil {
		return nil
	}
	return info.Result.Manifest.Control
}

func (a *app) audienceDiff() *cobra.Command {
	req := collection.DiffRequest{}
	cmd := &cobra.Command{
		Use: "diff COLLECTION AUDIENCE [OTHER]", Short: "Show how a list differs from another audience's, or from its version before",
		Example: "  kindred audience diff shop spring\n  kindred audience diff shop spring summer --show entered", Args: arguments(cobra.RangeArgs(2, 3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := req
			ask.To.Audience, ask.From.Audience = args[1], args[len(args)-1]
			return a.withBackend(cmd.Context(), func(b backend) error {
				d, err := b.Diff(cmd.Context(), args[0], ask)
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(d)
					}
					return err
				}
				rho := ""
				if d.RankCorrelation != nil {
					rho = "; rank correlation " + strconv.FormatFloat(*d.RankCorrelation, 'f', 4, 64)
				}
				a.say("%s version %d (%d members) against %s version %d (%d)", d.To.Audience, d.To.Version, d.To.Size, d.From.Audience, d.From.Version, d.From.Size)
				if err := a.printf("%d entered, %d left, %d kept; Jaccard %.4f%s\n", d.Entered, d.Left, d.Kept, d.Jaccard, rho); err != nil {
					return err
				}
				for _, id := range d.IDs {
					if err := a.printf("%s\n", id); err != nil {
						return err
					}
				}
				if d.Next != "" {
					a.say("more follow: --after %s", strconv.Quote(d.Next))
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&req.To.Version, "version", 0, "of the audience (default: the list that counts)")
	cmd.Flags().IntVar(&req.From.Version, "other-version", 0, "of what it is compared with")
	cmd.Flags().StringVar(&req.Show, "show", "", "list the ids of who entered, left or kept")
	cmd.Flags().StringVar(&req.After, "after", "", "ids greater than this one")
	cmd.Flags().IntVar(&req.Limit, "limit", 1000, "most ids")
	return cmd
}

func (a *app) audienceOverlap() *cobra.Command {
	return &cobra.Command{
		Use: "overlap COLLECTION AUDIENCE AUDIENCE...", Short: "Show what the lists of several audiences have in common",
		Example: "  kindred audience overlap shop spring summer autumn", Args: arguments(cobra.MinimumNArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				o, err := b.Overlap(cmd.Context(), args[0], args[1:])
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(o)
					}
					return err
				}
				for i, x := range o.Audiences {
					for j, y := range o.Audiences[:i] {
						if err := a.printf("%-24s %-24s %8d in both, Jaccard %.4f, %.1f %% of the first, %.1f %% of the second\n", y.Audience, x.Audience, o.Counts[j][i], o.Jaccard[j][i], 100*o.Shares[j][i], 100*o.Shares[i][j]); err != nil {
							return err
						}
					}
				}
				return a.printf("%d in any, %d in all\n", o.Union, o.Common)
			})
		},
	}
}

func (a *app) audienceCombine() *cobra.Command {
	var f lifecycleFlags
	cmd := &cobra.Command{
		Use: "combine COLLECTION NAME union|intersection|difference AUDIENCE AUDIENCE...", Short: "Make an audience of the lists of others",
		Long:    "combine makes an audience that is exported and refreshed as any other. difference are those of the first list who are on none of the others.",
		Example: "  kindred audience combine shop reach union spring summer\n  kindred audience combine shop fresh difference spring customers-of-last-year", Args: arguments(cobra.MinimumNArgs(5)),
		RunE: func(cmd *cobra.Command, args []string) error {
			next, err := f.read()
			if err != nil {
				return err
			}
			req := collection.CombineRequest{Name: args[1], Operation: args[2], Audiences: args[3:], Lifecycle: next}
			return a.withBackend(cmd.Context(), func(b backend) error {
				job, err := b.Combine(cmd.Context(), args[0], req)
				if err != nil {
					return err
				}
				info, err := a.waitFor(cmd.Context(), b, &job, args[0], args[1])
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(info)
					}
					return err
				}
				for _, w := range info.Result.Warnings {
					a.say("warning: %s", w)
				}
				return a.printf("%s: %s, %d members\n", info.Name, info.State, info.Size)
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// outgoing are the members that may leave in an export: without the control
// group, which is drawn first where the export asks for one.
func (a *app) outgoing(ctx context.Context, b backend, f *exportFlags, coll, name string) ([]audience.Member, error) {
	next, err := (&lifecycleFlags{control: f.control}).read()
	if err != nil {
		return nil, err
	}
	if next.Control != nil {
		if _, err := b.ChangeAudience(ctx, coll, name, collection.AudienceChange{Control: next.Control}); err != nil {
			return nil, err
		}
	}
	info, err := b.Audience(ctx, coll, name)
	if err != nil {
		return nil, err
	}
	members, err := b.Members(ctx, coll, name, 0, math.MaxInt)
	if err != nil {
		return nil, err
	}
	f.list = info
	if held := controlOf(info); held != nil {
		a.say("held back: %d of %d members", held.Members, info.Size)
	}
	return slices.DeleteFunc(members, func(m audience.Member) bool { return m.Control }), nil
}
