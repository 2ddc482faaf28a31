package tokenize

import (
	"math/bits"
	"slices"
	"unicode/utf8"
)

const noNode = ^uint32(0)

// trie holds the vocabulary as a double array over bytes: the child of node n by byte c is
// slots[n].base ^ c if that slot's check is n. A base and its 256 children lie in one block of 256
// slots, so no index leaves the array. Node 0 is the root.
type trie struct {
	slots []trieSlot
}

type trieSlot struct {
	base, check uint32
	id          int32 // of the token that ends here, or -1
}

// newTrie takes the keys sorted bytewise and distinct, with an id each.
func newTrie(keys []string, ids []int32) *trie {
	b := trieBuilder{trie: &trie{}}
	b.grow()
	b.take(0, noNode)
	type part struct {
		node          uint32
		lo, hi, depth int // keys[lo:hi] share depth bytes and lie below node
	}
	todo := []part{{0, 0, len(keys), 0}}
	var edges []byte
	var starts []int
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.lo < p.hi && len(keys[p.lo]) == p.depth {
			b.slots[p.node].id = ids[p.lo]
			p.lo++
		}
		edges, starts = edges[:0], starts[:0]
		for i := p.lo; i < p.hi; i++ {
			if c := keys[i][p.depth]; len(edges) == 0 || edges[len(edges)-1] != c {
				edges, starts = append(edges, c), append(starts, i)
			}
		}
		if len(edges) == 0 {
			continue
		}
		starts = append(starts, p.hi)
		base := b.place(edges)
		b.slots[p.node].base = base
		for i, c := range edges {
			b.take(base^uint32(c), p.node)
			todo = append(todo, part{base ^ uint32(c), starts[i], starts[i+1], p.depth + 1})
		}
	}
	return b.trie
}

// longest is the token that is the longest prefix of w below node, ending between characters, and its
// length in bytes; 0 when there is none.
func (d *trie) longest(node uint32, w []byte) (id int32, n int) {
	slots := d.slots
	for k, c := range w {
		next := slots[node].base ^ uint32(c)
		s := &slots[next]
		if s.check != node {
			break
		}
		if s.id >= 0 && (k+1 == len(w) || utf8.RuneStart(w[k+1])) {
			id, n = s.id, k+1
		}
		node = next
	}
	return id, n
}

// walk is the node that key leads to from the root, or noNode.
func (d *trie) walk(key string) uint32 {
	node := uint32(0)
	for i := range len(key) {
		next := d.slots[node].base ^ uint32(key[i])
		if d.slots[next].check != node {
			return noNode
		}
		node = next
	}
	return node
}

// id is the id of a whole token.
func (d *trie) id(token string) (int32, bool) {
	n := d.walk(token)
	if n == noNode || d.slots[n].id < 0 {
		return 0, false
	}
	return d.slots[n].id, true
}

// trieBuilder keeps the few blocks that still take nodes, so that building is linear in the nodes.
type trieBuilder struct {
	*trie
	open []openBlock
}

type openBlock struct {
	first  uint32    // its first slot
	free   [4]uint64 // a bit for each free slot
	failed int       // searches in vain
}

const (
	openBlocks = 8
	maxFailed  = 32
)

func (b *trieBuilder) grow() {
	first := uint32(len(b.slots))
	for range 256 {
		b.slots = append(b.slots, trieSlot{check: noNode, id: -1})
	}
	if len(b.open) == openBlocks {
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, openBlock{first: first, free: [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}})
}

func (b *trieBuilder) take(slot, parent uint32) {
	b.slots[slot].check = parent
	for i := range b.open {
		if o := &b.open[i]; o.first == slot&^255 {
			o.free[slot>>6&3] &^= 1 << (slot & 63)
		}
	}
}

// place finds a base whose slots for all edges are free.
func (b *trieBuilder) place(edges []byte) uint32 {
	for i := 0; i < len(b.open); i++ {
		o := &b.open[i]
		for at, free := range o.free {
			for ; free != 0; free &= free - 1 {
				base := uint32(at<<6+bits.TrailingZeros64(free)) ^ uint32(edges[0])
				if o.fits(base, edges) {
					return o.first + base
				}
			}
		}
		if o.failed++; o.failed == maxFailed {
			b.open = slices.Delete(b.open, i, i+1)
			i--
		}
	}
	b.grow()
	return b.open[len(b.open)-1].first
}

func (o *openBlock) fits(base uint32, edges []byte) bool {
	for _, c := range edges {
		if s := base ^ uint32(c); o.free[s>>6]&(1<<(s&63)) == 0 {
			return false
		}
	}
	return true
}
