package api

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
	"reflect"
	"regexp"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/ingest"
)

// importBody is a request to import a file of the server's.
type importBody struct {
	Path    string         `json:"path" minLength:"1" doc:"below the server's import root" example:"customers.csv"`
	Options ingest.Options `json:"options,omitempty" doc:"what is not given is guessed"`
}

type importInput struct {
	InCollection
	Stream
}

func (s *Server) importRoute() {
	svc := s.opt.Service
	imp := s.operation("import-customers", http.MethodPost, collectionPath+"/imports", "Read a file into the collection, as a job", "customers", RoleWrite)
	imp.Description = "CSV, NDJSON or Parquet, plain or packed with gzip or zstd: as a path below the server's import root, or as an upload."
	imp.DefaultStatus = http.StatusAccepted
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[importBody](), true, "ImportBody")
	options := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[ingest.Options](), true, "Options")
	huma.Register(s.api, imp, func(ctx context.Context, in *importInput) (*jobAnswer, error) {
		if _, err := svc.Collection(ctx, in.Collection); err != nil {
			return nil, problemOf(err)
		}
		switch in.contentType {
		case "application/json":
			raw, err := readBody(in.body)
			if err != nil {
				return nil, err
			}
			var req importBody
			if err := s.decode(raw, schema, &req); err != nil {
				return nil, err
			}
			job, err := svc.StartImport(ctx, in.Collection, collection.ImportRequest{Path: req.Path, Options: req.Options})
			return accepted(job), problemOf(err)
		case "multipart/form-data":
			job, err := s.upload(ctx, in, options)
			return accepted(job), problemOf(err)
		}
		return nil, unsupported(in.contentType, "application/json", "multipart/form-data")
	})
	s.takes(imp.Path, map[string]*huma.Schema{
		"application/json": schema,
		"multipart/form-data": {Type: "object", Required: []string{"file"}, Properties: map[string]*huma.Schema{
			"options": options, "file": {Type: "string", Format: "binary"},
		}},
	})
}

// decode reads JSON that a schema describes; all faults come in one problem.
func (s *Server) decode(raw []byte, schema *huma.Schema, into any) error {
	var v any
	if err := unmarshal(raw, &v); err != nil {
		p := newProblem(http.StatusBadRequest, "bad_request", "the body is not JSON: "+err.Error())
		p.Errors = []Fault{{Location: "body", Message: err.Error()}}
		return p
	}
	at, res := huma.NewPathBuffer([]byte("body"), 4), &huma.ValidateResult{}
	huma.Validate(s.api.OpenAPI().Components.Schemas, schema, at, huma.ModeWriteToServer, v, res)
	if len(res.Errors) > 0 {
		return huma.NewError(http.StatusUnprocessableEntity, "validation failed", res.Errors...)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return newProblem(http.StatusUnprocessableEntity, "invalid", err.Error())
	}
	return nil
}

// extension is what an uploaded file's name may contribute to the one it is
// kept under.
var extension = regexp.MustCompile(`(\.[A-Za-z0-9]{1,8}){0,2}$`)

// maxOptions bounds the options field of an upload.
const maxOptions = 1 << 20

// upload keeps the form's file until its import has ended.
func (s *Server) upload(ctx context.Context, in *importInput, schema *huma.Schema) (job collection.Job, err error) {
	if s.opt.UploadDir == "" {
		p := newProblem(http.StatusUnprocessableEntity, "uploads_off", "this server takes no uploads")
		p.Fix = "send the customers to /customers"
		return job, p
	}
	if in.params["boundary"] == "" {
		return job, newProblem(http.StatusBadRequest, "bad_request", "multipart/form-data without a boundary")
	}
	form := multipart.NewReader(in.body, in.params["boundary"])
	var opt ingest.Options
	path := ""
	defer func() {
		if err != nil && path != "" {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return job, bodyProblem(err)
		}
		switch name := part.FormName(); {
		case name == "options":
			raw, err := io.ReadAll(io.LimitReader(part, maxOptions+1))
			if err != nil {
				return job, bodyProblem(err)
			}
			if len(raw) > maxOptions {
				return job, tooLarge(maxOptions)
			}
			if err := s.decode(raw, schema, &opt); err != nil {
				return job, err
			}
		case name == "file" && path == "":
			if path, err = s.keep(part); err != nil {
				return job, err
			}
		default:
			p := newProblem(http.StatusUnprocessableEntity, "invalid", "the form has fields that are not known, or twice")
			p.Errors = []Fault{{Location: "body." + name, Message: "unexpected: want options, then one file"}}
			return job, p
		}
	}
	if path == "" {
		p := newProblem(http.StatusUnprocessableEntity, "invalid", "the form has no file")
		p.Errors = []Fault{{Location: "body.file", Message: "missing"}}
		return job, p
	}
	if job, err = s.opt.Service.StartImport(ctx, in.Collection, collection.ImportRequest{Path: path, Options: opt, Uploaded: true}); err != nil {
		return job, err
	}
	return job, s.removeAfter(job.ID, path)
}

// removeAfter removes an upload when its job has ended.
func (s *Server) removeAfter(job, path string) error {
	updates, err := s.opt.Service.Watch(context.Background(), job)
	if err != nil {
		return err
	}
	go func() {
		var last collection.Job
		for last = range updates { // the channel also closes when the service stops
		}
		if last.State.Final() {
			if err := os.Remove(path); err != nil {
				s.opt.Logger.Warn("removing an upload", "error", err)
			}
		}
	}()
	return nil
}

// keep copies a form's file into the upload folder.
func (s *Server) keep(part *multipart.Part) (path string, err error) {
	if err := os.MkdirAll(s.opt.UploadDir, 0o700); err != nil {
		return "", fmt.Errorf("keeping the upload: %w", err)
	}
	path = filepath.Join(s.opt.UploadDir, uuid.NewString()+extension.FindString(part.FileName()))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("keeping the upload: %w", err)
	}
	from := &readErrors{r: part}
	_, err = io.Copy(file, from)
	if from.err != nil {
		err = bodyProblem(from.err)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// readErrors remembers the reader's error, to tell it from the disk's.
type readErrors struct {
	r   io.Reader
	err error
}

func (r *readErrors) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// forgetUploads removes the files that no unfinished import waits for, and the
// others when theirs has ended.
func (s *Server) forgetUploads() error {
	if s.opt.UploadDir == "" {
		return nil
	}
	files, err := os.ReadDir(s.opt.UploadDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	wanted := map[string]string{}
	for _, j := range s.opt.Service.Jobs() {
		if j.Kind == "import" && !j.State.Final() {
			wanted[j.Target] = j.ID
		}
	}
	for _, f := range files {
		name := f.Name()
		if len(name) < 36 || uuid.Validate(name[:36]) != nil {
			continue // not one of ours
		}
		path := filepath.Join(s.opt.UploadDir, name)
		if job, waits := wanted[name]; waits {
			err = s.removeAfter(job, path)
		} else {
			err = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("uploads: %w", err)
		}
	}
	return nil
}
