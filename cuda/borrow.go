package cuda

import "errors"

// Borrow allocates buffers of some sizes in bytes, of which one below 1 counts as 1, gives
// them to f, and frees them when f has ended. An error is that of an allocation, of f, or
// of giving back.
func (d *Device) Borrow(purpose string, sizes []int64, f func(b []*Buffer) error) (err error) {
	all := make([]*Buffer, 0, len(sizes))
	defer func() {
		for _, b := range all {
			err = errors.Join(err, b.Free())
		}
	}()
	for _, size := range sizes {
		b, err := d.Alloc(purpose, max(size, 1))
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	return f(all)
}

// Blocks is a grid for work of which a block does some at a time and goes on with the
// rest: a block for each, and no more than all processors have use for.
func (d *Device) Blocks(count, perBlock int64) [3]int {
	return [3]int{int(max(1, min((count+perBlock-1)/perBlock, int64(16*max(1, d.Info().Processors)))))}
}
