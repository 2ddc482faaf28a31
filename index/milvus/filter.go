package milvus

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
)

// ErrNotExpressed is a filter that Milvus would not answer as the engines of this process
// do. It is no fault of the filter: who meets it filters here.
var ErrNotExpressed = errors.New("not expressed in Milvus")

// maxExpr bounds an expression, in bytes: the server's parser keeps many times as much.
const maxExpr = 1 << 20

// plainColumn are names that Milvus takes as a key of JSON as they are: it cuts a path at
// its brackets and undoes no escapes in it.
var plainColumn = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_ -]*$`)

// nobody and everyone hold for no row and for all: a hash is not negative.
const (
	nobody   = fieldHash + " < 0"
	everyone = fieldHash + " >= 0"
)

// Expr writes a filter as an expression of Milvus on collections of this store, with the
// same rows as Match of a snapshot. Every value is written by its type; texts are
// escaped by client.Quote, prefixes become ranges, so that no sign of LIKE is one.
//
// index.ErrInvalid where the filter is not one of the columns; ErrNotExpressed where
// it names a column by signs that a path in Milvus cannot hold, asks for a range of a
// set's elements, holds a NUL, or is longer than a mebibyte.
func Expr(f *index.Filter, cols []index.Column) (string, error) {
	if f == nil {
		return "", nil
	}
	p, err := f.Compile(cols)
	if err != nil {
		return "", err
	}
	w := writer{cols: cols}
	w.predicate(p)
	if w.err == nil && w.b.Len() > maxExpr {
		w.fail("it has more than %d bytes", maxExpr)
	}
	if w.err != nil {
		return "", w.err
	}
	return w.b.String(), nil
}

type writer struct {
	b    strings.Builder
	cols []index.Column
	err  error
}

func (w *writer) fail(format string, a ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrNotExpressed, fmt.Sprintf(format, a...))
	}
}

// join writes the parts in parentheses, with a word between; none holds for all.
func (w *writer) join(word string, n int, part func(i int)) {
	if n == 0 {
		w.b.WriteString(everyone)
		return
	}
	w.b.WriteByte('(')
	for i := range n {
		if i > 0 {
			w.b.WriteString(word)
		}
		if part(i); w.err != nil || w.b.Len() > maxExpr {
			break
		}
	}
	w.b.WriteByte(')')
}

func (w *writer) predicate(p *index.Predicate) {
	var parts []func()
	for i := range p.Conds {
		parts = append(parts, func() { w.cond(&p.Conds[i]) })
	}
	for i := range p.Must {
		parts = append(parts, func() { w.predicate(&p.Must[i]) })
	}
	if len(p.Should) > 0 {
		parts = append(parts, func() { w.join(" or ", len(p.Should), func(i int) { w.predicate(&p.Should[i]) }) })
	}
	for i := range p.MustNot {
		parts = append(parts, func() {
			w.b.WriteString("not ")
			w.join("", 1, func(int) { w.predicate(&p.MustNot[i]) })
		})
	}
	w.join(" and ", len(parts), func(i int) { parts[i]() })
}

func (w *writer) cond(k *index.Cond) {
	field := fieldID
	if k.Column >= 0 {
		name := w.cols[k.Column].Name
		if !plainColumn.MatchString(name) {
			w.fail("the column %q: a path holds letters, digits, _, - and spaces", name)
			return
		}
		field = fieldCols + `["` + name + `"]`
	}
	switch {
	case k.Op == index.OpExists && k.Column < 0:
		w.constant(k.Exists)
	case k.Op == index.OpExists:
		if !k.Exists {
			w.b.WriteString("not ")
		}
		w.b.WriteString("(exists " + field + ")")
	case k.Op == index.OpIn && len(k.Nums)+len(k.Strs) == 0:
		w.constant(false)
	case k.Op == index.OpIn && k.Kind == index.Set:
		w.b.WriteString("json_contains_any(" + field + ", [")
		w.texts(k.Strs)
		w.b.WriteString("])")
	case k.Op == index.OpIn:
		w.b.WriteString(field + " in [")
		w.texts(k.Strs)
		for i, x := range k.Nums {
			if i > 0 {
				w.b.WriteByte(',')
			}
			w.number(x)
		}
		w.b.WriteByte(']')
	case k.Kind == index.Set:
		w.fail("a range or prefix of the elements of %q", w.cols[k.Column].Name)
	case k.Op == index.OpPrefix:
		lo := index.Bound{Set: true, Closed: true, Str: k.Prefix}
		hi, bounded := after(k.Prefix)
		w.between(field, false, lo, index.Bound{Set: bounded, Str: hi})
	case !k.Lo.Set && !k.Hi.Set: // holds for what is there
		if k.Column < 0 {
			w.constant(true)
			return
		}
		w.b.WriteString("(exists " + field + ")")
	default:
		w.between(field, k.Kind.Numeric(), k.Lo, k.Hi)
	}
}

func (w *writer) constant(holds bool) {
	if holds {
		w.b.WriteString(everyone)
	} else {
		w.b.WriteString(nobody)
	}
}

func (w *writer) between(field string, numeric bool, lo, hi index.Bound) {
	end := func(b index.Bound, sign string) {
		w.b.WriteString(field + " " + sign)
		if b.Closed {
			w.b.WriteByte('=')
		}
		w.b.WriteByte(' ')
		if numeric {
			w.number(b.Num)
		} else {
			w.text(b.Str)
		}
	}
	w.b.WriteByte('(')
	if lo.Set {
		end(lo, ">")
	}
	if lo.Set && hi.Set {
		w.b.WriteString(" and ")
	}
	if hi.Set {
		end(hi, "<")
	}
	w.b.WriteByte(')')
}

func (w *writer) texts(list []string) {
	for i, s := range list {
		if i > 0 {
			w.b.WriteByte(',')
		}
		if w.text(s); w.err != nil || w.b.Len() > maxExpr {
			return
		}
	}
}

func (w *writer) text(s string) {
	q, err := client.Quote(s)
	if err != nil {
		w.fail("%v", err)
		return
	}
	w.b.WriteString(q)
}

// number writes a double: with a point or an exponent, so that it is one to Milvus too.
func (w *writer) number(x float64) {
	if x == 0 {
		x = 0 // no -0
	}
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") || math.IsInf(x, 0) {
		s += ".0"
	}
	w.b.WriteString(s)
}

// after is the least text that is greater than all that begin with a prefix, in order
// of bytes; false where there is none.
func after(prefix string) (string, bool) {
	for prefix != "" {
		r, n := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-n]
		switch {
		case r == utf8.MaxRune:
			continue
		case r == 0xD7FF: // surrogates are no text
			r = 0xE000
		default:
			r++
		}
		return prefix + string(r), true
	}
	return "", false
}
