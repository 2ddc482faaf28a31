package collection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// Source yields records in order, io.EOF at the end. An *ingest.RowError is one
// bad record: the next call goes on after it.
type Source interface {
	Next() (profile.Record, error)
}

// maxSample is how many refused lines a job or an import names.
const maxSample = 100

// batchSize is how many records are stored together. With a model, encoding is
// the slow part: a batch that takes about a second keeps progress and
// cancellation lively; without, larger batches share one disk sync.
func batchSize(cfg Config) int {
	if cfg.Model != "" {
		return 512
	}
	return 4096
}

// StartImport reads a file into a collection, as a job. The file is below the
// import root, or one that the caller has made for an upload.
func (s *Service) StartImport(ctx context.Context, coll string, req ImportRequest) (Job, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Job{}, err
	}
	if !req.Uploaded {
		path, err := s.underRoot(req.Path)
		if err != nil {
			return Job{}, err
		}
		req.Path = path
	}
	plan, err := ingest.Inspect(ctx, req.Path, req.Options)
	if err != nil {
		return Job{}, faultf("path", "%v", err)
	}
	if err := sameDecay(plan, cfg.Schema); err != nil {
		return Job{}, err
	}
	req.Options.Types = typed(plan, req.Options, cfg.Schema)
	return s.jobs.add(ctx, &storedJob{
		Job:    Job{Kind: "import", Collection: coll, Target: filepath.Base(req.Path)},
		Import: &req,
	}, nil)
}

// sameDecay refuses a half-life of dated elements that is not the collection's: what its
// fields say is what counts.
func sameDecay(plan *ingest.Plan, schema profile.Schema) error {
	if plan.GroupBy != "" || plan.Decay == nil {
		return nil
	}
	has := fieldsByName(schema)
	for _, f := range plan.Schema().Fields {
		if was, there := has[f.Name]; there && f.Decay != nil && decayText(was.Decay) != decayText(f.Decay) {
			return faultf("options.half_life_days", "field %s of the collection has %s: leave the half-life out, or declare it with the collection", f.Name, decayText(was.Decay))
		}
	}
	return nil
}

// typed is the types asked for, and for the other columns that are fields of the
// collection, the fields': a guess from a file must not drop what the
// collection has a place for.
func typed(plan *ingest.Plan, opt ingest.Options, schema profile.Schema) map[string]profile.FieldType {
	types := maps.Clone(opt.Types)
	for _, f := range schema.Fields {
		c := plan.Column(f.Name)
		if c == nil || c.Type == f.Type || c.Use == ingest.UseID || c.Use == ingest.UseKey || c.Why == "as asked" {
			continue
		}
		if types == nil {
			types = map[string]profile.FieldType{}
		}
		types[f.Name] = f.Type
	}
	return types
}

// underRoot resolves a path and refuses what lies outside the import root,
// symbolic links followed.
func (s *Service) underRoot(path string) (string, error) {
	if s.opt.ImportRoot == "" {
		return "", faultf("path", "imports by path are off: start the server with an import root or upload the file")
	}
	root, err := filepath.EvalSymlinks(s.opt.ImportRoot)
	if err != nil {
		return "", fmt.Errorf("import root: %w", err)
	}
	if root, err = filepath.Abs(root); err != nil {
		return "", fmt.Errorf("import root: %w", err)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", faultf("path", "no such file under the import root")
	}
	rel, err := filepath.Rel(root, real)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", faultf("path", "outside the import root: move the file below it")
	}
	return real, nil
}

// runImport is the body of an import job. Done counts records read, good and
// bad; a resumed job skips that many. Records of a batch that was stored but
// not yet counted are stored again, which changes nothing.
func (s *Service) runImport(ctx context.Context, job *storedJob) error {
	plan, err := ingest.Inspect(ctx, job.Import.Path, job.Import.Options)
	if err != nil {
		return err
	}
	src, err := plan.Open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := src.Close(); err != nil {
			s.log.Warn("closing an import's file", "job", job.ID, "error", err)
		}
	}()
	skip, base := job.Done, Outcome{Accepted: job.Accepted}
	refused := job.Refused
	s.jobs.update(job, func(v *Job) { v.Stage = "importing" })
	start := s.opt.Clock()
	return s.feed(ctx, job.Collection, src, feedOptions{skip: skip, after: func(read int64, out Outcome, refusedNow int) {
		bytesRead, bytesTotal := src.Progress()
		s.jobs.update(job, func(v *Job) {
			if bytesTotal > 0 && bytesRead > 0 {
				v.Total = max(read, int64(float64(read)*float64(bytesTotal)/float64(bytesRead)))
			}
			pace(v, read, skip, s.opt.Clock().Sub(start))
			v.Accepted = base.Accepted + out.Accepted
			v.Refused = refused + refusedNow
			for _, r := range out.Refused {
				if len(v.Errors) < maxSample {
					v.Errors = append(v.Errors, r)
				}
			}
		})
		s.jobs.checkpoint(job)
	}})
}

// Import reads a source into a collection and returns when done. The outcome
// names the first refused records; progress hears of all.
func (s *Service) Import(ctx context.Context, coll string, src Source, progress func(done, refused int)) (Outcome, error) {
	total := Outcome{Refused: []Verdict{}}
	err := s.feed(ctx, coll, src, feedOptions{after: func(read int64, out Outcome, refused int) {
		total.Accepted = out.Accepted
		for _, r := range out.Refused {
			if len(total.Refused) < maxSample {
				total.Refused = append(total.Refused, r)
			}
		}
		if progress != nil {
			progress(int(read), refused)
		}
	}})
	return total, err
}

// feedOptions: skip passes over records counted before; after hears, once a
// batch is durable, how many records were read in all, the outcome so far (with
// only this batch's refusals) and how many were refused so far.
type feedOptions struct {
	skip  int64
	after func(read int64, out Outcome, refused int)
}

func (s *Service) feed(ctx context.Context, coll string, src Source, opt feedOptions) error {
	cfg, err := s.config(coll)
	if err != nil {
		return err
	}
	size := batchSize(cfg)
	known := fieldsByName(cfg.Schema)
	var read int64
	var refused int
	sum := Outcome{}
	batch := make([]Input, 0, size)
	var bad []Verdict
	flush := func() error {
		out, err := s.write(ctx, cfg, batch)
		if err != nil {
			return err
		}
		sum.Accepted += out.Accepted
		sum.Refused = slices.Concat(bad, out.Refused)
		refused += len(sum.Refused)
		opt.after(read, sum, refused)
		batch, bad = batch[:0], nil
		return nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var row *ingest.RowError
		if err != nil && !errors.As(err, &row) {
			return err
		}
		read++
		if read <= opt.skip {
			continue
		}
		if row != nil {
			bad = append(bad, Verdict{Line: row.Line, ID: clip(row.ID), Reason: row.Reason})
		} else {
			batch = append(batch, Input{Line: int(read), Record: conform(known, rec)})
		}
		if len(batch) == size || len(bad) >= size {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(batch) > 0 || len(bad) > 0 {
		return flush()
	}
	return nil
}

// conform drops, in place, the columns of a file that the collection does not
// have: a file may carry more than the schema names, and the plan says so
// beforehand. Dated elements of a set weigh what the collection's field says.
func conform(known map[string]profile.Field, rec profile.Record) profile.Record {
	for name := range rec.Fields {
		if _, there := known[name]; !there {
			delete(rec.Fields, name)
		}
	}
	for name, events := range rec.Events {
		if f, there := known[name]; there && f.Type == profile.TypeSet {
			rec.Fields[name] = index.Value{Kind: index.Set, Set: f.Decay.Elements(events)}
		}
	}
	rec.Events = nil
	return rec
}

func fieldsByName(schema profile.Schema) map[string]profile.Field {
	fields := make(map[string]profile.Field, len(schema.Fields))
	for _, f := range schema.Fields {
		fields[f.Name] = f
	}
	return fields
}
