package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/internal/simd"
)

// Bounds of --memory: below the least not even a small model fits beside what a
// process needs anyway.
const leastMemory = 128 << 20

// threadCount is --threads, 0 for as many as there are cores.
func (c *Config) threadCount() (int, error) {
	if c.Threads == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(c.Threads)
	if err != nil || n < 1 || n > 1024 {
		return 0, fmt.Errorf("threads %q: want a number from 1 to 1024", c.Threads)
	}
	return n, nil
}

// memoryBytes is --memory, 0 for no bound.
func (c *Config) memoryBytes() (int64, error) {
	if c.Memory == "" {
		return 0, nil
	}
	n, err := parseBytes(c.Memory)
	if err != nil {
		return 0, fmt.Errorf("memory %q: %w", c.Memory, err)
	}
	if n < leastMemory {
		return 0, fmt.Errorf("memory %q: want at least %d MiB", c.Memory, leastMemory>>20)
	}
	return n, nil
}

// parseBytes reads a size such as 512MB (of a million bytes), 2GiB or 1073741824.
func parseBytes(s string) (int64, error) {
	end := strings.LastIndexAny(s, "0123456789") + 1
	unit, known := map[string]float64{
		"": 1, "b": 1, "k": 1 << 10, "kb": 1e3, "kib": 1 << 10, "m": 1 << 20, "mb": 1e6, "mib": 1 << 20,
		"g": 1 << 30, "gb": 1e9, "gib": 1 << 30, "t": 1 << 40, "tb": 1e12, "tib": 1 << 40,
	}[strings.ToLower(strings.TrimSpace(s[end:]))]
	n, err := strconv.ParseFloat(s[:end], 64)
	if strings.Trim(s[:end], "0123456789.") != "" || !known || err != nil || !(n >= 0 && n*unit < math.MaxInt64) {
		return 0, errors.New("want a size such as 512MB, 2GiB or 1073741824")
	}
	return int64(n * unit), nil
}

// validateLimits reports all that is wrong with the limits.
func (c *Config) validateLimits() error {
	_, threads := c.threadCount()
	_, memory := c.memoryBytes()
	var precision error
	if c.Precision != "" {
		_, precision = embed.ParsePrecision(c.Precision)
	}
	return errors.Join(threads, memory, precision, simd.Wish(os.Getenv(simd.WishVariable)))
}

// limit makes the process keep to the settings. They were validated.
func (c *Config) limit() {
	if n, err := c.threadCount(); err == nil && n > 0 {
		runtime.GOMAXPROCS(n)
	}
	if n, err := c.memoryBytes(); err == nil && n > 0 {
		// The binary, its stacks and the kernel's share are not the collector's.
		debug.SetMemoryLimit(n - max(n/8, 48<<20))
	}
}

// customerMemory is how much of --memory customers may take: half. The rest is
// for models, the database, requests and garbage.
func (c *Config) customerMemory() int64 {
	n, err := c.memoryBytes()
	if err != nil {
		return 0
	}
	return n / 2
}
