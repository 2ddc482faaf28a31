// Package train does the steps of k-means and of logistic regression on a CUDA device.
//
// [KMeans] holds points and assigns them to the nearest of some centres, and adds up each
// centre's points; [Logistic] holds rows with labels and gives the loss of a vector and its
// gradient. Nothing depends on the order in which a device does things: the same call gives
// the same bits.
//
// What has the CPU's bits: sums of points ([KMeans.Sums]), scores of rows
// ([Logistic.Scores], as simd.DotRows64) and the sum of rows by weights
// ([Logistic.Weighted], as simd.AddRows64). With the last two a regression goes the same
// way as on the CPU. What has not: distances of points, which are formed in fp32, and
// [Logistic.Loss], whose exponentials are the device's and whose sums are of parts of the
// rows; how far they may be off is said there.
//
// The kernels are in cuda/kernels/train.cu.
package train
