package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/scanner"
)

// parse reads the part of Milvus's expressions that Kindred writes: and, or, not,
// comparisons, in and not in, exists, json_contains_any, like with a trailing %, fields and
// paths into JSON, literals.
func parse(expr string) (func(row) bool, error) {
	if strings.TrimSpace(expr) == "" {
		return func(row) bool { return true }, nil
	}
	p := &parser{}
	p.s.Init(strings.NewReader(expr))
	p.s.Mode = scanner.ScanIdents | scanner.ScanFloats | scanner.ScanInts | scanner.ScanStrings
	p.s.Error = func(_ *scanner.Scanner, msg string) { p.err = errors.New(msg) }
	p.s.IsIdentRune = func(r rune, i int) bool {
		return r == '_' || r == '$' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9'
	}
	p.next()
	t := p.or()
	if p.err == nil && p.tok != scanner.EOF {
		p.err = fmt.Errorf("%q at %v", p.s.TokenText(), p.s.Position)
	}
	return t, p.err
}

type parser struct {
	s   scanner.Scanner
	tok rune
	err error
}

type test = func(row) bool

func (p *parser) next() { p.tok = p.s.Scan() }

func (p *parser) word(ws ...string) bool {
	if p.tok != scanner.Ident {
		return false
	}
	for _, w := range ws {
		if strings.EqualFold(p.s.TokenText(), w) {
			p.next()
			return true
		}
	}
	return false
}

func (p *parser) sign(r rune) bool {
	if p.tok == r {
		p.next()
		return true
	}
	return false
}

func (p *parser) want(r rune) {
	if !p.sign(r) && p.err == nil {
		p.err = fmt.Errorf("expected %q, found %q", string(r), p.s.TokenText())
	}
}

func (p *parser) or() test {
	a := p.and()
	for p.err == nil && (p.word("or") || p.tok == '|' && p.sign('|') && p.sign('|')) {
		l, r := a, p.and()
		a = func(x row) bool { return l(x) || r(x) }
	}
	return a
}

func (p *parser) and() test {
	a := p.not()
	for p.err == nil && (p.word("and") || p.tok == '&' && p.sign('&') && p.sign('&')) {
		l, r := a, p.not()
		a = func(x row) bool { return l(x) && r(x) }
	}
	return a
}

func (p *parser) not() test {
	if p.word("not") || p.tok == '!' && p.sign('!') {
		t := p.not()
		return func(x row) bool { return !t(x) }
	}
	if p.sign('(') {
		t := p.or()
		p.want(')')
		return t
	}
	if p.word("exists") {
		a := p.operand()
		return func(x row) bool { return a(x) != nil }
	}
	if p.word("json_contains_any") {
		return p.contains()
	}
	return p.compare()
}

// contains is whether a list in JSON has one of the values.
func (p *parser) contains() test {
	p.want('(')
	a := p.operand()
	p.want(',')
	var one any
	in := p.list(func(row) any { return one })
	p.want(')')
	return func(x row) bool {
		list, _ := a(x).([]any)
		for _, one = range list {
			if in(x) {
				return true
			}
		}
		return false
	}
}

type value = func(row) any

func (p *parser) compare() test {
	a := p.operand()
	if p.word("not") {
		if !p.word("in") {
			p.err = errors.New("expected in")
		}
		in := p.list(a)
		return func(x row) bool { return !in(x) }
	}
	if p.word("in") {
		return p.list(a)
	}
	if p.word("like") {
		b := p.operand()
		return func(x row) bool {
			s, isS := a(x).(string)
			pat, _ := b(x).(string)
			return isS && strings.HasPrefix(s, strings.TrimSuffix(pat, "%"))
		}
	}
	op := string(p.tok)
	switch p.tok {
	case '=', '!', '<', '>':
		p.next()
		if p.sign('=') {
			op += "="
		}
	default:
		if p.err == nil {
			p.err = fmt.Errorf("%q is no comparison", p.s.TokenText())
		}
		return func(row) bool { return false }
	}
	b := p.operand()
	if p.tok == '<' || p.tok == '>' { // 1 < x < 5
		p.err = errors.New("chained comparisons are not known here")
	}
	return func(x row) bool {
		c, comparable := order(a(x), b(x))
		switch op {
		case "==":
			return comparable && c == 0
		case "!=":
			return !comparable || c != 0
		case "<":
			return comparable && c < 0
		case "<=":
			return comparable && c <= 0
		case ">":
			return comparable && c > 0
		case ">=":
			return comparable && c >= 0
		}
		return false
	}
}

func (p *parser) list(a value) test {
	p.want('[')
	set := map[any]bool{}
	for p.err == nil && p.tok != ']' {
		set[num(p.operand()(nil))] = true
		if !p.sign(',') {
			break
		}
	}
	p.want(']')
	return func(x row) bool { return set[num(a(x))] }
}

func (p *parser) operand() value {
	neg := p.tok == '-' && p.sign('-')
	text := p.s.TokenText()
	switch p.tok {
	case scanner.Int, scanner.Float:
		p.next()
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			p.err = err
		}
		if neg {
			f = -f
		}
		return func(row) any { return f }
	case scanner.String:
		p.next()
		s, err := strconv.Unquote(text)
		if err != nil {
			p.err = fmt.Errorf("%s: %w", text, err)
		}
		return func(row) any { return s }
	case scanner.Ident:
		p.next()
		if text == "true" || text == "false" {
			return func(row) any { return text == "true" }
		}
		path := []string{text}
		for p.sign('[') {
			s, err := strconv.Unquote(p.s.TokenText())
			if err != nil {
				p.err = err
			}
			path = append(path, s)
			p.next()
			p.want(']')
		}
		return func(x row) any { return field(x, path) }
	}
	if p.err == nil {
		p.err = fmt.Errorf("%q is no value", text)
	}
	return func(row) any { return nil }
}

func field(x row, path []string) any {
	v, there := x[path[0]]
	if !there {
		path = append([]string{"$meta"}, path...)
		v = x["$meta"]
	}
	raw, isJSON := v.([]byte)
	if !isJSON {
		return v
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	var doc any
	if d.Decode(&doc) != nil {
		return nil
	}
	for _, k := range path[1:] {
		m, isMap := doc.(map[string]any)
		if !isMap {
			return nil
		}
		doc = m[k]
	}
	return doc
}

func num(v any) any {
	if i, is := v.(int64); is {
		return float64(i)
	}
	switch v.(type) {
	case float64, string, bool:
		return v
	}
	return nil
}

func order(a, b any) (int, bool) {
	a, b = num(a), num(b)
	switch x := a.(type) {
	case float64:
		if y, is := b.(float64); is {
			switch {
			case x < y:
				return -1, true
			case x > y:
				return 1, true
			}
			return 0, true
		}
	case string:
		if y, is := b.(string); is {
			return strings.Compare(x, y), true
		}
	case bool:
		if y, is := b.(bool); is {
			if x == y {
				return 0, true
			}
			return 1, true
		}
	}
	return 0, false
}
