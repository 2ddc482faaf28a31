//go:build !cuda

package cuda

func probe() Status { return Status{Problem: ErrNotBuilt.Error()} }

func open(int) (backend, Info, error) { return nil, Info{}, ErrNotBuilt }

func loadAll(backend) error { return ErrNotBuilt }
