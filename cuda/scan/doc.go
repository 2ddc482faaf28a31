// Package scan scores a whole population of int8 rows on CUDA devices and selects
// its best, any number of them.
//
// A [Population] holds a copy of the rows on one device, in segments; rows are
// appended and never change. [Population.Best] passes over them once for up to
// 64 heads: every score is the CPU's to the bit, a histogram of the scores is
// taken, on the way where they are few, and from it follows the score of the k-th best, whose
// rows, ties included, are what leaves the device, and hardly more. Memory is planned before it
// is allocated.
//
// Sets of heads, with tables, trees and reductions, are a [Plan]: [Population.Scores] and
// [Population.BestOf]. Those of many vectors alone, of which the highest count, are scored
// by package seeds.
//
// The kernels are in cuda/kernels/scan.cu, score.cu and many.cu.
package scan
