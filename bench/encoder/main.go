// Command encoder is the Go side of two measurements of package embed. With
// -texts it writes the vectors of a JSON list of texts as little-endian fp32,
// for embed/testdata/oracle.py to compare. With -ids it encodes the token ids of
// a JSON list of lists each time it reads "go" on its standard input and answers
// with the seconds it took, for bench/encoder/run.py to pair with ONNX Runtime.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kindred-search/kindred/embed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "encoder:", err)
		os.Exit(1)
	}
}

func run() error {
	model := flag.String("model", "", "folder of the model")
	pooling := flag.String("pooling", "", "mean, first, last or max; empty for what the folder says")
	threads := flag.Int("threads", 0, "goroutines; 0 for one a core")
	texts := flag.String("texts", "", "JSON file with a list of texts to encode")
	ids := flag.String("ids", "", "JSON file with a list of lists of token ids to time")
	out := flag.String("out", "", "file for the vectors, little-endian fp32")
	flag.Parse()
	if (*texts == "") == (*ids == "") {
		return errors.New("give either -texts with -out, or -ids")
	}
	m, err := embed.Open(*model, embed.Options{Pooling: *pooling, Threads: *threads})
	if err != nil {
		return err
	}
	if *texts != "" {
		return errors.Join(write(m, *texts, *out), m.Close())
	}
	return errors.Join(serve(m, *ids), m.Close())
}

func load(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func write(m *embed.Model, from, to string) error {
	var texts []string
	if err := load(from, &texts); err != nil {
		return err
	}
	res, err := m.Encode(context.Background(), texts, embed.EncodeOptions{})
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(binary.Write(f, binary.LittleEndian, res.Vectors), f.Close())
}

func serve(m *embed.Model, path string) error {
	var ids [][]int32
	if err := load(path, &ids); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		start := time.Now()
		res, err := m.EncodeTokens(context.Background(), ids, embed.EncodeOptions{})
		took := time.Since(start)
		if err != nil {
			return err
		}
		// The first vector's first element lets the driver see that work was done.
		fmt.Println(took.Seconds(), res.Vectors[0])
	}
	return in.Err()
}
