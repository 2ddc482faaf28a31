package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/audience"
)

// Why asks GET /v1/collections/{c}/audiences/{a}/members/{id}/why.
func (r *remote) Why(ctx context.Context, coll, name, id string) (*audience.Explanation, error) {
	var out audience.Explanation
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/audiences/"+url.PathEscape(name)+"/members/"+url.PathEscape(id)+"/why", nil, &out)
	return &out, err
}

func (a *app) audienceExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain COLLECTION AUDIENCE ID", Short: "Say why a customer is in an audience, or not",
		Long: "explain takes the customer's score apart: what each column and each of its own passages gives, the seeds it is most like, and the\n" +
			"smallest changes of one or two columns that would take it out or bring it in.",
		Example: "  kindred audience explain shop spring c42", Args: arguments(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackend(cmd.Context(), func(b backend) error {
				e, err := b.Why(cmd.Context(), args[0], args[1], args[2])
				if err != nil {
					return err
				}
				if a.cfg.JSON {
					return a.json(e)
				}
				return a.printf("%s", explanationText(e))
			})
		},
	}
}

// passageShown is how many characters of a passage are shown.
const passageShown = 100

func explanationText(e *audience.Explanation) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	where, turn := "is not in the audience", "would come in"
	if e.In {
		where, turn = "is in the audience", "would drop out"
	}
	if e.Rank > 0 {
		where += fmt.Sprintf(", rank %d", e.Rank)
	}
	line("%s %s: score %.4f, %.4f is the least that is in, estimated probability %.2f", inline(e.ID), where, e.Score, e.Threshold, e.Probability)
	line("reasons, which add up to the score:")
	for _, p := range e.Reasons {
		line("  %+9.4f  %s", p.Value, inline(p.Of))
	}
	if len(e.Passages) > 0 {
		line("passages, which add up to the text's part:")
		for _, p := range e.Passages {
			text := []rune(inline(p.Text))
			if len(text) > passageShown {
				text = append(text[:passageShown], '…')
			}
			if len(text) == 0 {
				text = []rune("(not shown)")
			}
			line("  %+9.4f  %s", p.Value, string(text))
		}
		line("  %+9.4f  (rounding of the stored vector)", e.Rounding)
	}
	if len(e.Nearest) > 0 {
		line("nearest seeds:")
		for _, n := range e.Nearest {
			line("  %9.3f  %s", n.Similarity, inline(n.ID))
		}
	}
	if len(e.Counterfactuals) > 0 {
		line("%s with:", turn)
		for _, c := range e.Counterfactuals {
			changes := make([]string, len(c.Changes))
			for i, change := range c.Changes {
				changes[i] = inline(change.String())
			}
			line("  %9.4f  %s", c.Score, strings.Join(changes, " and "))
		}
	}
	for _, n := range e.Notes {
		line("note: %s", n)
	}
	return b.String()
}
