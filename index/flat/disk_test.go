package flat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/kindred-search/kindred/index"
)

func TestBitRotIsReported(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir)
	e, err := s.Create(ctx, index.Spec{Name: "b", Dim: 4})
	if err == nil {
		err = e.Upsert(ctx, []index.Row{{ID: "sound", Vector: []float32{1, 0, 0, 0}}, {ID: "hurt", Vector: []float32{1, 0, 0, 1}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	key := collKey(tagRow, 0, "hurt")
	v, closer, err := s.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{}, v...)
	bad[len(bad)-1] ^= 4
	if err := errors.Join(closer.Close(), s.db.Set(key, bad, pebble.Sync)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Get(ctx, []string{"hurt"}); !errors.Is(err, index.ErrCorrupt) || !strings.Contains(err.Error(), "hurt") {
		t.Errorf("get: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, err := s.Open(ctx, "b"); !errors.Is(err, index.ErrCorrupt) || !strings.Contains(err.Error(), "hurt") {
		t.Errorf("open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// faulty is a disk in memory whose operations of these kinds fail with err while
// broken holds.
func faulty(broken *atomic.Bool, err error, kinds ...errorfs.OpKind) vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && slices.Contains(kinds, op.Kind) {
			return err
		}
		return nil
	}))
}

// TestBrokenDisk: when a write to disk fails, the write says so, nothing of it
// is shown as if it were there, and reading goes on.
func TestBrokenDisk(t *testing.T) {
	for name, c := range map[string]struct {
		kinds []errorfs.OpKind
		err   error
	}{
		"full": {[]errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpCreate}, syscall.ENOSPC},
		"sync": {[]errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			var broken atomic.Bool
			s, err := Open("data", Options{fs: faulty(&broken, c.err, c.kinds...)})
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.Create(ctx, index.Spec{Name: "f", Dim: 2})
			if err == nil {
				err = e.Upsert(ctx, []index.Row{{ID: "a", Vector: []float32{1, 0}}})
			}
			if err != nil {
				t.Fatal(err)
			}
			want := index.ErrNoSpace
			if !errors.Is(c.err, syscall.ENOSPC) {
				want = c.err
			}
			broken.Store(true)
			for range 3 {
				if err := e.Upsert(ctx, []index.Row{{ID: "b"}}); !errors.Is(err, want) {
					t.Fatalf("write to a broken disk: %v", err)
				}
				if _, err := e.Delete(ctx, []string{"c"}); !errors.Is(err, want) {
					t.Fatalf("delete on a broken disk: %v", err)
				}
			}
			if hits, err := e.Search(ctx, index.Query{Limit: 5}); err != nil || len(hits) != 1 {
				t.Fatalf("reading on: %v, %v", hits, err)
			}
			if rows, err := e.Get(ctx, []string{"a"}); err != nil || rows[0] == nil {
				t.Errorf("a row that is on disk: %v, %v", rows, err)
			}
			if rows, err := e.Get(ctx, []string{"b"}); err == nil && rows[0] != nil {
				t.Errorf("a row whose write failed is shown: %+v", rows[0])
			}
			broken.Store(false)
			if err := s.Close(); err != nil {
				t.Logf("close after a failed write: %v", err)
			}
		})
	}
}

// small is a disk with little room.
type small struct {
	vfs.FS
	free *atomic.Uint64
}

func (s small) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: s.free.Load(), TotalBytes: 1 << 40}, nil
}

// TestMinFree: below the reserve every kind of write is refused and changes
// nothing; with room again, the same store writes on.
func TestMinFree(t *testing.T) {
	ctx := context.Background()
	var free atomic.Uint64
	free.Store(1 << 30)
	s, err := Open("data", Options{fs: small{vfs.NewMem(), &free}, MinFree: 100 << 20})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Create(ctx, index.Spec{Name: "f", Dim: 2})
	if err == nil {
		err = e.Upsert(ctx, []index.Row{{ID: "a", Vector: []float32{1, 0}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	writes := map[string]func() error{
		"upsert": func() error { return e.Upsert(ctx, []index.Row{{ID: "b"}}) },
		"delete": func() error { _, err := e.Delete(ctx, []string{"a"}); return err },
		"create": func() error { _, err := s.Create(ctx, index.Spec{Name: "g"}); return err },
		"alter":  func() error { return s.Alter(ctx, "f", []index.Column{{Name: "x", Kind: index.Number}}) },
		"put":    func() error { return s.KV().Put(ctx, map[string][]byte{"k": []byte("v")}) },
		"drop":   func() error { return s.Drop(ctx, "f") },
	}
	free.Store(100<<20 - 1)
	for name, write := range writes {
		if err := write(); !errors.Is(err, index.ErrNoSpace) {
			t.Errorf("%s with 99 MB free: %v", name, err)
		}
	}
	rows, err := e.Get(ctx, []string{"a", "b"})
	if err != nil || rows[0] == nil || rows[1] != nil || len(e.Spec().Columns) != 0 {
		t.Errorf("refused writes left %v, %v, columns %v", rows, err, e.Spec().Columns)
	}
	if specs, err := s.List(ctx); err != nil || len(specs) != 1 {
		t.Errorf("refused writes left collections %v, %v", specs, err)
	}
	free.Store(100 << 20)
	for _, name := range []string{"upsert", "delete", "create", "alter", "put", "drop"} {
		if err := writes[name](); err != nil {
			t.Errorf("%s with room again: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
