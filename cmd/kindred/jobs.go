package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
)

func (a *app) jobsCommand() *cobra.Command {
	cmd := &cobra.Command{
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
	cancel := &cobra.Command{
		Use: "cancel JOB", Short: "Stop a job at its next checkpoint", Example: "  kindred jobs cancel 9e10b4b2-f57e-4316-a8e4-719a5a223158 --server http://127.0.0.1:7878", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				job, err := b.Cancel(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(job)
				}
				a.say("job %s is asked to stop", job.ID)
				return nil
			})
		},
	}
	cmd.AddCommand(cancel)
	return cmd
}

// pollEvery is how often a job that is waited for is looked at.
const pollEvery = 150 * time.Millisecond

// follow shows a job's progress until it ends. A job that did not get done is
// an error that says why.
func (a *app) follow(ctx context.Context, b backend, id string) error {
	bar := a.meter()
	defer bar.end()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		job, err := b.Job(ctx, id)
		if err != nil {
			return err
		}
		if job.Stage != "" && job.Total > 0 {
			bar.show(job.Stage, job.Done, job.Total)
		}
		switch {
		case job.State == collection.JobDone:
			return nil
		case job.State == collection.JobFailed && job.Problem != "":
			return errors.New(job.Problem)
		case job.State.Final():
			return fmt.Errorf("job %s is %s", id, job.State)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
