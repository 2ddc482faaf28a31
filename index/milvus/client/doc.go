// Package client is the fence around Milvus's own client: it speaks to one server
// (or its proxy), and nothing of the library's types passes through it.
//
// It is used by package index/milvus, which knows about customers; here there are
// only collections, columns and calls. What it adds to the library:
//
//   - a deadline on every call, dialling included;
//   - its own retries, with jitter and a budget, in place of the library's, which
//     would try 75 times on a rate limit;
//   - a circuit breaker that opens when the server is away and closes by itself;
//   - errors that callers branch on by errors.Is (ErrUnreachable, ErrTimeout, ...),
//     each saying what went wrong, where, and how to mend it, without secrets;
//   - answers that are looked at before they are believed: row counts, dimension,
//     NaN, duplicates, order.
//
// # Main types
//
// A Client is made by New (no network) or Dial (which also checks credentials and
// version). Schema describes a collection, Column is a column of a batch,
// QueryRequest and SearchRequest ask, Iterator pages through a collection by key.
//
// # Guarantees
//
// A write that returned nil was acknowledged by Milvus. A write that returned an
// error may or may not have happened; Upsert and Delete are by key and may be
// repeated. The client retries what is safe to repeat, and nothing else.
package client
