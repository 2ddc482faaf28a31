package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

const (
	spoolStep  = 64 << 20
	spoolFloor = 1 << 30 // of free disk that a pipe's copy leaves
)

// regular returns a path that can be read twice: the one given, or, for - and
// pipes, that of a copy in the temporary folder, which done removes.
func regular(ctx context.Context, path string) (file string, done func() error, err error) {
	none := func() error { return nil }
	in := os.Stdin
	switch info, err := os.Stat(path); {
	case path == "-":
		if term.IsTerminal(int(in.Fd())) {
			return "", none, usagef("-: standard input is the keyboard: send a file to it or name one")
		}
	case err != nil || info.Mode()&os.ModeNamedPipe == 0:
		return path, none, nil // what is wrong with it, its reader says better
	default:
		if in, err = os.Open(path); err != nil {
			return "", none, err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	out, err := os.CreateTemp("", "kindred-input-")
	if err != nil {
		return "", none, fmt.Errorf("copying %s, which is read twice: %w", path, err)
	}
	done = func() error { return os.Remove(out.Name()) }
	err = spool(ctx, out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return "", none, errors.Join(fmt.Errorf("copying %s, which is read twice, to %s: %w", path, out.Name(), err), done())
	}
	return out.Name(), done, nil
}

// spool copies in to out until its end, ctx's, or that of the room.
func spool(ctx context.Context, out *os.File, in io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if free, ok := freeDisk(out.Name()); ok && free < spoolFloor {
			return fmt.Errorf("%s are free on that disk and %s are kept: write it to a file elsewhere", gigabytes(free), gigabytes(spoolFloor))
		}
		if _, err := io.CopyN(out, in, spoolStep); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// eachRecord reads a file until do returns false; rows that are refused are counted
// and passed over.
func eachRecord(ctx context.Context, plan *ingest.Plan, do func(profile.Record) bool) (rows int, err error) {
	src, err := plan.Open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	for ; ; rows++ {
		rec, err := src.Next()
		var bad *ingest.RowError
		switch {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err == nil:
			if !do(rec) {
				return rows + 1, nil
			}
		case !errors.As(err, &bad):
			return rows, err
		}
	}
}
