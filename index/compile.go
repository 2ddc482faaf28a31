package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// IDField is the name by which a filter reaches the customer's id.
const IDField = "id"

// MaxFilterNodes and MaxFilterDepth bound a filter.
const (
	MaxFilterNodes = 4096
	MaxFilterDepth = 32
	maxFilterIn    = 100_000
)

// Op is what a compiled condition asks of a column.
type Op string

// The operations. OpIn with one value is equality; on a Set column it holds
// when the row has any of the values. OpRange compares numbers, or ids and
// categories bytewise.
const (
	OpIn     Op = "in"
	OpRange  Op = "range"
	OpExists Op = "exists"
	OpPrefix Op = "prefix"
)

// Cond is one typed condition. Column is its position in the spec, -1 for the
// id. Numeric kinds use Nums, Lo and Hi; others Strs, LoStr and HiStr.
type Cond struct {
	Column int
	Kind   Kind // Category for the id
	Op     Op
	Nums   []float64
	Strs   []string
	Lo, Hi Bound
	Exists bool
	Prefix string
}

// Bound is one end of a range.
type Bound struct {
	Set    bool
	Closed bool // the value itself is inside
	Num    float64
	Str    string
}

// Predicate is a filter with every value typed. It holds when every Cond and
// every Must holds, some Should holds (if there are any), and no MustNot does.
// Missing values satisfy nothing but Exists: false (and MustNot).
type Predicate struct {
	Conds   []Cond
	Must    []Predicate
	Should  []Predicate
	MustNot []Predicate
}

// Compile types a filter against the columns. A nil filter compiles to one that
// everything satisfies. All faults are reported together; each matches
// ErrInvalid and says where in the tree it is.
func (f *Filter) Compile(cols []Column) (*Predicate, error) {
	if f == nil {
		return &Predicate{}, nil
	}
	c := compiler{cols: make(map[string]int, len(cols)), kinds: cols}
	for i, col := range cols {
		c.cols[col.Name] = i
	}
	p := c.node(f, "filter", 1)
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return &p, nil
}

type compiler struct {
	cols  map[string]int
	kinds []Column
	nodes int
	errs  []error
}

func (c *compiler) fault(path, format string, args ...any) {
	if len(c.errs) < 100 {
		c.errs = append(c.errs, invalidf("%s: %s", path, fmt.Sprintf(format, args...)))
	}
}

func (c *compiler) node(f *Filter, path string, depth int) Predicate {
	var p Predicate
	c.nodes++
	if depth > MaxFilterDepth {
		c.fault(path, "nested more than %d deep", MaxFilterDepth)
		return p
	}
	if c.nodes > MaxFilterNodes {
		if c.nodes == MaxFilterNodes+1 {
			c.fault(path, "more than %d nodes", MaxFilterNodes)
		}
		return p
	}
	if f.Field == "" {
		if f.Eq != nil || f.In != nil || f.Gt != nil || f.Gte != nil || f.Lt != nil || f.Lte != nil || f.Exists != nil || f.Prefix != nil {
			c.fault(path, "a condition without a field; name the column")
		}
	} else {
		p.Conds = c.conds(f, path)
	}
	group := func(name string, in []Filter) []Predicate {
		var out []Predicate
		for i := range in {
			out = append(out, c.node(&in[i], fmt.Sprintf("%s.%s[%d]", path, name, i), depth+1))
		}
		return out
	}
	p.Must = group("must", f.Must)
	p.Should = group("should", f.Should)
	p.MustNot = group("must_not", f.MustNot)
	return p
}

func (c *compiler) conds(f *Filter, path string) []Cond {
	col, kind := -1, Category
	if f.Field != IDField {
		i, ok := c.cols[f.Field]
		if !ok {
			c.fault(path, "column %q does not exist", f.Field)
			return nil
		}
		col, kind = i, c.kinds[i].Kind
	}
	path = fmt.Sprintf("%s (%s)", path, f.Field)
	var out []Cond
	values := func(in []any, what string) {
		k := Cond{Column: col, Kind: kind, Op: OpIn}
		for _, v := range in {
			c.value(v, kind, path+"."+what, func(n float64, s string) {
				if kind.Numeric() {
					k.Nums = append(k.Nums, n)
				} else {
					k.Strs = append(k.Strs, s)
				}
			})
		}
		out = append(out, k)
	}
	if f.Eq != nil {
		values([]any{f.Eq}, "eq")
	}
	if len(f.In) > maxFilterIn {
		c.fault(path, "in has %d values; at most %d", len(f.In), maxFilterIn)
	} else if f.In != nil {
		values(f.In, "in")
	}
	if f.Gt != nil || f.Gte != nil || f.Lt != nil || f.Lte != nil {
		out = append(out, c.rangeCond(f, path, col, kind))
	}
	if f.Exists != nil {
		out = append(out, Cond{Column: col, Kind: kind, Op: OpExists, Exists: *f.Exists})
	}
	if f.Prefix != nil {
		if kind.Numeric() {
			c.fault(path, "prefix needs text; the column is a %s", kind)
		}
		out = append(out, Cond{Column: col, Kind: kind, Op: OpPrefix, Prefix: *f.Prefix})
	}
	if len(out) == 0 && len(f.Must)+len(f.Should)+len(f.MustNot) == 0 {
		c.fault(path, "no condition; give eq, in, gt, gte, lt, lte, exists or prefix")
	}
	return out
}

func (c *compiler) rangeCond(f *Filter, path string, col int, kind Kind) Cond {
	k := Cond{Column: col, Kind: kind, Op: OpRange}
	if kind == Set || kind == Bool {
		c.fault(path, "a range needs numbers, times or text; the column is a %s", kind)
		return k
	}
	end := func(b *Bound, open, closed any, names [2]string) {
		v, name := open, names[0]
		if closed != nil {
			if open != nil {
				c.fault(path, "%s and %s together; give one", names[0], names[1])
				return
			}
			v, name = closed, names[1]
		}
		if v == nil {
			return
		}
		c.value(v, kind, path+"."+name, func(n float64, s string) {
			*b = Bound{Set: true, Closed: closed != nil, Num: n, Str: s}
		})
	}
	end(&k.Lo, f.Gt, f.Gte, [2]string{"gt", "gte"})
	end(&k.Hi, f.Lt, f.Lte, [2]string{"lt", "lte"})
	return k
}

// value types one value: bools for Bool, RFC 3339 text or unix seconds for
// Time, numbers for Number, text for the others.
func (c *compiler) value(v any, kind Kind, path string, ok func(float64, string)) {
	switch kind {
	case Number, Time:
		if n, is := toNumber(v); is {
			if math.IsNaN(n) || math.IsInf(n, 0) {
				c.fault(path, "%v is not finite", v)
				return
			}
			ok(n, "")
			return
		}
		if s, is := v.(string); is && kind == Time {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err == nil {
				ok(float64(t.Unix())+float64(t.Nanosecond())/1e9, "")
				return
			}
		}
		if t, is := v.(time.Time); is && kind == Time {
			ok(float64(t.Unix())+float64(t.Nanosecond())/1e9, "")
			return
		}
		if kind == Time {
			c.fault(path, "%s is no time; give RFC 3339 (2026-01-31T00:00:00Z) or seconds since 1970", show(v))
		} else {
			c.fault(path, "%s is no number", show(v))
		}
	case Bool:
		if b, is := v.(bool); is {
			if b {
				ok(1, "")
			} else {
				ok(0, "")
			}
			return
		}
		if n, is := toNumber(v); is && (n == 0 || n == 1) {
			ok(n, "")
			return
		}
		c.fault(path, "%s is no bool; give true or false", show(v))
	default:
		if s, is := v.(string); is {
			ok(0, s)
			return
		}
		c.fault(path, "%s is no text; put it in quotes", show(v))
	}
}

func show(v any) string {
	s := fmt.Sprintf("%#v", v)
	if len(s) > 80 {
		s = s[:77] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

func toNumber(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case float32:
		return float64(n), true
	case int:
		return float64(n), true
	case int32:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint32:
		return float64(n), true
	case uint64:
		return float64(n), true
	case json.Number:
		f, err := strconv.ParseFloat(string(n), 64)
		return f, err == nil
	}
	return 0, false
}

// HoldsNum says whether a number that is present satisfies an OpIn or OpRange.
func (k *Cond) HoldsNum(x float64) bool {
	if k.Op == OpIn {
		for _, n := range k.Nums {
			if n == x {
				return true
			}
		}
		return false
	}
	return (!k.Lo.Set || x > k.Lo.Num || k.Lo.Closed && x == k.Lo.Num) &&
		(!k.Hi.Set || x < k.Hi.Num || k.Hi.Closed && x == k.Hi.Num)
}

// HoldsStr says whether a text satisfies an OpRange or OpPrefix.
func (k *Cond) HoldsStr(s string) bool {
	if k.Op == OpPrefix {
		return strings.HasPrefix(s, k.Prefix)
	}
	return (!k.Lo.Set || s > k.Lo.Str || k.Lo.Closed && s == k.Lo.Str) &&
		(!k.Hi.Set || s < k.Hi.Str || k.Hi.Closed && s == k.Hi.Str)
}
