package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

func TestUnknownRoutesAndMethods(t *testing.T) {
	f := start(t, setup{})
	for _, path := range []string{"/nowhere", "/v1", "/v1/collections/", "//", "/v1/collections/a/b/c/d/e", "/v1/collections/%2e%2e/x", "/v1/embeddings/"} {
		f.do("GET", path, nil).problem(404, "route_not_found")
	}
	for _, c := range [][3]string{{"PATCH", "/v1/collections", "GET"}, {"GET", "/v1/embeddings", "POST"}, {"OPTIONS", "/healthz", "GET"}, {"TRACE", "/v1/jobs", "GET"}, {"POST", "/", "GET"}} {
		got := f.do(c[0], c[1], nil)
		got.problem(405, "method_not_allowed")
		if allow := got.header.Get("Allow"); !strings.Contains(allow, c[2]) {
			t.Errorf("%s %s: Allow %q", c[0], c[1], allow)
		}
	}
}

func TestHealthAndConsole(t *testing.T) {
	f := start(t, setup{})
	f.shop(3)
	for _, path := range []string{"/healthz", "/readyz", "/health"} {
		var h health
		if f.do("GET", path, nil).want(200).into(&h); h.Status != "ok" || len(h.Missing) > 0 {
			t.Errorf("%s: %+v", path, h)
		}
	}
	page := f.do("GET", "/", nil).want(200)
	if !strings.Contains(string(page.body), "shop") || !strings.Contains(string(page.body), fakeModel) {
		t.Error("the console shows no collection or no model")
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q", csp)
	}
}

func TestMetrics(t *testing.T) {
	f := start(t, setup{})
	sailors := f.shop(60)
	f.build("a", sailors, 20)
	f.do("POST", "/v1/embeddings", `{"model":"words","input":"a b c"}`).want(200)
	f.do("POST", "/embed", `{"inputs":"a b"}`).want(200)
	f.do("POST", "/v1/collections/shop/search", `{"text":"busy"}`).want(429)
	for i := range 5 {
		f.do("GET", fmt.Sprintf("/nowhere/%d", i), nil).want(404)
	}
	text := string(f.do("GET", "/metrics", nil).want(200).body)
	for _, line := range []string{
		`kindred_customers{collection="shop"} 60`,
		`kindred_jobs{state="done"} 1`,
		`kindred_jobs{state="failed"} 0`,
		`kindred_encoded_tokens_total{model="words"} 9`, // 3 and 2 words, and two more each
		`kindred_http_requests_total{method="POST",route="/v1/collections/:collection/search",status="429"} 1`,
		`kindred_http_requests_total{method="GET",route="none",status="404"} 5`,
		`kindred_http_request_seconds_count{route="/embed"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	name := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?(go|process|promhttp|kindred)_[a-z_]+`)
	for line := range strings.Lines(text) {
		if !name.MatchString(line) {
			t.Errorf("an odd line: %s", line)
		}
	}
}

// While no key protects the server, another web page may read nothing (the
// browser sees to that) and change nothing (the server does).
func TestOtherPagesChangeNothing(t *testing.T) {
	f := start(t, setup{})
	f.shop(3)
	evil := header{"Origin": "http://evil.example", "Content-Type": "multipart/form-data; boundary=x"}
	f.do("POST", "/v1/collections/shop/imports", "", evil).problem(403, "origin")
	f.do("DELETE", "/v1/collections/shop", nil, header{"Sec-Fetch-Site": "cross-site"}).problem(403, "origin")
	f.do("GET", "/v1/collections/shop", nil, header{"Origin": "http://evil.example"}).want(200)
	f.do("POST", "/v1/collections/shop/count", `{}`, header{"Origin": f.http.URL}).want(200)
	f.do("POST", "/v1/collections/shop/count", `{}`, header{"Sec-Fetch-Site": "same-origin"}).want(200)
}

// serve runs the fixture's server as the program does, and returns its address
// and what stops it.
func (f *fixture) serve() (addr string, stop func() error) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	served := make(chan error, 1)
	go func() { served <- f.srv.Serve(ctx, l) }()
	return l.Addr().String(), func() error {
		cancel()
		return <-served
	}
}

// Who sends slowly is cut off; who sends too much is told so.
func TestSlowAndOversizedRequests(t *testing.T) {
	f := start(t, setup{opt: Options{HeaderTime: 300 * time.Millisecond, BodyTime: 300 * time.Millisecond, IdleTime: 300 * time.Millisecond}})
	f.shop(3)
	addr, stop := f.serve()
	post := "POST /v1/collections/shop/count HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for _, c := range []struct {
		name, send, want string
	}{
		{"headers that do not end", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", ""},
		{"a connection left idle", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		{"a body that does not come", post + "Content-Length: 100\r\n\r\n{", "408"},
		{"a body that is not wanted and does not come", strings.Replace(post, "/v1/collections/shop", "/nowhere", 1) + "Content-Length: 100\r\n\r\n{", "404"},
		{"the same under another name", strings.Replace(post, "localhost", "evil.example", 1) + "Content-Length: 100\r\n\r\n{", "403"},
		{"lines that stop", "POST /v1/collections/shop/customers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n{", "408"},
		{"chunks that do not end", post + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "408"},
		{"a body announced as huge", post + "Content-Length: 99999999999\r\n\r\n{", "413"},
		{"huge headers", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "431"},
		{"a length below zero", post + "Content-Length: -1\r\n\r\n", "400"},
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(c.send)); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			if c.want != "" {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if !strings.HasPrefix(res.Status, c.want) {
					t.Errorf("status %s, want %s", res.Status, c.want)
				}
			}
			for err == nil { // until the server hangs up
				_, err = in.ReadByte()
			}
			if ne, timeout := err.(net.Error); timeout && ne.Timeout() { //nolint:errorlint // of this connection
				t.Error("the connection is still open")
			}
		})
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Who stops reading is cut off, and the export behind the answer with it; who
// reads slowly is not.
func TestAnswerThatNobodyReads(t *testing.T) {
	f := start(t, setup{opt: Options{StallTime: 300 * time.Millisecond}})
	f.shop(3)
	big := strings.Repeat("x", 32<<20) // above what sockets buffer
	ended := make(chan error, 2)
	f.srv.engine.GET("/big", func(c *gin.Context) {
		_, err := c.Writer.WriteString(big)
		ended <- err
	})
	addr, stop := f.serve()
	open := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	idle := open()
	defer idle.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the write ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("an answer that nobody reads still waits")
	}
	// One connection, used again after longer than the time to take an answer.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 2 {
		if _, err := conn.Write([]byte("DELETE /v1/collections/shop/customers/nobody HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusNotFound {
			t.Fatalf("%v, %v", res, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		time.Sleep(600 * time.Millisecond)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A stream of events ends when the server stops; its job goes on in the next
// process.
func TestStopEndsEventStreams(t *testing.T) {
	f := start(t, setup{opt: Options{Grace: time.Minute}})
	f.shop(8)
	addr, stop := f.serve()
	var job struct{ ID string }
	f.do("POST", "/v1/collections/shop/audiences", `{"name":"slow","seeds":{"text":"wait"},"size":{"count":1}}`).want(202).into(&job)
	<-f.enc.entered
	res, err := http.Get("http://" + addr + "/v1/jobs/" + job.ID + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() || lines.Text() != "event: job" {
		t.Fatalf("the stream begins %q", lines.Text())
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for lines.Scan() { // ends with the stream, long before the grace does
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a stream of events holds the shutdown up")
	}
	http.DefaultClient.CloseIdleConnections()
}
