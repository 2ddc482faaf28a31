package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	crand "crypto/rand"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/fake"
	"github.com/kindred-search/kindred/index/milvus/milvustest"
)

const milvusPassword = "s3cr3t-of-the-house"

// authority makes a certificate for 127.0.0.1 and milvus.test, and writes what clients
// need.
func authority(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"milvus.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	raw, err := x509.CreateCertificate(crand.Reader, who, who, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, file
}

// terminating is a proxy that takes TLS off.
func terminating(t *testing.T, cert tls.Certificate, to string) string {
	t.Helper()
	lis, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(in, out); in.Close() }()
			go func() { io.Copy(out, in); out.Close() }()
		}
	}()
	return lis.Addr().String()
}

// importing is a command line that writes, with the password in the environment.
func importing(t *testing.T, args []string, env ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.ndjson")
	if err := os.WriteFile(file, []byte(customers(0, 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, setup: args, env: env}
	start := time.Now()
	out, said, err := h.run("import", "shop", file, "--dim", "8", "--device", "cpu")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if strings.Contains(out+said, milvusPassword) || strings.Contains(out+said, base64.StdEncoding.EncodeToString([]byte("kindred:"+milvusPassword))) {
		t.Errorf("a secret was printed: %s%s", out, said)
	}
	return out + said, err
}

// TestMilvusRefused is what a user sees of a Milvus that cannot be used.
func TestMilvusRefused(t *testing.T) {
	start := func(change func(*fake.Server), opts ...grpc.ServerOption) string {
		s, err := fake.Start(opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		change(s)
		return s.Addr()
	}
	listen := func(handle func(net.Conn)) string {
		addr, stop, err := fake.Listen(handle)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return addr
	}
	token := base64.StdEncoding.EncodeToString([]byte("kindred:" + milvusPassword))
	guarded := start(func(s *fake.Server) { s.Token = token })
	open := start(func(*fake.Server) {})
	cert, ca := authority(t)
	secured := start(func(*fake.Server) {}, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	web := &http.Server{Handler: http.NotFoundHandler()}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(lis)
	defer web.Close()
	others := start(func(*fake.Server) {})
	c, err := client.Dial(t.Context(), client.Config{Address: others})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, coll := range []string{"theirs_kv", "mine_c_shop"} {
		if err := c.Create(t.Context(), client.Schema{Name: coll, Description: "of someone else", Fields: []client.Field{{Name: "pk", Type: client.VarChar, Primary: true, MaxLength: 64}, {Name: "v", Type: client.FloatVector, Dim: 3}}}); err != nil {
			t.Fatal(err)
		}
	}
	user, right, wrong := "--milvus-user=kindred", "KINDRED_MILVUS_PASSWORD="+milvusPassword, "KINDRED_MILVUS_PASSWORD="+milvusPassword+"x"
	for _, tc := range []struct {
		name  string
		flags []string
		env   []string
		want  []string // of what is said; none: it works
	}{
		{"right password", []string{"--milvus", guarded, user}, []string{right}, nil},
		{"wrong password", []string{"--milvus", guarded, user}, []string{wrong}, []string{"refused the credentials", "check user and password"}},
		{"no credentials", []string{"--milvus", guarded}, nil, []string{"refused the credentials"}},
		{"user without password", []string{"--milvus", guarded, user}, nil, []string{"a user name needs a password"}},
		{"TLS", []string{"--milvus", secured, "--milvus-ca", ca}, nil, nil},
		{"TLS in front, by name", []string{"--milvus", terminating(t, cert, guarded), "--milvus-ca", ca, "--milvus-server-name", "milvus.test", user, "--milvus-prefix", "tls"}, []string{right}, nil},
		{"TLS, unknown authority", []string{"--milvus", secured, "--milvus-tls"}, nil, []string{"x509", "certificate"}},
		{"TLS, another name", []string{"--milvus", secured, "--milvus-ca", ca, "--milvus-server-name", "elsewhere.test"}, nil, []string{"x509", "elsewhere.test"}},
		{"TLS, not by it", []string{"--milvus", open, "--milvus-ca", ca}, nil, []string{"not Milvus", "TLS"}},
		{"TLS, not by us", []string{"--milvus", secured}, nil, []string{"TLS"}},
		{"no such file", []string{"--milvus", secured, "--milvus-ca", ca + "x"}, nil, []string{"certificates of the authority"}},
		{"packets dropped", []string{"--milvus", listen(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })}, nil, []string{"cannot be reached", "firewall"}},
		{"nobody there", []string{"--milvus", "127.0.0.1:1"}, nil, []string{"cannot be reached", "check that Milvus runs"}},
		{"HTTP", []string{"--milvus", lis.Addr().String()}, nil, []string{"not Milvus", "check the port"}},
		{"too old", []string{"--milvus", start(func(s *fake.Server) { s.Version = "v2.1.4" })}, nil, []string{"not supported", "2.3"}},
		{"too new", []string{"--milvus", start(func(s *fake.Server) { s.Version = "v3.0.0" })}, nil, []string{"not supported"}},
		{"another's key-value space", []string{"--milvus", others, "--milvus-prefix", "theirs"}, nil, []string{"another schema", "prefix"}},
		{"another's collection", []string{"--milvus", others, "--milvus-prefix", "mine"}, nil, []string{"not of this store", "prefix"}},
		{"disk full", []string{"--milvus", start(func(s *fake.Server) {
			s.Fault(fake.Fault{Method: "Upsert", Do: fake.Refuse(7, 0, "disk quota exceeded")})
		})}, nil, []string{"disk of Milvus is full", "more disk"}},
		{"no address", []string{"--milvus-ca", ca}, nil, []string{"--milvus localhost:19530"}},
		{"an address with a password", []string{"--milvus", "u:" + milvusPassword + "@localhost:19530"}, nil, []string{"not host:port"}},
		{"an unknown scan", []string{"--milvus", open, "--milvus-scan", "both"}, nil, []string{"mirror, pushdown or auto"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said, err := importing(t, tc.flags, tc.env...)
			if len(tc.want) == 0 {
				if err != nil {
					t.Fatal(err, said)
				}
				return
			}
			if err == nil {
				t.Fatalf("it works: %s", said)
			}
			for _, w := range tc.want {
				if !strings.Contains(said, w) {
					t.Errorf("%q is missing in: %s", w, said)
				}
			}
			if strings.Contains(said, "goroutine ") || strings.Count(said, "\n") > 12 {
				t.Errorf("that is no message: %s", said)
			}
		})
	}
}

// TestRealMilvusTLS has a proxy with TLS before a real server, and looks for the password
// in what a server says that is asked to serve from it.
func TestRealMilvusTLS(t *testing.T) {
	addr := milvustest.Address(t)
	cert, ca := authority(t)
	h := newHouse(t, addr)
	h.setup[1] = terminating(t, cert, addr)
	h.setup = append(h.setup, "--milvus-ca", ca, "--milvus-user", "root")
	h.env = []string{"KINDRED_MILVUS_PASSWORD=" + milvusPassword} // which a server without authorisation does not look at
	s := h.serve()
	if code, said, _ := s.ask("PUT", "/collections/shop", `{"dim":8,"fields":[{"name":"age","type":"number"}]}`); code != 201 {
		t.Fatal(code, said)
	}
	if code, said, _ := s.ask("POST", "/collections/shop/customers", customers(0, 300)); code != 200 {
		t.Fatal(code, said)
	}
	s.stop()
	if strings.Contains(s.log(), milvusPassword) {
		t.Errorf("the password was logged: %s", s.log())
	}
}
