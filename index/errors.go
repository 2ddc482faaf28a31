package index

import (
	"errors"
	"fmt"
)

// Errors that callers branch on. Wrapped errors keep them findable by errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrInvalid  = errors.New("invalid")       // the request cannot be done as written
	ErrLocked   = errors.New("in use")        // another process holds the data directory
	ErrCorrupt  = errors.New("corrupt data")  // a checksum did not match
	ErrNoSpace  = errors.New("no space left") // the disk is full
	ErrClosed   = errors.New("closed")
	// ErrUnavailable is a server behind the store that is away, starting or overloaded:
	// the same call may succeed later.
	ErrUnavailable = errors.New("unavailable")
)

// RowError is one refused row of a batch. It matches ErrInvalid.
type RowError struct {
	Row    int    // position in the batch, from 0
	ID     string // as given
	Reason string // what is wrong and how to mend it
}

func (e *RowError) Error() string { return fmt.Sprintf("row %d (id %q): %s", e.Row, e.ID, e.Reason) }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *RowError) Unwrap() error { return ErrInvalid }
