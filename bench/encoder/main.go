// Command encoder is the Go side of the measurements of package embed. With
// -texts it writes the vectors of a JSON list of texts as little-endian fp32,
// for embed/testdata/oracle.py and precision.py to compare. With -jobs, a JSON
// object of lists of lists of token ids, it obeys lines on its standard input,
// one answer each, for run.py to pair with ONNX Runtime:
//
//	time JOB REPEATS     median seconds of encoding that job
//	vectors JOB FILE     writes its vectors
//	ceiling KIND         products a second that all threads together can do
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/bench/side"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/internal/simd"
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
	precision := flag.String("precision", "", "fp32, int16 or int8; empty for the default")
	threads := flag.Int("threads", 2, "goroutines")
	texts := flag.String("texts", "", "JSON file with a list of texts to encode")
	jobs := flag.String("jobs", "", "JSON file with an object of lists of lists of token ids to time")
	out := flag.String("out", "", "file for the vectors, little-endian fp32")
	flag.Parse()
	if (*texts == "") == (*jobs == "") {
		return errors.New("give either -texts with -out, or -jobs")
	}
	m, err := embed.Open(*model, embed.Options{Pooling: *pooling, Threads: *threads, Precision: embed.Precision(*precision)})
	if err != nil {
		return err
	}
	if full := m.Info().Full; len(full) > 0 {
		fmt.Fprintln(os.Stderr, "encoder: in fp32:", full)
	}
	if *texts != "" {
		return errors.Join(writeTexts(m, *texts, *out), m.Close())
	}
	return errors.Join(serve(m, *jobs, *threads), m.Close())
}

func writeTexts(m *embed.Model, from, to string) error {
	var texts []string
	if err := side.Load(from, &texts); err != nil {
		return err
	}
	res, err := m.Encode(context.Background(), texts, embed.EncodeOptions{})
	if err != nil {
		return err
	}
	return side.WriteVectors(to, res.Vectors)
}

func serve(m *embed.Model, path string, threads int) error {
	var jobs map[string][][]int32
	if err := side.Load(path, &jobs); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		if len(words) < 2 {
			return fmt.Errorf("line %q: want a command and its operands", in.Text())
		}
		if words[0] == "ceiling" {
			fmt.Println(ceiling(words[1], threads))
			continue
		}
		ids, ok := jobs[words[1]]
		if !ok || len(words) != 3 {
			return fmt.Errorf("line %q: no such job or no third word", in.Text())
		}
		switch words[0] {
		case "vectors":
			res, err := m.EncodeTokens(context.Background(), ids, embed.EncodeOptions{})
			if err == nil {
				err = side.WriteVectors(words[2], res.Vectors)
			}
			if err != nil {
				return err
			}
			fmt.Println("written")
		case "time":
			n, err := strconv.Atoi(words[2])
			if err != nil || n < 1 {
				return fmt.Errorf("line %q: repeats", in.Text())
			}
			took := make([]float64, n)
			for i := range took {
				start := time.Now()
				if _, err := m.EncodeTokens(context.Background(), ids, embed.EncodeOptions{}); err != nil {
					return err
				}
				took[i] = time.Since(start).Seconds()
			}
			slices.Sort(took)
			fmt.Println(took[n/2])
		default:
			return fmt.Errorf("line %q: no such command", in.Text())
		}
	}
	return in.Err()
}

// ceiling is the rate of products with all operands in registers, for about a
// twentieth of a second.
func ceiling(kind string, threads int) float64 {
	const rounds = 1 << 16
	var mu sync.Mutex
	var total int64
	var wg sync.WaitGroup
	start := time.Now()
	for range threads {
		wg.Go(func() {
			var sum int64
			for time.Since(start) < 50*time.Millisecond {
				sum += simd.Ceiling(kind, rounds)
			}
			mu.Lock()
			total += sum
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total) / time.Since(start).Seconds()
}
