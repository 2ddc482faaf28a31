package selftest

import (
	"context"
	"errors"
	"fmt"

	"github.com/kindred-search/kindred/cuda"
)

// Families of kernels, in the order of their tests.
const (
	Convert = "convert"
	Scan    = "scan"
	Seeds   = "seeds"
	Encoder = "encoder"
)

// Error says which kernels of a device are wrong. It is [cuda.ErrWrong].
type Error struct {
	Device int
	Name   string // of the device
	Family string
	Case   string
	// Problem is what differs, or what the device said.
	Problem error
}

func (e *Error) Error() string {
	return fmt.Sprintf("CUDA device %d (%s) failed its self-test: family %s, %s: %v", e.Device, e.Name, e.Family, e.Case, e.Problem)
}

// Unwrap gives both the kind and the cause.
func (e *Error) Unwrap() []error { return []error{cuda.ErrWrong, e.Problem} }

// Run tests a device, and returns an [*Error] where an answer is wrong; another error is of
// ctx, of memory, or of a device that was lost.
func Run(ctx context.Context, d *cuda.Device) error {
	for _, family := range []struct {
		name string
		run  func(ctx context.Context, d *cuda.Device) (what string, err error)
	}{{Convert, converts}, {Scan, scans}, {Seeds, likenesses}, {Encoder, encodes}} {
		what, err := family.run(ctx, d)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, cuda.ErrLost), errors.Is(err, cuda.ErrOutOfMemory), errors.Is(err, cuda.ErrClosed):
			return fmt.Errorf("self-test, family %s, %s: %w", family.name, what, err)
		default:
			return &Error{Device: d.Info().Ordinal, Name: d.Info().Name, Family: family.name, Case: what, Problem: err}
		}
	}
	return nil
}
