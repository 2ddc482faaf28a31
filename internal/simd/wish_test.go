package simd

import "testing"

func TestWish(t *testing.T) {
	for value, ok := range map[string]bool{"": true, "auto": true, "go": true, "avx2": true, "neon": true, "AVX2": false, "sse": false} {
		if err := Wish(value); (err == nil) != ok {
			t.Errorf("Wish(%q) = %v", value, err)
		}
	}
}
