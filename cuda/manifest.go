package cuda

import (
	_ "embed"
	"encoding/json"
)

// manifest is what the pinned compiler said of the kernels; `make kernels` writes it.
//
//go:embed kernels/manifest.json
var manifest []byte

// Architectures are those that this binary's kernels are compiled for, such as "sm_90a",
// and the one of their PTX, which later devices compile for themselves.
func Architectures() []string {
	var m struct {
		Architectures []string
		PTX           string
	}
	if json.Unmarshal(built(), &m) != nil {
		return nil // a test reads it
	}
	return append(m.Architectures, m.PTX)
}
