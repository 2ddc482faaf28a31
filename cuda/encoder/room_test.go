//go:build cuda

package encoder

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/cudatest"
)

// TestRowsGiveWay: a model has its weights and activations on a device that rows have filled,
// and a model too large for it is refused with the numbers.
func TestRowsGiveWay(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator has as little memory as is asked for")
	}
	const memory = 200_000
	t.Setenv("KINDRED_SIM_MEMORY", strconv.Itoa(memory))
	d := cudatest.Open(t)
	var rows []*cuda.Buffer
	h := d.Hold(func(least, most int64) (freed int64) {
		for ; freed < least && len(rows) > 0; rows = rows[1:] {
			freed += rows[0].Size()
			if err := rows[0].Free(); err != nil {
				t.Error(err)
			}
		}
		return freed
	})
	defer h.Close()
	for range memory / 1000 {
		b, err := d.Alloc("rows", 1000)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, b)
	}
	h.Holds(d.Metrics().Held["rows"])
	oracle := random(nil, small)
	m, err := New(t.Context(), d, small, oracle.get)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Encode(t.Context(), [][]int32{{1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if x := cosine(oracle.encode([]int32{1, 2, 3}), got); !(x >= 0.9999) {
		t.Errorf("cosine %v", x)
	}
	if held := d.Metrics().Held; held["weights"] == 0 || held["activations"] == 0 || held["rows"] == 0 {
		t.Errorf("held: %v", held)
	}
	large := small
	large.Vocab *= 1000
	var full *cuda.OutOfMemoryError
	if _, err := New(t.Context(), d, large, random(nil, large).get); !errors.As(err, &full) || full.Asked < memory || full.Total != memory {
		t.Errorf("a model that is too large: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for _, b := range rows {
		if err := b.Free(); err != nil {
			t.Error(err)
		}
	}
}

// TestSmallBatches: where there is no memory for a large batch, smaller ones give the same vectors.
func TestSmallBatches(t *testing.T) {
	if d := cudatest.Open(t); !d.Info().Simulated {
		t.Skip("only the simulator has as little memory as is asked for")
	}
	oracle := random(nil, small)
	var texts [][]int32
	for i := range 300 {
		texts = append(texts, []int32{int32(i % 20), 1, 2, 3, int32(i % 7), 4, 5, 6})
	}
	var vectors [2][]float32
	for i, memory := range []int{10 << 20, 900_000} {
		t.Setenv("KINDRED_SIM_MEMORY", strconv.Itoa(memory))
		d := cudatest.Open(t)
		m, err := New(t.Context(), d, small, oracle.get)
		if err != nil {
			t.Fatal(err)
		}
		if vectors[i], err = m.Encode(t.Context(), texts); err != nil {
			t.Fatal(err)
		}
		if smaller := m.budget < budget; smaller != (i == 1) {
			t.Errorf("with %d bytes, batches of %d tokens", memory, m.budget)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(vectors[0], vectors[1]) {
		t.Error("other vectors in smaller batches")
	}
}

// TestEncodeGivenUp: who waits for another's texts and is given up returns at once.
func TestEncodeGivenUp(t *testing.T) {
	d := cudatest.Open(t)
	oracle := random(nil, small)
	m, err := New(t.Context(), d, small, oracle.get)
	if err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	if err := d.Inject(func(call string) error {
		if call == "launch" && !once.Swap(true) {
			close(begun)
			<-end
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	texts := [][]int32{{1, 2}, {3}}
	var first []float32
	done := make(chan error)
	go func() {
		var err error
		first, err = m.Encode(t.Context(), texts)
		done <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Encode(ctx, texts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	again, err := m.Encode(t.Context(), texts)
	if err != nil || !slices.Equal(first, again) {
		t.Errorf("afterwards: %v", err)
	}
	if err := errors.Join(d.Inject(nil), m.Close()); err != nil {
		t.Error(err)
	}
}
