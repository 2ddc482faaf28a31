package cuda

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Kinds of errors, to be asked for with [errors.Is].
var (
	// ErrNotBuilt: the program was built without the tag cuda.
	ErrNotBuilt = errors.New("this program was built without CUDA: build it with `make build-cuda`")
	// ErrNoDevice: there is no driver, or it has no device that can be used.
	ErrNoDevice = errors.New("no CUDA device")
	// ErrBusy: another process has the device for itself.
	ErrBusy = errors.New("CUDA device is in use by another process")
	// ErrOutOfMemory: the device's memory does not suffice. The error is an
	// [*OutOfMemoryError].
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrImage: the compiled kernels cannot be loaded on this device.
	ErrImage = errors.New("kernels cannot be loaded")
	// ErrLaunch: a kernel was not started, for what it was asked. Others can be.
	ErrLaunch = errors.New("kernel cannot be launched")
	// ErrLost: a kernel failed, or the device is gone. Nothing more can be done
	// with this [Device]; its results since the last success are worth nothing.
	// Close it, and open the device again or go on without.
	ErrLost = errors.New("CUDA device lost")
	// ErrWrong: the device gave a wrong answer where the right one is known: see package selftest.
	ErrWrong = errors.New("CUDA device gives wrong answers")
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("CUDA device is closed")
)

// CallError is a call that the driver refused.
type CallError struct {
	Device int    // ordinal
	Call   string // of the driver's interface, or what was tried
	Code   int    // the driver's number of the error
	Name   string // its name
	kind   error
}

func (e *CallError) Error() string {
	return fmt.Sprintf("CUDA device %d: %s: %s (%d): %v", e.Device, e.Call, e.Name, e.Code, e.kind)
}

func (e *CallError) Unwrap() error { return e.kind }

// OutOfMemoryError says how much was asked for and how much there is.
type OutOfMemoryError struct {
	Device      int
	Purpose     string
	Asked       int64 // bytes, as the following
	Free, Total int64 // of the whole device; 0: it did not say
	// Held is how many bytes this process has for each purpose.
	Held map[string]int64
}

func (e *OutOfMemoryError) Error() string {
	held := ""
	for i, purpose := range slices.Sorted(maps.Keys(e.Held)) {
		held += fmt.Sprintf("%s%d for %s", []string{" (held here: ", ", "}[min(i, 1)], e.Held[purpose], purpose)
	}
	if held != "" {
		held += ")"
	}
	return fmt.Sprintf("CUDA device %d: %d bytes for %s: %d of %d bytes are free%s: free some, or use --device cpu",
		e.Device, e.Asked, e.Purpose, e.Free, e.Total, held)
}

func (e *OutOfMemoryError) Unwrap() error { return ErrOutOfMemory }
