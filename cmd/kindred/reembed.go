package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

// reembedding is embedding a collection anew, as backends offer it.
type reembedding interface {
	Reembed(ctx context.Context, coll string, req collection.ReembedRequest) (collection.Job, error)
	Reembedding(ctx context.Context, coll string) (*collection.Reembedding, error)
	Rollback(ctx context.Context, coll string) (collection.Job, error)
	Confirm(ctx context.Context, coll string) error
	Abort(ctx context.Context, coll string) error
}

func (r *remote) reembedPath(coll, what string) string {
	return collectionPath(coll) + "/reembed" + what
}

// Reembed implements reembedding.
func (r *remote) Reembed(ctx context.Context, coll string, req collection.ReembedRequest) (out collection.Job, err error) {
	return out, r.call(ctx, "POST", r.reembedPath(coll, ""), req, &out)
}

// Reembedding implements reembedding.
func (r *remote) Reembedding(ctx context.Context, coll string) (*collection.Reembedding, error) {
	var out collection.Reembedding
	return &out, r.call(ctx, "GET", r.reembedPath(coll, ""), nil, &out)
}

// Rollback implements reembedding.
func (r *remote) Rollback(ctx context.Context, coll string) (out collection.Job, err error) {
	return out, r.call(ctx, "POST", r.reembedPath(coll, "/rollback"), nil, &out)
}

// Confirm implements reembedding.
func (r *remote) Confirm(ctx context.Context, coll string) error {
	return r.call(ctx, "POST", r.reembedPath(coll, "/confirm"), nil, nil)
}

// Abort implements reembedding.
func (r *remote) Abort(ctx context.Context, coll string) error {
	return r.call(ctx, "DELETE", r.reembedPath(coll, ""), nil, nil)
}

type reembedFlags struct {
	model, precision, template       string
	doSwitch, force, noRelearn       bool
	status, rollback, confirm, abort bool
	maxLoss, minOverlap              string
}

func (a *app) reembedCommand() *cobra.Command {
	var f reembedFlags
	cmd := &cobra.Command{
		Use: "reembed COLLECTION", Short: "Embed the customers anew by another model, compare, and move over",
		Long: "reembed makes the vectors of all customers anew, by another model, precision or template, beside those that answer, and compares the two:\n" +
			"whether everyone is there, how many of the nearest stay, and how well held-out seeds of the stored audiences rank. With --switch the\n" +
			"collection moves over if that is passed. What was broken off goes on when asked again, and does only what was written since.\n" +
			"The vectors of before are kept, for --rollback, until --confirm drops them. Audiences, segments and tags are learned again after a switch.",
		Example: "  kindred reembed shop --model bge-small-zh-v1.5\n  kindred reembed shop --switch\n  kindred reembed shop --confirm",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd)
			if err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error { return a.reembed(cmd.Context(), b, args[0], &f, req) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "the encoder (default: the one that the collection has)")
	flags.StringVar(&f.precision, "hold", "", "how vectors are held: int8, fp16, fp32 or binary (default: as now)")
	flags.StringVar(&f.template, "template", "", "how fields become text, such as '{title}. {review}' (default: as now)")
	flags.BoolVar(&f.doSwitch, "switch", false, "move the collection over if the comparison is passed")
	flags.BoolVar(&f.force, "force", false, "with --switch: move it over in any case")
	flags.StringVar(&f.maxLoss, "max-auc-loss", "", "by how much the audiences' AUC may fall in the mean (default 0.02)")
	flags.StringVar(&f.minOverlap, "min-overlap", "", "least share of the nearest customers that must stay, such as 50% (default: any)")
	flags.BoolVar(&f.noRelearn, "no-relearn", false, "do not build audiences, segments and tags anew after the switch")
	flags.BoolVar(&f.status, "status", false, "only show how far it is")
	flags.BoolVar(&f.rollback, "rollback", false, "move back to the vectors of before the switch")
	flags.BoolVar(&f.confirm, "confirm", false, "drop the vectors of before the switch")
	flags.BoolVar(&f.abort, "abort", false, "drop what was made, before a switch")
	cmd.MarkFlagsMutuallyExclusive("status", "rollback", "confirm", "abort", "switch")
	for _, alone := range []string{"status", "rollback", "confirm", "abort"} {
		for _, other := range []string{"model", "hold", "template", "force", "max-auc-loss", "min-overlap", "no-relearn"} {
			cmd.MarkFlagsMutuallyExclusive(alone, other)
		}
	}
	return cmd
}

func (f *reembedFlags) request(cmd *cobra.Command) (collection.ReembedRequest, error) {
	req := collection.ReembedRequest{Switch: f.doSwitch, Force: f.force}
	if f.force && !f.doSwitch {
		return req, usagef("--force: forces a switch: give --switch as well")
	}
	if cmd.Flags().Changed("model") {
		req.Model = &f.model
	}
	if cmd.Flags().Changed("hold") {
		p := index.Precision(f.precision)
		req.Precision = &p
	}
	if cmd.Flags().Changed("template") {
		req.Template = &f.template
	}
	for _, s := range []struct {
		flag, text string
		to         **float64
	}{{"--max-auc-loss", f.maxLoss, &req.MaxAUCLoss}, {"--min-overlap", f.minOverlap, &req.MinOverlap}} {
		if s.text == "" {
			continue
		}
		v, err := share(s.flag, s.text)
		if err != nil {
			return req, err
		}
		*s.to = &v
	}
	if f.noRelearn {
		req.Relearn = new(bool)
	}
	return req, nil
}

func (a *app) reembed(ctx context.Context, b backend, coll string, f *reembedFlags, req collection.ReembedRequest) error {
	var job collection.Job
	var err error
	switch {
	case f.status:
		return a.showReembedding(ctx, b, coll)
	case f.confirm:
		return b.Confirm(ctx, coll)
	case f.abort:
		return b.Abort(ctx, coll)
	case f.rollback:
		job, err = b.Rollback(ctx, coll)
	default:
		var ended bool
		if ended, err = a.resumeReembed(ctx, b, coll, req.Switch); err != nil || ended {
			break
		}
		job, err = b.Reembed(ctx, coll, req)
	}
	if err != nil {
		return err
	}
	if job.ID == "" {
		return a.showReembedding(ctx, b, coll)
	}
	if err := a.follow(ctx, b, job.ID); err != nil {
		if ctx.Err() == nil {
			_ = a.showReembedding(ctx, b, coll) // the job's own error says more
		}
		return err
	}
	if err := a.followRest(ctx, b, coll); err != nil {
		return err
	}
	return a.showReembedding(ctx, b, coll)
}

// resumeReembed follows the job that is under way, such as one that was stopped and goes on
// in this process, and says whether that did what is asked for.
func (a *app) resumeReembed(ctx context.Context, b backend, coll string, toSwitch bool) (bool, error) {
	r, err := b.Reembedding(ctx, coll)
	if err != nil {
		return false, nil //nolint:nilerr // there is none, or what comes next says why not
	}
	job, err := b.Job(ctx, r.Job)
	if err != nil || job.State.Final() {
		return false, nil //nolint:nilerr // ended, and forgotten since
	}
	a.say("job %s of before goes on", job.ID)
	if err := a.follow(ctx, b, job.ID); err != nil {
		return false, err
	}
	if err := a.followRest(ctx, b, coll); err != nil {
		return false, err
	}
	if r, err = b.Reembedding(ctx, coll); err != nil {
		return false, err
	}
	return r.State == collection.ReembedSwitched || r.State == collection.ReembedReady && !toSwitch, nil
}

// followRest waits for what a switch queued.
func (a *app) followRest(ctx context.Context, b backend, coll string) error {
	for {
		jobs, err := b.Jobs(ctx)
		if err != nil {
			return err
		}
		next := ""
		for _, job := range jobs { // newest first
			if job.Collection == coll && !job.State.Final() {
				next = job.ID
			}
		}
		if next == "" {
			return nil
		}
		if err := a.follow(ctx, b, next); err != nil {
			return err
		}
	}
}

func (a *app) showReembedding(ctx context.Context, b backend, coll string) error {
	r, err := b.Reembedding(ctx, coll)
	if err != nil {
		return err
	}
	if a.cfg.JSON {
		return a.json(r)
	}
	words := map[string]string{
		collection.ReembedFilling:  "being made",
		collection.ReembedReady:    "whole; --switch moves over, --abort drops it",
		collection.ReembedSwitched: "of before; --confirm drops it, --rollback moves back",
	}
	var out strings.Builder
	fmt.Fprintf(&out, "answers by  %s, %s\nbeside it   %s, %s: %s\n", r.Now.Model, r.Now.Precision, r.Other.Model, r.Other.Precision, words[r.State])
	if g := r.Gate; g != nil {
		fmt.Fprintf(&out, "customers   %d, embedded anew %d", g.Customers, g.Embedded)
		if g.Lost+g.Gained > 0 {
			fmt.Fprintf(&out, " (%d lose their vector, %d gain one)", g.Lost, g.Gained)
		}
		fmt.Fprintf(&out, "\nnearest     %.0f %% of the nearest stay (%d customers)\n", 100*g.Overlap, g.Sampled)
		for _, one := range g.Audiences {
			fmt.Fprintf(&out, "audience    %-24s AUC %.3f -> %.3f (%.3f to %.3f)\n", one.Name, one.Before.Value, one.After.Value, one.After.Low, one.After.High)
		}
		for _, note := range g.Notes {
			fmt.Fprintf(&out, "note        %s\n", note)
		}
		verdict := "passed"
		if !g.Passed {
			verdict = "not passed: " + strings.Join(g.Reasons, "; ")
		}
		fmt.Fprintf(&out, "comparison  %s\n", verdict)
	}
	return a.printf("%s", out.String())
}
