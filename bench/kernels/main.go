// Command kernels writes docs/cuda-kernels.md: of each CUDA kernel what it moves and computes,
// the registers, shared memory and occupancy that the compiler's manifest leaves it, and what
// an H200 could do with it at best, on paper. `make kernels` runs it; a test holds the committed
// document to the committed manifest, and every kernel to a line of costs.go.
//
// Flow: costs.go says what a kernel does, as expressions; expression.go computes them for the
// sizes of costs.go; occupancy.go is NVIDIA's occupancy calculator; main.go writes the tables.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

const (
	manifestPath = "cuda/kernels/manifest.json"
	documentPath = "docs/cuda-kernels.md"
)

// manifest is what cuda/toolchain/kernels.py writes.
type manifest struct {
	NVCC    string                                  `json:"nvcc"`
	Kernels map[string]map[string]map[string]figure `json:"kernels"` // by source, kernel and architecture
}

// figure is what ptxas says of a kernel for one architecture.
type figure struct {
	Registers int `json:"registers"` // a thread
	Shared    int `json:"shared"`    // static, bytes a block
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run() error {
	raw, err := os.ReadFile(manifestPath)
	if err != nil {
		return fmt.Errorf("run it in the root of the repository: %w", err)
	}
	document, err := render(raw)
	if err != nil {
		return err
	}
	return os.WriteFile(documentPath, document, 0o644)
}

// render writes the document of a manifest.
func render(raw []byte) ([]byte, error) {
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestPath, err)
	}
	if len(m.Kernels) == 0 {
		return nil, fmt.Errorf("%s names no kernels", manifestPath)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, head, m.NVCC, sizesText(), ratesText())
	var errs []error
	for _, source := range slices.Sorted(maps.Keys(m.Kernels)) {
		kernels := m.Kernels[source]
		names := slices.Sorted(maps.Keys(kernels))
		fmt.Fprintf(&out, "\n## %s\n\n", source)
		errs = append(errs, work(&out, names), resources(&out, names, kernels))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

const head = `<!-- written by ` + "`make kernels`" + ` (bench/kernels) from cuda/kernels/manifest.json and bench/kernels/costs.go, do not edit by hand -->
# The CUDA kernels, in figures

Registers and static shared memory are those of the manifest (nvcc %s). Occupancy is what they and
the shape of the launch leave of the warps that a processor can hold. Bytes and operations
are counted from the sources, by hand, in [costs.go](../bench/kernels/costs.go). **The forecast is on paper and not
measured**: the longest of what each resource takes alone, at the rates below; what was
measured is in [cuda.md](cuda.md#measured). An operation of floats or halves is an addition or
a multiplication; a multiply-add is two.

%s

%s

A kernel named ` + "`…_bf16`" + ` does the same in bfloat16.
`

// work writes what the kernels of a source do, those that do the same in one line.
func work(out *bytes.Buffer, names []string) error {
	fmt.Fprintln(out, "| kernel | for each | read | written | from the second-level cache | operations | bound by | forecast, at best |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	var errs []error
	var done []string
	for _, name := range names {
		c := costOf(name)
		if c == nil {
			errs = append(errs, fmt.Errorf("no line of bench/kernels/costs.go is of kernel %s: say there what it moves and computes", name))
			continue
		}
		base := strings.TrimSuffix(name, "_bf16")
		if slices.Contains(done, base) {
			continue
		}
		done = append(done, base)
		cells, err := c.cells(base)
		if err != nil {
			errs = append(errs, fmt.Errorf("costs of %s: %w", name, err))
			continue
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
	return errors.Join(errs...)
}

// cells are a line of the first table.
func (c *cost) cells(name string) ([]string, error) {
	at := c.sizes(name)
	var errs []error
	value := func(expression string) float64 {
		x, err := evaluate(expression, at)
		errs = append(errs, err)
		return x
	}
	both := func(expression, unit string) string {
		if expression == "" {
			return "–"
		}
		text := shown(expression)
		if x := amount(value(expression)); x != text {
			text += " = " + x
		}
		return text + unit
	}
	var longest float64
	bound := ""
	consider := func(resource string, seconds float64) {
		if seconds > longest {
			longest, bound = seconds, resource
		}
	}
	moved := 0.0
	for _, e := range []string{c.read, c.written} {
		if e != "" {
			moved += value(e)
		}
	}
	consider("bandwidth", moved/rates["bandwidth"].each)
	if c.cache != "" {
		consider("the second-level cache", value(c.cache)/rates["cache"].each)
	}
	var operations []string
	for _, kind := range kinds {
		e, ok := c.operations[kind]
		if !ok {
			continue
		}
		if kind == "waiting" {
			operations = append(operations, fmt.Sprintf("%.0f ns %s", 1e9*value(e), rates[kind].what))
		} else {
			operations = append(operations, both(e, " "+rates[kind].what))
		}
		consider(rates[kind].bound, value(e)/rates[kind].each)
	}
	forecast := short(1/longest) + " a second"
	if c.note != "" {
		forecast += "; " + c.note
	}
	of := c.of
	for _, s := range slices.Sorted(maps.Keys(c.with)) {
		of += fmt.Sprintf("; %s %s", s, amount(at[s]))
	}
	line := []string{"`" + name + "`", of, both(c.read, " B"), both(c.written, " B"), both(c.cache, " B"), strings.Join(operations, "; "), bound, forecast}
	return line, errors.Join(errs...)
}

// resources writes what the kernels of a source have of a processor.
func resources(out *bytes.Buffer, names []string, kernels map[string]map[string]figure) error {
	fmt.Fprintf(out, "\n| kernel | threads a block | shared memory a block | registers %s | blocks a processor, occupancy %s |\n", architectureNames(), architectureNames())
	fmt.Fprintln(out, "|---|---|---|---|---|")
	var errs []error
	for _, name := range names {
		c := costOf(name)
		if c == nil {
			continue // work says so
		}
		at := c.sizes(name)
		threads, err := evaluate(c.threads, at)
		errs = append(errs, err)
		dynamic := 0.0
		if c.shared != "" {
			dynamic, err = evaluate(c.shared, at)
			errs = append(errs, err)
		}
		var registers, occupancy []string
		static := 0
		for _, a := range architectures {
			f, ok := kernels[name][a.name]
			if !ok || f.Registers == 0 {
				errs = append(errs, fmt.Errorf("%s says nothing of %s for %s", manifestPath, name, a.name))
				continue
			}
			static = max(static, f.Shared)
			registers = append(registers, fmt.Sprint(f.Registers))
			blocks := a.blocks(int(threads), f.Registers, f.Shared+int(dynamic))
			if blocks == 0 {
				occupancy = append(occupancy, "does not fit")
				continue
			}
			occupancy = append(occupancy, fmt.Sprintf("%d, %.0f %%", blocks, 100*float64(blocks)*math.Ceil(threads/32)/float64(a.warps)))
		}
		shared := amount(float64(static)+dynamic) + " B"
		if c.shared != "" {
			shared += ": " + shown(c.shared)
			if static > 0 {
				shared += " + " + amount(float64(static))
			}
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", name, amount(threads), shared, strings.Join(registers, " / "), strings.Join(occupancy, " / "))
	}
	return errors.Join(errs...)
}

// amount writes a number with three digits at least, the thousands apart.
func amount(x float64) string {
	if x < 100 && x != math.Trunc(x) {
		return fmt.Sprintf("%.3g", x)
	}
	digits := fmt.Sprintf("%.0f", x)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// short writes a large number with two digits.
func short(x float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if y := x / unit.of; y >= 10 {
			return fmt.Sprintf("%.0f %s", y, unit.name)
		} else if y >= 1 {
			return fmt.Sprintf("%.1f %s", y, unit.name)
		}
	}
	return fmt.Sprintf("%.2g", x)
}
