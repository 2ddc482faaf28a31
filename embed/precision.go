package embed

import (
	"fmt"
	"os"
	"strings"
)

// Precision is the arithmetic of the matrix products with the weights, which is
// nearly all of the work. Attention, softmax, GELU and layer norms are fp32 in
// every precision but fp16 and bf16, and so are the vectors. docs/performance.md has the measured
// speeds and cosines; docs/adr/0006-precision.md says why int16 is the default.
type Precision string

// The precisions a model can be opened with.
const (
	// FP32 multiplies in fp32.
	FP32 Precision = "fp32"
	// Int16 quantises activations to 13 bits with a scale for each row and
	// slice of 384 elements, and weights to 12 to 16 bits with a scale for each
	// output and slice. The sums are exact.
	Int16 Precision = "int16"
	// Int8 is the same with 8 bits: faster where the processor has products of
	// bytes (VNNI, AMX), and clearly less accurate.
	Int8 Precision = "int8"
	// FP16 runs the whole model on a CUDA device, in halves with fp32 sums; see
	// Options.Device. Where the device fails, texts are encoded here in fp32.
	FP16 Precision = "fp16"
	// BF16 is FP16 in bfloat16, for models whose activations leave the range of halves. It
	// is clearly less accurate for all others.
	BF16 Precision = "bf16"
)

// onDevices says whether a precision is of devices.
func (p Precision) onDevices() bool { return p == FP16 || p == BF16 }

// DefaultPrecision is what Open takes when neither the options nor the
// environment variable KINDRED_PRECISION say otherwise.
const DefaultPrecision = Int16

// precisionVariable names the environment variable that Open reads.
const precisionVariable = "KINDRED_PRECISION"

// ParsePrecision reads a precision's name.
func ParsePrecision(name string) (Precision, error) {
	switch p := Precision(name); p {
	case FP32, Int16, Int8, FP16, BF16:
		return p, nil
	}
	return "", fmt.Errorf("precision %q: choose fp32, int16 or int8, or fp16 or bf16 on a CUDA device", name)
}

// settle chooses the precision: p, else the environment's, else the default.
func (p Precision) settle() (Precision, error) {
	if p != "" {
		return ParsePrecision(string(p))
	}
	name := os.Getenv(precisionVariable)
	if name == "" {
		return DefaultPrecision, nil
	}
	p, err := ParsePrecision(name)
	if err != nil {
		return "", fmt.Errorf("environment variable %s: %w", precisionVariable, err)
	}
	return p, nil
}

// stamp joins what decides a model's vectors; see [Info.Stamp].
func stamp(name, hash string, p Precision) string {
	s := name + "@" + hash
	if p != FP32 {
		s += "+" + string(p)
	}
	return s
}

// StampPrecision returns the precision that a stamp by [Info.Stamp] was made
// with, so that a collection's vectors can be continued in it. A stamp without
// one is of fp32.
func StampPrecision(stamp string) (Precision, error) {
	_, hash, ok := strings.Cut(stamp, "@")
	if !ok {
		return "", fmt.Errorf("stamp %q: no @; it is not of a model", stamp)
	}
	hash, _, _ = strings.Cut(hash, "/") // a collection adds its template's hash
	_, name, ok := strings.Cut(hash, "+")
	if !ok {
		return FP32, nil
	}
	p, err := ParsePrecision(name)
	if err != nil {
		return "", fmt.Errorf("stamp %q: %w", stamp, err)
	}
	return p, nil
}
