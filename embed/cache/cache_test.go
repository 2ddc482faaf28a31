package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kindred-search/kindred/embed"
)

func keyOf(i int) (k Key) {
	binary.LittleEndian.PutUint64(k[:], uint64(i))
	return k
}

func entryOf(i int) Entry {
	e := Entry{Vector: make([]float32, 64), Tokens: i, Truncated: i%3 == 0}
	for j := range e.Vector {
		e.Vector[j] = float32(i) + float32(j)/7
	}
	return e
}

func same(a, b Entry) bool {
	return slices.Equal(a.Vector, b.Vector) && a.Tokens == b.Tokens && a.Truncated == b.Truncated
}

func open(t *testing.T, opt Options) *Cache {
	t.Helper()
	c, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestMemoryIsBounded(t *testing.T) {
	each := int64(overhead + 4*64)
	c := open(t, Options{MaxBytes: 10 * each})
	for i := range 100 {
		c.Put(keyOf(i), entryOf(i))
		c.Get(keyOf(0)) // used again and again, so it stays
		if s := c.Stats(); s.Bytes > 10*each || s.Bytes != s.Entries*each {
			t.Fatalf("after %d: %+v", i, s)
		}
	}
	if got, ok := c.Get(keyOf(0)); !ok || !same(got, entryOf(0)) {
		t.Error("the entry in use was dropped")
	}
	if _, ok := c.Get(keyOf(50)); ok {
		t.Error("an old entry is still there")
	}
	if s := c.Stats(); s.Evictions != 90 || s.Entries != 10 || s.Misses != 1 || s.Hits != 101 {
		t.Errorf("%+v", s)
	}
	got, _ := c.Get(keyOf(99))
	got.Vector[0] = -1
	if again, _ := c.Get(keyOf(99)); !same(again, entryOf(99)) {
		t.Error("a caller changed what the cache holds")
	}
	for _, opt := range []Options{{}, {MaxBytes: 1, Dir: t.TempDir()}} {
		if _, err := Open(opt); err == nil {
			t.Errorf("%+v was taken", opt)
		}
	}
}

func TestDisk(t *testing.T) {
	opt := Options{MaxBytes: 1, Dir: filepath.Join(t.TempDir(), "a", "b"), MaxDiskBytes: 40 * recordBytes(64)} // nothing fits in memory
	c := open(t, opt)
	for i := range 100 {
		c.Put(keyOf(i), entryOf(i))
		if s := c.Stats(); s.DiskBytes > opt.MaxDiskBytes || s.Entries != 0 {
			t.Fatalf("after %d: %+v", i, s)
		}
	}
	check := func(c *Cache, from, to int) {
		t.Helper()
		for i := range 100 {
			got, ok := c.Get(keyOf(i))
			if ok != (i >= from && i < to) || ok && !same(got, entryOf(i)) {
				t.Errorf("entry %d: %v", i, ok)
			}
		}
	}
	check(c, 60, 100)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, opt)
	check(c, 60, 100)
	c.Put(keyOf(100), entryOf(100)) // both files are full: the older 20 go
	if got, ok := c.Get(keyOf(100)); !ok || !same(got, entryOf(100)) {
		t.Error("an entry after the restart was lost")
	}
	if s := c.Stats(); s.DiskBytes > opt.MaxDiskBytes || s.DiskHits != 41 {
		t.Errorf("%+v", s)
	}
}

// TestTorn cuts the file at every byte of its last record and flips every byte of the middle one: what
// is damaged is not served, what lies before it is, and the cache goes on.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	opt := Options{MaxBytes: 1, Dir: dir, MaxDiskBytes: 1 << 20}
	c := open(t, opt)
	for i := range 3 {
		c.Put(keyOf(i), entryOf(i))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	path, n := filepath.Join(dir, "vectors.1"), int(recordBytes(64))
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) != 3*n {
		t.Fatal(len(whole), err)
	}
	try := func(raw []byte, sound int) {
		t.Helper()
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, opt)
		defer func() { _ = c.Close() }()
		if s := c.Stats(); s.Damaged != 1 {
			t.Fatalf("%+v", s)
		}
		for i := range 3 {
			got, ok := c.Get(keyOf(i))
			if ok != (i < sound) || ok && !same(got, entryOf(i)) {
				t.Fatalf("%d bytes, entry %d: %v", len(raw), i, ok)
			}
			c.Put(keyOf(i), entryOf(i))
			if got, ok := c.Get(keyOf(i)); !ok || !same(got, entryOf(i)) {
				t.Fatalf("entry %d could not be put again", i)
			}
		}
	}
	for cut := 2*n + 1; cut < 3*n; cut++ {
		try(whole[:cut], 2)
	}
	for at := n; at < 2*n; at++ {
		bad := slices.Clone(whole)
		bad[at] ^= 0x10
		try(bad, 1)
	}
	// Damage that comes while the cache is open.
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, opt)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xEE}, int64(n+50)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if _, ok := c.Get(keyOf(1)); ok || c.Stats().Damaged != 1 {
		t.Errorf("damaged entry: %v, %+v", ok, c.Stats())
	}
}

func TestConcurrent(t *testing.T) {
	c := open(t, Options{MaxBytes: 20 * (overhead + 256), Dir: t.TempDir(), MaxDiskBytes: 60 * recordBytes(64)})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				n := (i*7 + g*13) % 100
				if got, ok := c.Get(keyOf(n)); ok && !same(got, entryOf(n)) {
					t.Errorf("entry %d is another", n)
				}
				c.Put(keyOf(n), entryOf(n))
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Hits+s.Misses != 4000 || s.Damaged != 0 || s.DiskFails != 0 {
		t.Errorf("%+v", s)
	}
}

// counted says what reached the model.
type counted struct {
	*embed.Model
	texts int
}

func (c *counted) Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error) {
	c.texts += len(texts)
	return c.Model.Encode(ctx, texts, opt)
}

func (c *counted) EncodeTokens(ctx context.Context, ids [][]int32, opt embed.EncodeOptions) (*embed.Result, error) {
	c.texts += len(ids)
	return c.Model.EncodeTokens(ctx, ids, opt)
}

func TestEncoderGivesTheSameBits(t *testing.T) {
	m, err := embed.Open(filepath.Join("..", "testdata", "tiny"), embed.Options{Pooling: "mean"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	source := &counted{Model: m}
	e := NewEncoder(source, open(t, Options{MaxBytes: 1 << 20, Dir: t.TempDir(), MaxDiskBytes: 1 << 20}))
	if e.Tokenizer() != m.Tokenizer() {
		t.Error("another tokenizer")
	}
	ctx := context.Background()
	equal := func(got, want *embed.Result) {
		t.Helper()
		if !slices.Equal(got.Vectors, want.Vectors) || !slices.Equal(got.Tokens, want.Tokens) || !slices.Equal(got.Truncated, want.Truncated) {
			t.Error("the answers differ")
		}
	}
	texts := []string{"hello", "world", "hello", "", strings.Repeat("long ", 2000), "world"}
	for round, reached := range []int{4, 4, 8} { // distinct texts that reached the model so far
		opt := embed.EncodeOptions{}
		if round == 2 {
			opt.Prompt = "query: "
		}
		want, err := m.Encode(ctx, texts, opt)
		if err != nil {
			t.Fatal(err)
		}
		last := 0
		opt.Progress = func(done, total int) {
			if total != len(texts) || done < last {
				t.Errorf("progress %d of %d", done, total)
			}
			last = done
		}
		got, err := e.Encode(ctx, texts, opt)
		if err != nil {
			t.Fatal(err)
		}
		equal(got, want)
		if source.texts != reached || last != len(texts) {
			t.Errorf("round %d: %d texts reached the model, want %d; progress %d", round, source.texts, reached, last)
		}
	}
	ids := [][]int32{{1, 2}, {1, 2, 3}, {1, 2}}
	for range 2 {
		want, err := m.EncodeTokens(ctx, ids, embed.EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.EncodeTokens(ctx, ids, embed.EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		equal(got, want)
	}
	if source.texts != 10 {
		t.Errorf("%d texts reached the model, want 10", source.texts)
	}
	_, want := m.EncodeTokens(ctx, [][]int32{{1, 2}, {}}, embed.EncodeOptions{})
	if _, err := e.EncodeTokens(ctx, [][]int32{{1, 2}, {}}, embed.EncodeOptions{}); !errors.Is(err, embed.ErrInput) || err.Error() != want.Error() {
		t.Errorf("error %v, want %v", err, want)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e.Encode(gone, texts, embed.EncodeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, but all in the cache: %v", err)
	}
	if res, err := e.Encode(ctx, nil, embed.EncodeOptions{}); err != nil || len(res.Vectors) != 0 {
		t.Errorf("no texts: %v %v", res, err)
	}
}
