// Package cuda is the device layer: it finds NVIDIA GPUs, holds their memory, and
// launches the kernels of cuda/kernels on them through gorgonia.org/cu.
//
// Without the build tag cuda the package has the same surface, is pure Go, and
// [Open] answers [ErrNotBuilt]. With it, the program still starts where no driver
// is: the driver's library is looked for when the program runs (see
// docs/cuda.md), and [Probe] says what was found.
//
// A [Device] belongs to one operating system thread, on which everything that
// concerns it is done in order; its methods may be called from any goroutine.
// Memory is held by [Buffer] with the name of its purpose, and must be freed by
// who allocated it: [Device.Close] reports what was not.
//
// This is the only package that imports "C" or gorgonia.org/cu.
package cuda
