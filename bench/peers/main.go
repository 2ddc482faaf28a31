// Command peers is the Go side of the comparison with sentence-transformers:
// texts in, vectors out. It reads a JSON list of texts and obeys lines on its
// standard input, one answer each, for run.py to pair:
//
//	time          seconds of encoding all texts
//	vectors FILE  writes their vectors, little-endian fp32
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kindred-search/kindred/bench/side"
	"github.com/kindred-search/kindred/embed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	model := flag.String("model", "", "folder of the model")
	precision := flag.String("precision", "", "fp32, int16 or int8; empty for the default")
	threads := flag.Int("threads", 2, "goroutines")
	file := flag.String("texts", "", "JSON file with a list of texts")
	flag.Parse()
	var texts []string
	if err := side.Load(*file, &texts); err != nil {
		return err
	}
	m, err := embed.Open(*model, embed.Options{Threads: *threads, Precision: embed.Precision(*precision)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		start := time.Now()
		res, err := m.Encode(context.Background(), texts, embed.EncodeOptions{})
		if err != nil {
			return err
		}
		took := time.Since(start).Seconds()
		switch words := strings.Fields(in.Text()); {
		case len(words) == 1 && words[0] == "time":
			fmt.Println(took)
		case len(words) == 2 && words[0] == "vectors":
			if err := side.WriteVectors(words[1], res.Vectors); err != nil {
				return err
			}
			fmt.Println("written")
		default:
			return fmt.Errorf("line %q: no such command", in.Text())
		}
	}
	return in.Err()
}
