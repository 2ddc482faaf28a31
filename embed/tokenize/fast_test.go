package tokenize

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestTrie compares the trie with a map over random vocabularies, those with crowded nodes among them.
func TestTrie(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, alphabet := range []int{1, 2, 26, 256} {
		vocab := map[string]int32{"": 3, "a": 4}
		for i := range 4000 {
			k := make([]byte, 1+rng.IntN(6))
			for j := range k {
				k[j] = byte('a' + rng.IntN(alphabet))
			}
			vocab[string(k)] = int32(i)
		}
		var keys []string
		for k := range vocab {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		ids := make([]int32, len(keys))
		for i, k := range keys {
			ids[i] = vocab[k]
		}
		d := newTrie(keys, ids)
		for k, want := range vocab {
			if id, ok := d.id(k); !ok || id != want {
				t.Fatalf("alphabet %d, key %x: %d %v, want %d", alphabet, k, id, ok, want)
			}
		}
		for range 4000 {
			k := make([]byte, 1+rng.IntN(9))
			for j := range k {
				k[j] = byte('a' + rng.IntN(alphabet)) // bytes beyond 0x7F are no characters: any end counts but before 0x80-0xBF
			}
			wantID, wantN := int32(0), 0
			for n := 1; n <= len(k); n++ {
				if id, ok := vocab[string(k[:n])]; ok && (n == len(k) || k[n]&0xC0 != 0x80) {
					wantID, wantN = id, n
				}
			}
			if id, n := d.longest(0, k); id != wantID || n != wantN {
				t.Fatalf("alphabet %d, word %x: token %d of %d bytes, want %d of %d", alphabet, k, id, n, wantID, wantN)
			}
			want, has := vocab[string(k)]
			if id, ok := d.id(string(k)); ok != has || id != want {
				t.Fatalf("alphabet %d, key %x: %d %v, want %d %v", alphabet, k, id, ok, want, has)
			}
		}
		if limit := 24*len(keys) + 4096; len(d.slots) > limit {
			t.Errorf("alphabet %d: %d slots for %d keys, more than %d", alphabet, len(d.slots), len(keys), limit)
		}
	}
}

func TestAlnum8(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 200_000 {
		var b [8]byte
		for j := range b {
			if rng.IntN(3) == 0 {
				b[j] = byte(rng.IntN(256))
			} else {
				b[j] = "azAZ09mM5@[`{/:"[rng.IntN(15)]
			}
		}
		if i < 256 {
			b[0] = byte(i)
		}
		for _, fold := range []uint64{0, highs} {
			n, want := 0, uint64(0)
			for n < 8 && isAlnum(b[n]) {
				c := b[n]
				if fold != 0 && c >= 'A' && c <= 'Z' {
					c += 'a' - 'A'
				}
				want |= uint64(c) << (8 * n)
				n++
			}
			if key, got := alnum8(load8(string(b[:]), 0), fold); key != want || got != n {
				t.Fatalf("%q fold %x: %016x of %d, want %016x of %d", b, fold, key, got, want, n)
			}
		}
	}
	for n := range 20 {
		s := strings.Repeat("abcdefghij", 2)[:n]
		for i := range n {
			want := uint64(0)
			for k := i; k < min(i+8, n); k++ {
				want |= uint64(s[k]) << (8 * (k - i))
			}
			if got := load8(s, i); got != want {
				t.Errorf("load8(%q, %d) = %016x, want %016x", s, i, got, want)
			}
		}
	}
}

// TestWordTable fills a table beyond what its probes can reach, so that some words are left out, and
// checks that no answer is wrong.
func TestWordTable(t *testing.T) {
	var words []word
	for i := range 5000 {
		var w word
		for j, c := range fmt.Sprint("w", i*i) {
			w.key[j>>3] |= uint64(c) << (j & 7 * 8)
		}
		w.id = int32(i)
		words = append(words, w)
	}
	table := newWordTable(words)
	found := 0
	for _, w := range words {
		switch id := table.find(w.key[0], w.key[1]); id {
		case w.id:
			found++
		case -1:
		default:
			t.Fatalf("word %d gave id %d", w.id, id)
		}
		if id := table.find(w.key[0]^1<<40, w.key[1]^1); id != -1 {
			t.Fatalf("a word that is not there gave id %d", id)
		}
	}
	if found < len(words)*99/100 {
		t.Errorf("%d of %d words found", found, len(words))
	}
	crowded := wordTable{slots: make([]word, 16+maxProbes), shift: 60}
	for i := range crowded.slots {
		crowded.slots[i] = word{key: [2]uint64{uint64(i) + 1, 0}, id: int32(i)}
	}
	if id := crowded.find(1<<50, 0); id != -1 { // must end although no slot is empty
		t.Errorf("id %d from a full table", id)
	}
}

// TestPasses holds the fast pass to the general one, which EncodeOffsets uses, over text made of what
// makes them meet: words of all lengths about 8 and 16, characters that end a word, join it or vanish,
// added tokens that begin with letters, and texts that end anywhere.
func TestPasses(t *testing.T) {
	base := settings{
		vocab: map[string]int32{}, unk: "[UNK]", cls: "[CLS]", sep: "[SEP]", prefix: "##", maxChars: 100,
		fold: foldOptions{clean: true, chinese: true, strip: true, lower: true},
	}
	for i, tok := range []string{
		"[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "ab", "abc", "##abcdefgh", "abcdefgh", "abcdefghi", "abcdefghabcdefg",
		"abcdefghabcdefgh", "##h", "##1", "1", "12345678", "é", "##é", "e", "##e", "客", "户", "。", ",", "A", "Ab", "가", "##", "x[",
	} {
		base.vocab[tok] = int32(i)
	}
	base.added = []addedToken{{"[CLS]", 1}, {"[SEP]", 2}}
	short := base
	short.maxChars = 9
	letters := base
	letters.added = append(slices.Clone(base.added), addedToken{"ba", 31}, addedToken{"户a", 32}, addedToken{"\x01", 33})
	cased := base
	cased.fold = foldOptions{clean: true, chinese: true}
	plain := base
	plain.fold = foldOptions{}
	open := base
	open.prefix = ""
	closed := base
	closed.prefix = "@@"
	parts := []string{
		"a", "b", "ab", "abc", "abcdefgh", "ABCDEFGHI", "abcdefghabcdefg", "abcdefghabcdefgh", "A", "1", "12345678", "z", "é", "É", "e\u0301", "\u0301", "\u302e",
		" ", "  ", "\n", "\u00a0", "\u3000", "\u200b", "\x00", "\x01", "\x7f", "客", "户", "。", "，", ",", "!", "·", "[", "[CLS]", "[SEP]", "x[", "가", "か", "豈", "\U00020000", "😀",
		"\xff", "\xe5\xae", "\xc3", "\xc0\xa0", "\xe0\x80\xa0", "\xed\xa0\x80", "\ufffd", "İ", "ſ", "\u1fef",
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for name, s := range map[string]settings{"base": base, "short": short, "letters": letters, "cased": cased, "plain": plain, "open": open, "closed": closed} {
		tok, err := build(s)
		if err != nil {
			t.Fatal(err)
		}
		for range 60_000 {
			var b strings.Builder
			for range rng.IntN(12) {
				b.WriteString(parts[rng.IntN(len(parts))])
			}
			text, limit := b.String(), rng.IntN(12)-2
			want, _, wantCut := tok.EncodeOffsets(text, limit, nil, nil)
			got, cut := tok.Encode(text, limit, nil)
			if !slices.Equal(got, want) || cut != wantCut {
				t.Fatalf("%s: %q limit %d:\nfast    %q %v\ngeneral %q %v", name, text, limit, tok.Tokens(got), cut, tok.Tokens(want), wantCut)
			}
			if limit <= 0 && tok.Count(text) != len(want) {
				t.Fatalf("%s: %q: Count %d, want %d", name, text, tok.Count(text), len(want))
			}
		}
	}
}

// TestAllocations: a reused buffer costs nothing, a fresh one exactly itself.
func TestAllocations(t *testing.T) {
	tok := mini(t)
	texts := []string{
		strings.Repeat("Hello, wonderful internationalisation world! ", 30), strings.Repeat("客户两次询问她的国际转账。", 30),
		strings.Repeat("crème brûlée 서울 ", 30), strings.Repeat("e\u0301\u0327 [MASK] x", 30), "",
	}
	buf := make([]int32, 0, 4096)
	for _, text := range texts {
		if n := testing.AllocsPerRun(50, func() { buf, _ = tok.Encode(text, 0, buf[:0]) }); n > raceSlack {
			t.Errorf("%.20q: %v allocations into a reused buffer of %d ids", text, n, len(buf))
		}
		if n := testing.AllocsPerRun(50, func() { _, _ = tok.Encode(text, 0, nil) }); n > 1+raceSlack {
			t.Errorf("%.20q: %v allocations without a buffer, want 1", text, n)
		}
		if n := testing.AllocsPerRun(50, func() { tok.Count(text) }); n > raceSlack {
			t.Errorf("%.20q: Count allocates %v times", text, n)
		}
	}
}
