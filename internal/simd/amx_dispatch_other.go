//go:build !amd64 || noasm

package simd

// amxWork is empty without AMX.
type amxWork struct{}

// int16Format is the form [PackInt16] gives its operands.
func int16Format() intFormat { return formatInt16 }
