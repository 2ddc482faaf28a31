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
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/kindred-search/kindred/audience"
)

// export writes an audience by the extension of its path; - is standard output.
func (a *app) export(path string, members []audience.Member) error {
	if path == "-" {
		if a.cfg.JSON {
			return writeNDJSON(a.out, members)
		}
		return writeCSV(a.out, members)
	}
	write := func(w *os.File) error { return writeCSV(w, members) }
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv", ".txt", "":
	case ".ndjson", ".jsonl":
		write = func(w *os.File) error { return writeNDJSON(w, members) }
	case ".parquet":
		write = func(w *os.File) error { return writeParquet(w, members) }
	default:
		return usagef("-o %s: want .csv, .ndjson or .parquet", path)
	}
	if err := writeAtomic(path, write); err != nil {
		return err
	}
	a.say("audience: %s", path)
	return nil
}

// writeAtomic makes a file appear whole or not at all.
func writeAtomic(path string, write func(*os.File) error) (err error) {
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
		row := []string{inert(m.ID), strconv.Itoa(m.Rank), decimal(m.Score), decimal(m.Probability), inert(words(m.Parts))}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func decimal(v float32) string { return strconv.FormatFloat(float64(v), 'g', 7, 32) }

// words lists the parts of a score: "text +2.1; age -0.3".
func words(parts []audience.Part) string {
	list := make([]string, len(parts))
	for i, p := range parts {
		list[i] = fmt.Sprintf("%s %+.3f", p.Of, p.Value)
	}
	return strings.Join(list, "; ")
}

// inert keeps a spreadsheet from running a cell as a formula: a quote is set
// before what begins like one, unless it is a number.
func inert(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
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
		rows = append(rows, parquetMember{m.ID, int64(m.Rank), m.Score, m.Probability, words(m.Parts)})
	}
	_, err := out.Write(rows)
	return errors.Join(err, out.Close())
}
