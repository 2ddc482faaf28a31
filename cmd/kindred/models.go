package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
)

// openCached opens a model of the cache. It tells the user of layers whose weights
// have no form in the precision asked for.
func (a *app) openCached(name string) (*embed.Model, error) {
	dir, ok := models.Find(name)
	if !ok {
		if _, err := models.Lookup(name); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("model %s is not on this machine: run kindred models pull %s", name, name)
	}
	device, err := a.theDevice()
	if err != nil {
		return nil, err
	}
	m, err := embed.Open(dir, embed.Options{Precision: embed.Precision(a.cfg.Precision), Device: device.models()})
	if err != nil {
		return nil, err
	}
	if info := m.Info(); len(info.Full) > 0 {
		a.say("model %s: these layers run in fp32, not %s: %s", name, info.Precision, strings.Join(info.Full, "; "))
	}
	return m, nil
}

// openModel is openCached for package collection.
func (a *app) openModel(_ context.Context, name string) (collection.Encoder, error) {
	m, err := a.openCached(name)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// pull fetches a model with progress, or says that it is there.
func (a *app) pull(ctx context.Context, name string, force bool) (models.Result, error) {
	m := a.meter()
	res, err := models.Pull(ctx, name, models.PullOptions{Force: force, Progress: m.show})
	m.end()
	if errors.Is(err, fs.ErrPermission) {
		return res, fmt.Errorf("%w: KINDRED_MODELS names another folder for models", err)
	}
	if err != nil {
		return res, err
	}
	if res.Already {
		a.say("model %s: on this machine already, hashes checked", name)
	} else {
		a.say("model %s: fetched from %s and checked", name, res.Manifest.Source)
	}
	return res, nil
}

// pulled is a model that is here, as JSON.
type pulled struct {
	Name    string `json:"name"`
	Dir     string `json:"dir"`
	Fetched bool   `json:"fetched"` // just now
}

type modelLine struct {
	Name      string   `json:"name"`
	Dim       int      `json:"dim"`
	MaxTokens int      `json:"max_tokens"`
	Languages []string `json:"languages"`
	Licence   string   `json:"licence"`
	Dir       string   `json:"dir,omitempty"` // "": not on this machine
}

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "models", Short: "Encoder models: list, fetch, check", Example: "  kindred models pull all-MiniLM-L6-v2",
		Args: arguments(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{
		Use: "ls", Short: "List the models that can be fetched and which are here", Example: "  kindred models ls --json", Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return a.modelsList() },
	}
	var force bool
	pull := &cobra.Command{
		Use: "pull MODEL", Short: "Fetch a model and check its hashes", Example: "  kindred models pull bge-small-zh-v1.5", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := a.pull(cmd.Context(), args[0], force)
			if errors.Is(err, models.ErrUnknown) {
				return &usageError{err}
			}
			if err != nil {
				return err
			}
			if a.cfg.JSON {
				return a.json(pulled{res.Manifest.Name, res.Dir, !res.Already})
			}
			return a.printf("%s\n", res.Dir)
		},
	}
	pull.Flags().BoolVar(&force, "force", false, "fetch again even when it is here")
	verify := &cobra.Command{
		Use: "verify [MODEL]", Short: "Hash the files of the models again", Example: "  kindred models verify", Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return a.modelsVerify(args) },
	}
	cmd.AddCommand(ls, pull, verify)
	return cmd
}

func (a *app) modelsList() error {
	list := []modelLine{}
	for _, e := range models.Catalogue() {
		dir, _ := models.Find(e.Name)
		list = append(list, modelLine{e.Name, e.Dim, e.MaxTokens, e.Languages, e.Licence, dir})
	}
	if a.cfg.JSON {
		return a.json(list)
	}
	for _, m := range list {
		where := m.Dir
		if where == "" {
			where = "not here: kindred models pull " + m.Name
		}
		if err := a.printf("%-24s %4d numbers  %-6s %-12s %s\n", m.Name, m.Dim, strings.Join(m.Languages, ","), m.Licence, where); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) modelsVerify(args []string) error {
	list, err := models.List()
	if err != nil {
		return err
	}
	checked := []pulled{}
	var faults []error
	for _, m := range list {
		if len(args) == 1 && m.Manifest.Name != args[0] {
			continue
		}
		if err := models.Verify(m.Dir); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w: run kindred models pull %s --force", m.Manifest.Name, err, m.Manifest.Name))
			continue
		}
		checked = append(checked, pulled{Name: m.Manifest.Name, Dir: m.Dir})
		if a.cfg.JSON {
			continue
		}
		if err := a.printf("%s: good\n", m.Manifest.Name); err != nil {
			return err
		}
	}
	if a.cfg.JSON {
		faults = append(faults, a.json(checked))
	}
	if len(checked)+len(faults) == 0 || len(list) == 0 {
		return errors.New("no model to check is on this machine: kindred models pull MODEL fetches one")
	}
	return errors.Join(faults...)
}
