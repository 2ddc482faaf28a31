package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kindred-search/kindred/embed"
)

// maxEmbedInput bounds what is read before encoding starts.
const maxEmbedInput = 64 << 20

func (a *app) embedCommand() *cobra.Command {
	var model string
	var query bool
	cmd := &cobra.Command{
		Use: "embed [TEXT...]", Short: "Turn texts into vectors, one JSON line each",
		Long:    "embed encodes its arguments, or the lines of standard input when there are none.",
		Example: "  kindred embed --model all-MiniLM-L6-v2 'a customer who sails'\n  kindred embed < lines.txt > vectors.ndjson",
		RunE: func(cmd *cobra.Command, args []string) error {
			texts := args
			if len(texts) == 0 {
				var err error
				if texts, err = lines(cmd.InOrStdin()); err != nil {
					return err
				}
			}
			m, err := a.openCached(model)
			if err != nil {
				return err
			}
			opt := embed.EncodeOptions{}
			if query {
				opt.Prompt = m.Info().QueryPrompt
			}
			bar := a.meter()
			opt.Progress = func(done, total int) { bar.show("encoding", int64(done), int64(total)) }
			res, err := m.Encode(cmd.Context(), texts, opt)
			bar.end()
			if err != nil {
				return err
			}
			out := bufio.NewWriter(a.out)
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false)
			for i, text := range texts {
				if res.Truncated[i] {
					a.say("text %d is longer than the model reads: only its beginning counts", i+1)
				}
				if err := enc.Encode(struct {
					Text   string    `json:"text"`
					Vector []float32 `json:"vector"`
				}{text, res.Row(i)}); err != nil {
					return err
				}
			}
			return out.Flush()
		},
	}
	cmd.Flags().StringVar(&model, "model", "all-MiniLM-L6-v2", "model of the cache")
	cmd.Flags().BoolVar(&query, "query", false, "the texts are short queries for longer passages")
	return cmd
}

func lines(in io.Reader) ([]string, error) {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return nil, usagef("no text: give one as an argument or on standard input")
		}
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxEmbedInput+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxEmbedInput {
		return nil, fmt.Errorf("standard input: more than %d bytes: send it in parts", maxEmbedInput)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		return nil, usagef("no text: standard input is empty")
	}
	return out, nil
}
