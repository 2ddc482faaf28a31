package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/kindred-search/kindred/export"
	"github.com/kindred-search/kindred/index/flat"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kindred": main})
}

// TestSessions runs the sessions of testdata: each is what a person types and
// sees.
func TestSessions(t *testing.T) {
	var running servers
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_DATA_HOME", env.WorkDir+"/data")
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Setenv("TAKEN", l.Addr().String())
			env.Defer(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"customers": makeCustomers,
			"convert":   convert,
			"code":      exitCode,
			"contacts":  makeContacts,
			"lists":     makeLists,
			"lacks":     lacks,
			"checksum":  checksum,
			"hold":      hold,
			"serving":   running.serving,
			"interrupt": running.interrupt,
		},
	})
}

// exitCode runs kindred and wants one exit code: code N args...
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("kindred", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// makeCustomers writes customers.csv, 1,500 rows of which a fifth are of a
// kind, and 60 of those to seeds.csv; beside them escape.csv, which would steer
// a terminal, and book.xlsx.
func makeCustomers(ts *testscript.TestScript, _ bool, _ []string) {
	r := rand.New(rand.NewPCG(1, 2))
	var all, seeds strings.Builder
	all.WriteString("id,age,region,gender,spend,label\n")
	seeds.WriteString("id\n")
	n := 0
	for i := range 1500 {
		kind, age, label := "nsew", 35.0, 0
		if r.Float64() < 0.2 {
			kind, age, label = "ns", 55, 1
		}
		fmt.Fprintf(&all, "c%04d,%.0f,%c,%c,%.2f,%d\n", i, age+8*r.NormFloat64(), kind[r.IntN(len(kind))], "fm"[r.IntN(2)], r.ExpFloat64()*age, label)
		if label == 1 && n < 60 {
			n++
			fmt.Fprintf(&seeds, "c%04d\n", i)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs("customers.csv"), []byte(all.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("seeds.csv"), []byte(seeds.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("escape.csv"), []byte("id,\x1b[2Jname\nx1,\x1b]0;owned\x07\nx2,\x1b[31mred\n"), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("book.xlsx"), []byte("PK\x03\x04\x14\x00\x06\x00words"), 0o644))
}

// convert writes a file anew: convert gz|zst|utf16|gb18030|ndjson|half|noise FROM TO.
func convert(ts *testscript.TestScript, _ bool, args []string) {
	raw := []byte(ts.ReadFile(args[1]))
	var out bytes.Buffer
	var w io.WriteCloser
	switch args[0] {
	case "gz":
		w = gzip.NewWriter(&out)
	case "zst":
		var err error
		w, err = zstd.NewWriter(&out)
		ts.Check(err)
	case "ndjson": // of a CSV file without quotes
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		names := strings.Split(lines[0], ",")
		for _, line := range lines[1:] {
			record := map[string]any{}
			for i, cell := range strings.Split(line, ",") {
				record[names[i]] = cell
			}
			row, err := json.Marshal(record)
			ts.Check(err)
			out.Write(append(row, '\n'))
		}
	case "gb18030":
		text, err := simplifiedchinese.GB18030.NewEncoder().Bytes(raw)
		ts.Check(err)
		out.Write(text)
	case "half": // what a broken download leaves
		out.Write(raw[:len(raw)/2])
	case "noise": // as many bytes, none of them meant
		r := rand.New(rand.NewPCG(3, 4))
		for range raw {
			out.WriteByte(byte(r.Uint32()))
		}
	case "utf16":
		out.Write([]byte{0xff, 0xfe})
		for _, u := range utf16.Encode([]rune(string(raw))) {
			out.Write([]byte{byte(u), byte(u >> 8)})
		}
	}
	if w != nil {
		_, err := w.Write(raw)
		ts.Check(err)
		ts.Check(w.Close())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), out.Bytes(), 0o644))
}

// makeContacts writes an e-mail address and a phone number for each customer.
func makeContacts(ts *testscript.TestScript, _ bool, args []string) {
	var out strings.Builder
	out.WriteString("id,mail,tel\n")
	for i, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")[1:] {
		id, _, _ := strings.Cut(line, ",")
		fmt.Fprintf(&out, "%s,%s@Example.org,030 9018%04d\n", id, id, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(out.String()), 0o600))
}

// checksum wants a file's manifest to have its checksum and size.
func checksum(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	var m export.FileManifest
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0]+export.ManifestEnd)), &m))
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); m.SHA256 != sum || m.Bytes != int64(len(text)) || m.File != args[0] {
		ts.Fatalf("%+v, want %s of %d bytes", m, sum, len(text))
	}
}

// hold opens a data directory as a server would, until the session ends.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	store, err := flat.Open(ts.MkAbs(args[0]), flat.Options{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(store.Close()) })
}

var address = regexp.MustCompile(`on (http://\S+) `)

// serving starts a server on a data directory and sets SERVER; interrupt stops
// it and wants a clean end.
func (s *servers) serving(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command("kindred", "serve", "--data", ts.MkAbs(args[0]), "--listen", "127.0.0.1:0")
	says, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	heard, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(says)
		for lines.Scan() {
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				heard <- m[1]
			}
		}
		ended <- cmd.Wait()
	}()
	stop := func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		return <-ended
	}
	select {
	case url := <-heard:
		ts.Setenv("SERVER", url)
		s.stop.Store(ts.Getenv("WORK"), stop)
		ts.Defer(func() {
			if _, left := s.stop.LoadAndDelete(ts.Getenv("WORK")); left {
				ts.Check(stop())
			}
		})
	case err := <-ended:
		ts.Fatalf("the server ended: %v", err)
	case <-time.After(10 * time.Second):
		ts.Check(cmd.Process.Kill())
		ts.Fatalf("the server does not say where it is")
	}
}

// servers are the servers of the sessions by their folder.
type servers struct{ stop sync.Map }

func (s *servers) interrupt(ts *testscript.TestScript, _ bool, _ []string) {
	stop, ok := s.stop.LoadAndDelete(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no server runs")
	}
	ts.Check(stop.(func() error)())
}

// TestEveryCommandShowsAnExample walks all commands.
func TestEveryCommandShowsAnExample(t *testing.T) {
	seen := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		seen++
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s: its help shows no example or no purpose", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{out: io.Discard, err: io.Discard}).root())
	if seen < 15 {
		t.Fatalf("only %d commands seen", seen)
	}
}
