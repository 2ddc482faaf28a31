// Package seeds scores rows by the mean of their highest few products with many vectors,
// such as the seeds of an audience, on a CUDA device.
//
// A [Set] holds the vectors on a device; [Set.Score] orders the scores of rows that are
// there too, in codes of int8 with a scale, as package cuda/scan holds them. They are the
// CPU's to the bit, and nothing but them is written: ten thousand vectors take no more
// memory than one.
//
// The kernel is in cuda/kernels/seeds.cu.
package seeds
