package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// greedyEnv makes the test program a child that takes all the memory it gets.
const greedyEnv = "KINDRED_TEST_GREEDY"

func init() {
	if os.Getenv(greedyEnv) != "" {
		greedy()
	}
}

// greedy takes memory under a limit of 2 GiB and says how many MiB it had.
func greedy() {
	if err := limitAddressSpace(2 << 30); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	var held [][]byte
	for len(held) < 512 {
		block := make([]byte, 16<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
		fmt.Println(16 * len(held))
	}
	runtime.KeepAlive(held)
	os.Exit(0)
}

// The kernel, not the decoder, holds the limit: a child that wants 8 GiB ends
// before it has two.
func TestChildCannotTakeMore(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{greedyEnv + "=1", "GOTRACEBACK=none"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 3 {
		t.Fatalf("the child was not stopped: %v", err)
	}
	steps := strings.Fields(string(out))
	if len(steps) == 0 || len(steps) >= 128 {
		t.Errorf("the child had %d MiB under a limit of 2048", 16*len(steps))
	}
	if use := exit.SysUsage().(*syscall.Rusage).Maxrss; use > 2<<20 {
		t.Errorf("the child was at %d KiB under a limit of %d", use, 2<<20)
	}
}

// hostileParquet is a small file whose pages say that they are enormous: each
// column's page claims nearly 2 GiB and as many values.
func hostileParquet(t *testing.T, codec format.CompressionCodec) []byte {
	t.Helper()
	good := parquetBytes(t)
	size := int(binary.LittleEndian.Uint32(good[len(good)-8:]))
	body, footer := good[:len(good)-8-size], good[len(good)-8-size:len(good)-8]
	var meta format.FileMetaData
	var compact thrift.CompactProtocol
	if err := thrift.Unmarshal(&compact, footer, &meta); err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(body)
	meta.NumRows = math.MaxInt32
	for g := range meta.RowGroups {
		group := &meta.RowGroups[g]
		group.NumRows = math.MaxInt32
		for c := range group.Columns {
			chunk := &group.Columns[c].MetaData
			page := format.PageHeader{
				Type: format.DataPage, UncompressedPageSize: math.MaxInt32, CompressedPageSize: math.MaxInt32,
				DataPageHeader: thrift.New(format.DataPageHeader{NumValues: math.MaxInt32, Encoding: format.Plain, DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE}),
			}
			header, err := thrift.Marshal(&compact, page)
			if err != nil {
				t.Fatal(err)
			}
			chunk.DataPageOffset, chunk.DictionaryPageOffset = int64(len(out)), 0
			chunk.Codec, chunk.NumValues = codec, math.MaxInt32
			chunk.TotalCompressedSize, chunk.TotalUncompressedSize = math.MaxInt32, math.MaxInt32
			out = append(append(out, header...), make([]byte, 4096)...)
		}
	}
	raw, err := thrift.Marshal(&compact, meta)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, raw...)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(raw))), "PAR1"...)
}

// A file that asks for all memory is an error that names it, and this process
// does not grow.
func TestParquetHostile(t *testing.T) {
	for _, codec := range []format.CompressionCodec{format.Uncompressed, format.Snappy, format.Gzip, format.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			path := write(t, "hostile.parquet", hostileParquet(t, codec))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := Inspect(ctx, path, Options{})
			if err == nil || !strings.Contains(err.Error(), "hostile.parquet") || ctx.Err() != nil {
				t.Errorf("error %v", err)
			}
			t.Log(err)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("this process took %d MiB for it", grown>>20)
			}
			var children syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
				t.Fatal(err)
			}
			t.Logf("largest child so far: %d MiB", children.Maxrss>>10)
			if children.Maxrss > childAddressSpace>>10 {
				t.Errorf("a child was at %d MiB", children.Maxrss>>10)
			}
		})
	}
}
