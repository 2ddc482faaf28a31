// Package trial measures vector indexes of a Milvus beside the scan and the graph of this
// process, on the same vectors and questions.
//
// Everything runs as it does for customers: through index.Engine, so that an index in
// Milvus is asked over the network and what it names is scored here. Recall is against an
// exact scan in fp32.
//
// Main types: Options, Run, Result. Run makes a store of its own in Milvus and destroys
// it, also when its context ends. Memory is the vectors in fp32, twice, and once in the
// precision of the collection.
package trial
