//go:build arm64 && !noasm

package simd

import "testing"

// everyVariant sets impl to each variant this machine supports while f runs.
func everyVariant(f func()) {
	saved := impl
	defer func() { impl = saved }()
	for impl = variantGo; impl <= best(); impl++ {
		f()
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		wish string
		have variant
		want variant
	}{
		{"", variantDotProd, variantDotProd},
		{"go", variantDotProd, variantGo},
		{"neon", variantDotProd, variantNEON},
		{"neon", variantGo, variantGo},
		{"nonsense", variantNEON, variantNEON},
	} {
		if got := choose(c.wish, c.have); got != c.want {
			t.Errorf("choose(%q, %v) = %v, want %v", c.wish, c.have, got, c.want)
		}
	}
}
