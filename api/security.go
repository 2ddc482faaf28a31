package api

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/kindred-search/kindred/index"
)

// The roles, each with the rights of those before it.
const (
	RoleRead  = "read"
	RoleWrite = "write"
	RoleAdmin = "admin"
)

var roles = []string{RoleRead, RoleWrite, RoleAdmin}

const keyPrefix = "key/"

// Key is an API key as it is kept: only its hash.
type Key struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	Collections []string  `json:"collections,omitempty"` // empty: all
	Hash        string    `json:"hash"`                  // SHA-256 of the secret, hex
	Created     time.Time `json:"created"`
}

// KeyStore keeps API keys. A key's secret has 256 random bits, so a fast hash
// is enough: there is nothing to guess.
type KeyStore struct{ kv index.KV }

// NewKeyStore keeps keys in kv.
func NewKeyStore(kv index.KV) *KeyStore { return &KeyStore{kv: kv} }

var keyName = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// Add makes a key and returns its secret, which is shown this once.
func (k *KeyStore) Add(ctx context.Context, name, role string, collections []string) (string, error) {
	var faults []error
	if !keyName.MatchString(name) {
		faults = append(faults, fmt.Errorf("key name %q: want 1 to 64 of a-z, 0-9, _ and -: %w", name, index.ErrInvalid))
	}
	if !slices.Contains(roles, role) {
		faults = append(faults, fmt.Errorf("role %q: want read, write or admin: %w", role, index.ErrInvalid))
	}
	list, err := k.List()
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(list, func(e Key) bool { return e.Name == name }) {
		faults = append(faults, fmt.Errorf("key %q: %w", name, index.ErrExists))
	}
	if err := errors.Join(faults...); err != nil {
		return "", err
	}
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	secret := "kdr_" + base64.RawURLEncoding.EncodeToString(raw[:])
	key := Key{Name: name, Role: role, Collections: collections, Hash: hashKey(secret), Created: time.Now().UTC()}
	value, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	return secret, k.kv.Put(ctx, map[string][]byte{keyPrefix + key.Hash: value})
}

// List returns the keys, without secrets, in order of name.
func (k *KeyStore) List() ([]Key, error) {
	var out []Key
	after := ""
	for {
		page, err := k.kv.List(keyPrefix, 100, after)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			var key Key
			if err := json.Unmarshal(p.Value, &key); err != nil {
				return nil, fmt.Errorf("an API key cannot be read: %w", errors.Join(err, index.ErrCorrupt))
			}
			out = append(out, key)
			after = p.Key
		}
		if len(page) < 100 {
			slices.SortFunc(out, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
			return out, nil
		}
	}
}

// Remove deletes a key by name.
func (k *KeyStore) Remove(ctx context.Context, name string) error {
	list, err := k.List()
	if err != nil {
		return err
	}
	for _, key := range list {
		if key.Name == name {
			return k.kv.Delete(ctx, keyPrefix+key.Hash)
		}
	}
	return fmt.Errorf("key %q: %w", name, index.ErrNotFound)
}

// lookup finds a secret's key by its hash. How long that takes says something
// about hashes, not about secrets; the last word is a comparison in constant
// time.
func (k *KeyStore) lookup(secret string) (*Key, error) {
	hash := hashKey(secret)
	raw, err := k.kv.Get(keyPrefix + hash)
	if err != nil {
		return nil, err
	}
	var key Key
	if err := json.Unmarshal(raw, &key); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(key.Hash), []byte(hash)) != 1 {
		return nil, fmt.Errorf("key %q: %w", key.Name, index.ErrCorrupt)
	}
	return &key, nil
}

func hashKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		host = listen
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// open are the routes that need no key: they say nothing about customers.
var open = []string{"/healthz", "/readyz", "/health", "/openapi.json", "/openapi.yaml"}

// needed is the role a route needs: reading routes that are POSTs by nature are
// named, keys of the write role change customers, and admin drops collections.
func needed(method, route string) string {
	if method == http.MethodGet {
		return RoleRead
	}
	for _, read := range []string{"/search", "/similar", "/count", "/members/check", "/v1/embeddings", "/embed", "/tokenize"} {
		if strings.HasSuffix(route, read) {
			return RoleRead
		}
	}
	if route == "/v1/collections/:collection" {
		return RoleAdmin
	}
	return RoleWrite
}

// guarded says whether requests need a key: when there is one, and always when
// others can reach the server, so that removing the last key locks the door
// and does not open it.
func (s *Server) guarded() (bool, error) {
	keys, err := s.opt.Keys.List()
	return len(keys) > 0 || !isLoopback(s.opt.Listen), err
}

// authenticate checks the bearer key.
func (s *Server) authenticate(c *gin.Context) {
	route := c.FullPath()
	if route == "" || slices.Contains(open, route) {
		c.Next()
		return
	}
	deny := func(status int, code, why string) {
		if status == http.StatusUnauthorized {
			c.Header("WWW-Authenticate", "Bearer")
		}
		s.writeProblem(c, newProblem(status, code, why))
	}
	guarded, err := s.guarded()
	if err != nil {
		deny(http.StatusServiceUnavailable, "keys_unreadable", err.Error())
		return
	}
	if !guarded {
		c.Next()
		return
	}
	scheme, secret, _ := strings.Cut(c.GetHeader("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		deny(http.StatusUnauthorized, "key_missing", "send the API key as Authorization: Bearer KEY")
		return
	}
	key, err := s.opt.Keys.lookup(secret)
	if err != nil {
		deny(http.StatusUnauthorized, "key_unknown", "the API key is not known")
		return
	}
	if role := needed(c.Request.Method, route); slices.Index(roles, key.Role) < slices.Index(roles, role) {
		deny(http.StatusForbidden, "role", fmt.Sprintf("the key has the role %s, this needs %s", key.Role, role))
		return
	}
	if route == "/metrics" && len(key.Collections) > 0 {
		deny(http.StatusForbidden, "collection", "the metrics count the customers of all collections: use a key for all of them")
		return
	}
	if name := c.Param("collection"); len(key.Collections) > 0 && name != "" && !slices.Contains(key.Collections, name) {
		deny(http.StatusForbidden, "collection", fmt.Sprintf("the key is not for collection %q", name))
		return
	}
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), keyInContext{}, key))
	c.Next()
}

// visible says whether the request's key may see a collection.
func visible(ctx context.Context, name string) bool {
	key, ok := ctx.Value(keyInContext{}).(*Key)
	return !ok || len(key.Collections) == 0 || slices.Contains(key.Collections, name)
}

type keyInContext struct{}

// checkHost refuses foreign Host headers while no key protects the server: a web
// page could otherwise reach it under a name of its own (DNS rebinding).
func (s *Server) checkHost(c *gin.Context) {
	if guarded, err := s.guarded(); err == nil && guarded {
		c.Next()
		return
	}
	host := c.Request.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if !s.hosts[host] {
		s.writeProblem(c, newProblem(http.StatusForbidden, "host", fmt.Sprintf("host %q is not this server: ask for localhost, or allow the name in its configuration", c.Request.Host)))
		return
	}
	c.Next()
}

// crossOrigin tells a browser's requests on behalf of another page.
var crossOrigin = http.NewCrossOriginProtection()

// checkOrigin refuses changes that another web page makes a browser send while
// no key protects the server: a form needs no permission to post.
func (s *Server) checkOrigin(c *gin.Context) {
	if guarded, err := s.guarded(); err == nil && guarded {
		c.Next()
		return
	}
	if err := crossOrigin.Check(c.Request); err != nil {
		s.writeProblem(c, newProblem(http.StatusForbidden, "origin", "a page of another origin may not change anything here: "+err.Error()))
		return
	}
	c.Next()
}

// decompress makes a gzip body plain.
func decompress(r *http.Request) *Problem {
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
		return nil
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return newProblem(http.StatusBadRequest, "bad_encoding", "the body is not gzip as its Content-Encoding says: "+err.Error())
		}
		r.Body = struct {
			io.Reader
			io.Closer
		}{z, r.Body}
		r.Header.Del("Content-Encoding")
		r.ContentLength = -1
		return nil
	default:
		return newProblem(http.StatusUnsupportedMediaType, "unsupported_encoding", fmt.Sprintf("Content-Encoding %q is not known: send gzip or nothing", enc))
	}
}
