// Package embed turns text into unit vectors with a transformer encoder, in
// plain Go, on the CPU.
//
// # Place in the flow
//
// [Open] reads a model's folder (config.json, the tokenizer, the weights and
// how to pool) into a [Model]. [Model.Encode] takes many texts at once, which is
// what an import does; a server puts a [Queue] in front, so that the texts of
// concurrent requests share batches. The result's vectors are what index keeps,
// under the model's stamp ([Info.Stamp]).
//
// # How a batch runs
//
// Equal texts are encoded once. The rest are sorted by length and cut into
// tiles: the rows (one per token) of several texts, packed without padding. A
// tile goes through all layers on one goroutine, so its activations stay in
// that core's cache and there is no fork and join per operation; the goroutines
// take tiles off one counter, longest first. Attention runs text by text. Where
// there is only one tile, as for a search's query, the goroutines share each step
// of it by columns and heads instead.
//
// # Precision
//
// The products with weights run in fp32, int16 or int8 ([Precision]); int16 is
// the default. The precision is part of the stamp: vectors of two precisions
// must not share a collection.
//
// # Same text, same bits
//
// A text's vector does not depend on what else is in the batch, on the number
// of threads or on where in a tile the text lies, in any precision: every sum has
// an order fixed by the model and the text alone (see package simd), and scales
// of activations belong to one row.
//
// # What is supported
//
// The BERT family with absolute positions and erf-GELU (MiniLM, bge, e5,
// gte-small, m3e, text2vec), mean, first-token, last-token or max pooling.
// Anything else in config.json is refused by name at Open.
package embed
