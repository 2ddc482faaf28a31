package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
)

// TestBenchMilvus measures against a Milvus in process: the table, the JSON, what is
// refused, and that Ctrl-C leaves nothing behind.
func TestBenchMilvus(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	run := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "kindred", append([]string{"bench", "milvus", "--milvus", s.Addr(), "--quiet", "--dim", "16", "--queries", "20", "--time", "100ms"}, args...)...)
	}
	out, err := run("--rows", "2000", "--index", "flat", "--index", "hnsw:ef=64").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2000 x 16 (made up, seed 1), held as int8; 20 questions for 10; Milvus v2.", "recall@10", "kindred  flat", "kindred  hnsw", "milvus   FLAT", "milvus   HNSW:M=16,efConstruction=200,ef=64", "123 MB"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	// Five vectors of three numbers, of which one is zero, are too few to ask anything of.
	file := filepath.Join("..", "..", "index", "milvus", "trial", "testdata", "v1.npy")
	said, err := run("--file", file).CombinedOutput()
	if err == nil || !strings.Contains(string(said), "there are 4 vectors: too few for 20 questions") {
		t.Errorf("%v: %s", err, said)
	}
	for args, want := range map[string]string{
		"--k 0": "--k 0: want 1 to 1000", "--index tree": `--index "tree"`, "shop --file x.npy": "a collection is named too", "--file none.npy": "none.npy",
		"--vectors int4": "want int8, fp16 or fp32", "--rows 10": "--rows 10: want",
	} {
		said, err := run(strings.Fields(args)...).CombinedOutput()
		if err == nil || !strings.Contains(string(said), want) {
			t.Errorf("%s: %v: %s", args, err, said)
		}
	}
	var rep benchReport
	out, err = run("--rows", "1000", "--json", "--index", "flat").Output()
	if err == nil {
		err = json.Unmarshal(out, &rep)
	}
	if err != nil || len(rep.Report.Results) != 3 || rep.Report.Rows != 1000 || rep.Machine.Cores < 1 || rep.Report.Results[2].Recall < 0.9 {
		t.Errorf("%v: %s", err, out)
	}

	stopped := run("--rows", "3000", "--quiet=false", "--time", "1h", "--index", "flat")
	pipe, err := stopped.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = stopped.Process.Kill() })
	defer kill.Stop()
	lines := bufio.NewScanner(pipe) // a step is named after two seconds of it
	for asked := false; lines.Scan(); {
		if !asked && strings.Contains(lines.Text(), "many at once") {
			asked = true
			if err := stopped.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	if err := stopped.Wait(); err == nil || stopped.ProcessState.ExitCode() != 1 {
		t.Errorf("stopped: %v", err)
	}
	c, err := client.Dial(t.Context(), client.Config{Address: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names, err := c.List(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("%v stayed behind, %v", names, err)
	}
}
