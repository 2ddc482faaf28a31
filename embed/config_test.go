package embed

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What says how to use a model, in the order of precedence: options, our
// manifest, the files of sentence-transformers, config.json.
func TestReadInfo(t *testing.T) {
	const (
		man = `{"name":"m","pooling":"last","max_tokens":30,"query_prompt":"q: ","languages":["en"]}`
		st  = `{"max_seq_length":20}`
	)
	for _, c := range []struct {
		name    string
		files   map[string]string
		opt     Options
		pooling string // "" for a refusal
		tokens  int
	}{
		{"nothing", nil, Options{}, "", 0},
		{"options alone", nil, Options{Pooling: "max"}, "max", 48},
		{"manifest", map[string]string{"kindred-model.json": man, "sentence_bert_config.json": st}, Options{}, "last", 30},
		{"options first", map[string]string{"kindred-model.json": man}, Options{Pooling: "mean", MaxTokens: 9}, "mean", 9},
		{"sentence-transformers", map[string]string{"1_Pooling/config.json": `{"pooling_mode_cls_token":true}`, "sentence_bert_config.json": st}, Options{}, "first", 20},
		{"last token", map[string]string{"1_Pooling/config.json": `{"pooling_mode_lasttoken":true}`}, Options{}, "last", 48},
		{"two poolings", map[string]string{"1_Pooling/config.json": `{"pooling_mode_cls_token":true,"pooling_mode_max_tokens":true}`}, Options{}, "", 0},
		{"no pooling", map[string]string{"1_Pooling/config.json": `{}`}, Options{}, "", 0},
		{"weighted", map[string]string{"1_Pooling/config.json": `{"pooling_mode_weightedmean_tokens":true}`}, Options{}, "", 0},
		{"more tokens than positions", map[string]string{"sentence_bert_config.json": `{"max_seq_length":49}`}, Options{Pooling: "mean"}, "", 0},
		{"not normalised", map[string]string{"kindred-model.json": `{"pooling":"mean","normalize":false}`}, Options{}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range c.files {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(data), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			info, err := readInfo(dir, c.opt, config{Dim: 24, Positions: 48})
			if c.pooling == "" {
				if !errors.Is(err, ErrUnsupported) {
					t.Errorf("got %+v, %v", info, err)
				}
				return
			}
			if err != nil || info.Pooling != c.pooling || info.MaxTokens != c.tokens {
				t.Errorf("got %+v, %v; want %s and %d tokens", info, err, c.pooling, c.tokens)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kindred-model.json"), []byte(`{"pooling":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("opened a folder without config.json and with a cut manifest")
	}
}
