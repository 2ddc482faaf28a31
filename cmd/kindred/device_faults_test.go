//go:build cuda

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/selftest"
)

// gpu is what the simulator is called where --device auto has to take it for a GPU.
const gpu = "KINDRED_SIM_NAME=Kindred simulator, taken for a GPU"

// machine runs commands in processes of their own, on one data directory.
type machine struct {
	t       *testing.T
	dir     string
	program string
	env     []string
}

func (m *machine) run(env []string, args ...string) (out, said string, code int) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), m.program, args...)
	cmd.Dir = m.dir
	cmd.Env = append(append(os.Environ(), m.env...), env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			m.t.Fatal(err)
		}
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// onSim skips the test where the simulator is not the driver.
func onSim(t *testing.T) {
	t.Helper()
	status := cuda.Probe()
	if len(status.Devices) == 0 || !status.Devices[0].Simulated {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has the simulator: %s", status.Problem)
		}
		t.Skip("only the simulator fails when asked to (make test-cuda-sim)")
	}
}

// newMachine has a collection of enough customers for a device, and a tiny model.
func newMachine(t *testing.T) *machine {
	t.Helper()
	program, err := exec.LookPath("kindred")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, program: program, env: []string{"KINDRED_MODELS=" + filepath.Join(dir, "models"), gpu}}
	rng := rand.New(rand.NewPCG(1, 2))
	var all, seeds bytes.Buffer
	seeds.WriteString("id\n")
	for i := range 50_100 {
		v := make([]float64, 8)
		for j := range v {
			v[j] = math.Round(100*rng.NormFloat64()) / 100
		}
		if i%5 == 0 {
			v[i/5%3] += 2
			if i < 500 {
				fmt.Fprintf(&seeds, "c%05d\n", i)
			}
		}
		raw, err := json.Marshal(map[string]any{"id": fmt.Sprintf("c%05d", i), "vector": v})
		if err != nil {
			t.Fatal(err)
		}
		all.Write(append(raw, '\n'))
	}
	for name, raw := range map[string][]byte{"all.ndjson": all.Bytes(), "seeds.csv": seeds.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, said, code := m.run(nil, "import", "shop", "all.ndjson", "--dim", "8", "--data", "d", "--device", "cpu"); code != 0 {
		t.Fatal(said)
	}
	tinyModel(t, filepath.Join(dir, "models"))
	return m
}

// tinyModel puts the model of the tests where the smallest of the catalogue would be.
func tinyModel(t *testing.T, cache string) {
	t.Helper()
	to := filepath.Join(cache, "all-MiniLM-L6-v2")
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, file := range []string{"config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "kindred-model.json"} {
		raw, err := os.ReadFile(filepath.Join("../../embed/testdata/tiny", file))
		if err != nil {
			t.Fatal(err)
		}
		switch file {
		case "vocab.txt":
			size = len(raw)
		case "kindred-model.json":
			raw = bytes.Replace(raw, []byte("{"), fmt.Appendf(nil, `{"files": {"vocab.txt": {"size": %d}}, `, size), 1)
		}
		if err := os.WriteFile(filepath.Join(to, file), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// audience builds one and returns its members, in order, with their scores.
func (m *machine) audience(name, device string, env ...string) (members, said string, code int) {
	m.t.Helper()
	_, said, code = m.run(env, "audience", "create", "shop", name, "--seeds", "seeds.csv", "--size", "500", "--method", "centroid", "--data", "d", "--device", device)
	if code != 0 {
		return "", said, code
	}
	file := name + ".csv"
	if _, text, code := m.run(nil, "audience", "export", "shop", name, "-o", file, "--data", "d", "--device", "cpu"); code != 0 {
		m.t.Fatal(text)
	}
	raw, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		m.t.Fatal(err)
	}
	if _, text, code := m.run(nil, "audience", "delete", "shop", name, "--data", "d", "--device", "cpu"); code != 0 {
		m.t.Fatal(text)
	}
	return string(raw), said, code
}

// vectors encodes a few texts, as numbers.
func (m *machine) vectors(device, precision string, env ...string) (all [][]float64, said string, code int) {
	m.t.Helper()
	out, said, code := m.run(env, "embed", "--precision", precision, "--device", device, "a b", "c d e")
	for line := range strings.Lines(out) {
		var x struct{ Vector []float64 }
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			m.t.Fatal(err)
		}
		all = append(all, x.Vector)
	}
	return all, said, code
}

// doctor looks at the machine's devices: of models there are none, as the tiny one is not what the
// catalogue says.
func (m *machine) doctor(env []string) (out, said string, code int) {
	m.t.Helper()
	return m.run(append([]string{"KINDRED_MODELS=" + filepath.Join(m.dir, "none")}, env...), "doctor", "--device", "cuda", "--listen", "127.0.0.1:0")
}

// alike says whether vectors are within halves of each other.
func alike(a, b [][]float64) bool {
	if len(a) != len(b) || len(a) == 0 {
		return false
	}
	for i := range a {
		for j := range a[i] {
			if !(math.Abs(a[i][j]-b[i][j]) <= 0.005) {
				return false
			}
		}
	}
	return true
}

// about are the lines of what was said that have to do with devices.
func about(said string) (lines []string) {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "CUDA") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// testLaunches is how many kernels a self-test launches.
func testLaunches(t *testing.T) int {
	t.Helper()
	d, err := cuda.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := selftest.Run(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	n := d.Metrics().Launches
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// damaged copies the program with one compiled kernel changed in it.
func damaged(t *testing.T, program string) string {
	t.Helper()
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	magic := binary.LittleEndian.AppendUint32(nil, 0xba55ed50)
	hit := 0
	for at := bytes.Index(raw, magic); at >= 0 && at+16 < len(raw); {
		// A header: version 1, of 16 bytes, and the length of what follows.
		if raw[at+4] == 1 && raw[at+6] == 16 && binary.LittleEndian.Uint64(raw[at+8:]) < 1<<24 {
			raw[at+8]++
			hit++
		}
		next := bytes.Index(raw[at+1:], magic)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if hit == 0 {
		t.Fatal("no kernels are found in the program")
	}
	out := filepath.Join(t.TempDir(), "kindred")
	if err := os.WriteFile(out, raw, 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	return out
}

// TestDeviceFaults: with the real program, whatever is wrong with a device. With --device auto
// the CPU does what the device would have, which is said once where there is a device, and the
// lists are the same; with --device cuda there is an error that says what is wrong, and exit code
// 1, where the device cannot be opened.
func TestDeviceFaults(t *testing.T) {
	onSim(t)
	if testing.Short() {
		t.Skip("takes long; one schedule runs it")
	}
	m := newMachine(t)
	members, _, code := m.audience("right", "cpu")
	if code != 0 || strings.Count(members, "\n") < 400 {
		t.Fatalf("%d: %s", code, members)
	}
	vectors, said, code := m.vectors("cpu", "fp32")
	if code != 0 || len(vectors) != 2 {
		t.Fatal(said)
	}
	// A device that is well.
	got, said, code := m.audience("well", "auto")
	if code != 0 || got != members || len(about(said)) != 0 {
		t.Errorf("a device that is well: %d, %s", code, said)
	}
	if out, said, code := m.doctor(nil); code != 0 || !strings.Contains(out, "self-test: passed") {
		t.Errorf("doctor: exit code %d, %q, %s", code, said, out)
	}
	if got, said, code := m.vectors("auto", "fp16"); code != 0 || !alike(got, vectors) || len(about(said)) != 0 {
		t.Errorf("a model on a device that is well: %d, %s", code, said)
	}
	launches := testLaunches(t)
	broken := &machine{t: t, dir: m.dir, program: damaged(t, m.program), env: m.env}
	for _, c := range []struct {
		name   string
		env    string
		says   string // of the device
		silent bool   // in an audience with --device auto, as on machines that have none
		later  bool   // it fails at work: --device cuda too has the CPU go on
		on     *machine
	}{
		{name: "no driver", env: "LD_LIBRARY_PATH=", says: "no driver", silent: true},
		{name: "a driver that does not start", env: "KINDRED_SIM_INIT=803", says: "the driver does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", silent: true},
		{name: "no devices", env: "KINDRED_SIM_DEVICES=0", says: "the driver has no device", silent: true},
		{name: "an old driver", env: "KINDRED_SIM_DRIVER=11080", says: "the driver is too old: it is of CUDA 11.8"},
		{name: "an old architecture", env: "KINDRED_SIM_CAPABILITY=75", says: "has compute capability 7.5, and the kernels need 8.0"},
		{name: "busy", env: "KINDRED_SIM_CREATE=46", says: "CUDA device is in use by another process"},
		{name: "full at once", env: "KINDRED_SIM_CREATE=2", says: "out of device memory"},
		{name: "full", env: "KINDRED_SIM_MEMORY=30000", says: "of 30000 bytes are free"},
		{name: "kernels that are not for it", env: "KINDRED_SIM_LOAD=209", says: "kernels cannot be loaded"},
		{name: "kernels that it calls damaged", env: "KINDRED_SIM_LOAD=200", says: "kernels cannot be loaded"},
		{name: "a damaged program", says: "is damaged: run `make kernels` and build again", on: broken},
		{name: "wrong lists", env: "KINDRED_SIM_SKIP=finish", says: "failed its self-test: family scan"},
		{name: "wrong vectors", env: "KINDRED_SIM_SKIP=pool", says: "failed its self-test: family encoder"},
		{name: "a kernel that takes too long at once", env: "KINDRED_SIM_LOSE=2 KINDRED_SIM_LOSE_CODE=702", says: "(702): CUDA device lost"},
		{name: "a kernel that takes too long", env: fmt.Sprintf("KINDRED_SIM_LOSE=%d KINDRED_SIM_LOSE_CODE=702", launches+1), says: "(702): CUDA device lost", later: true},
		{name: "lost", env: fmt.Sprintf("KINDRED_SIM_LOSE=%d", launches+2), says: "(719): CUDA device lost", later: true},
		{name: "a launch that is refused", env: fmt.Sprintf("KINDRED_SIM_FAIL_LAUNCH=%d", launches+1), says: "kernel cannot be launched", later: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			on := c.on
			if on == nil {
				on = m
			}
			on = &machine{t: t, dir: on.dir, program: on.program, env: on.env}
			env := strings.Fields(c.env)
			got, said, code := on.audience("other", "auto", env...)
			if code != 0 || got != members {
				t.Errorf("--device auto: exit code %d, another list, and %q", code, said)
			}
			if lines := about(said); c.silent != (len(lines) == 0) || len(lines) > 1 || !c.silent && !strings.Contains(lines[0], c.says) {
				t.Errorf("--device auto says %q, want once %q", lines, c.says)
			}
			found, said, code := on.vectors("auto", "fp16", env...)
			if lines := about(said); code != 0 || !alike(found, vectors) || len(lines) == 0 || len(lines) > 2 || !strings.Contains(said, c.says) {
				t.Errorf("--device auto, a model: exit code %d, %q, want %q", code, said, c.says)
			}
			if c.later {
				got, said, code := on.audience("other", "cuda", env...)
				if lines := about(said); code != 0 || got != members || len(lines) != 1 || !strings.Contains(lines[0], c.says) {
					t.Errorf("--device cuda: exit code %d, %q", code, said)
				}
				return
			}
			for _, args := range [][]string{
				{"audience", "create", "shop", "other", "--seeds", "seeds.csv", "--size", "500", "--data", "d"},
				{"embed", "--precision", "fp16", "a b"},
				{"serve", "--listen", "127.0.0.1:0", "--data", "d"},
			} {
				_, said, code := on.run(env, append(args, "--device", "cuda")...)
				if code != 1 || !strings.Contains(said, c.says) || !strings.Contains(said, "--device auto goes on without") || strings.Contains(said, "goroutine") {
					t.Errorf("--device cuda, %s: exit code %d, %q, want %q", args[0], code, said, c.says)
				}
			}
			if out, said, code := on.doctor(env); code != 1 || !strings.Contains(said, "wrong") || !strings.Contains(out, c.says) {
				t.Errorf("doctor: exit code %d, %q, %s", code, said, out)
			}
		})
	}
}

// TestServeOnDevice: a server makes the CPU's lists on a device that is well, and says what
// each kernel did; with one that is not, it says so and serves.
func TestServeOnDevice(t *testing.T) {
	onSim(t)
	if testing.Short() {
		t.Skip("takes long; one schedule runs it")
	}
	m := newMachine(t)
	members, _, _ := m.audience("right", "cpu")
	h := &house{t: t, env: m.env}
	for _, c := range []struct {
		name string
		env  []string
		made bool
	}{{"well", nil, true}, {"busy", []string{"KINDRED_SIM_CREATE=46"}, false}} {
		h := &house{t: t, env: append(h.env, c.env...), setup: []string{"--data", filepath.Join(m.dir, "d"), "--device", "auto"}}
		s := h.serve()
		name := "served" + c.name
		if _, said, code := m.run(nil, "audience", "create", "shop", name, "--seeds", "seeds.csv", "--size", "500", "--method", "centroid", "--server", s.url); code != 0 {
			t.Fatalf("%s: %s", c.name, said)
		}
		if _, said, code := m.run(nil, "audience", "export", "shop", name, "-o", name+".csv", "--server", s.url); code != 0 {
			t.Fatalf("%s: %s", c.name, said)
		}
		raw, err := os.ReadFile(filepath.Join(m.dir, name+".csv"))
		if err != nil || string(raw) != members {
			t.Errorf("%s: another list, %v", c.name, err)
		}
		res, err := http.Get(s.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		launched := 0.0
		for line := range strings.Lines(string(page)) {
			if name, x, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, `kindred_cuda_kernel_launches_total{device="0",kernel="collect"}`) {
				if launched, err = strconv.ParseFloat(x, 64); err != nil {
					t.Error(err)
				}
			}
		}
		if (launched > 0) != c.made || c.made != (len(about(s.log())) == 0) {
			t.Errorf("%s: %v launches, and %q", c.name, launched, s.log())
		}
		s.stop()
	}
}
