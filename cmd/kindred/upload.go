package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/ingest"
)

// Put asks PUT /v1/collections/{c}.
func (r *remote) Put(ctx context.Context, cfg collection.Config) error {
	body := map[string]any{"model": cfg.Model, "dim": cfg.Dim, "fields": cfg.Schema.Fields}
	if cfg.Schema.Template != "" {
		body["template"] = cfg.Schema.Template
	}
	return r.call(ctx, http.MethodPut, collectionPath(cfg.Name), body, nil)
}

// Upload sends a file to POST /v1/collections/{c}/imports and returns the import's
// job. sent hears how many bytes of it have gone.
func (r *remote) Upload(ctx context.Context, coll, path string, opt ingest.Options, sent func(done, total int64)) (job collection.Job, err error) {
	f, err := os.Open(path)
	if err != nil {
		return job, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return job, err
	}
	options, err := json.Marshal(opt)
	if err != nil {
		return job, err
	}
	body, pipe := io.Pipe()
	form := multipart.NewWriter(pipe)
	go func() {
		werr := form.WriteField("options", string(options))
		if werr == nil {
			var part io.Writer
			if part, werr = form.CreateFormFile("file", filepath.Base(path)); werr == nil {
				_, werr = io.Copy(part, &counted{r: f, total: info.Size(), hear: sent})
			}
		}
		pipe.CloseWithError(errors.Join(werr, form.Close()))
	}()
	raw, err := r.do(ctx, http.MethodPost, collectionPath(coll)+"/imports", form.FormDataContentType(), body)
	// An answer before the file has gone ends the sending.
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return job, err
	}
	if err := json.Unmarshal(raw, &job); err != nil {
		return job, fmt.Errorf("the answer of %s is not what a Kindred server says: %w", r.base, err)
	}
	return job, nil
}

// counted tells how far a reader has come.
type counted struct {
	r           io.Reader
	done, total int64
	hear        func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	c.hear(c.done, max(c.done, c.total))
	return n, err
}

// importRemote makes the collection on the server, sends the file and waits for
// the import.
func (a *app) importRemote(ctx context.Context, r *remote, cfg collection.Config, path string, opt ingest.Options) error {
	r.client.Timeout = 0 // a large file takes as long as it takes; Ctrl-C stops it
	if err := r.Put(ctx, cfg); err != nil {
		return err
	}
	bar := a.meter()
	job, err := r.Upload(ctx, cfg.Name, path, opt, func(done, total int64) { bar.show("sending bytes", done, total) })
	bar.end()
	if err != nil {
		return err
	}
	if err := a.follow(ctx, r, job.ID); err != nil {
		if ctx.Err() != nil {
			a.say("the server goes on: kindred jobs cancel %s stops it", job.ID)
		}
		return err
	}
	if job, err = r.Job(ctx, job.ID); err != nil {
		return err
	}
	got := loaded{Collection: cfg.Name, Accepted: job.Accepted, Refused: job.Refused, Errors: job.Errors}
	if err := a.taken(got, path); err != nil || !a.cfg.JSON {
		return err
	}
	return a.json(got)
}
