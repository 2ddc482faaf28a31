//go:build cuda

package cuda

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func device(t *testing.T) *Device {
	t.Helper()
	d, err := Open(0)
	if errors.Is(err, ErrNoDevice) {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has the simulator at least: %v", err)
		}
		t.Skipf("no device, nor the simulator (make test-cuda-sim): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestBuffers(t *testing.T) {
	d := device(t)
	b, err := d.Alloc("numbers", 400)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Pin(64)
	if err != nil {
		t.Fatal(err)
	}
	in := make([]uint32, 100)
	for i := range in {
		in[i] = uint32(i * i)
	}
	out := make([]uint32, 100)
	err = d.Do(t.Context(), func(q *Queue) error {
		if err := Upload(q, b, 0, in); err != nil {
			return err
		}
		if err := q.Zero(b, 8, 12); err != nil { // runs when it is waited for
			return err
		}
		for i := range p.Bytes {
			p.Bytes[i] = byte(i)
		}
		if err := q.UploadPinned(b, 336, p, 0, 64); err != nil {
			return err
		}
		if err := q.Copy(b, 40, b, 80, 16); err != nil {
			return err
		}
		return Download(q, out, b, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(in)
	clear(want[2:5])
	copy(want[10:14], in[20:24])
	for i := range 16 {
		want[84+i] = uint32(4*i) | uint32(4*i+1)<<8 | uint32(4*i+2)<<16 | uint32(4*i+3)<<24
	}
	if !slices.Equal(out, want) {
		t.Errorf("came back as %v", out)
	}
	m := d.Metrics()
	if m.Allocated != 400 || m.Held["numbers"] != 400 || m.Uploaded != 464 || m.Downloaded != 400 {
		t.Errorf("metrics %+v", m)
	}
	for what, f := range map[string]func(q *Queue) error{
		"past the end":   func(q *Queue) error { return Upload(q, b, 396, []uint64{1}) },
		"before":         func(q *Queue) error { return q.Zero(b, -1, 1) },
		"too long":       func(q *Queue) error { return Download(q, make([]byte, 401), b, 0) },
		"no buffer":      func(q *Queue) error { return q.Zero(nil, 0, 1) },
		"copy beyond":    func(q *Queue) error { return q.Copy(b, 0, b, 336, 65) },
		"pinned too few": func(q *Queue) error { return q.UploadPinned(b, 0, p, 1, 64) },
		"an argument":    func(q *Queue) error { return q.Launch("refine", Launch{}, At(b, 401)) },
	} {
		if err := d.Do(t.Context(), f); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := errors.Join(b.Free(), b.Free(), p.Free(), p.Free()); err != nil {
		t.Error(err)
	}
	if err := d.Do(t.Context(), func(q *Queue) error { return q.Zero(b, 0, 1) }); err == nil || !strings.Contains(err.Error(), "was freed") {
		t.Errorf("after Free: %v", err)
	}
	if m := d.Metrics(); m.Allocated != 0 || m.Peak != 400 {
		t.Errorf("after Free: %+v", m)
	}
}

func TestRefusals(t *testing.T) {
	d := device(t)
	if _, err := d.Alloc("nothing", 0); err == nil {
		t.Error("no bytes are allocated")
	}
	var memory *OutOfMemoryError
	if _, err := d.Alloc("everything", 1<<50); !errors.As(err, &memory) || memory.Asked != 1<<50 || memory.Total < 1 || !errors.Is(err, ErrOutOfMemory) {
		t.Errorf("a petabyte: %v", err)
	}
	if err := d.Do(t.Context(), func(q *Queue) error { return q.Launch("no_such_kernel", Launch{}) }); !errors.Is(err, ErrImage) {
		t.Errorf("a kernel that is not there: %v", err)
	}
	if err := d.Do(t.Context(), func(q *Queue) error {
		return q.Launch("refine", Launch{Block: [3]int{2048}}, Null(), Null(), Null(), I64(0), I64(0), I32(11))
	}); !errors.Is(err, ErrLaunch) {
		t.Errorf("2048 threads: %v", err)
	}
	if err := d.Do(t.Context(), func(q *Queue) error { return q.Launch("refine", Launch{Shared: 1 << 30}) }); !errors.Is(err, ErrLaunch) {
		t.Errorf("a gigabyte of shared memory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Do(ctx, func(*Queue) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Open(1000); !errors.Is(err, ErrNoDevice) {
		t.Errorf("device 1000: %v", err)
	}
	if _, err := Open(-1); !errors.Is(err, ErrNoDevice) {
		t.Errorf("device -1: %v", err)
	}
}

// TestDamagedImage: a fatbin that was cut or changed is refused before the driver
// sees it.
func TestDamagedImage(t *testing.T) {
	d := device(t)
	files, err := fs.Glob(images, "build/kernels/*.fatbin")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	image, err := images.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for what, raw := range map[string][]byte{
		"nothing": nil, "a head": image[:16], "cut": image[:len(image)-1], "longer": append(slices.Clone(image), 0),
		"no magic": append([]byte{1}, image[1:]...),
	} {
		if err := d.on(func() error { return d.b.load("test", raw) }); !errors.Is(err, ErrImage) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDeviceRefuses: devices that cannot be used say which kind of why, and can be once they
// can.
func TestDeviceRefuses(t *testing.T) {
	if d := device(t); !d.Info().Simulated {
		t.Skip("only the simulator refuses when asked to")
	}
	for _, c := range []struct {
		name, value string
		kind        error
		says        string
	}{
		{"KINDRED_SIM_CREATE", "46", ErrBusy, "(46)"},
		{"KINDRED_SIM_CREATE", "2", ErrOutOfMemory, "(2)"},
		{"KINDRED_SIM_LOAD", "209", ErrImage, "(209)"},
		{"KINDRED_SIM_LOAD", "222", ErrImage, "(222)"},
		{"KINDRED_SIM_CAPABILITY", "75", ErrNoDevice, "7.5, and the kernels need 8.0"},
		{"KINDRED_SIM_DRIVER", "11080", ErrNoDevice, "the driver is too old: it is of CUDA 11.8"},
	} {
		t.Setenv(c.name, c.value)
		d, err := Open(0)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
		if err == nil {
			_ = d.Close()
		}
		t.Setenv(c.name, "")
	}
	// A kernel that takes too long loses the device, which can be opened again.
	t.Setenv("KINDRED_SIM_LOSE", "1")
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KINDRED_SIM_LOSE", "")
	t.Setenv("KINDRED_SIM_LOSE_CODE", "702")
	b, err := d.Alloc("numbers", 8)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Do(t.Context(), func(q *Queue) error {
		return q.Launch("collect", Launch{}, At(b, 0), At(b, 0), At(b, 0), At(b, 0), At(b, 0), I64(0), I64(0))
	})
	if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "(702)") {
		t.Errorf("a kernel that takes too long: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if d, err = Open(0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseSaysWhatIsHeld(t *testing.T) {
	device(t)
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Alloc("something", 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "10 bytes for something") {
		t.Errorf("Close: %v", err)
	}
	if err := errors.Join(d.Close(), b.Free()); err != nil {
		t.Error(err)
	}
	if _, err := d.Alloc("more", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestGivenUpWaiting: work that is given up while it waits for the device's other work does
// not wait on, and is not done later.
func TestGivenUpWaiting(t *testing.T) {
	d := device(t)
	begun, end, first := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		first <- d.Do(t.Context(), func(*Queue) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	done := false
	if err := d.Do(ctx, func(*Queue) error { done = true; return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	close(end)
	if err := errors.Join(<-first, d.Do(t.Context(), func(*Queue) error { return nil })); err != nil || done {
		t.Errorf("%v; done all the same: %v", err, done)
	}
}

// TestManyAtOnce: goroutines share a device, and one closes it under them.
func TestManyAtOnce(t *testing.T) {
	device(t)
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				b, err := d.Alloc("shared", 64)
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				want, got := []int64{int64(g), int64(i)}, make([]int64, 2)
				err = d.Do(t.Context(), func(q *Queue) error { return errors.Join(Upload(q, b, 0, want), Download(q, got, b, 0)) })
				if err != nil && !errors.Is(err, ErrClosed) || err == nil && !slices.Equal(got, want) {
					t.Errorf("%v is %v: %v", want, got, err)
				}
				if err := b.Free(); err != nil {
					t.Error(err)
				}
				if g == 0 && i == 50 {
					_ = d.Close() // says what others hold just now
					return
				}
			}
		})
	}
	wg.Wait()
}
