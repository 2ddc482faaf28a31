package cuda

// Inject makes calls of the driver fail on purpose, for tests of what follows: before is
// asked ahead of each, by the name of the backend's method ("alloc", "free", "memory", "pin",
// "unpin", "upload", "download", "zero", "copy", "launch", "mark", "reached", "wait"), and an
// error of its stands for the call's, which is then not made. One that is [ErrLost] loses the
// device as the driver's would. Before runs on the device's thread and must not call the device;
// nil takes it away.
func (d *Device) Inject(before func(call string) error) error {
	return d.on(func() error {
		if was, ok := d.b.(*injected); ok {
			d.b = was.backend
		}
		if before != nil {
			d.b = &injected{d.b, before}
		}
		return nil
	})
}

// injected is a backend whose calls fail when before says so.
type injected struct {
	backend
	before func(call string) error
}

func (i *injected) alloc(n int64) (uint64, error) {
	if err := i.before("alloc"); err != nil {
		return 0, err
	}
	return i.backend.alloc(n)
}

func (i *injected) free(at uint64) error {
	if err := i.before("free"); err != nil {
		return err
	}
	return i.backend.free(at)
}

func (i *injected) memory() (free, total int64, err error) {
	if err := i.before("memory"); err != nil {
		return 0, 0, err
	}
	return i.backend.memory()
}

func (i *injected) pin(n int) ([]byte, error) {
	if err := i.before("pin"); err != nil {
		return nil, err
	}
	return i.backend.pin(n)
}

func (i *injected) unpin(p []byte) error {
	if err := i.before("unpin"); err != nil {
		return err
	}
	return i.backend.unpin(p)
}

func (i *injected) upload(dst uint64, src []byte) error {
	if err := i.before("upload"); err != nil {
		return err
	}
	return i.backend.upload(dst, src)
}

func (i *injected) uploadPinned(dst uint64, src []byte) error {
	if err := i.before("upload"); err != nil {
		return err
	}
	return i.backend.uploadPinned(dst, src)
}

func (i *injected) downloadPinned(dst []byte, src uint64) error {
	if err := i.before("download"); err != nil {
		return err
	}
	return i.backend.downloadPinned(dst, src)
}

func (i *injected) download(dst []byte, src uint64) error {
	if err := i.before("download"); err != nil {
		return err
	}
	return i.backend.download(dst, src)
}

func (i *injected) zero(dst uint64, n int64) error {
	if err := i.before("zero"); err != nil {
		return err
	}
	return i.backend.zero(dst, n)
}

func (i *injected) copy(dst, src uint64, n int64) error {
	if err := i.before("copy"); err != nil {
		return err
	}
	return i.backend.copy(dst, src, n)
}

func (i *injected) launch(kernel string, l Launch, args []uint64) error {
	if err := i.before("launch"); err != nil {
		return err
	}
	return i.backend.launch(kernel, l, args)
}

func (i *injected) mark(n int) error {
	if err := i.before("mark"); err != nil {
		return err
	}
	return i.backend.mark(n)
}

func (i *injected) reached(n int) error {
	if err := i.before("reached"); err != nil {
		return err
	}
	return i.backend.reached(n)
}

func (i *injected) wait() error {
	if err := i.before("wait"); err != nil {
		return err
	}
	return i.backend.wait()
}
