package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/collection"
)

// maxExamplesFile bounds a file of examples.
const maxExamplesFile = 64 << 20

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tag", Short: "Tags learned from labelled examples: learn, list, show, of a customer, customers, delete",
		Example: "  kindred tag learn shop mood --examples mood.csv\n  kindred tag of shop c17\n  kindred tag customers shop mood unhappy --above 0.8",
		Args:    arguments(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	show := &cobra.Command{
		Use: "show COLLECTION TAG", Short: "Show how good a tag is and how many customers have each label", Example: "  kindred tag show shop mood", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error { return a.showTag(cmd.Context(), b, args[0], args[1]) })
		},
	}
	ls := &cobra.Command{
		Use: "ls COLLECTION", Aliases: []string{"list"}, Short: "List the tags of a collection", Example: "  kindred tag ls shop", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				list, err := b.Tags(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, t := range list {
					if err := a.printf("%-24s %3d labels  accuracy %.3f\n", t.Name, len(t.Counts), t.Quality.Accuracy); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	rm := &cobra.Command{
		Use: "rm COLLECTION TAG", Aliases: []string{"delete"}, Short: "Delete a tag", Example: "  kindred tag rm shop mood", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error { return b.DropTag(cmd.Context(), args[0], args[1]) })
		},
	}
	cmd.AddCommand(a.tagLearn(), ls, show, a.tagOf(), a.tagged(), rm)
	return cmd
}

func (a *app) tagLearn() *cobra.Command {
	var file string
	var least float64
	cmd := &cobra.Command{
		Use: "learn COLLECTION TAG", Short: "Learn a tag from labelled examples and tag everyone",
		Long:    "learn reads examples from a CSV file with the columns label and text, label and id (customers' ids), or all three, or from lines of JSON with the same names. Eight examples a label are a beginning. Examples that nothing tells apart are refused.",
		Example: "  kindred tag learn shop mood --examples mood.csv\n  kindred tag learn shop topic --examples topics.ndjson --min-confidence 0.7 --json",
		Args:    arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("--examples is missing: name a file with the columns label and text or id")
			}
			labels, err := readExamples(file)
			if err != nil {
				return err
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				job, err := b.CreateTag(cmd.Context(), args[0], collection.TagRequest{Name: args[1], Labels: labels, MinConfidence: least})
				if err != nil {
					return err
				}
				if err := a.await(cmd.Context(), b, job.ID); err != nil {
					return err
				}
				return a.showTag(cmd.Context(), b, args[0], args[1])
			})
		},
	}
	cmd.Flags().StringVar(&file, "examples", "", "file of labelled examples (.csv or .ndjson)")
	cmd.Flags().Float64Var(&least, "min-confidence", 0, "least confidence of a customer that is counted (default 0.5)")
	return cmd
}

// example is one line of a file of examples.
type example struct {
	Label string `json:"label"`
	ID    string `json:"id"`
	Text  string `json:"text"`
}

// readExamples groups a file's lines by label, in order of the labels.
func readExamples(path string) (out []collection.TagLabel, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, maxExamplesFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxExamplesFile {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxExamplesFile)
	}
	text := strings.TrimPrefix(string(raw), "\ufeff")
	lines := csvExamples
	switch filepath.Ext(path) {
	case ".ndjson", ".jsonl", ".json":
		lines = jsonExamples
	}
	at := map[string]int{}
	err = lines(text, func(line int, e example) error {
		if e.Label == "" || e.Text == "" && e.ID == "" {
			return fmt.Errorf("line %d: want a label, and a text or an id", line)
		}
		i, ok := at[e.Label]
		if !ok {
			i = len(out)
			at[e.Label] = i
			out = append(out, collection.TagLabel{Label: e.Label})
		}
		if e.ID != "" {
			out[i].IDs = append(out[i].IDs, e.ID)
		} else {
			out[i].Texts = append(out[i].Texts, e.Text)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	slices.SortFunc(out, func(a, b collection.TagLabel) int { return strings.Compare(a.Label, b.Label) })
	return out, nil
}

func csvExamples(text string, visit func(int, example) error) error {
	r := csv.NewReader(strings.NewReader(text))
	head, err := r.Read()
	if err != nil {
		return fmt.Errorf("no header: %w", err)
	}
	label, id, body := slices.Index(head, "label"), slices.Index(head, "id"), slices.Index(head, "text")
	if label < 0 || id < 0 && body < 0 {
		return fmt.Errorf("the columns are %q: want label, and text or id", head)
	}
	cell := func(row []string, i int) string {
		if i < 0 {
			return ""
		}
		return strings.TrimSpace(row[i])
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if err := visit(line, example{cell(row, label), cell(row, id), cell(row, body)}); err != nil {
			return err
		}
	}
}

func jsonExamples(text string, visit func(int, example) error) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.TrimSpace(line) == "" {
			continue
		}
		var e example
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := visit(n, e); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showTag(ctx context.Context, b backend, coll, name string) error {
	info, err := b.Tag(ctx, coll, name)
	if err != nil {
		return err
	}
	if a.cfg.JSON {
		return a.json(info)
	}
	a.say("%s", inline(info.Quality.Words))
	if len(info.Unmatched) > 0 {
		a.say("example ids that match no customer with text, for instance: %q", info.Unmatched)
	}
	for i, c := range info.Counts {
		q := info.Quality.Labels[i]
		if err := a.printf("%-24s %9d customers  %5.1f %%  precision %.2f  recall %.2f\n", inline(c.Label), c.Customers, 100*c.Share, q.Precision, q.Recall); err != nil {
			return err
		}
	}
	return a.printf("%-24s %9d customers\n%-24s %9d customers\n", "(not sure)", info.Unsure, "(without text)", info.Without)
}

func (a *app) tagOf() *cobra.Command {
	return &cobra.Command{
		Use: "of COLLECTION CUSTOMER", Short: "All tags of a customer, with confidence", Example: "  kindred tag of shop c17", Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				list, err := b.CustomerTags(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(list)
				}
				for _, t := range list {
					if err := a.printf("%-24s %-24s %.3f\n", t.Tag, inline(t.Label), t.Confidence); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (a *app) tagged() *cobra.Command {
	var p pageFlags
	var above float64
	cmd := &cobra.Command{
		Use: "customers COLLECTION TAG LABEL", Short: "The customers that have a label, the surest first",
		Example: "  kindred tag customers shop mood unhappy --above 0.8 --limit 50",
		Args:    arguments(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := p.list()
			if err != nil {
				return err
			}
			q := collection.TaggedRequest{Label: args[2], ListRequest: list}
			if cmd.Flags().Changed("above") {
				q.Above = &above
			}
			return a.withBackend(cmd.Context(), func(b backend) error {
				got, err := b.Tagged(cmd.Context(), args[0], args[1], q)
				if err != nil {
					return err
				}
				return a.listed(got)
			})
		},
	}
	p.add(cmd.Flags())
	cmd.Flags().Float64Var(&above, "above", 0, "least confidence (default: the tag's)")
	return cmd
}

// list is a page of customers.
func (p *pageFlags) list() (collection.ListRequest, error) {
	filter, err := p.tree()
	return collection.ListRequest{Filter: filter, Limit: p.limit, Offset: p.offset}, err
}

// listed shows a page of customers and how many there are.
func (a *app) listed(l *collection.Listed) error {
	if a.cfg.JSON {
		return a.json(l)
	}
	if err := a.hits(collection.Answer{Hits: l.Hits}); err != nil {
		return err
	}
	a.say("%d of %d customers", len(l.Hits), l.Count)
	return nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usagef("%q is no number from 1 up", s)
	}
	return n, nil
}
