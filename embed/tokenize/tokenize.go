// Package tokenize turns text into the token ids that a transformer was trained on.
//
// It sits first in the embedding flow: text -> ids -> encoder -> vector. One type does the work,
// [Tokenizer], the WordPiece tokenizer of the BERT family (bge, MiniLM, e5, gte, m3e, text2vec).
// [Load] reads it from a model folder, [FromJSON] from a tokenizer.json, [FromVocab] from a vocab.txt.
// A file that asks for something else (BPE, Unigram, another normaliser) is refused by the name of
// what it asks for, because ids that are nearly right give vectors that are quietly wrong.
//
// The ids are identical to those of the reference implementation (Hugging Face tokenizers 0.23,
// BertNormalizer, BertPreTokenizer, WordPiece). That library takes each of its Unicode tables from
// another age of the standard, so tables.go holds what it does with every code point and the
// Unicode version of this Go release does not matter. testdata/oracle.py makes the golden files.
//
// The steps, for one text:
//  1. special tokens that stand literally in the text ("[MASK]") are taken out, leftmost and longest;
//  2. clean_text removes control characters and U+FFFD and turns white space into spaces;
//  3. handle_chinese_chars sets each ideograph apart;
//  4. strip_accents decomposes canonically and removes non-spacing marks;
//  5. lowercase maps each character by itself (a final sigma is not special);
//  6. words end at white space, each punctuation character is a word;
//  7. a word becomes the longest pieces of the vocabulary from left to right, or [UNK].
//
// All steps run in one pass over the bytes, so a text that is cut at the token limit is not read to
// its end. What is common has a shortcut with the same answer: a run of ASCII letters and digits is
// classified and lowered eight bytes at a time and looked up as a whole, an ideograph or a punctuation
// mark is one load from a table (fast.go). The rest goes character by character (scan.go), and a word that
// is no token is cut by a double-array trie (trie.go). Nothing is remembered from text to text.
//
// A Tokenizer is immutable and safe for concurrent use: many goroutines may share one, and Encode
// into a reused buffer allocates nothing.
package tokenize

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Span is a half-open range [Start, End) of bytes of the original text.
type Span struct {
	Start, End int
}

// Tokenizer is a WordPiece tokenizer. The zero value is not usable: see [Load].
type Tokenizer struct {
	trie     *trie
	cont     uint32   // the trie's node behind the prefix: pieces that continue a word lie below it
	tokens   []string // id -> token
	prefix   string
	maxChars int
	unk      int32
	cls      int32
	sep      int32
	added    []addedToken // longest first
	first    [256]bool    // bytes an added token may begin with
	special  map[int32]bool
	cleanup  bool
	fold     *foldTable
	fast     *fastTable
	scanners sync.Pool // of *scanner, so that a call allocates nothing
}

type addedToken struct {
	content string
	id      int32
}

// ErrUnsupported is in the chain of every error about a tokenizer that this package does not implement.
var ErrUnsupported = errors.New("unsupported tokenizer")

const (
	maxTokens     = 4 << 20 // entries of a vocabulary
	maxTokenBytes = 4096    // bytes of one entry
)

// settings is what a vocabulary file or tokenizer.json says, before it is checked.
type settings struct {
	vocab    map[string]int32
	added    []addedToken
	special  []string
	unk      string
	cls, sep string
	prefix   string
	maxChars int
	fold     foldOptions
	cleanup  bool
}

func build(s settings) (*Tokenizer, error) {
	if len(s.vocab) == 0 {
		return nil, errors.New("tokenizer: the vocabulary is empty; give the vocab.txt or tokenizer.json of the model")
	}
	if len(s.vocab) > maxTokens {
		return nil, fmt.Errorf("tokenizer: the vocabulary has %d entries, more than %d", len(s.vocab), maxTokens)
	}
	if s.maxChars < 1 || s.maxChars > maxWordChars {
		return nil, fmt.Errorf("tokenizer: max_input_chars_per_word is %d, wanted 1 to %d: %w", s.maxChars, maxWordChars, ErrUnsupported)
	}
	t := &Tokenizer{
		prefix: s.prefix, maxChars: s.maxChars, cleanup: s.cleanup,
		special: map[int32]bool{}, fold: newFoldTable(s.fold),
	}
	top := int32(-1)
	for _, id := range s.vocab {
		top = max(top, id)
	}
	for _, a := range s.added {
		top = max(top, a.id)
	}
	if int(top) >= 2*len(s.vocab)+4096 {
		return nil, fmt.Errorf("tokenizer: the largest id is %d for %d entries; ids must be nearly dense", top, len(s.vocab))
	}
	t.tokens = make([]string, top+1)
	for tok, id := range s.vocab {
		if id < 0 {
			return nil, fmt.Errorf("tokenizer: token %q has the negative id %d", tok, id)
		}
		if len(tok) > maxTokenBytes {
			return nil, fmt.Errorf("tokenizer: the token with id %d has %d bytes, more than %d", id, len(tok), maxTokenBytes)
		}
		if old := t.tokens[id]; old == "" || tok < old { // two tokens of one id: the answer must not depend on map order
			t.tokens[id] = tok
		}
	}
	keys := slices.Sorted(maps.Keys(s.vocab))
	ids := make([]int32, len(keys))
	for i, k := range keys {
		ids[i] = s.vocab[k]
	}
	t.trie = newTrie(keys, ids)
	t.cont = t.trie.walk(s.prefix)
	for _, a := range s.added {
		if a.content == "" || len(a.content) > maxTokenBytes || a.id < 0 {
			return nil, fmt.Errorf("tokenizer: added token %q with id %d: wanted 1 to %d bytes and an id of at least 0", a.content, a.id, maxTokenBytes)
		}
		t.tokens[a.id] = a.content
		t.added = append(t.added, a)
		t.first[a.content[0]] = true
	}
	slices.SortFunc(t.added, func(a, b addedToken) int {
		if len(a.content) != len(b.content) {
			return len(b.content) - len(a.content)
		}
		return strings.Compare(a.content, b.content)
	})
	var err error
	for _, want := range []struct {
		what, tok string
		id        *int32
	}{{"unknown", s.unk, &t.unk}, {"first", s.cls, &t.cls}, {"last", s.sep, &t.sep}} {
		id, ok := t.ID(want.tok)
		if !ok {
			err = errors.Join(err, fmt.Errorf("tokenizer: the %s token %q is not in the vocabulary", want.what, want.tok))
		}
		*want.id = id
	}
	if err != nil {
		return nil, err
	}
	for _, tok := range s.special {
		if id, ok := t.ID(tok); ok {
			t.special[id] = true
		}
	}
	t.fast = newFastTable(t, keys, ids, s.fold.lower)
	return t, nil
}

// VocabSize is one more than the largest id: the rows an embedding table must have.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// ID looks a token up as it stands in the vocabulary ("##ing") or among the added tokens ("[CLS]").
func (t *Tokenizer) ID(token string) (int32, bool) {
	for _, a := range t.added {
		if a.content == token {
			return a.id, true
		}
	}
	return t.trie.id(token)
}

// Encode appends the ids of text to dst and returns the longer slice: [CLS], the pieces, [SEP]. A nil
// dst costs one allocation, of the size of the answer.
//
// At most limit ids are appended, [CLS] and [SEP] included; truncated says that pieces were left out.
// A limit of 0 or less means none; a limit of 1 leaves room for [CLS] only. Invalid UTF-8 counts as
// U+FFFD, as many as Python's bytes.decode("utf-8", "replace") gives.
func (t *Tokenizer) Encode(text string, limit int, dst []int32) (ids []int32, truncated bool) {
	fresh := dst == nil // then one allocation of the right size
	s := t.scanner(dst, limit)
	if fresh {
		s.ids = s.own[:0]
	}
	s.begin(t.cls)
	s.run(text)
	if limit != 1 {
		s.ids = append(s.ids, t.sep)
	}
	ids, truncated = s.ids, s.truncated
	if fresh {
		s.own, ids = ids, slices.Clone(ids)
	}
	t.release(s)
	return ids, truncated
}

func (t *Tokenizer) scanner(ids []int32, limit int) *scanner {
	s, ok := t.scanners.Get().(*scanner)
	if !ok {
		s = &scanner{t: t}
	}
	s.ids, s.spans, s.limit = ids, nil, textLimit(limit)
	s.track, s.counting, s.stop, s.truncated, s.counted = false, false, false, false, 0
	s.word, s.chars, s.pending = s.word[:0], 0, s.pending[:0]
	return s
}

// release keeps the scanner's buffers, not the caller's.
func (t *Tokenizer) release(s *scanner) {
	s.ids, s.spans = nil, nil
	if cap(s.pending) > 4096 { // one text of nothing but marks must not stay in memory
		s.pending = nil
	}
	if cap(s.own) > 1<<16 { // nor one of a megabyte
		s.own = nil
	}
	t.scanners.Put(s)
}

// textLimit is how many ids are left for the text when max are allowed in all.
func textLimit(limit int) int {
	if limit <= 0 {
		return noLimit
	}
	return max(limit-2, 0)
}

// EncodeOffsets is [Tokenizer.Encode] that also appends the bytes of text each id came from, one span
// for an id. [CLS] and [SEP] have the empty span {0, 0}. Marks and control characters that were
// removed inside a piece lie in its span, those behind it do not. Marks that canonical ordering moves (a few
// dozen rare ones that strip_accents keeps) keep the bytes they came from.
func (t *Tokenizer) EncodeOffsets(text string, limit int, dst []int32, spans []Span) ([]int32, []Span, bool) {
	s := t.scanner(dst, limit)
	defer t.release(s)
	s.track, s.spans = true, append(spans, Span{})
	s.baseSpan = len(s.spans)
	s.begin(t.cls)
	s.run(text)
	if limit != 1 {
		s.ids, s.spans = append(s.ids, t.sep), append(s.spans, Span{})
	}
	return s.ids, s.spans, s.truncated
}

// Count is the number of ids that Encode gives without a limit, [CLS] and [SEP] included.
func (t *Tokenizer) Count(text string) int {
	s := t.scanner(nil, 0)
	defer t.release(s)
	s.counting, s.ids = true, s.own[:0]
	s.begin()
	s.run(text)
	s.own = s.ids[:0]
	return s.counted + 2
}

// Tokens looks each id up in the vocabulary; an id out of range gives "".
func (t *Tokenizer) Tokens(ids []int32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		if id >= 0 && int(id) < len(t.tokens) {
			out[i] = t.tokens[id]
		}
	}
	return out
}

// Decode joins the tokens of ids to text, as the reference's WordPiece decoder does: special tokens and
// ids out of range are left out, "##" joins, and the space before English punctuation is removed when
// the tokenizer asks for it. It is for people to read; the original text is not recovered.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	n := 0
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.tokens) || t.special[id] {
			continue
		}
		tok := t.tokens[id]
		if tok == "" {
			continue
		}
		if n > 0 {
			if rest, ok := strings.CutPrefix(tok, t.prefix); ok && t.prefix != "" {
				tok = rest
			} else {
				tok = " " + tok
			}
		}
		if t.cleanup {
			tok = cleanupReplacer(tok)
		}
		b.WriteString(tok)
		n++
	}
	return b.String()
}

// cleanupReplacer undoes the spaces that English tokenisation makes, one rule after the other.
func cleanupReplacer(tok string) string {
	for _, r := range [...][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
		{" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		tok = strings.ReplaceAll(tok, r[0], r[1])
	}
	return tok
}
