//go:build cuda

package cuda

import (
	"errors"
	"slices"
	"testing"
)

// TestSlowCopies: a copy that is made at once and one that takes as long as it may have read
// what they were given, and what follows them sees what they brought; who changes the source of
// one too early is told.
func TestSlowCopies(t *testing.T) {
	for _, slow := range []string{"", "1"} {
		t.Setenv("KINDRED_SIM_SLOW", slow)
		copies(t)
	}
	if d := device(t); !d.Info().Simulated {
		t.Skip("what a device reads of a source that changes is not known")
	}
	for name, f := range map[string]func(q *Queue, b *Buffer, p *Pinned) error{
		"before a mark": func(q *Queue, b *Buffer, p *Pinned) error {
			err := q.UploadPinned(b, 0, p, 0, 16)
			p.Bytes[3]++
			return err
		},
		"before the mark behind it": func(q *Queue, b *Buffer, p *Pinned) error {
			err := errors.Join(q.Mark(0), q.UploadPinned(b, 0, p, 0, 16), q.Mark(1), q.Reached(0))
			p.Bytes[15]++
			return errors.Join(err, q.Reached(1))
		},
	} {
		d, err := Open(0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.Alloc("numbers", 16)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Pin(16)
		if err != nil {
			t.Fatal(err)
		}
		copy(p.Bytes, slices.Repeat([]byte{7}, 16))
		if err := d.Do(t.Context(), func(q *Queue) error { return f(q, b, p) }); !errors.Is(err, ErrLost) {
			t.Errorf("a source that changes %s: %v", name, err)
		}
		if err := errors.Join(b.Free(), p.Free(), d.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func copies(t *testing.T) {
	t.Helper()
	d := device(t)
	b, err := d.Alloc("numbers", 64)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Pin(16)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 64)
	copy(p.Bytes, "pinned, and once")
	err = d.Do(t.Context(), func(q *Queue) error {
		src := []byte("not pinned, here")
		if err := Upload(q, b, 0, src); err != nil {
			return err
		}
		clear(src)
		if err := errors.Join(q.Copy(b, 16, b, 0, 16), q.UploadPinned(b, 32, p, 0, 16), q.Mark(0), q.Reached(0)); err != nil {
			return err
		}
		copy(p.Bytes, "pinned, and more")
		return errors.Join(q.UploadPinned(b, 48, p, 0, 16), q.Copy(b, 32, b, 0, 16), Upload(q, b, 0, []byte("over what's read")), Download(q, out, b, 0))
	})
	if want := "over what's readnot pinned, herenot pinned, herepinned, and more"; err != nil || string(out) != want {
		t.Fatalf("%q, %v; want %q", out, err, want)
	}
	first := ""
	err = d.Do(t.Context(), func(q *Queue) error {
		err := errors.Join(q.DownloadPinned(p, 0, b, 16, 16), q.Mark(1), q.Reached(1))
		first = string(p.Bytes)
		return errors.Join(err, q.DownloadPinned(p, 4, b, 48, 12))
	})
	if second := string(p.Bytes); err != nil || first != "not pinned, here" || second != "not pinned, and " {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
	if err := d.Do(t.Context(), func(q *Queue) error { return q.DownloadPinned(p, 8, b, 0, 9) }); err == nil {
		t.Error("more is copied than there is room for")
	}
	if err := errors.Join(b.Free(), p.Free()); err != nil {
		t.Error(err)
	}
}
