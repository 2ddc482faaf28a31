//go:build !cuda

package cuda

func probe() Status { return Status{Problem: ErrNotBuilt.Error()} }

func open(int) (backend, Info, error) { return nil, Info{}, ErrNotBuilt }

func loadAll(backend) error { return ErrNotBuilt }

// built is the manifest of what would be built.
func built() []byte { return manifest }
