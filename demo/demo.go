// Package demo generates a customer base with planted segments, so that the
// whole path from customers to an audience can be tried, and judged against a
// truth, without anybody's data.
//
// Nothing in it is real: ids begin with "gen-" and Notice says so wherever the
// customers are shown. Each customer has one segment (the truth), many have
// tastes of a second one, and columns and texts are noisy, so that neither the
// columns nor the texts alone give the segment away. The same Options give the
// same customers byte for byte.
package demo

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Notice is what every report on these customers must say.
const Notice = "generated customers: no real person is described"

// MaxCustomers bounds Options.Customers.
const MaxCustomers = 50_000_000

// Options say what to generate.
type Options struct {
	Customers int    // 1 to MaxCustomers
	Language  string // of the texts: "en" (also ""), "zh", or "mixed" (every customer one of the two)
	Seed      uint64 // the same seed gives the same customers
}

// Validate reports what is wrong with the options.
func (o Options) Validate() error {
	if o.Customers < 1 || o.Customers > MaxCustomers {
		return fmt.Errorf("%d customers: give 1 to %d: %w", o.Customers, MaxCustomers, index.ErrInvalid)
	}
	if !slices.Contains([]string{"", "en", "zh", "mixed"}, o.Language) {
		return fmt.Errorf("language %q: give en, zh or mixed: %w", o.Language, index.ErrInvalid)
	}
	return nil
}

// Customer is one generated customer with its truth.
type Customer struct {
	Record  profile.Record
	Segment string // one of Segments
}

// Segments returns the names of the planted segments, in a fixed order.
func Segments() []string {
	out := make([]string, len(segments))
	for i, s := range segments {
		out[i] = s.name
	}
	return out
}

// Schema returns the fields of the generated customers.
func Schema() profile.Schema {
	return profile.Schema{Fields: []profile.Field{
		{Name: "age", Type: profile.TypeNumber},
		{Name: "gender", Type: profile.TypeCategory, Sensitive: true},
		{Name: "region", Type: profile.TypeCategory},
		{Name: "plan", Type: profile.TypeCategory},
		{Name: "channel", Type: profile.TypeCategory},
		{Name: "tenure_months", Type: profile.TypeNumber},
		{Name: "monthly_spend", Type: profile.TypeNumber},
		{Name: "visits_90d", Type: profile.TypeNumber},
		{Name: "newsletter", Type: profile.TypeBool},
		{Name: "interests", Type: profile.TypeSet},
		{Name: "review", Type: profile.TypeText},
		{Name: "chat", Type: profile.TypeText},
		{Name: "note", Type: profile.TypeText},
	}}
}

// Generate yields the customers in order of id. Options that Validate refuses
// yield none.
func Generate(opt Options) iter.Seq[Customer] {
	return func(yield func(Customer) bool) {
		if opt.Validate() != nil {
			return
		}
		for i := range opt.Customers {
			if !yield(generate(opt, i)) {
				return
			}
		}
	}
}

// generate makes customer i from its own stream of random numbers, so that a
// larger base begins with the smaller one.
func generate(opt Options, i int) Customer {
	r := rand.New(rand.NewPCG(opt.Seed, uint64(i)))
	main := pickSegment(r)
	second := main
	if r.Float64() < 0.6 {
		second = segments[r.IntN(len(segments))]
	}
	zh := opt.Language == "zh" || opt.Language == "mixed" && r.IntN(2) == 1
	rec := profile.Record{ID: fmt.Sprintf("gen-%06d", i+1), Fields: columns(r, main, second)}
	for range 1 + r.IntN(4) {
		from := main
		if r.Float64() < 0.4 {
			from = second
		}
		rec.Texts = append(rec.Texts, text(r, from, zh))
	}
	return Customer{Record: rec, Segment: main.name}
}

func pickSegment(r *rand.Rand) segment {
	total := 0.0
	for _, s := range segments {
		total += s.share
	}
	at := r.Float64() * total
	for _, s := range segments {
		if at -= s.share; at < 0 {
			return s
		}
	}
	return segments[len(segments)-1]
}

func columns(r *rand.Rand, main, second segment) map[string]index.Value {
	number := func(v float64) index.Value { return index.Value{Kind: index.Number, Num: v} }
	category := func(v string) index.Value { return index.Value{Kind: index.Category, Str: v} }
	// lean takes the segment's habit one time in four.
	lean := func(own string, all []string) index.Value {
		if own != "" && r.Float64() < 0.25 {
			return category(own)
		}
		return category(all[r.IntN(len(all))])
	}
	age := math.Round(min(max(main.age+14*r.NormFloat64(), 18), 92))
	spend := math.Round(100*main.spend*math.Exp(0.9*r.NormFloat64())) / 100
	gender := "f"
	if r.Float64() < main.male {
		gender = "m"
	}
	if r.Float64() < 0.03 {
		gender = "x"
	}
	out := map[string]index.Value{
		"age":           number(age),
		"gender":        category(gender),
		"region":        lean(main.region, regions),
		"plan":          lean(main.plan, plans),
		"channel":       lean(main.channel, channels),
		"tenure_months": number(math.Floor(min(main.tenure*r.ExpFloat64(), 240))),
		"monthly_spend": number(spend),
		"visits_90d":    number(math.Floor(main.visits * math.Exp(0.8*r.NormFloat64()))),
		"newsletter":    {Kind: index.Bool, Num: float64(r.IntN(2))},
	}
	interests := map[string]bool{}
	for range 1 + r.IntN(3) {
		switch x := r.Float64(); {
		case x < 0.18:
			interests[main.interests[r.IntN(len(main.interests))]] = true
		case x < 0.33:
			interests[second.interests[r.IntN(len(second.interests))]] = true
		default:
			s := segments[r.IntN(len(segments))]
			interests[s.interests[r.IntN(len(s.interests))]] = true
		}
	}
	set := make([]string, 0, len(interests))
	for name := range interests {
		set = append(set, name)
	}
	slices.Sort(set)
	out["interests"] = index.Value{Kind: index.Set, Set: set}
	// Real tables have holes.
	for _, name := range []string{"age", "region", "channel", "monthly_spend"} {
		if r.Float64() < 0.04 {
			delete(out, name)
		}
	}
	return out
}

var textFields = []string{"review", "chat", "note"}

func text(r *rand.Rand, s segment, zh bool) profile.Text {
	field := textFields[r.IntN(len(textFields))]
	w := english
	topics := s.english
	if zh {
		w, topics = chinese, s.chinese
	}
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	topic := pick(topics)
	// Most of what customers write is about delivery and prices, whoever they
	// are.
	if r.Float64() < 0.65 {
		topic = pick(w.generic)
	}
	body := pick(w.openers[field]) + topic + w.stop
	if r.Float64() < 0.6 {
		body += w.space + pick(w.closers)
	}
	if r.Float64() < 0.06 {
		body = typo(r, body)
	}
	return profile.Text{Field: field, Body: body}
}

// typo swaps two neighbouring characters.
func typo(r *rand.Rand, s string) string {
	runes := []rune(s)
	if len(runes) < 4 {
		return s
	}
	i := 1 + r.IntN(len(runes)-2)
	runes[i], runes[i-1] = runes[i-1], runes[i]
	return string(runes)
}
