// Package selftest asks a device what is known: small cases of every family of kernels,
// each compared with plain Go that is written down here once more. A GPU, a driver or a compiler
// that nobody has seen may fail; this one may not make a wrong list or vector. [Run] takes
// some hundredths of a second, and is done when a device is opened.
package selftest
