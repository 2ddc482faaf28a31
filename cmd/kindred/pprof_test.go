package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestProfiler: profiles are served at the address asked for, to this machine
// and under its own name only, and no longer than asked for.
func TestProfiler(t *testing.T) {
	var said bytes.Buffer
	a := &app{err: &said}
	for _, addr := range []string{"6060", "0.0.0.0:6060", ":6060", "10.0.0.1:6060", "example.com:6060", "[::]:0"} {
		var usage *usageError
		if _, err := a.profiler(t.Context(), addr); !errors.As(err, &usage) {
			t.Errorf("%q: %v, want wrong usage", addr, err)
		}
	}
	end, err := a.profiler(t.Context(), "")
	if err != nil || end() != nil || said.Len() > 0 {
		t.Fatalf("without an address: %v, %q", err, said.String())
	}
	end, err = a.profiler(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://\S+`).FindString(said.String())
	ask := func(path, host string) (int, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
	if status, body := ask("goroutine?debug=1", ""); status != 200 || !bytes.Contains(body, []byte("TestProfiler")) {
		t.Errorf("goroutines: %d %.200s", status, body)
	}
	if status, body := ask("profile?seconds=1", ""); status != 200 || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		t.Errorf("profile: %d %.200q", status, body)
	}
	if status, _ := ask("goroutine?debug=1", "evil.example"); status != 403 {
		t.Errorf("under another name: %d, want 403", status)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	at := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/debug/pprof/")
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at); err == nil {
		t.Errorf("it listens after its end (closing: %v)", conn.Close())
	}
}
