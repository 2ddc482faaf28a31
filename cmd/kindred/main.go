// Command kindred finds the customers most like some, on this machine or over
// HTTP.
//
// main wires by hand: each command has a file named after it, that turns flags
// into a call of a package below and prints the answer. Settings are the
// Config of config.go, taken from kindred.yaml, then KINDRED_ variables, then
// flags. What a person reads goes to standard error, results to standard
// output. Exit codes: 0 done, 1 failed or stopped, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/api"
	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed/models"
	"github.com/kindred-search/kindred/export"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/internal/heap"
)

func main() {
	if ingest.RunParquetChild() {
		return
	}
	heap.Pace()
	os.Exit(run(os.Args[1:]))
}

// run is main with an exit code to return, so that tests can call it.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	a := &app{out: os.Stdout, err: os.Stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		a.say("stopped: files that were not finished are not there, rows that were stored are")
		return 1
	}
	var usage *usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		a.say("kindred: %s", message(err))
		a.say("Run the command with --help to see how it is used.")
		return 2
	}
	a.say("kindred: %s", message(err))
	return 1
}

// message is an error for people: its kind, which callers in Go tell faults
// apart by, says nothing to them, and names from files must not steer the
// terminal.
func message(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		kind := index.ErrInvalid.Error()
		lines[i] = inline(strings.TrimPrefix(strings.TrimSuffix(line, ": "+kind), kind+": "))
	}
	return strings.Join(lines, "\n")
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// args turns cobra's check of the number of arguments into a usage error.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "kindred",
		Short:         "Find the customers most like some",
		Long:          "kindred finds, among your customers, the ones most like those you name, and says how good the list is and why each is on it.\n\nExit codes: 0 done, 1 failed or stopped with Ctrl-C, 2 wrong usage. Results go to standard output, all else to standard error.",
		Example:       "  kindred demo\n  kindred lookalike customers.csv --seeds seeds.csv --size 5% -o audience.csv --report report.html\n  kindred models ls\n  kindred doctor",
		Args:          arguments(cobra.NoArgs),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Flags())
			if err != nil {
				return &usageError{err}
			}
			a.cfg = cfg
			cfg.limit()
			return serverless(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	addConfigFlags(root.PersistentFlags())
	root.AddCommand(a.demoCommand(), a.lookalikeCommand(), a.evalCommand(), a.importCommand(), a.reembedCommand(), a.searchCommand(), a.similarCommand(), a.audienceCommand(), a.seedsCommand(), a.suppressCommand(), a.segmentsCommand(), a.tagCommand(), a.jobsCommand(), a.serveCommand(), a.keysCommand(), a.engineCommand(), a.benchCommand(), a.modelsCommand(), a.embedCommand(), a.doctorCommand(), a.versionCommand())
	complete(root)
	return root
}

// serverless refuses --server where it would be passed over in silence.
func serverless(cmd *cobra.Command) error {
	words := strings.Fields(cmd.CommandPath())[1:]
	alone := []string{"bench", "demo", "doctor", "embed", "engine", "eval", "keys", "lookalike", "models", "serve", "version"}
	if len(words) > 0 && slices.Contains(alone, words[0]) && cmd.Flags().Changed("server") {
		return usagef("--server: kindred %s works in this process, not on a server", strings.Join(words, " "))
	}
	return nil
}

// complete tells shells the values of flags and arguments that have few.
func complete(cmd *cobra.Command) {
	var names []string
	for _, e := range models.Catalogue() {
		names = append(names, e.Name)
	}
	for flag, values := range map[string][]string{
		"method": audience.Methods(), "model": append([]string{"auto", "none"}, names...), "engine": {"flat", "hnsw", "auto"}, "precision": {"fp32", "int16", "int8"}, "device": {"auto", "cpu", "cuda"},
		"encoding": {"utf-8", "gb18030", "utf-16le", "utf-16be", "windows-1252"}, "strategy": {"average_vector", "best_score"}, "layout": append([]string{export.Plain}, export.Layouts()...), "role": {api.RoleRead, api.RoleWrite, api.RoleAdmin},
	} {
		if cmd.LocalFlags().Lookup(flag) != nil {
			// It fails only for flags that are not there or have one already.
			_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if parent := cmd.Parent(); parent != nil && parent.Name() == "models" && cmd.Name() != "ls" {
		cmd.ValidArgs = names
	}
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
}
