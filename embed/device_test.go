package embed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
)

// fakeDevice encodes with a model of the CPU, and fails when it is told to.
type fakeDevice struct {
	cpu            *Model
	fail, failOpen error
	notes          []error
	opened, closed int
	texts          int
	during         func() // called while a batch is encoded; nil for nothing
	cfg            encoder.Config
}

func (f *fakeDevice) NewModel(_ context.Context, cfg encoder.Config, get encoder.Tensors) (DeviceModel, error) {
	if f.failOpen != nil {
		return nil, f.failOpen
	}
	if _, err := get("encoder.layer.0.attention.self.query.weight", cfg.Dim, cfg.Dim); err != nil {
		return nil, err
	}
	f.opened++
	f.cfg = cfg
	return (*fakeModel)(f), nil
}

func (f *fakeDevice) NoteModel(err error) { f.notes = append(f.notes, err) }

type fakeModel fakeDevice

func (m *fakeModel) Encode(ctx context.Context, texts [][]int32) ([]float32, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	m.texts += len(texts)
	if m.during != nil {
		m.during()
	}
	res, err := m.cpu.EncodeTokens(ctx, texts, EncodeOptions{})
	if err != nil {
		return nil, err
	}
	return res.Vectors, nil
}

func (m *fakeModel) Close() error { m.closed++; return nil }

func onFake(t *testing.T) (*Model, *fakeDevice) {
	t.Helper()
	cpu, err := Open("testdata/tiny", Options{Pooling: "mean", Precision: FP32})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeDevice{cpu: cpu}
	m, err := Open("testdata/tiny", Options{Pooling: "mean", Precision: FP16, Device: f})
	if err != nil {
		t.Fatal(err)
	}
	return m, f
}

func TestDevice(t *testing.T) {
	m, f := onFake(t)
	if f.opened != 1 || f.cfg.Dim != m.cfg.Dim || f.cfg.Layers != m.cfg.Layers || f.cfg.Pooling != "mean" || f.cfg.Eps != m.cfg.Eps {
		t.Errorf("the device was given %+v", f.cfg)
	}
	if !strings.HasSuffix(m.Info().Stamp, "+fp16") {
		t.Errorf("stamp %s", m.Info().Stamp)
	}
	texts := []string{"a b", "c", "a b", "", "c d e"}
	want, err := f.cpu.Encode(t.Context(), texts, EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.texts = 0
	last := 0
	got, err := m.Encode(t.Context(), texts, EncodeOptions{Progress: func(done, total int) { last = done }})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Vectors, want.Vectors) || !slices.Equal(got.Tokens, want.Tokens) {
		t.Error("the device's vectors are not in the order of the texts")
	}
	if f.texts != 4 || last != 5 || len(f.notes) != 1 || f.notes[0] != nil {
		t.Errorf("%d texts of 4 different ones went to the device, %d of 5 are done, notes %v", f.texts, last, f.notes)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil || f.closed != 1 {
		t.Errorf("closed %d times: %v", f.closed, err)
	}
	if _, err := m.Encode(t.Context(), texts, EncodeOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestDeviceFails: the texts are then encoded here, which is told, and the device is
// left alone for a while.
func TestDeviceFails(t *testing.T) {
	texts := []string{"a b", "c"}
	for _, c := range []struct {
		err  error
		drop bool
	}{{cuda.ErrLost, true}, {cuda.ErrClosed, true}, {&cuda.OutOfMemoryError{Asked: 1}, true}, {cuda.ErrLaunch, false}} {
		m, f := onFake(t)
		want, err := f.cpu.Encode(t.Context(), texts, EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f.fail = c.err
		for range 2 {
			got, err := m.Encode(t.Context(), texts, EncodeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range got.Vectors {
				if math.Abs(float64(x-want.Vectors[i])) > 1e-6 {
					t.Fatalf("after %v element %d is %g, want %g", c.err, i, x, want.Vectors[i])
				}
			}
		}
		if len(f.notes) != 1 || !errors.Is(f.notes[0], c.err) || (f.closed == 1) != c.drop {
			t.Errorf("after %v: notes %v, closed %d times", c.err, f.notes, f.closed)
		}
		f.fail, m.device.retry = nil, time.Time{}
		if _, err := m.Encode(t.Context(), texts, EncodeOptions{}); err != nil || len(f.notes) != 2 || f.notes[1] != nil {
			t.Errorf("after %v the device was not tried again: %v, notes %v", c.err, err, f.notes)
		}
	}
}

func TestDeviceRefused(t *testing.T) {
	if _, err := Open("testdata/tiny", Options{Pooling: "mean", Precision: FP16}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "--device cuda") {
		t.Errorf("fp16 without a device: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Open("testdata/tiny", Options{Pooling: "mean", Precision: FP16, Device: &fakeDevice{failOpen: broken}}); !errors.Is(err, broken) {
		t.Errorf("a device that takes no model: %v", err)
	}
	// Without a device for now, the texts are encoded here, which is told once.
	none := &fakeDevice{failOpen: fmt.Errorf("away: %w", cuda.ErrNoDevice)}
	away, err := Open("testdata/tiny", Options{Pooling: "mean", Precision: FP16, Device: none})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := away.Encode(t.Context(), []string{"a"}, EncodeOptions{}); err != nil || len(none.notes) != 1 || !errors.Is(none.notes[0], cuda.ErrNoDevice) {
			t.Errorf("a device that is away: %v, notes %v", err, none.notes)
		}
	}
	m, f := onFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Encode(ctx, []string{"a"}, EncodeOptions{}); !errors.Is(err, context.Canceled) || len(f.notes) != 0 {
		t.Errorf("cancelled: %v, notes %v", err, f.notes)
	}
}

// TestDeviceGivenUpWaiting: who waits for another's batch and is given up does not wait on.
func TestDeviceGivenUpWaiting(t *testing.T) {
	m, f := onFake(t)
	begun, end := make(chan struct{}), make(chan struct{})
	f.during = func() { close(begun); <-end }
	first := make(chan error)
	go func() {
		_, err := m.Encode(t.Context(), []string{"a"}, EncodeOptions{})
		first <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Encode(ctx, []string{"b"}, EncodeOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	close(end) // not before: the other waited for nothing
	if err := <-first; err != nil || len(f.notes) != 1 {
		t.Errorf("%v, notes %v", err, f.notes)
	}
}
