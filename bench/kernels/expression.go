package main

import (
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"strings"
)

// evaluate computes an expression of Go, of numbers and the named sizes.
func evaluate(expression string, sizes map[string]float64) (float64, error) {
	p := types.NewPackage("sizes", "sizes")
	for name, x := range sizes {
		p.Scope().Insert(types.NewConst(token.NoPos, p, name, types.Typ[types.UntypedFloat], constant.MakeFloat64(x)))
	}
	v, err := types.Eval(token.NewFileSet(), p, token.NoPos, expression)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", expression, err)
	}
	if v.Value == nil {
		return 0, fmt.Errorf("%s is no constant", expression)
	}
	x, _ := constant.Float64Val(constant.ToFloat(v.Value))
	return x, nil
}

// shown is an expression as a reader has it.
func shown(expression string) string {
	return strings.NewReplacer("*", " · ", "/", " / ", "+", " + ", ".0", "").Replace(strings.ReplaceAll(expression, " ", ""))
}
