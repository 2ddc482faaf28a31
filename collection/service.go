package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// ErrBusy means that too many jobs wait already. Try again later.
var ErrBusy = errors.New("too many jobs are waiting")

// Service keeps collections. Methods are safe for concurrent use.
type Service struct {
	opt  Options
	log  *slog.Logger
	jobs *jobs

	claims *claims // nil: the store is ours alone

	mu     sync.Mutex
	models map[string]*modelSlot
	// creating serialises Put and Drop: a collection's engine and its config
	// live in two places and must change together.
	creating sync.Mutex
	kept     keptModels
	// writing holds one lock a collection for read-modify-write of customers.
	writing map[string]*sync.Mutex
	// judged holds the judges of a collection's audiences, judgedVersion how often
	// they were forgotten; see live.go.
	judged        map[string]*judges
	judgedVersion map[string]int
	keptJudges    map[string]map[string]*judge // by name, those that are still right after another audience changed
	judgesSeen    map[string]seenMark
	touching      map[string]*touches // of collections that are embedded anew, see reembedrun.go
	changes       watchers
	suppress      suppressions
	timetable     timetable
	erased        map[string][]string // since the running job began, by collection; see refresh.go
}

// modelSlot lets the first caller open a model while the others wait for it
// without holding the Service's lock.
type modelSlot struct {
	once sync.Once
	enc  Encoder
	err  error
}

// New makes a Service over a store and resumes the jobs that an earlier
// process left unfinished.
func New(_ context.Context, opt Options) (*Service, error) {
	if opt.Store == nil || opt.KV == nil {
		return nil, fmt.Errorf("collection: a Store and a KV are needed: %w", index.ErrInvalid)
	}
	opt.Limits = opt.Limits.withDefaults()
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	opt.Store = newBounded(opt.Store, opt.KV, opt.MaxMemory)
	s := &Service{
		opt:     opt,
		log:     opt.Logger,
		models:  map[string]*modelSlot{},
		writing: map[string]*sync.Mutex{},
		judged:  map[string]*judges{}, judgedVersion: map[string]int{}, keptJudges: map[string]map[string]*judge{}, judgesSeen: map[string]seenMark{}, touching: map[string]*touches{},
		changes:  watchers{list: map[string][]chan Change{}},
		suppress: suppressions{list: map[string][]*suppression{}, read: map[string]time.Time{}},
	}
	s.claims = newClaims(&s.opt)
	if err := newJobs(s); err != nil {
		return nil, err
	}
	if err := s.keepTime(); err != nil {
		return nil, errors.Join(err, s.jobs.close(context.Background()))
	}
	return s, nil
}

// Close stops the running job at its next checkpoint and returns when it has
// stopped or ctx ends. Unfinished jobs resume in the next New. The Store stays
// open: it is the caller's.
func (s *Service) Close(ctx context.Context) error {
	s.timetable.close()
	err := s.jobs.close(ctx)
	s.claims.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.models {
		if c, ok := m.enc.(io.Closer); ok && m.err == nil {
			err = errors.Join(err, c.Close())
		}
	}
	s.models = map[string]*modelSlot{}
	return err
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&l.MinSeeds, 20)
	set(&l.MinAudience, 100)
	set(&l.MaxBatch, 10_000)
	set(&l.MaxTextLen, 1<<20)
	set(&l.MaxTexts, 256)
	set(&l.MaxHits, 10_000)
	set(&l.MaxJobs, 64)
	set(&l.KeepJobs, 1000)
	if l.KeepJobsFor <= 0 {
		l.KeepJobsFor = 7 * 24 * time.Hour
	}
	return l
}

// Encoder returns the encoder of a model, opening it the first time. An
// opening that failed is tried again by the next call.
func (s *Service) Encoder(ctx context.Context, model string) (Encoder, error) {
	if s.opt.OpenModel == nil {
		return nil, fmt.Errorf("model %q: this process was started without models: %w", model, index.ErrInvalid)
	}
	s.mu.Lock()
	slot, ok := s.models[model]
	if !ok {
		slot = &modelSlot{}
		s.models[model] = slot
	}
	s.mu.Unlock()
	slot.once.Do(func() { slot.enc, slot.err = s.opt.OpenModel(ctx, model) })
	if slot.err != nil {
		s.mu.Lock()
		if s.models[model] == slot {
			delete(s.models, model)
		}
		s.mu.Unlock()
		return nil, slot.err
	}
	return slot.enc, nil
}

const configPrefix = "config/"

// Put creates a collection, or adds fields to one that is there. The model, the
// dimension, the precision, the template and the type of a field cannot change:
// that is index.ErrExists, and re-creating under another name is the way.
func (s *Service) Put(ctx context.Context, cfg Config) (out Config, created bool, err error) {
	err = s.Exclusively(ctx, cfg.Name, func(ctx context.Context) (err error) {
		out, created, err = s.put(ctx, cfg)
		return err
	})
	return out, created, err
}

func (s *Service) put(ctx context.Context, cfg Config) (Config, bool, error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	if cfg.Precision == "" {
		cfg.Precision = index.Int8
	}
	if err := cfg.Schema.Validate(); err != nil {
		return Config{}, false, fmt.Errorf("schema: %w", err)
	}
	if !nameRule.MatchString(cfg.Name) {
		return Config{}, false, faultf("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", cfg.Name)
	}
	cfg.Generation = 0
	if cfg.Model != "" {
		enc, err := s.Encoder(ctx, cfg.Model)
		if err != nil {
			return Config{}, false, err
		}
		info := enc.Info()
		if cfg.Dim != 0 && cfg.Dim != info.Dim {
			return Config{}, false, fmt.Errorf("dim %d: model %s has %d: leave dim out: %w", cfg.Dim, cfg.Model, info.Dim, index.ErrInvalid)
		}
		cfg.Dim = info.Dim
		cfg.Stamp = info.Stamp + "/" + profile.CompositionStamp(cfg.Schema)
	}
	old, err := s.config(cfg.Name)
	switch {
	case err == nil:
		return s.extend(ctx, old, cfg)
	case !errors.Is(err, index.ErrNotFound):
		return Config{}, false, err
	}
	cfg.Created = s.opt.Clock().UTC()
	cfg.Customers = 0
	spec := cfg.spec()
	if _, err := s.opt.Store.Create(ctx, spec); err != nil {
		// A crash between the two writes below leaves an engine without a
		// config: it was never acknowledged, so it may go.
		if !errors.Is(err, index.ErrExists) {
			return Config{}, false, err
		}
		if err := s.opt.Store.Drop(ctx, cfg.Name); err != nil {
			return Config{}, false, err
		}
		if _, err := s.opt.Store.Create(ctx, spec); err != nil {
			return Config{}, false, err
		}
	}
	if err := s.putConfig(ctx, cfg); err != nil {
		return Config{}, false, err
	}
	if err := s.show(ctx, &cfg); err != nil { // for readers besides us: the collection is there all the same
		s.log.Warn("a collection is not shown to other readers of the store", "collection", cfg.Name, "error", err)
	}
	return cfg, true, nil
}

// extend adds cfg's new fields to old, or says what conflicts.
func (s *Service) extend(ctx context.Context, old, cfg Config) (Config, bool, error) {
	var faults []error
	way := "create a collection under another name"
	conflict := func(what string, was, is any) {
		faults = append(faults, fmt.Errorf("%s is %v and cannot become %v: %s: %w", what, was, is, way, index.ErrExists))
	}
	if cfg.Model != "" { // its vectors can be made anew from the texts
		way = "embed the customers anew with it (kindred reembed), or create a collection under another name"
	}
	if old.Model != cfg.Model {
		conflict("model", quoted(old.Model), quoted(cfg.Model))
	}
	if cfg.Dim != 0 && old.Dim != cfg.Dim {
		conflict("dim", old.Dim, cfg.Dim)
	}
	if old.Precision != cfg.Precision {
		conflict("precision", old.Precision, cfg.Precision)
	}
	if old.Schema.Template != cfg.Schema.Template {
		conflict("template", quoted(old.Schema.Template), quoted(cfg.Schema.Template))
	}
	way = "create a collection under another name"
	had := map[string]profile.Field{}
	for _, f := range old.Schema.Fields {
		had[f.Name] = f
	}
	merged := old
	merged.Schema.Fields = append([]profile.Field(nil), old.Schema.Fields...)
	var added []profile.Field
	for _, f := range cfg.Schema.Fields {
		was, ok := had[f.Name]
		if !ok {
			added = append(added, f)
			continue
		}
		if was.Type != f.Type {
			conflict("field "+f.Name, was.Type, f.Type)
		}
		if before, now := decayText(was.Decay), decayText(f.Decay); before != now {
			conflict("decay of field "+f.Name, before, now)
		}
		for i := range merged.Schema.Fields {
			if merged.Schema.Fields[i].Name == f.Name {
				merged.Schema.Fields[i] = f
			}
		}
	}
	if len(faults) > 0 {
		return Config{}, false, errors.Join(faults...)
	}
	if cols := (profile.Schema{Fields: added}).Columns(); len(cols) > 0 {
		if err := errors.Join(s.alter(ctx, old.held(), cols), s.alterAside(ctx, old.Name, cols)); err != nil {
			return Config{}, false, err
		}
	}
	merged.Schema.Fields = append(merged.Schema.Fields, added...)
	if err := s.putConfig(ctx, merged); err != nil {
		return Config{}, false, err
	}
	return merged, false, s.fillCount(ctx, &merged)
}

// decayText is a decay in words.
func decayText(d *profile.Decay) string {
	if d == nil {
		return "none"
	}
	return fmt.Sprintf("%g days before %s", d.HalfLife, d.Reference.UTC().Format(time.RFC3339Nano))
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

// Collection returns one collection's configuration and size.
func (s *Service) Collection(ctx context.Context, name string) (Config, error) {
	cfg, err := s.config(name)
	if err != nil {
		return Config{}, err
	}
	return cfg, s.fillCount(ctx, &cfg)
}

// List returns all collections in order of name.
func (s *Service) List(ctx context.Context) ([]Config, error) {
	out := []Config{}
	err := s.each(configPrefix, func(_ string, value []byte) error {
		var cfg Config
		if err := json.Unmarshal(value, &cfg); err != nil {
			return err
		}
		if err := s.fillCount(ctx, &cfg); err != nil {
			return err
		}
		out = append(out, cfg)
		return nil
	})
	return out, err
}

// Warm opens every collection, so that the first request for one need not wait for its
// customers to be read. It returns those that could not be opened, and why.
func (s *Service) Warm(ctx context.Context) (map[string]error, error) {
	failed := map[string]error{}
	err := s.each(configPrefix, func(key string, _ []byte) error {
		name := strings.TrimPrefix(key, configPrefix)
		if _, err := s.opt.Store.Open(ctx, name); err != nil && !errors.Is(err, index.ErrNotFound) {
			failed[name] = err
		}
		return ctx.Err()
	})
	return failed, err
}

// Drop deletes a collection with its customers and audiences. Its jobs are
// cancelled first.
func (s *Service) Drop(ctx context.Context, name string) error {
	return s.Exclusively(ctx, name, func(ctx context.Context) error { return s.dropAll(ctx, name) })
}

func (s *Service) dropAll(ctx context.Context, name string) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	cfg, err := s.config(name)
	if err != nil {
		return err
	}
	if err := s.jobs.cancelAll(ctx, name); err != nil {
		return err
	}
	defer s.forgetJudges(name)
	defer s.forgetSuppressions(name)
	for _, prefix := range []string{audienceKey(name, ""), "in/" + name + "/", suppressPrefix(name)} {
		if err := s.opt.KV.DeletePrefix(ctx, prefix); err != nil {
			return err
		}
	}
	if err := s.dropAllDerived(ctx, name); err != nil {
		return err
	}
	aside, err := s.aside(name)
	if err != nil {
		return err
	}
	if err := s.opt.KV.Delete(ctx, configPrefix+name, reembedKey(name)); err != nil {
		return err
	}
	for _, other := range aside {
		if err := s.opt.Store.Drop(ctx, other); err != nil && !errors.Is(err, index.ErrNotFound) {
			return err
		}
	}
	return s.opt.Store.Drop(ctx, cfg.held())
}

func (s *Service) config(name string) (Config, error) { return readConfig(s.opt.KV, name) }

func readConfig(kv index.KV, name string) (Config, error) {
	raw, err := kv.Get(configPrefix + name)
	if errors.Is(err, index.ErrNotFound) {
		return Config{}, fmt.Errorf("collection %q: %w", name, index.ErrNotFound)
	}
	if err != nil {
		return Config{}, err
	}
	var cfg Config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return Config{}, fmt.Errorf("collection %q: its configuration cannot be read: %w", name, errors.Join(err, index.ErrCorrupt))
	}
	return cfg, nil
}

func (s *Service) putConfig(ctx context.Context, cfg Config) error {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	return s.opt.KV.Put(ctx, map[string][]byte{configPrefix + cfg.Name: raw})
}

func (s *Service) fillCount(ctx context.Context, cfg *Config) error {
	snap, err := s.snapshotOf(ctx, *cfg)
	if err != nil {
		return err
	}
	defer closeSnapshot(snap, s.log)
	cfg.Customers = int(snap.Live().GetCardinality())
	return nil
}

func (s *Service) snapshot(ctx context.Context, name string) (index.Snapshot, error) {
	cfg, err := s.config(name)
	if err != nil {
		return nil, err
	}
	return s.snapshotOf(ctx, cfg)
}

func (s *Service) snapshotOf(ctx context.Context, cfg Config) (index.Snapshot, error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return nil, err
	}
	return eng.Snapshot(ctx)
}

// open returns the engine of a collection. Who has read the configuration opens what
// that says, so that the two belong together.
func (s *Service) open(ctx context.Context, name string) (index.Engine, error) {
	cfg, err := s.config(name)
	if err != nil {
		return nil, err
	}
	return s.opt.Store.Open(ctx, cfg.held())
}

func closeSnapshot(snap index.Snapshot, log *slog.Logger) {
	if err := snap.Close(); err != nil {
		log.Error("closing a snapshot", "error", err)
	}
}

// each walks the keys under a prefix in order, in pages.
func (s *Service) each(prefix string, visit func(key string, value []byte) error) error {
	return s.eachIn(prefix, 256, visit)
}

// eachIn is each with pages of a size.
func (s *Service) eachIn(prefix string, size int, visit func(key string, value []byte) error) error {
	after := ""
	for {
		page, err := s.opt.KV.List(prefix, size, after)
		if err != nil {
			return err
		}
		for _, p := range page {
			if err := visit(p.Key, p.Value); err != nil {
				return err
			}
			after = p.Key
		}
		if len(page) < size {
			return nil
		}
	}
}

// lock serialises read-modify-write on one collection's customers.
func (s *Service) lock(name string) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.writing[name]
	if !ok {
		m = &sync.Mutex{}
		s.writing[name] = m
	}
	return m
}

// encode runs the collection's model over texts.
func (s *Service) encode(ctx context.Context, cfg Config, texts []string, opt embed.EncodeOptions) (*embed.Result, error) {
	enc, err := s.encoderOf(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return enc.Encode(ctx, texts, opt)
}

// encoderOf returns the encoder of the collection's model and refuses one with
// another stamp (other weights, or another precision): its vectors would be
// mixed with those that are stored.
func (s *Service) encoderOf(ctx context.Context, cfg Config) (Encoder, error) {
	enc, err := s.Encoder(ctx, cfg.Model)
	if err != nil {
		return nil, err
	}
	if now := enc.Info().Stamp; !strings.HasPrefix(cfg.Stamp, now+"/") {
		made, _, _ := strings.Cut(cfg.Stamp, "/")
		hint := "import it again into a new collection"
		if p, err := embed.StampPrecision(made); err == nil && p != enc.Info().Precision {
			hint = fmt.Sprintf("start with --precision %s (KINDRED_PRECISION=%s), or %s", p, p, hint)
		}
		return nil, fmt.Errorf("collection %q was made with model %s, this process runs %s: %s: %w", cfg.Name, made, now, hint, index.ErrInvalid)
	}
	return enc, nil
}
