package embed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/embed/weights"
)

// Device runs models of precision [FP16] and [BF16]: see package cuda/encoder.
type Device interface {
	// NewModel puts a model on the device. An error that is [cuda.ErrNoDevice] leaves the texts
	// to the CPU until the device is tried again; of any other, the model is not opened.
	NewModel(ctx context.Context, cfg encoder.Config, get encoder.Tensors) (DeviceModel, error)
	// NoteModel is told of every batch that the device encoded (nil), and of what kept
	// it from encoding one; the texts are then encoded here, in fp32.
	NoteModel(err error)
}

// DeviceModel is a model on a device.
type DeviceModel interface {
	Encode(ctx context.Context, texts [][]int32) ([]float32, error)
	Close() error
}

const (
	// deviceRetry is how long a device is left alone after it failed.
	deviceRetry = 30 * time.Second
	// deviceBatch is how many tokens go to the device between two looks at the
	// context and two words of progress.
	deviceBatch = 1 << 16
)

// onDevice is a model's place on a device.
type onDevice struct {
	device  Device
	cfg     encoder.Config
	tensors *weights.Tensors

	turn   chan struct{} // full while a batch goes on, or the model is closed: what follows is its
	model  DeviceModel   // nil: not there, or no longer
	closed bool
	retry  time.Time
}

// newOnDevice puts a model on its device.
func newOnDevice(d Device, cfg config, pool pooling, p Precision, t *weights.Tensors) (*onDevice, error) {
	if d == nil {
		return nil, fmt.Errorf("%w: precision %s is of CUDA devices, and none is in use here (`kindred doctor` says why): choose fp32, int16 or int8, or give --device cuda to a binary that `make build-cuda` built", ErrUnsupported, p)
	}
	o := &onDevice{device: d, tensors: t, turn: make(chan struct{}, 1), cfg: encoder.Config{
		Dim: cfg.Dim, Inner: cfg.Inner, Layers: cfg.Layers, Heads: cfg.Heads,
		Vocab: cfg.Vocab, Positions: cfg.Positions, TokenTypes: cfg.TokenTypes, Eps: cfg.Eps, Pooling: string(pool), Bfloat16: p == BF16,
	}}
	err := o.open(context.Background())
	if errors.Is(err, cuda.ErrNoDevice) {
		d.NoteModel(err)
		o.retry = time.Now().Add(deviceRetry)
		err = nil
	}
	return o, err
}

func (o *onDevice) open(ctx context.Context) (err error) {
	o.model, err = o.device.NewModel(ctx, o.cfg, func(name string, shape ...int) ([]float32, error) { return o.tensors.Want(name, shape...) })
	return err
}

func (o *onDevice) close() error {
	if o == nil {
		return nil
	}
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.closed = true
	return o.drop()
}

func (o *onDevice) drop() error {
	m := o.model
	o.model = nil
	if m == nil {
		return nil
	}
	return m.Close()
}

// encode writes the vectors of texts to dst, [texts, dim], and reports false where the
// device could not. An error is that of ctx.
func (o *onDevice) encode(ctx context.Context, texts [][]int32, dst []float32, progress func(done int)) (bool, error) {
	if o == nil {
		return false, nil
	}
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if o.closed || time.Now().Before(o.retry) {
		return false, nil
	}
	err := o.all(ctx, texts, dst, progress)
	if err != nil && ctx.Err() != nil {
		return false, ctx.Err()
	}
	o.device.NoteModel(err)
	if err == nil {
		return true, nil
	}
	o.retry = time.Now().Add(deviceRetry)
	if errors.Is(err, cuda.ErrLost) || errors.Is(err, cuda.ErrClosed) || errors.Is(err, cuda.ErrOutOfMemory) {
		if err := o.drop(); err != nil {
			o.device.NoteModel(err)
		}
	}
	return false, nil
}

func (o *onDevice) all(ctx context.Context, texts [][]int32, dst []float32, progress func(done int)) error {
	if o.model == nil {
		if err := o.open(ctx); err != nil {
			return err
		}
	}
	for done := 0; done < len(texts); {
		n, tokens := 0, 0
		for done+n < len(texts) && (n == 0 || tokens+len(texts[done+n]) <= deviceBatch) {
			tokens += len(texts[done+n])
			n++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		vectors, err := o.model.Encode(ctx, texts[done:done+n])
		if err != nil {
			return err
		}
		copy(dst[done*o.cfg.Dim:], vectors)
		done += n
		progress(done)
	}
	return nil
}

// encodeOnDevice encodes the distinct texts of ids on the model's device, and reports
// false where there is none or it could not.
func (m *Model) encodeOnDevice(ctx context.Context, ids [][]int32, first []int, res *Result, progress func(done, total int)) (bool, error) {
	if m.device == nil {
		return false, nil
	}
	dim := m.info.Dim
	var texts [][]int32
	var at []int
	for i, f := range first {
		if f == i {
			texts, at = append(texts, ids[i]), append(at, i)
		}
	}
	vectors := make([]float32, len(texts)*dim)
	made, err := m.device.encode(ctx, texts, vectors, func(done int) {
		if progress != nil {
			progress(len(ids)-len(texts)+done, len(ids))
		}
	})
	if err != nil || !made {
		return false, err
	}
	for j, i := range at {
		copy(res.Vectors[i*dim:(i+1)*dim], vectors[j*dim:(j+1)*dim])
	}
	repeat(res.Vectors, first, dim)
	return true, nil
}
