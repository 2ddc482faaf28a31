package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"512MB": 512e6, "512MiB": 512 << 20, "512m": 512 << 20, "2GiB": 2 << 30, "1.5 gb": 1.5e9, "1073741824": 1 << 30, "0": 0, "7b": 7,
	} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MB", "-1", "-1GB", "1e3", "NaN", "12 parsecs", "9999999999TB", "0x10", "１GB"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("%q: taken for %d", in, got)
		}
	}
}

// TestLimitsAreObeyed: the settings reach the runtime, and what cannot be meant
// is refused with all its faults.
func TestLimitsAreObeyed(t *testing.T) {
	cores, memory := runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1)
	defer func() {
		runtime.GOMAXPROCS(cores)
		debug.SetMemoryLimit(memory)
	}()
	c := Config{Threads: "1", Memory: "512MiB"}
	if err := c.validateLimits(); err != nil {
		t.Fatal(err)
	}
	c.limit()
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("%d threads, want 1", n)
	}
	if n := debug.SetMemoryLimit(-1); n != 448<<20 {
		t.Errorf("the collector's limit is %d bytes, want %d", n, 448<<20)
	}
	if n := c.customerMemory(); n != 256<<20 {
		t.Errorf("customers may take %d bytes, want half", n)
	}
	bad := Config{Threads: "0", Memory: "1MB", Precision: "fp8"}
	err := bad.validateLimits()
	for _, want := range []string{"threads", "memory", "precision"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
