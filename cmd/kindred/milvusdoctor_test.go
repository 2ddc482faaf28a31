package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

// doctor runs it on a Milvus and returns its findings about that.
func doctor(t *testing.T, env []string, flags ...string) (found []finding, text string, err error) {
	t.Helper()
	h := &house{t: t, setup: append(flags, "--listen", "127.0.0.1:0", "--device", "cpu"), env: env}
	start := time.Now()
	out, said, err := h.run("doctor", "--json")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if strings.Contains(out+said, milvusPassword) || strings.Contains(out+said, base64.StdEncoding.EncodeToString([]byte("kindred:"+milvusPassword))) {
		t.Errorf("a secret was printed: %s%s", out, said)
	}
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s%s", err, out, said)
	}
	for _, f := range all {
		if strings.HasPrefix(f.What, "milvus") {
			found = append(found, f)
			text += fmt.Sprintf("%v %s: %s\n", f.Wrong, f.What, f.Found)
		}
	}
	return found, text, err
}

// testDoctor has a store with customers looked at.
func testDoctor(t *testing.T, addr string) {
	t.Parallel()
	h := newHouse(t, addr)
	file := filepath.Join(t.TempDir(), "c.ndjson")
	if err := os.WriteFile(file, []byte(customers(0, 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, text, err := doctor(t, nil, h.setup[:4]...)
	if err != nil || !strings.Contains(text, "none of "+h.setup[3]) {
		t.Fatalf("%v: %s", err, text)
	}
	h.must("import", "spring-sale", file, "--dim", "8")
	list, text, err := doctor(t, nil, h.setup[:4]...)
	if err != nil {
		t.Fatal(err, text)
	}
	for _, want := range []string{"2.3.5", "supported", "no TLS; no credentials", "healthy", "milvus querynode: querynode1: ", "segments of up to 512 MB", "16384 results"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	seen := 0
	for _, f := range list {
		c := f.Collection
		if c == nil {
			continue
		}
		seen++
		if c.Load != "loaded" || c.Index != "FLAT" || c.Schema != "current" || c.Shards != 1 {
			t.Errorf("%+v", c)
		}
		if c.Name == "spring-sale" && (c.InMilvus != h.setup[3]+"_c_springDsale" || c.Rows != 500 || c.Precision != "int8" || c.MemoryBytes < 500*80 || c.MemoryBytes > 500*200) {
			t.Errorf("%+v", c)
		}
	}
	if seen != 2 {
		t.Errorf("%d collections: %s", seen, text)
	}
	// One that someone else made under our prefix, one that someone dropped, one without a
	// description of what it holds, and one that is not loaded.
	c, err := client.Dial(t.Context(), client.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	prefix := h.setup[3]
	schema := func(name, description string) client.Schema {
		return client.Schema{Name: name, Description: description, Fields: []client.Field{{Name: "pk", Type: client.VarChar, Primary: true, MaxLength: 64}, {Name: "v", Type: client.FloatVector, Dim: 3}}}
	}
	for _, s := range []client.Schema{schema(prefix+"_c_theirs", "of someone else"), schema(prefix+"_c_left", "kindred left")} {
		if err := c.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Drop(context.Background(), s.Name) })
	}
	if err := c.Release(t.Context(), prefix+"_c_springDsale"); err != nil {
		t.Fatal(err)
	}
	look := func(want map[string]bool) {
		t.Helper()
		list, text, err := doctor(t, nil, "--milvus", addr, "--milvus-prefix", prefix)
		if err == nil {
			t.Errorf("all is well: %s", text)
		}
		for what, wrong := range want {
			found := false
			for _, f := range list {
				found = found || strings.Contains(f.Found, what) && f.Wrong == wrong
			}
			if !found {
				t.Errorf("%q (%v) is missing in %s", what, wrong, text)
			}
		}
	}
	look(map[string]bool{"_c_theirs is not of this store: choose another": true, "_c_left is what a creation or deletion left": false, "not loaded, schema of this version": false})
	if err := c.Drop(t.Context(), prefix+"_c_springDsale"); err != nil {
		t.Fatal(err)
	}
	look(map[string]bool{"spring-sale is described and is not there": true})
	if err := c.Create(t.Context(), schema(prefix+"_c_springDsale", "kindred spring-sale")); err != nil {
		t.Fatal(err)
	}
	look(map[string]bool{`the field "id" is missing`: true})
	if err := c.Drop(t.Context(), prefix+"_kv"); err != nil {
		t.Fatal(err)
	}
	look(map[string]bool{"_kv is not there": true})
}

func TestMilvusDoctor(t *testing.T) {
	s, err := fake.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	testDoctor(t, s.Addr())
}

func TestRealMilvusDoctor(t *testing.T) { testDoctor(t, milvustest.Address(t)) }

// TestMilvusDoctorFaults is what it says of a Milvus that cannot be used, or is in trouble.
func TestMilvusDoctorFaults(t *testing.T) {
	start := func(change func(*fake.Server)) string {
		s, err := fake.Start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		change(s)
		return s.Addr()
	}
	token := base64.StdEncoding.EncodeToString([]byte("kindred:" + milvusPassword))
	guarded, open := start(func(s *fake.Server) { s.Token = token }), start(func(*fake.Server) {})
	cert, ca := authority(t)
	silent, stop, err := fake.Listen(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	health := func(a *milvuspb.CheckHealthResponse) string {
		return start(func(s *fake.Server) {
			s.Fault(fake.Fault{Method: "CheckHealth", Do: fake.Twist(func(out *milvuspb.CheckHealthResponse) {
				out.IsHealthy, out.Reasons, out.QuotaStates = a.IsHealthy, a.Reasons, a.QuotaStates
			})})
		})
	}
	nodes := func(json string) string {
		return start(func(s *fake.Server) {
			s.Fault(fake.Fault{Method: "GetMetrics", Do: fake.Twist(func(out *milvuspb.GetMetricsResponse) { out.Response = json })})
		})
	}
	user, right := "--milvus-user=kindred", "KINDRED_MILVUS_PASSWORD="+milvusPassword
	for name, c := range map[string]struct {
		flags []string
		env   []string
		wrong bool
		want  []string
	}{
		"password":            {[]string{"--milvus", guarded, user}, []string{right}, false, []string{`user "kindred" with a password`, "which the server checks", "--milvus-tls"}},
		"password and TLS":    {[]string{"--milvus", terminating(t, cert, guarded), "--milvus-ca", ca, "--milvus-server-name", "milvus.test", user}, []string{right}, false, []string{"TLS, the server's certificate checked by " + ca, "which the server checks"}},
		"password for nobody": {[]string{"--milvus", open, user}, []string{right}, false, []string{"takes calls without credentials too", "authorizationEnabled"}},
		"wrong password":      {[]string{"--milvus", guarded, user}, []string{right + "x"}, true, []string{"refused the credentials", "check user and password"}},
		"nobody there":        {[]string{"--milvus", "127.0.0.1:1"}, nil, true, []string{"cannot be reached", "check that Milvus runs"}},
		"packets dropped":     {[]string{"--milvus", silent}, nil, true, []string{"cannot be reached", "firewall"}},
		"too old":             {[]string{"--milvus", start(func(s *fake.Server) { s.Version = "v2.1.4" })}, nil, true, []string{"v2.1.4", "2.3"}},
		"newer":               {[]string{"--milvus", start(func(s *fake.Server) { s.Version = "v2.6.1" })}, nil, false, []string{"v2.6.1", "what tests run against is 2.3.5"}},
		"unwell":              {[]string{"--milvus", health(&milvuspb.CheckHealthResponse{Reasons: []string{"querycoord is in trouble"}})}, nil, true, []string{"querycoord is in trouble"}},
		"disk full":           {[]string{"--milvus", health(&milvuspb.CheckHealthResponse{IsHealthy: true, QuotaStates: []milvuspb.QuotaState{milvuspb.QuotaState_DenyToWrite}})}, nil, true, []string{"writes are refused", "quotaAndLimits"}},
		"a node in trouble":   {[]string{"--milvus", nodes(`{"nodes_info":[{"infos":{"has_error":true,"error_reason":"it is gone","name":"datanode7","type":"datanode"}}]}`)}, nil, true, []string{"datanode7 cannot be asked: it is gone"}},
		"memory full":         {[]string{"--milvus", nodes(`{"nodes_info":[{"infos":{"name":"querynode3","type":"querynode","hardware_infos":{"memory":1000000,"memory_usage":990000}}}]}`)}, nil, true, []string{"querynode3", "more memory"}},
		"nodes in no words":   {[]string{"--milvus", nodes(`<html>`)}, nil, false, []string{"milvus nodes: not shown"}},
		"no such database":    {[]string{"--milvus", open, "--milvus-database", "elsewhere"}, nil, true, []string{`there is no "elsewhere"`}},
		"lists refused": {[]string{"--milvus", start(func(s *fake.Server) {
			s.Fault(fake.Fault{Method: "ShowCollections", Do: fake.Refuse(1401, 0, "permission deny")})
		})}, nil, true, []string{"milvus collections: ", "that the user may do this"}},
		"a prefix that is none": {[]string{"--milvus", open, "--milvus-prefix", "9"}, nil, true, []string{"the prefix"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, text, err := doctor(t, c.env, c.flags...)
			if (err != nil) != c.wrong {
				t.Errorf("%v: %s", err, text)
			}
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in %s", want, text)
				}
			}
		})
	}
}
