package export

import "testing"

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
