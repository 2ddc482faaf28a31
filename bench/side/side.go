// Package side is what the Go sides of the comparisons share: how run.py hands them
// their input and takes their vectors.
package side

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Load reads a JSON file into v.
func Load(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteVectors writes vectors one behind the other, little-endian fp32.
func WriteVectors(path string, vectors []float32) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(binary.Write(f, binary.LittleEndian, vectors), f.Close())
}
