// Package encoder runs encoders of the BERT family on a CUDA device, in halves with
// float sums, over packed texts: no padding.
//
// A [Model] holds the weights of one model on one device. [Model.Encode] takes token
// ids and gives unit vectors. The vector of a text does not depend on what else is in
// its batch, to the bit; beside fp32 on the CPU its cosine is at least 0.9999.
//
// The kernels are in cuda/kernels/encoder.cu and attention.cu.
package encoder
