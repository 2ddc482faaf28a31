package models

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// stallTimeout ends a download that brings nothing for this long.
const stallTimeout = 60 * time.Second

// hubClient gives up within about ten seconds when the hub cannot be reached or says nothing; a body may take as
// long as it needs.
func hubClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		ForceAttemptHTTP2:     true,
	}}
}

// fetchHub downloads the files of a hub repository one after the other.
func (p *puller) fetchHub(ctx context.Context, src Source, dir string) error {
	for _, f := range src.Files {
		if !plainName(f.Name) {
			return fmt.Errorf("the file name %q is not plain", f.Name)
		}
		path := filepath.Join(dir, f.Name)
		if checkFile(path, f.SHA256, f.Size) == nil {
			continue // from a pull that was cut off later
		}
		if err := p.download(ctx, src, f, path); err != nil {
			return err
		}
	}
	return nil
}

// download brings one file to path by way of path.part, which a later call continues.
func (p *puller) download(ctx context.Context, src Source, want File, path string) error {
	part := path + ".part"
	have := int64(0)
	if info, err := os.Stat(part); err == nil {
		if have = info.Size(); have > want.Size {
			have = 0
		}
	}
	if have < want.Size || want.Size == 0 {
		if err := p.get(ctx, src, want, part, have); err != nil {
			return err
		}
	}
	if err := checkFile(part, want.SHA256, want.Size); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", want.Name, err), os.Remove(part))
	}
	return os.Rename(part, path)
}

func (p *puller) get(ctx context.Context, src Source, want File, part string, have int64) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address := fmt.Sprintf("%s/%s/resolve/%s/%s", p.endpoint, src.Name, url.PathEscape(src.Version), escapePath(want.Path))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kindred-models")
	req.Header.Set("Accept-Encoding", "identity")
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	client := *p.client
	next := client.CheckRedirect
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if err := checkLinked(r.Response, want); err != nil {
			return err
		}
		if next != nil {
			return next(r, via)
		}
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		return nil
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the hub: %w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if err := checkLinked(res, want); err != nil {
		return err
	}
	switch {
	case res.StatusCode == http.StatusOK:
		have = 0
	case res.StatusCode == http.StatusPartialContent && have > 0 && strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)):
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable, res.StatusCode == http.StatusPartialContent:
		return errors.Join(fmt.Errorf("%s: the hub does not continue at byte %d (%s); pull again to start afresh", want.Name, have, res.Status), os.Remove(part))
	default:
		return fmt.Errorf("%s: the hub answers %s for %s", want.Name, res.Status, address)
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if have == 0 {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(part, mode, 0o644)
	if err != nil {
		return err
	}
	stall := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("nothing came for %v", stallTimeout))
	})
	defer stall.Stop()
	s := &sink{ctx: ctx, want: want, stage: "hub " + want.Name, done: have, progress: func(stage string, done, total int64) {
		stall.Reset(stallTimeout)
		p.progress(stage, done, total)
	}}
	err = s.copy(f, res.Body)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	switch {
	case errors.Is(err, ErrCorrupt):
		return errors.Join(err, os.Remove(part))
	case err != nil:
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s: cut off at byte %d of %d, the next pull continues there: %w", want.Name, s.done, want.Size, err)
	case s.done < want.Size:
		return fmt.Errorf("%s: cut off at byte %d of %d, the next pull continues there: %w", want.Name, s.done, want.Size, io.ErrUnexpectedEOF)
	}
	return nil
}

// checkLinked compares the hash and size that the hub reports of a large file with the pin, before the download.
func checkLinked(res *http.Response, want File) error {
	if res == nil {
		return nil
	}
	tag := strings.Trim(strings.TrimPrefix(res.Header.Get("X-Linked-Etag"), "W/"), `"`)
	if len(tag) == 64 && !strings.EqualFold(tag, want.SHA256) {
		return fmt.Errorf("%s: the hub has a file of SHA-256 %s, the catalogue wants %s: %w", want.Name, tag, want.SHA256, ErrCorrupt)
	}
	if size := res.Header.Get("X-Linked-Size"); size != "" && size != fmt.Sprint(want.Size) {
		return fmt.Errorf("%s: the hub has a file of %s bytes, the catalogue wants %d: %w", want.Name, size, want.Size, ErrCorrupt)
	}
	return nil
}

func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}
