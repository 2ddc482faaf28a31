package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/kindred-search/kindred/index"
)

// A POST with an Idempotency-Key is answered once: the answer is kept for a day,
// across restarts, and given again for the same key and body. The same key with
// another body is refused.

const (
	idemPrefix  = "idempotency/"
	idemLife    = 24 * time.Hour
	idemMaxBody = 1 << 20 // of an answer that is kept
)

type idemAnswer struct {
	Request  string      `json:"request"` // hash of method, path and body
	Status   int         `json:"status"`
	Header   http.Header `json:"header"`
	Body     []byte      `json:"body"`
	Answered time.Time   `json:"answered"`
}

// recorder keeps what a handler writes.
type recorder struct {
	gin.ResponseWriter
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.buf.Len() <= idemMaxBody {
		r.buf.Write(p)
	}
	return r.ResponseWriter.Write(p)
}

func (r *recorder) WriteString(s string) (int, error) { return r.Write([]byte(s)) }

func (s *Server) idempotent(c *gin.Context) {
	key := c.GetHeader("Idempotency-Key")
	if key == "" || s.opt.KV == nil || c.Request.Method != http.MethodPost || c.FullPath() == "" {
		c.Next()
		return
	}
	if len(key) > 255 {
		s.writeProblem(c, newProblem(http.StatusUnprocessableEntity, "invalid", "the Idempotency-Key is above 255 bytes"))
		return
	}
	raw, err := readBody(c.Request.Body)
	var p *Problem
	if errors.As(err, &p) {
		s.writeProblem(c, p)
		return
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(raw))
	h := sha256.New()
	h.Write([]byte(c.Request.Method + " " + c.Request.URL.RequestURI() + "\n"))
	h.Write(raw)
	request := hex.EncodeToString(h.Sum(nil))
	// One caller's keys are not another's.
	scope := sha256.Sum256([]byte(c.GetHeader("Authorization") + "\n" + key))
	at := idemPrefix + hex.EncodeToString(scope[:])
	if _, twin := s.running.LoadOrStore(at, true); twin {
		s.writeProblem(c, newProblem(http.StatusConflict, "idempotency_running", "the first request with this Idempotency-Key has no answer yet: wait for it, or ask again later"))
		return
	}
	defer s.running.Delete(at)
	stored, err := s.opt.KV.Get(at)
	var had idemAnswer
	if err == nil && json.Unmarshal(stored, &had) == nil && time.Since(had.Answered) < idemLife {
		if had.Request != request {
			s.writeProblem(c, newProblem(http.StatusUnprocessableEntity, "idempotency_mismatch", "this Idempotency-Key came with another request before: use a new key"))
			return
		}
		for k, v := range had.Header {
			c.Writer.Header()[k] = v
		}
		c.Header("Idempotent-Replayed", "true")
		c.Status(had.Status)
		if _, err := c.Writer.Write(had.Body); err != nil {
			s.opt.Logger.Debug("replaying an answer", "error", err)
		}
		c.Abort()
		return
	}
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		s.opt.Logger.Warn("reading an idempotency key", "error", err)
	}
	rec := &recorder{ResponseWriter: c.Writer}
	c.Writer = rec
	c.Next()
	c.Writer = rec.ResponseWriter
	if !keeps(rec.Status()) || rec.buf.Len() > idemMaxBody {
		return // the caller should try again, and may
	}
	header := http.Header{}
	for _, name := range []string{"Content-Type", "Location"} {
		if v := rec.Header().Get(name); v != "" {
			header.Set(name, v)
		}
	}
	value, err := json.Marshal(idemAnswer{request, rec.Status(), header, rec.buf.Bytes(), time.Now().UTC()})
	if err == nil {
		err = s.opt.KV.Put(context.WithoutCancel(c.Request.Context()), map[string][]byte{at: value})
	}
	if err != nil {
		s.opt.Logger.Warn("keeping an idempotent answer", "error", err)
	}
}

// keeps says whether an answer would be the same if the request came again: not
// when the server failed or was busy, nor when the caller left or its key was
// refused.
func keeps(status int) bool {
	switch status {
	case 499, http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusUnauthorized, http.StatusForbidden:
		return false
	}
	return status < 500
}

// forgetInTime removes kept answers that are past their time, every hour until
// ctx ends.
func (s *Server) forgetInTime(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.forgetAnswers(); err != nil {
				s.opt.Logger.Warn("forgetting old answers", "error", err)
			}
		}
	}
}

// forgetAnswers removes kept answers that are past their time.
func (s *Server) forgetAnswers() error {
	if s.opt.KV == nil {
		return nil
	}
	after := ""
	for {
		page, err := s.opt.KV.List(idemPrefix, 16, after) // each may hold a megabyte
		if err != nil || len(page) == 0 {
			return err
		}
		var old []string
		for _, p := range page {
			after = p.Key
			var a idemAnswer
			if json.Unmarshal(p.Value, &a) != nil || time.Since(a.Answered) >= idemLife {
				old = append(old, p.Key)
			}
		}
		if len(old) > 0 {
			if err := s.opt.KV.Delete(context.Background(), old...); err != nil {
				return err
			}
		}
	}
}
