// Package phrases says in words what one group of customers writes about more
// than another: it cuts texts into words and phrases of up to three words,
// counts how many customers use each, and contrasts two counts.
//
// English and other scripts with spaces are cut at spaces and punctuation,
// Chinese by a dictionary (see chinese.go). Labels of segments and the reasons of
// an audience are made of it.
//
//	members, everyone := phrases.NewCounter(), phrases.NewCounter()
//	members.Add("Great value. Fast delivery") // one customer
//	everyone.Add(...)
//	top := phrases.Contrast(members, everyone, phrases.Options{})
package phrases

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Phrase is one to three words that a group has more of than everyone, counted
// in customers.
type Phrase struct {
	Text       string  `json:"text"`
	Count      int     `json:"count"`      // customers of the group that use it
	Share      float64 `json:"share"`      // Count over the group's customers
	Population float64 `json:"population"` // the same share of everyone, smoothed by half a customer
	Lift       float64 `json:"lift"`       // Share over Population
	Z          float64 `json:"z"`          // log-odds ratio over its standard deviation
}

// maxTerms bounds a Counter's memory: beyond it the rarest phrases are
// forgotten. A var so that the test can reach it.
var maxTerms = 600_000

// maxWords is how many words of one customer are looked at: the rest says
// little that those do not.
const maxWords = 600

// Counter counts in how many documents (the texts of one customer) each phrase
// is. The zero value is not ready; see NewCounter. It is not safe for concurrent
// use; several Counters may work at the same time.
type Counter struct {
	cut   *Cutter
	docs  int
	terms map[string]int32
	seen  map[string]struct{}
	floor int
}

// NewCounter returns an empty Counter.
func NewCounter() *Counter {
	return &Counter{cut: NewCutter(), terms: map[string]int32{}, seen: map[string]struct{}{}}
}

// Add counts one customer's texts. A phrase counts once however often it is in
// them; texts without a word count as a customer who uses no phrase.
func (c *Counter) Add(texts ...string) {
	c.docs++
	clear(c.seen)
	left := maxWords
	for _, text := range texts {
		left = c.cut.phrases(text, left, func(term string) { c.seen[term] = struct{}{} })
	}
	for term := range c.seen {
		c.terms[term]++
	}
	if len(c.terms) > maxTerms {
		c.prune()
	}
}

// prune forgets the rarest phrases (lossy counting: Manku and Motwani, VLDB
// 2002), as many counts as it takes to halve the table.
func (c *Counter) prune() {
	for len(c.terms) > maxTerms/2 {
		c.floor++
		for term, n := range c.terms {
			if int(n) <= c.floor {
				delete(c.terms, term)
			}
		}
	}
}

// Docs is the number of customers added.
func (c *Counter) Docs() int { return c.docs }

// Short is by how much a count may be too small, because rare phrases were
// forgotten to bound memory. 0 until there were 600,000 different phrases.
func (c *Counter) Short() int { return c.floor }

// Count is in how many customers' texts a phrase is.
func (c *Counter) Count(phrase string) int { return int(c.terms[phrase]) }

// Options of Contrast. Zero values take the defaults.
type Options struct {
	Max   int     // phrases returned; default 10
	Least int     // customers of the group that must use it; default 5: fewer might be told by name
	Z     float64 // least Z; default 3
}

// prior is how many customers of everyone's kind are mixed into both counts: a
// rare phrase must earn its place.
const prior = 10

// Contrast returns the phrases that a group uses more than everyone, the surest
// first, by the log-odds ratio with an informative Dirichlet prior (Monroe and
// others, Political Analysis 2008). Of phrases that say the same ("battery" in
// "battery life") one stays: the longer one where most users of the shorter use
// it too. Equal ones are in order of the text.
func Contrast(group, everyone *Counter, opt Options) []Phrase {
	opt.Max = cmp.Or(opt.Max, 10)
	opt.Least = cmp.Or(opt.Least, 5)
	opt.Z = cmp.Or(opt.Z, 3)
	n, total := float64(group.docs), float64(everyone.docs)
	found := []Phrase{}
	for term, count := range group.terms {
		if int(count) < opt.Least {
			continue
		}
		k, all := float64(count), float64(everyone.terms[term])
		p := (all + 0.5) / (total + 1)
		a, b := k+prior*p, n-k+prior*(1-p)
		c, d := all+prior*p, total-all+prior*(1-p)
		z := (math.Log(a/b) - math.Log(c/d)) / math.Sqrt(1/a+1/b+1/c+1/d)
		if z >= opt.Z {
			found = append(found, Phrase{Text: term, Count: int(count), Share: k / n, Population: p, Lift: k / n / p, Z: z})
		}
	}
	slices.SortFunc(found, func(a, b Phrase) int { return cmp.Or(cmp.Compare(b.Z, a.Z), cmp.Compare(a.Text, b.Text)) })
	return distinct(found, opt.Max)
}

// nested is what share of a phrase's users use a longer one around it, for the
// longer one to stand for both.
const nested = 0.6

// distinct drops phrases that lie within one another. found is in order.
func distinct(found []Phrase, most int) []Phrase {
	// A quadratic search among the best is enough: what is dropped there is
	// dropped because of something near it.
	found = found[:min(len(found), 20*most)]
	drop := make([]bool, len(found))
	for i, short := range found {
		for j, long := range found {
			if i == j || len(long.Text) <= len(short.Text) || !within(short.Text, long.Text) {
				continue
			}
			if float64(long.Count) >= nested*float64(short.Count) {
				drop[i] = true
			} else if short.Z >= long.Z {
				drop[j] = true
			}
		}
	}
	out := []Phrase{}
	for i, p := range found {
		if !drop[i] && len(out) < most {
			out = append(out, p)
		}
	}
	return out
}

// within says whether short is a part of long that ends where words end. Words
// of Chinese phrases stand together, so there any place will do.
func within(short, long string) bool {
	for at := 0; ; {
		i := strings.Index(long[at:], short)
		if i < 0 {
			return false
		}
		from, to := at+i, at+i+len(short)
		if edge(long, from) && edge(long, to) {
			return true
		}
		at = from + 1
	}
}

// edge says whether a word may begin or end at a byte of a phrase.
func edge(s string, at int) bool {
	if at == 0 || at == len(s) || s[at] == ' ' || s[at-1] == ' ' {
		return true
	}
	return s[at-1] >= 0x80 && s[at] >= 0xe0 // between characters of more than two bytes
}
