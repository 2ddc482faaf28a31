package simd

import (
	"fmt"
	"slices"
	"strings"
)

// WishVariable is the environment variable that lowers the variant in use; see the
// package comment. It is read once, when the process starts.
const WishVariable = "KINDRED_SIMD"

// wishes are its values, on whatever processor: a wish that another has does no harm.
var wishes = []string{"auto", "go", "avx2", "avx512", "vnni", "neon"}

// Wish is an error if value is not one that [WishVariable] may have. The kernels
// themselves leave such a value aside: a package cannot refuse to start.
func Wish(value string) error {
	if value == "" || slices.Contains(wishes, value) {
		return nil
	}
	return fmt.Errorf("%s=%s: want one of %s", WishVariable, value, strings.Join(wishes, ", "))
}
