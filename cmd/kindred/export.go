package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/export"
)

// export writes an audience by the extension of its path; - is standard output.
func (a *app) export(path string, members []audience.Member) error {
	if path == "-" {
		if a.cfg.JSON {
			return writeNDJSON(a.out, members)
		}
		return writeCSV(a.out, members)
	}
	form, err := formOf(path)
	if err != nil {
		return err
	}
	if err := writeAtomic(path, func(w *os.File) error { return form(w, members) }); err != nil {
		return err
	}
	a.say("audience: %s", path)
	return nil
}

// formOf is the form of an audience that a path's extension asks for.
func formOf(path string) (func(io.Writer, []audience.Member) error, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv", ".txt", "":
		return writeCSV, nil
	case ".ndjson", ".jsonl":
		return writeNDJSON, nil
	case ".parquet":
		return writeParquet, nil
	}
	return nil, usagef("-o %s: want .csv, .ndjson or .parquet", path)
}

// checkOutputs finds what would stop the files from being written, before the
// work that fills them. "" and - are no files.
func checkOutputs(inputs, outputs []string) error {
	var faults []error
	for i, out := range outputs {
		if out == "" || out == "-" {
			continue
		}
		folder, err := os.Stat(filepath.Dir(out))
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%s cannot be written: %w: make the folder first", out, err))
		case !folder.IsDir():
			faults = append(faults, fmt.Errorf("%s cannot be written: %s is a file", out, filepath.Dir(out)))
		}
		there, err := os.Stat(out)
		if folder != nil && folder.IsDir() && (err != nil || there.Mode().IsRegular()) {
			faults = append(faults, canWrite(out))
		}
		if err == nil && there.IsDir() {
			faults = append(faults, fmt.Errorf("%s cannot be written: it is a folder: name a file in it", out))
		}
		for _, in := range slices.Concat(inputs, outputs[:i]) {
			other, oerr := os.Stat(in)
			if err == nil && oerr == nil && there.Mode().IsRegular() && os.SameFile(there, other) || in != "" && filepath.Clean(in) == filepath.Clean(out) {
				faults = append(faults, usagef("%s is named twice: it would be overwritten", out))
			}
		}
	}
	return errors.Join(faults...)
}

// canWrite makes and removes a file where writeAtomic will make one.
func canWrite(path string) error {
	probe, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}

// writeAtomic makes a file appear whole or not at all, in the place of one that
// is there. What is no regular file, such as a device or a pipe, is written to.
func writeAtomic(path string, write func(*os.File) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			err = errors.Join(write(f), f.Close())
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(tmp.Name()))
		}
	}()
	err = write(tmp)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func writeCSV(w io.Writer, members []audience.Member) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"id", "rank", "score", "probability", "reasons"}); err != nil {
		return err
	}
	for _, m := range members {
		row := []string{export.Cell(m.ID), strconv.Itoa(m.Rank), export.Number(m.Score), export.Number(m.Probability), export.Cell(export.Reasons(m.Parts))}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func writeNDJSON(w io.Writer, members []audience.Member) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for _, m := range members {
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
	return buf.Flush()
}

type parquetMember struct {
	ID          string  `parquet:"id"`
	Rank        int64   `parquet:"rank"`
	Score       float32 `parquet:"score"`
	Probability float32 `parquet:"probability"`
	Reasons     string  `parquet:"reasons"`
}

func writeParquet(w io.Writer, members []audience.Member) error {
	out := parquet.NewGenericWriter[parquetMember](w)
	rows := make([]parquetMember, 0, len(members))
	for _, m := range members {
		rows = append(rows, parquetMember{m.ID, int64(m.Rank), m.Score, m.Probability, export.Reasons(m.Parts)})
	}
	_, err := out.Write(rows)
	return errors.Join(err, out.Close())
}
