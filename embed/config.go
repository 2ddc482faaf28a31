package embed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kindred-search/kindred/embed/tokenize"
	"github.com/kindred-search/kindred/embed/weights"
)

// Bounds on config.json, far above any published encoder of the family. They
// keep a damaged file from asking for absurd amounts of memory.
const (
	maxJSONBytes = 1 << 20
	maxDim       = 1 << 14
	maxLayers    = 256
	maxVocab     = 1 << 22
	maxPositions = 1 << 16
)

// config is what config.json says, checked.
type config struct {
	Dim, Inner, Layers, Heads    int
	Vocab, Positions, TokenTypes int
	Eps                          float32
}

// fileConfig is Hugging Face's config.json of the BERT family
// (https://huggingface.co/docs/transformers/model_doc/bert#transformers.BertConfig).
type fileConfig struct {
	ModelType         string   `json:"model_type"`
	Architectures     []string `json:"architectures"`
	HiddenSize        int      `json:"hidden_size"`
	IntermediateSize  int      `json:"intermediate_size"`
	NumHiddenLayers   int      `json:"num_hidden_layers"`
	NumAttentionHeads int      `json:"num_attention_heads"`
	VocabSize         int      `json:"vocab_size"`
	MaxPositions      int      `json:"max_position_embeddings"`
	TypeVocabSize     int      `json:"type_vocab_size"`
	LayerNormEps      *float64 `json:"layer_norm_eps"`
	HiddenAct         string   `json:"hidden_act"`
	PositionType      string   `json:"position_embedding_type"`
	IsDecoder         bool     `json:"is_decoder"`
}

// manifest is kindred-model.json, which a pull writes where the model's own
// files do not say how to use it.
type manifest struct {
	Name        string   `json:"name"`
	Pooling     string   `json:"pooling"`
	MaxTokens   int      `json:"max_tokens"`
	Normalize   *bool    `json:"normalize"`
	QueryPrompt string   `json:"query_prompt"`
	Languages   []string `json:"languages"`
}

// sentenceConfig is sentence_bert_config.json of sentence-transformers.
type sentenceConfig struct {
	MaxSeqLength int `json:"max_seq_length"`
}

// poolingConfig is 1_Pooling/config.json of sentence-transformers.
type poolingConfig struct {
	First    bool `json:"pooling_mode_cls_token"`
	Mean     bool `json:"pooling_mode_mean_tokens"`
	Max      bool `json:"pooling_mode_max_tokens"`
	Last     bool `json:"pooling_mode_lasttoken"`
	SqrtLen  bool `json:"pooling_mode_mean_sqrt_len_tokens"`
	Weighted bool `json:"pooling_mode_weightedmean_tokens"`
}

// Open reads the model in dir: config.json, tokenizer.json or vocab.txt,
// model.safetensors or model.onnx, and kindred-model.json or
// 1_Pooling/config.json with sentence_bert_config.json. A model that this
// package cannot run exactly is refused with an error that wraps
// [ErrUnsupported] and names the setting.
func Open(dir string, opt Options) (*Model, error) {
	m, err := open(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", dir, err)
	}
	return m, nil
}

func open(dir string, opt Options) (*Model, error) {
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	info, err := readInfo(dir, opt, cfg)
	if err != nil {
		return nil, err
	}
	pool, err := parsePooling(info.Pooling)
	if err != nil {
		return nil, err
	}
	info.Pooling = string(pool)
	if info.Precision, err = opt.Precision.settle(); err != nil {
		return nil, err
	}
	tok, err := tokenize.Load(dir)
	if err != nil {
		return nil, err
	}
	if n := tok.VocabSize(); n > cfg.Vocab {
		return nil, fmt.Errorf("%w: the tokenizer has %d tokens, config.json has vocab_size %d", ErrUnsupported, n, cfg.Vocab)
	}
	t, err := openWeights(dir)
	if err != nil {
		return nil, err
	}
	var device *onDevice
	if info.Precision.onDevices() {
		if device, err = newOnDevice(opt.Device, cfg, pool, info.Precision, t); err != nil {
			return nil, err
		}
	}
	net, err := newBERT(cfg, t, info.Precision)
	if err != nil {
		return nil, errors.Join(err, device.close())
	}
	info.Full = net.full
	if ids, _ := tok.Encode("", info.MaxTokens, nil); len(ids) == 0 {
		return nil, errors.Join(fmt.Errorf("%w: the tokenizer adds no [CLS] and [SEP]", ErrUnsupported), device.close())
	}
	info.Stamp = stamp(info.Name, t.SHA256()[:12], info.Precision)
	m := &Model{info: info, tok: tok, cfg: cfg, pool: pool, threads: threads(opt.Threads), device: device}
	m.net.Store(net)
	return m, nil
}

func openWeights(dir string) (*weights.Tensors, error) {
	for _, name := range []string{"model.safetensors", "model.onnx", filepath.Join("onnx", "model.onnx")} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return weights.Open(path)
		}
	}
	return nil, fmt.Errorf("no model.safetensors and no model.onnx in the folder; `kindred models pull` fetches them: %w", fs.ErrNotExist)
}

// readJSON decodes a file of dir into v and says whether the file is there.
func readJSON(dir, name string, v any) (bool, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxJSONBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxJSONBytes {
		return false, fmt.Errorf("%s: more than %d bytes", name, maxJSONBytes)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	return true, nil
}

func readConfig(dir string) (config, error) {
	var f fileConfig
	ok, err := readJSON(dir, "config.json", &f)
	if err != nil {
		return config{}, err
	}
	if !ok {
		return config{}, fmt.Errorf("no config.json in the folder; is it a model's folder? %w", fs.ErrNotExist)
	}
	return f.check()
}

func (f fileConfig) check() (config, error) {
	no := func(what string, got any, want string) error {
		return fmt.Errorf("%w: config.json has %s %v; this version runs %s", ErrUnsupported, what, got, want)
	}
	var errs []error
	if f.ModelType != "bert" {
		errs = append(errs, no("model_type", fmt.Sprintf("%q", f.ModelType), `"bert"`))
	}
	if f.HiddenAct != "gelu" {
		errs = append(errs, no("hidden_act", fmt.Sprintf("%q", f.HiddenAct), `"gelu" (erf)`))
	}
	if f.PositionType != "" && f.PositionType != "absolute" {
		errs = append(errs, no("position_embedding_type", fmt.Sprintf("%q", f.PositionType), `"absolute"`))
	}
	if f.IsDecoder {
		errs = append(errs, no("is_decoder", true, "encoders"))
	}
	within := func(what string, v, limit int) {
		if v < 1 || v > limit {
			errs = append(errs, no(what, v, fmt.Sprintf("1 to %d", limit)))
		}
	}
	within("hidden_size", f.HiddenSize, maxDim)
	within("intermediate_size", f.IntermediateSize, 8*maxDim)
	within("num_hidden_layers", f.NumHiddenLayers, maxLayers)
	within("num_attention_heads", f.NumAttentionHeads, maxDim)
	within("vocab_size", f.VocabSize, maxVocab)
	within("max_position_embeddings", f.MaxPositions, maxPositions)
	within("type_vocab_size", f.TypeVocabSize, 1024)
	if f.NumAttentionHeads > 0 && f.HiddenSize%f.NumAttentionHeads != 0 {
		errs = append(errs, no("num_attention_heads", f.NumAttentionHeads, fmt.Sprintf("divisors of hidden_size %d", f.HiddenSize)))
	}
	eps := 1e-12 // BertConfig's default
	if f.LayerNormEps != nil {
		eps = *f.LayerNormEps
	}
	if !(eps >= 0 && eps <= 1) {
		errs = append(errs, no("layer_norm_eps", eps, "0 to 1"))
	}
	return config{
		Dim: f.HiddenSize, Inner: f.IntermediateSize, Layers: f.NumHiddenLayers, Heads: f.NumAttentionHeads,
		Vocab: f.VocabSize, Positions: f.MaxPositions, TokenTypes: f.TypeVocabSize, Eps: float32(eps),
	}, errors.Join(errs...)
}

// readInfo settles what config.json leaves open; opt comes before the manifest
// and the manifest before sentence-transformers' files.
func readInfo(dir string, opt Options, cfg config) (Info, error) {
	var (
		man manifest
		st  sentenceConfig
		pc  poolingConfig
	)
	if _, err := readJSON(dir, "kindred-model.json", &man); err != nil {
		return Info{}, err
	}
	if man.Normalize != nil && !*man.Normalize {
		return Info{}, fmt.Errorf("%w: kindred-model.json has normalize false; vectors here are always of unit length", ErrUnsupported)
	}
	if _, err := readJSON(dir, "sentence_bert_config.json", &st); err != nil {
		return Info{}, err
	}
	pooled, err := readJSON(dir, filepath.Join("1_Pooling", "config.json"), &pc)
	if err != nil {
		return Info{}, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Name: filepath.Base(abs), Dim: cfg.Dim, Layers: cfg.Layers, MaxTokens: cfg.Positions,
		Pooling: opt.Pooling, QueryPrompt: man.QueryPrompt, Languages: man.Languages,
	}
	if man.Name != "" {
		info.Name = man.Name
	}
	for _, n := range []int{opt.MaxTokens, man.MaxTokens, st.MaxSeqLength} {
		if n != 0 {
			info.MaxTokens = n
			break
		}
	}
	if info.MaxTokens < 2 || info.MaxTokens > cfg.Positions {
		return Info{}, fmt.Errorf("%w: %d tokens a text; the model has positions for 2 to %d", ErrUnsupported, info.MaxTokens, cfg.Positions)
	}
	if info.Pooling == "" {
		info.Pooling = man.Pooling
	}
	if info.Pooling == "" {
		if !pooled {
			return Info{}, fmt.Errorf("%w: nothing says how to pool; set the pooling (mean, first, last, max) or add 1_Pooling/config.json", ErrUnsupported)
		}
		info.Pooling, err = pc.mode()
	}
	return info, err
}

func (pc poolingConfig) mode() (string, error) {
	if pc.SqrtLen || pc.Weighted {
		return "", fmt.Errorf("%w: 1_Pooling/config.json asks for a weighted mean; this version pools by mean, first, last or max", ErrUnsupported)
	}
	var modes []string
	for _, m := range []struct {
		on   bool
		name string
	}{{pc.First, "first"}, {pc.Mean, "mean"}, {pc.Max, "max"}, {pc.Last, "last"}} {
		if m.on {
			modes = append(modes, m.name)
		}
	}
	if len(modes) != 1 {
		return "", fmt.Errorf("%w: 1_Pooling/config.json turns on %d of cls, mean, max and lasttoken; this version wants exactly one", ErrUnsupported, len(modes))
	}
	return modes[0], nil
}
