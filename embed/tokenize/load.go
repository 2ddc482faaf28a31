package tokenize

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFileBytes bounds what is read of one tokenizer file.
const maxFileBytes = 64 << 20

// Load reads the tokenizer of a model folder: tokenizer.json, or else vocab.txt with the switches of
// tokenizer_config.json (do_lower_case, strip_accents, tokenize_chinese_chars; an uncased model when
// the file is missing). The truncation and padding sections of tokenizer.json are ignored: the caller of
// Encode gives the limit. Errors of unsupported kinds wrap [ErrUnsupported].
func Load(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return loadVocab(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the tokenizer: %w", err)
	}
	t, err := FromJSON(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return t, nil
}

func loadVocab(dir string) (*Tokenizer, error) {
	config := struct {
		Lower   *bool `json:"do_lower_case"`
		Strip   *bool `json:"strip_accents"`
		Chinese *bool `json:"tokenize_chinese_chars"`
	}{}
	path := filepath.Join(dir, "tokenizer_config.json")
	raw, err := readLimited(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	o := foldOptions{clean: true, chinese: isTrue(config.Chinese, true), lower: isTrue(config.Lower, true)}
	o.strip = isTrue(config.Strip, o.lower)
	f, err := os.Open(filepath.Join(dir, "vocab.txt"))
	if err != nil {
		return nil, fmt.Errorf("the folder %s has neither tokenizer.json nor a readable vocab.txt: %w", dir, err)
	}
	t, err := fromVocab(f, o)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return t, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(raw) > maxFileBytes {
		return nil, fmt.Errorf("reading %s: more than %d bytes", path, maxFileBytes)
	}
	return raw, nil
}

func isTrue(p *bool, otherwise bool) bool {
	if p == nil {
		return otherwise
	}
	return *p
}

// FromVocab reads a vocab.txt: one token a line, its id the number of the line from 0. With lower the text is
// lowercased and stripped of accents (the "uncased" models). [PAD], [UNK], [CLS], [SEP] and [MASK] are the
// special tokens; [UNK], [CLS] and [SEP] must be there.
func FromVocab(r io.Reader, lower bool) (*Tokenizer, error) {
	return fromVocab(r, foldOptions{clean: true, chinese: true, strip: lower, lower: lower})
}

func fromVocab(r io.Reader, o foldOptions) (*Tokenizer, error) {
	s := settings{
		vocab: map[string]int32{}, unk: "[UNK]", cls: "[CLS]", sep: "[SEP]",
		special: []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"},
		prefix:  "##", maxChars: 100, fold: o, cleanup: true,
	}
	lines := bufio.NewScanner(io.LimitReader(r, maxFileBytes))
	lines.Buffer(make([]byte, 0, 4096), 64<<10)
	n := int32(0)
	for lines.Scan() {
		if n >= maxTokens {
			return nil, fmt.Errorf("vocabulary: more than %d lines", maxTokens)
		}
		s.vocab[strings.TrimRight(lines.Text(), "\r\n \t")] = n
		n++
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("vocabulary: line %d: %w", n+1, err)
	}
	for _, tok := range s.special {
		if id, ok := s.vocab[tok]; ok {
			s.added = append(s.added, addedToken{tok, id})
		}
	}
	return build(s)
}

type jsonKind struct {
	Type string `json:"type"`
}

type jsonTokenizer struct {
	Added []struct {
		ID         int32  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer *struct {
		jsonKind
		Clean   *bool `json:"clean_text"`
		Chinese *bool `json:"handle_chinese_chars"`
		Strip   *bool `json:"strip_accents"`
		Lower   *bool `json:"lowercase"`
	} `json:"normalizer"`
	PreTokenizer *jsonKind `json:"pre_tokenizer"`
	Post         *struct {
		jsonKind
		Single []struct {
			Special *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
			Sequence *struct {
				ID string `json:"id"`
			} `json:"Sequence"`
		} `json:"single"`
		Specials map[string]struct {
			IDs []int32 `json:"ids"`
		} `json:"special_tokens"`
		Sep []json.RawMessage `json:"sep"`
		Cls []json.RawMessage `json:"cls"`
	} `json:"post_processor"`
	Decoder *struct {
		jsonKind
		Cleanup *bool `json:"cleanup"`
	} `json:"decoder"`
	Model struct {
		jsonKind
		Unk      string           `json:"unk_token"`
		Prefix   *string          `json:"continuing_subword_prefix"`
		MaxChars *int             `json:"max_input_chars_per_word"`
		Vocab    map[string]int32 `json:"vocab"`
	} `json:"model"`
}

// FromJSON reads a tokenizer.json with a WordPiece model, a BertNormalizer, a BertPreTokenizer and a
// "[CLS] $A [SEP]" template. Everything else is refused by name, all faults together; the error wraps
// [ErrUnsupported].
func FromJSON(r io.Reader) (*Tokenizer, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if len(raw) > maxFileBytes {
		return nil, fmt.Errorf("tokenizer.json: more than %d bytes", maxFileBytes)
	}
	// The kind of model first: other kinds write their vocabulary in another shape.
	var kind struct {
		Model jsonKind `json:"model"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if kind.Model.Type != "WordPiece" {
		return nil, fmt.Errorf("tokenizer.json: model of type %q, only WordPiece is implemented: %w", kind.Model.Type, ErrUnsupported)
	}
	var j jsonTokenizer
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return j.build()
}

func (j *jsonTokenizer) build() (*Tokenizer, error) {
	var faults []error
	refuse := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("tokenizer.json: "+format+": %w", append(args, ErrUnsupported)...))
	}
	s := settings{vocab: j.Model.Vocab, unk: j.Model.Unk, prefix: "##", maxChars: 100}
	if j.Model.Prefix != nil {
		s.prefix = *j.Model.Prefix
	}
	if j.Model.MaxChars != nil {
		s.maxChars = *j.Model.MaxChars
	}
	if n := j.Normalizer; n == nil || n.Type != "BertNormalizer" {
		refuse("normalizer of type %s, only BertNormalizer is implemented", kindOf(n != nil, func() string { return n.Type }))
	} else {
		s.fold = foldOptions{clean: isTrue(n.Clean, true), chinese: isTrue(n.Chinese, true), lower: isTrue(n.Lower, true)}
		s.fold.strip = isTrue(n.Strip, s.fold.lower)
	}
	if p := j.PreTokenizer; p == nil || p.Type != "BertPreTokenizer" {
		refuse("pre_tokenizer of type %s, only BertPreTokenizer is implemented", kindOf(p != nil, func() string { return p.Type }))
	}
	if d := j.Decoder; d != nil {
		s.cleanup = d.Type == "WordPiece" && isTrue(d.Cleanup, true)
	}
	for _, a := range j.Added {
		if a.SingleWord || a.LStrip || a.RStrip || a.Normalized {
			refuse("added token %q with single_word, lstrip, rstrip or normalized", a.Content)
		}
		s.added = append(s.added, addedToken{a.Content, a.ID})
		if a.Special {
			s.special = append(s.special, a.Content)
		}
	}
	var err error
	if s.cls, s.sep, err = j.template(); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	t, err := build(s)
	if err != nil {
		return nil, err
	}
	if j.Post.Type == "TemplateProcessing" {
		for _, tok := range []string{s.cls, s.sep} {
			if id, _ := t.ID(tok); !slices.Equal(j.Post.Specials[tok].IDs, []int32{id}) {
				return nil, fmt.Errorf("tokenizer.json: the template gives %q the ids %v, the vocabulary %d: %w",
					tok, j.Post.Specials[tok].IDs, id, ErrUnsupported)
			}
		}
	}
	return t, nil
}

func kindOf(there bool, name func() string) string {
	if !there {
		return "null"
	}
	return fmt.Sprintf("%q", name())
}

// template is the first and last token of the post-processor.
func (j *jsonTokenizer) template() (first, last string, err error) {
	p := j.Post
	if p == nil {
		return "", "", fmt.Errorf("tokenizer.json: no post_processor, wanted the template [CLS] $A [SEP]: %w", ErrUnsupported)
	}
	switch p.Type {
	case "BertProcessing":
		if len(p.Cls) != 2 || len(p.Sep) != 2 {
			return "", "", fmt.Errorf("tokenizer.json: BertProcessing without a cls and a sep of token and id: %w", ErrUnsupported)
		}
		return first, last, errors.Join(json.Unmarshal(p.Cls[0], &first), json.Unmarshal(p.Sep[0], &last))
	case "TemplateProcessing":
		if len(p.Single) == 3 && p.Single[0].Special != nil && p.Single[1].Sequence != nil && p.Single[2].Special != nil {
			return p.Single[0].Special.ID, p.Single[2].Special.ID, nil
		}
		return "", "", fmt.Errorf("tokenizer.json: a template that is not one token, $A, one token: %w", ErrUnsupported)
	}
	return "", "", fmt.Errorf("tokenizer.json: post_processor of type %q, only TemplateProcessing and BertProcessing are implemented: %w", p.Type, ErrUnsupported)
}
