package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/flat"
	"github.com/kindred-search/kindred/index/hnsw"
	"github.com/kindred-search/kindred/index/rows"
)

// backend is what commands ask, in this process or over HTTP.
type backend interface {
	grouping
	Search(ctx context.Context, coll string, q collection.SearchRequest) (collection.Answer, error)
	Similar(ctx context.Context, coll string, q collection.SimilarRequest) (collection.Answer, error)
	Audiences(ctx context.Context, coll string) ([]collection.AudienceInfo, error)
	Audience(ctx context.Context, coll, name string) (*collection.AudienceInfo, error)
	Members(ctx context.Context, coll, name string, after, limit int) ([]audience.Member, error)
	Why(ctx context.Context, coll, name, id string) (*audience.Explanation, error)
	CreateAudience(ctx context.Context, coll string, req audience.Request) (collection.Job, error)
	DropAudience(ctx context.Context, coll, name string) error
	CheckSeeds(ctx context.Context, coll string, req audience.Request) (*audience.SeedCheck, error)
	Suppressions(ctx context.Context, coll string) ([]collection.SuppressionList, error)
	PutSuppression(ctx context.Context, coll, name string, ids []string, always bool) (collection.SuppressionList, error)
	ChangeSuppression(ctx context.Context, coll, name string, add, remove []string) (collection.SuppressionList, error)
	DropSuppression(ctx context.Context, coll, name string) error
	Jobs(ctx context.Context) ([]collection.Job, error)
	Job(ctx context.Context, id string) (collection.Job, error)
	Cancel(ctx context.Context, id string) (collection.Job, error)
	lifecycle
	reembedding
}

// direct is the backend in this process.
type direct struct{ *collection.Service }

// Jobs returns the jobs that the data directory knows.
func (d direct) Jobs(context.Context) ([]collection.Job, error) { return d.Service.Jobs(), nil }

// Job returns one job.
func (d direct) Job(_ context.Context, id string) (collection.Job, error) { return d.Service.Job(id) }

// Cancel asks a job to stop.
func (d direct) Cancel(_ context.Context, id string) (collection.Job, error) {
	return d.Service.Cancel(id)
}

// Audiences are shown as a server shows them.
func (d direct) Audiences(ctx context.Context, coll string) ([]collection.AudienceInfo, error) {
	all, err := d.Service.Audiences(ctx, coll)
	for i := range all {
		all[i] = all[i].Brief()
	}
	return all, err
}

// Audience is shown as a server shows it.
func (d direct) Audience(ctx context.Context, coll, name string) (*collection.AudienceInfo, error) {
	info, err := d.Service.Audience(ctx, coll, name)
	if err != nil {
		return nil, err
	}
	shown := info.Shown()
	return &shown, nil
}

// withBackend runs do on the server, where one is named, else on the data
// directory.
func (a *app) withBackend(ctx context.Context, do func(backend) error) error {
	if a.cfg.Server != "" {
		return do(newRemote(a.cfg.Server, a.cfg.Key))
	}
	return a.withData(ctx, func(svc *collection.Service) error { return do(direct{svc}) })
}

// withData runs do on the data directory in this process.
func (a *app) withData(ctx context.Context, do func(*collection.Service) error) (err error) {
	store, err := a.openData(ctx, a.cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	svc, err := collection.New(ctx, collection.Options{Store: store, KV: store.KV(), OpenModel: a.openModel, MaxMemory: a.cfg.customerMemory(), Shared: a.outside != nil, Outside: a.outside})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close(context.WithoutCancel(ctx))) }()
	return do(svc)
}

// openData opens a data directory or, where it is the settings' own and they name a
// Milvus, that.
func (a *app) openData(ctx context.Context, dir string) (*hnsw.Store, error) {
	if a.cfg.Milvus == "" || dir != a.cfg.Data {
		return a.openStore(dir)
	}
	device, err := a.theDevice()
	if err != nil {
		return nil, err
	}
	store, err := a.openMilvus(ctx, device)
	if err != nil {
		return nil, err
	}
	// Graphs are over rows of this process's copy, which another start numbers otherwise.
	wrapped, err := hnsw.Wrap(store, hnsw.Options{Default: index.EngineKind(a.cfg.Engine), Logf: a.say})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	a.outside = a.outsideOf(store)
	return wrapped, nil
}

// openStore opens a data directory, making it where there is none.
func (a *app) openStore(dir string) (*hnsw.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	device, err := a.theDevice()
	if err != nil {
		return nil, err
	}
	store, err := flat.Open(dir, flat.Options{Rows: rows.Options{Device: device.tables()}, OnClose: device.Close})
	if err != nil {
		err = errors.Join(err, device.Close())
	}
	if errors.Is(err, index.ErrLocked) {
		return nil, fmt.Errorf("%s is held by another process: if that is a server, ask it with --server http://HOST:PORT: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	wrapped, err := hnsw.Wrap(store, hnsw.Options{Dir: filepath.Join(dir, "graphs"), Default: index.EngineKind(a.cfg.Engine), Logf: a.say})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return wrapped, nil
}
