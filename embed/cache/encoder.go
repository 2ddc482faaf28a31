package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/tokenize"
)

// Source is an encoder to put a cache in front of: *embed.Model and *embed.Queue are ones.
type Source interface {
	Info() embed.Info
	Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error)
	EncodeTokens(ctx context.Context, ids [][]int32, opt embed.EncodeOptions) (*embed.Result, error)
}

// Encoder answers from a cache what it can and asks its source for the rest, each distinct text once.
// It is safe for concurrent use; two callers that miss the same text at once both have it encoded.
type Encoder struct {
	source Source
	cache  *Cache
	prefix []byte // of what is hashed: all but the text
}

// NewEncoder puts c in front of source. One cache may serve several models. The caller closes both.
func NewEncoder(source Source, c *Cache) *Encoder {
	i := source.Info()
	return &Encoder{source, c, fmt.Appendf(nil, "kindred vector 1 %q %q %q %d %d", i.Stamp, i.Precision, i.Pooling, i.MaxTokens, i.Dim)}
}

// Source is the encoder behind e, Cache the cache.
func (e *Encoder) Source() Source { return e.source }

// Cache is the cache in front of e's source.
func (e *Encoder) Cache() *Cache { return e.cache }

// Info describes the source's model.
func (e *Encoder) Info() embed.Info { return e.source.Info() }

// Tokenizer is the model's tokenizer, nil when the source shows none.
func (e *Encoder) Tokenizer() *tokenize.Tokenizer {
	switch s := e.source.(type) {
	case interface{ Tokenizer() *tokenize.Tokenizer }:
		return s.Tokenizer()
	case interface{ Model() *embed.Model }:
		return s.Model().Tokenizer()
	}
	return nil
}

// Encode is the source's Encode.
func (e *Encoder) Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error) {
	head := fmt.Appendf(slices.Clip(e.prefix), " text %d:%s ", len(opt.Prompt), opt.Prompt)
	return through(ctx, e, texts, opt, e.source.Encode, func(text string) Key {
		return sha256.Sum256(append(slices.Clip(head), text...))
	})
}

// EncodeTokens is the source's EncodeTokens.
func (e *Encoder) EncodeTokens(ctx context.Context, ids [][]int32, opt embed.EncodeOptions) (*embed.Result, error) {
	head := append(slices.Clip(e.prefix), " ids "...)
	return through(ctx, e, ids, opt, e.source.EncodeTokens, func(ids []int32) Key {
		raw := slices.Clone(head)
		for _, id := range ids {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(id))
		}
		return sha256.Sum256(raw)
	})
}

func through[T any](ctx context.Context, e *Encoder, texts []T, opt embed.EncodeOptions,
	encode func(context.Context, []T, embed.EncodeOptions) (*embed.Result, error), key func(T) Key,
) (*embed.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dim := e.source.Info().Dim
	res := &embed.Result{Vectors: make([]float32, len(texts)*dim), Tokens: make([]int, len(texts)), Truncated: make([]bool, len(texts))}
	fill := func(i int, found Entry) {
		copy(res.Vectors[i*dim:(i+1)*dim], found.Vector)
		res.Tokens[i], res.Truncated[i] = found.Tokens, found.Truncated
	}
	missing := map[Key][]int{} // indices of the texts
	var keys []Key
	var asked []T
	for i, text := range texts {
		k := key(text)
		if same, ok := missing[k]; ok {
			missing[k] = append(same, i)
			continue
		}
		if found, ok := e.cache.Get(k); ok && len(found.Vector) == dim {
			fill(i, found)
			continue
		}
		missing[k], keys, asked = []int{i}, append(keys, k), append(asked, text)
	}
	if len(asked) == 0 {
		if opt.Progress != nil && len(texts) > 0 {
			opt.Progress(len(texts), len(texts))
		}
		return res, nil
	}
	inner := opt
	if opt.Progress != nil {
		inner.Progress = func(done, _ int) { opt.Progress(len(texts)-len(asked)+done, len(texts)) }
	}
	got, err := encode(ctx, asked, inner)
	if errors.Is(err, embed.ErrInput) && len(asked) < len(texts) {
		// The error names a text by its number, which must be the caller's.
		if _, whole := encode(ctx, texts, embed.EncodeOptions{Prompt: opt.Prompt}); whole != nil {
			err = whole
		}
	}
	if err != nil {
		return nil, err
	}
	for j, k := range keys {
		entry := Entry{Vector: got.Row(j), Tokens: got.Tokens[j], Truncated: got.Truncated[j]}
		e.cache.Put(k, entry)
		for _, i := range missing[k] {
			fill(i, entry)
		}
	}
	return res, nil
}
