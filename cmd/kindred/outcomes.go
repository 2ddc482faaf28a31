package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

func (a *app) audienceOutcomes() *cobra.Command {
	return &cobra.Command{
		Use: "outcomes COLLECTION AUDIENCE FILE", Short: "Record what became of members",
		Long:    "outcomes reads a CSV with the columns id and outcome (1 or 0) and, if there are any, value, at and group; or the same as .ndjson or .json.",
		Example: "  kindred audience outcomes shop spring outcomes.csv", Args: arguments(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := outcomeFormat(args[2]); err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				out, err := b.SendOutcomes(cmd.Context(), args[0], args[1], args[2])
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(out)
					}
					return err
				}
				for i, v := range out.Refused {
					if i == 10 {
						a.say("and %d more", len(out.Refused)-i+out.Unnamed)
						break
					}
					a.say("line %d, %q: %s", v.Line, v.ID, v.Reason)
				}
				return a.printf("%d outcomes taken, %d refused\n", out.Accepted, len(out.Refused)+out.Unnamed)
			})
		},
	}
}

func outcomeFormat(path string) (string, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv", "":
		return "csv", nil
	case ".ndjson", ".jsonl":
		return "ndjson", nil
	case ".json":
		return "json", nil
	}
	return "", usagef("%s: want .csv, .ndjson or .json", path)
}

// openOutcomes opens a file of outcomes; - is standard input, a CSV.
func openOutcomes(path string) (io.ReadCloser, string, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), "csv", nil
	}
	format, err := outcomeFormat(path)
	if err != nil {
		return nil, "", err
	}
	f, err := os.Open(path)
	return f, format, err
}

// SendOutcomes stores a file's outcomes in batches.
func (d direct) SendOutcomes(ctx context.Context, coll, name, path string) (out collection.Outcome, err error) {
	f, format, err := openOutcomes(path)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const size = 1000
	var batch []collection.OutcomeInput
	flush := func() error {
		got, err := d.AddOutcomes(ctx, coll, name, batch)
		out.Accepted += got.Accepted
		out.Refused = append(out.Refused, got.Refused...)
		batch = batch[:0]
		return err
	}
	out.Refused = []collection.Verdict{}
	err = collection.ReadOutcomes(f, format, func(line int, o collection.CustomerOutcome, err error) error {
		if err != nil {
			faults := []string{}
			for _, f := range collection.Faults(err) {
				faults = append(faults, f.Location+": "+f.Message)
			}
			out.Refused = append(out.Refused, collection.Verdict{Line: line, ID: o.ID, Reason: strings.Join(faults, "; ")})
			return nil
		}
		if batch = append(batch, collection.OutcomeInput{Line: line, Outcome: o}); len(batch) < size {
			return nil
		}
		return flush()
	})
	if err != nil {
		return out, fmt.Errorf("%s: %w", path, err)
	}
	return out, flush()
}

func (a *app) audienceLift() *cobra.Command {
	var zero bool
	cmd := &cobra.Command{
		Use: "lift COLLECTION AUDIENCE", Short: "Show what a campaign brought about, against the control group",
		Example: "  kindred audience lift shop spring", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := collection.LiftRequest{Missing: "ignore"}
			if zero {
				req.Missing = "zero"
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				l, err := b.Lift(cmd.Context(), args[0], args[1], req)
				if err != nil || a.cfg.JSON {
					if err == nil {
						err = a.json(l)
					}
					return err
				}
				if err := a.printf("%s\n", l.Words); err != nil {
					return err
				}
				if r := l.Relative; r != nil {
					a.say("relative lift: %+.1f %% (95 %% between %+.1f and %+.1f)", 100*r.Value, 100*r.Low, 100*r.High)
				}
				if v := l.Value; v != nil {
					a.say("value a customer: %+.4g (95 %% between %+.4g and %+.4g)", v.Difference.Value, v.Difference.Low, v.Difference.High)
				}
				for _, n := range l.Notes {
					a.say("note: %s", n)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&zero, "missing-is-zero", false, "members without an outcome did not convert: for files that list conversions only")
	return cmd
}

func (a *app) audienceRecalibrate() *cobra.Command {
	return &cobra.Command{
		Use: "recalibrate COLLECTION AUDIENCE", Short: "Fit an audience's probabilities to its outcomes",
		Example: "  kindred audience recalibrate shop spring", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				o, err := b.Recalibrate(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(o)
				}
				return a.printf("%s\n", o.Words)
			})
		},
	}
}

func audiencePath(coll, name string) string {
	return collectionPath(coll) + "/audiences/" + url.PathEscape(name)
}

// Refresh asks POST .../refresh.
func (r *remote) Refresh(ctx context.Context, coll, name string, req collection.RefreshRequest) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodPost, audiencePath(coll, name)+"/refresh", req, &out)
	return out, err
}

// ChangeAudience asks PATCH /v1/collections/{c}/audiences/{a}.
func (r *remote) ChangeAudience(ctx context.Context, coll, name string, c collection.AudienceChange) (*collection.AudienceInfo, error) {
	var out collection.AudienceInfo
	err := r.call(ctx, http.MethodPatch, audiencePath(coll, name), c, &out)
	return &out, err
}

// Diff asks GET .../diff, whose cursor is the last id in base64.
func (r *remote) Diff(ctx context.Context, coll string, req collection.DiffRequest) (*collection.Diff, error) {
	q := url.Values{"with": {req.From.Audience}, "limit": {strconv.Itoa(max(1, req.Limit))}}
	if req.Show != "" {
		q.Set("show", req.Show)
	}
	for name, v := range map[string]int{"version": req.To.Version, "with_version": req.From.Version} {
		if v != 0 {
			q.Set(name, strconv.Itoa(v))
		}
	}
	if req.After != "" {
		q.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(req.After)))
	}
	var out collection.Diff
	err := r.call(ctx, http.MethodGet, audiencePath(coll, req.To.Audience)+"/diff?"+q.Encode(), nil, &out)
	if out.Next != "" && len(out.IDs) > 0 {
		out.Next = out.IDs[len(out.IDs)-1]
	}
	return &out, err
}

// Overlap asks POST /v1/collections/{c}/overlap.
func (r *remote) Overlap(ctx context.Context, coll string, names []string) (*collection.Overlap, error) {
	var out collection.Overlap
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/overlap", map[string]any{"audiences": names}, &out)
	return &out, err
}

// Combine asks POST /v1/collections/{c}/combine.
func (r *remote) Combine(ctx context.Context, coll string, req collection.CombineRequest) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/combine", req, &out)
	return out, err
}

// SendOutcomes asks POST .../outcomes with the file as it is.
func (r *remote) SendOutcomes(ctx context.Context, coll, name, path string) (out collection.Outcome, err error) {
	f, format, err := openOutcomes(path)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	kind := map[string]string{"csv": "text/csv", "ndjson": "application/x-ndjson", "json": "application/json"}[format]
	raw, err := r.do(ctx, http.MethodPost, audiencePath(coll, name)+"/outcomes", kind, struct{ io.Reader }{f}) // the client would close a file
	if err != nil {
		return out, err
	}
	return out, r.read(raw, &out)
}

// Lift asks GET .../lift.
func (r *remote) Lift(ctx context.Context, coll, name string, req collection.LiftRequest) (*audience.Lift, error) {
	var out audience.Lift
	err := r.call(ctx, http.MethodGet, audiencePath(coll, name)+"/lift?missing="+url.QueryEscape(req.Missing), nil, &out)
	return &out, err
}

// Recalibrate asks POST .../recalibrate.
func (r *remote) Recalibrate(ctx context.Context, coll, name string) (*audience.Observed, error) {
	var out audience.Observed
	err := r.call(ctx, http.MethodPost, audiencePath(coll, name)+"/recalibrate", nil, &out)
	return &out, err
}
