//go:build !unix

package models

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// lock creates path and removes it on unlock; while it exists, others wait. A file left by a process that was
// killed must be removed by hand.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		if err == nil {
			return func() { _ = errors.Join(f.Close(), os.Remove(path)) }, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s exists; remove it if no pull is running: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
