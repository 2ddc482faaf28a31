package scan

import (
	"bytes"
	"context"
	"unsafe"

	"github.com/kindred-search/kindred/cuda"
)

// putMask has p.mask hold the rows that count. A mask that is the last one's is there already:
// to compare 100 million rows' takes the host a millisecond, and to copy them the device as
// long, while it can do nothing else.
func (p *Population) putMask(ctx context.Context, mask []uint64) error {
	if p.mask != nil && len(mask) == len(p.masked) && bytes.Equal(wordBytes(mask), wordBytes(p.masked)) {
		return nil
	}
	if p.mask == nil || p.mask.Size() < 8*int64(len(mask)) {
		if err := p.dropMask(); err != nil {
			return err
		}
		var err error
		if p.mask, err = p.d.Alloc("mask", 8*int64(len(mask))); err != nil {
			return err
		}
	}
	p.masked = p.masked[:0] // of a copy that fails nobody knows what is there
	if err := p.d.Do(ctx, func(q *cuda.Queue) error { return cuda.Upload(q, p.mask, 0, mask) }); err != nil {
		return err
	}
	p.masked = append(p.masked, mask...)
	return nil
}

// dropMask gives the mask's memory back.
func (p *Population) dropMask() error {
	b := p.mask
	p.mask, p.masked = nil, nil
	return b.Free()
}

func wordBytes(x []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 8*len(x))
}
