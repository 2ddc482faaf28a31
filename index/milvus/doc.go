// Package milvus keeps customers in Milvus: an index.Store whose system of record is a
// Milvus, so that a new process with an empty disk and the same server answers as the
// one before did.
//
// # Where things are
//
// Every collection of the store is one of Milvus's, named by a prefix, with the fields
// id, hash, version, cols (JSON of the columns), record (base64) and vec (unit length).
// One more collection holds the specs and the store's key-value space. Package client
// speaks to the server, package mirror keeps the copy in memory that scans, filters and
// searches run on, and package pushdown is the scan without a copy. A VectorIndex is the
// index in Milvus; where Options.Search says so, searches of vectors ask it, and the
// copy scores what it names.
//
// # Guarantees
//
// Upsert and Delete return nil when Milvus has acknowledged everything and the mirror
// shows it: the next Search and Snapshot of this process see it. A batch above a
// message's size is written in parts: after an error some of it may be there; rows are
// written by key, so that the same call again mends it. Other processes' writes show
// after the next sweep (Options.Sweep).
//
// While Milvus is away, what reads the mirror (Search, Snapshot) works and everything
// else fails with an error for which client.Unavailable is true. It recovers without a
// restart.
//
// # Limits beyond those of package index
//
// A record takes 49,149 bytes, the columns of a row 65,535 bytes as JSON: a row with more
// is refused before anything is sent. An id with a NUL is refused: Milvus cannot compare it.
package milvus
