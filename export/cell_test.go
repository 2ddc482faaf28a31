package export

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
)

func TestCell(t *testing.T) {
	for in, want := range map[string]string{
		"c1": "c1", "": "", " ": " ", "a=1": "a=1", "-5": "-5", "+1.5e3": "+1.5e3",
		"=1+1": "'=1+1", "+x": "'+x", "-5+cmd": "'-5+cmd", "@a": "'@a", "\tx": "'\tx", "\rx": "'\rx", "\nx": "'\nx",
		" =1+1": "' =1+1", "＝1": "'＝1", "＋x": "'＋x", "－x": "'－x", "＠x": "'＠x", "张三": "张三",
	} {
		if got := Cell(in); got != want {
			t.Errorf("Cell(%q) = %q, want %q", in, got, want)
		}
	}
}

// What a spreadsheet reads adds up to the score that it reads, for fifty columns too.
func TestReasonsAddUpAsWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		parts := make([]audience.Part, 50)
		var score float64
		for i := range parts {
			parts[i] = audience.Part{Of: "column " + strconv.Itoa(i), Value: float32(r.NormFloat64() * math.Pow(10, float64(r.IntN(5)-4)))}
			score += float64(parts[i].Value)
		}
		var sum float64
		for _, word := range strings.Split(Reasons(parts), "; ") {
			_, digits, _ := strings.Cut(strings.TrimPrefix(word, "column "), " ")
			if digits[0] != '+' && digits[0] != '-' {
				t.Fatalf("%q has no sign", word)
			}
			v, err := strconv.ParseFloat(digits, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
		if read, err := strconv.ParseFloat(Number(float32(score)), 32); err != nil || float32(read) != float32(score) || math.Abs(sum-score) > 1e-5 {
			t.Fatalf("read %v and parts of %v, want %v; %v", read, sum, score, err)
		}
	}
	if got := Reasons([]audience.Part{{Of: "text", Value: 2.125}, {Of: "age", Value: -0.25}, {Of: "intercept"}}); got != "text +2.125; age -0.25; intercept +0" {
		t.Error(got)
	}
}
