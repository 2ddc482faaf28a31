//go:build unix

// Command tokenizer is the Go side of the measurement of package tokenize. It reads a JSON list of texts and
// each time it reads "go" on its standard input it tokenises them all, keeping every answer, and prints the
// seconds that took by the clock, those of processor time, and the number of ids. bench/tokenizer/run.py pairs it with Hugging Face's tokenizers. With -out it writes the
// ids first, for run.py to compare: for each text their number and the ids, little-endian int32.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kindred-search/kindred/bench/side"
	"github.com/kindred-search/kindred/embed/tokenize"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tokenizer:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	model := flag.String("model", "", "folder with the tokenizer")
	file := flag.String("texts", "", "JSON file with a list of texts")
	threads := flag.Int("threads", 1, "goroutines, and cores for everything the process does")
	repeat := flag.Int("repeat", 1, "passes to average over each time")
	out := flag.String("out", "", "file for the ids")
	profile := flag.String("cpuprofile", "", "file for a profile of the timed passes")
	flag.Parse()
	runtime.GOMAXPROCS(*threads) // the collector must not help out on another core
	var texts []string
	if err := side.Load(*file, &texts); err != nil {
		return err
	}
	tok, err := tokenize.Load(*model)
	if err != nil {
		return err
	}
	ids := make([][]int32, len(texts))
	encode(tok, texts, ids, *threads)
	if *out != "" {
		if err := write(*out, ids); err != nil {
			return err
		}
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() { pprof.StopCPUProfile(); err = errors.Join(err, f.Close()) }()
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		used, err := processor()
		if err != nil {
			return err
		}
		start := time.Now()
		for range *repeat {
			encode(tok, texts, ids, *threads)
		}
		took := time.Since(start)
		until, err := processor()
		if err != nil {
			return err
		}
		n := 0
		for _, t := range ids {
			n += len(t)
		}
		fmt.Println(took.Seconds()/float64(*repeat), (until-used).Seconds()/float64(*repeat), n)
	}
	return in.Err()
}

// processor is the processor time this process has used, the collector's included.
func processor() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// grain is how many texts a goroutine takes at once, as in package embed.
const grain = 32

// encode fills ids as package embed does: a slice for each text.
func encode(tok *tokenize.Tokenizer, texts []string, ids [][]int32, threads int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for {
				from := int(next.Add(grain)) - grain
				if from >= len(texts) {
					return
				}
				for i := from; i < min(from+grain, len(texts)); i++ {
					ids[i], _ = tok.Encode(texts[i], 0, nil)
				}
			}
		})
	}
	wg.Wait()
}

func write(path string, ids [][]int32) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, t := range ids {
		if err := binary.Write(w, binary.LittleEndian, append([]int32{int32(len(t))}, t...)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}
