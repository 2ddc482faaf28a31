package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRealMilvusKilled kills a Milvus of its own with SIGKILL at random, while customers
// are sent to a Kindred over HTTP and a file is imported by another: whoever was
// acknowledged is there, the import ends with everyone, and nothing was restarted but
// Milvus. KINDRED_TEST_MILVUS_KILL is a folder for one that may be killed,
// KINDRED_TEST_MILVUS_KILLS how often (3).
func TestRealMilvusKilled(t *testing.T) {
	folder := os.Getenv("KINDRED_TEST_MILVUS_KILL")
	if folder == "" {
		t.Skip("KINDRED_TEST_MILVUS_KILL is not set: a folder for a Milvus that may be killed")
	}
	rounds := 3
	if s := os.Getenv("KINDRED_TEST_MILVUS_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	server := func(what string) string {
		out, err := exec.Command("python3", "../../index/milvus/milvustest/server.py", what, folder).Output()
		if err != nil {
			t.Errorf("server.py %s: %v", what, err)
		}
		return strings.TrimSpace(string(out))
	}
	addr := server("start")
	t.Cleanup(func() { server("stop") })
	h := newHouse(t, addr)
	s := h.serve()
	if code, said, _ := s.ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	const size = 200
	acked, refused, statuses := 0, 0, map[int]int{}
	work.Go(func() { // over HTTP, batch by batch, each until it is acknowledged
		for {
			code, said, head := s.ask("POST", "/collections/shop/customers", customers(acked*size, (acked+1)*size))
			statuses[code]++
			switch {
			case code == 200:
				acked++
			case code == 503 && head.Get("Retry-After") == "":
				t.Errorf("no Retry-After: %s", said)
				return
			case code != 503:
				t.Errorf("%d: %s", code, said)
				return
			default:
				refused++
				time.Sleep(200 * time.Millisecond)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	const imported = 30_000
	file := filepath.Join(t.TempDir(), "more.ndjson")
	if err := os.WriteFile(file, []byte(customers(5_000_000, 5_000_000+imported)), 0o600); err != nil {
		t.Fatal(err)
	}
	tries := 0
	work.Go(func() { // by a process that gives up, and is started again
		for until := time.Now().Add(10 * time.Minute); time.Now().Before(until); time.Sleep(500 * time.Millisecond) {
			tries++
			if _, said, err := h.run("import", "shop", file); err == nil {
				return
			} else if strings.Contains(said, "goroutine ") {
				t.Errorf("%s", said)
				return
			}
		}
		t.Error("the import never ended")
	})
	for range rounds {
		time.Sleep(time.Duration(1000+rand.IntN(6000)) * time.Millisecond)
		raw, err := os.ReadFile(filepath.Join(folder, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
		if code, said, _ := s.ask("POST", "/collections/shop/search", `{"vector":[1,0,0,0,0,0,0,0],"limit":3}`); code != 200 {
			t.Errorf("a search while Milvus is away: %d %s", code, said)
		}
		server("start")
		// It has to work again before the next one.
		before := time.Now()
		s.until("writes again", func() bool {
			code, _, _ := s.ask("POST", "/collections/shop/customers", customer(9_000_000))
			return code == 200 || time.Since(before) > 55*time.Second && t.Failed()
		})
	}
	close(stop)
	work.Wait()
	t.Logf("%d kills; %d batches acknowledged, %d refused (%v); the import needed %d tries", rounds, acked, refused, statuses, tries)
	if refused == 0 {
		t.Error("nothing was refused: nothing was killed")
	}
	s.kill()
	again := h.serve() // with an empty folder
	want := acked*size + imported + 1
	var said string
	again.until("everything is there", func() bool { // Milvus reads its log again, and says so by 503
		var code int
		code, said, _ = again.ask("GET", "/collections/shop", "")
		return code == 200
	})
	// One batch more may be there than was acknowledged.
	if !strings.Contains(said, fmt.Sprintf(`"customers":%d`, want)) && !strings.Contains(said, fmt.Sprintf(`"customers":%d`, want+size)) {
		t.Errorf("%d customers were acknowledged: %s", want, said)
	}
	for _, i := range []int{0, acked*size - 1, acked * size / 2, 5_000_000, 5_000_000 + imported - 1, 9_000_000} {
		if code, said, _ := again.ask("GET", fmt.Sprintf("/collections/shop/customers/c%06d", i), ""); code != 200 || !strings.Contains(said, fmt.Sprintf(`"age":%d`, i%90)) {
			t.Errorf("customer %d: %d %s", i, code, said)
		}
	}
	again.stop()
}

// TestRealMilvusAuth has a server of its own that wants a user and a password, in the
// folder KINDRED_TEST_MILVUS_AUTH.
func TestRealMilvusAuth(t *testing.T) {
	folder := os.Getenv("KINDRED_TEST_MILVUS_AUTH")
	if folder == "" {
		t.Skip("KINDRED_TEST_MILVUS_AUTH is not set: a folder for a Milvus with authorisation")
	}
	server := func(what string) string {
		out, err := exec.Command("python3", "../../index/milvus/milvustest/server.py", what, folder).Output()
		if err != nil {
			t.Fatalf("server.py %s: %v", what, err)
		}
		return strings.TrimSpace(string(out))
	}
	server("start") // writes the configuration
	server("stop")
	conf := filepath.Join(folder, "data/configs/milvus.yaml")
	raw, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(raw), "authorizationEnabled: false", "authorizationEnabled: true", 1)
	if !strings.Contains(text, "authorizationEnabled: true") {
		t.Fatal("the configuration does not know authorizationEnabled")
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := server("start")
	defer server("stop")
	h := &house{t: t, setup: []string{"--milvus", addr, "--milvus-user", "root", "--device", "cpu"}, env: []string{"KINDRED_MILVUS_PASSWORD=Milvus"}} // what it comes with
	s := h.serve()
	if code, said, _ := s.ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(0, 300)); code != 200 {
		t.Fatal(code, said)
	}
	s.stop()
	if strings.Contains(s.log(), "Milvus\"") || strings.Contains(s.log(), "cm9vdDpNaWx2dXM") {
		t.Errorf("a secret was logged: %s", s.log())
	}
	for name, refused := range map[string]*house{
		"wrong password": {t: t, setup: h.setup, env: []string{"KINDRED_MILVUS_PASSWORD=" + milvusPassword}},
		"nobody":         {t: t, setup: []string{"--milvus", addr, "--device", "cpu"}},
	} {
		start := time.Now()
		out, said, err := refused.run("keys", "ls")
		if err == nil || !strings.Contains(said, "refused the credentials") || strings.Contains(said, milvusPassword) || time.Since(start) > 12*time.Second {
			t.Errorf("%s: after %v %v: %s%s", name, time.Since(start), err, out, said)
		}
		t.Logf("%s: %s", name, strings.TrimSpace(said))
		if _, text, err := doctor(t, refused.env, refused.setup[:len(refused.setup)-2]...); err == nil || !strings.Contains(text, "refused the credentials") {
			t.Errorf("%s: doctor: %v %s", name, err, text)
		}
	}
	if _, text, err := doctor(t, h.env, h.setup[:4]...); err != nil || !strings.Contains(text, `user "root" with a password`) || !strings.Contains(text, "which the server checks") || !strings.Contains(text, "kindred_c_shop: 300 rows") {
		t.Errorf("doctor: %v %s", err, text)
	}
}
