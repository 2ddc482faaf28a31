package cuda

import "errors"

// Want is a buffer that is wanted: where it goes, what for, and its bytes, above 0.
type Want struct {
	To      **Buffer
	Purpose string
	Size    int64
}

// AllocAll allocates all of these, or none.
func (d *Device) AllocAll(wants ...Want) error {
	for i, w := range wants {
		b, err := d.Alloc(w.Purpose, w.Size)
		if err != nil {
			for _, w := range wants[:i] {
				err = errors.Join(err, (*w.To).Free())
				*w.To = nil
			}
			return err
		}
		*w.To = b
	}
	return nil
}

// Borrow allocates buffers of some sizes in bytes, of which one below 1 counts as 1, gives
// them to f, and frees them when f has ended. An error is that of an allocation, of f, or
// of giving back.
func (d *Device) Borrow(purpose string, sizes []int64, f func(b []*Buffer) error) (err error) {
	all := make([]*Buffer, len(sizes))
	wants := make([]Want, len(sizes))
	for i, size := range sizes {
		wants[i] = Want{&all[i], purpose, max(size, 1)}
	}
	if err := d.AllocAll(wants...); err != nil {
		return err
	}
	defer func() {
		for _, b := range all {
			err = errors.Join(err, b.Free())
		}
	}()
	return f(all)
}

// Blocks is a grid for work of which a block does some at a time and goes on with the
// rest: a block for each, and no more than all processors have use for.
func (d *Device) Blocks(count, perBlock int64) [3]int {
	return [3]int{int(max(1, min((count+perBlock-1)/perBlock, int64(16*max(1, d.Info().Processors)))))}
}
