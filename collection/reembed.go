package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// Embedding a collection anew fills a second generation of its customers beside the first,
// which answers meanwhile, compares the two, and moves the collection over in one durable
// write when that is asked for and the gate lets it. The generation before stays, and is
// kept ready to go back to, until the change is confirmed.

// The states of a Reembedding.
const (
	ReembedFilling  = "filling"  // the next generation is being made, or waits to be
	ReembedReady    = "ready"    // it is whole, and was compared
	ReembedSwitched = "switched" // it counts; the one before is kept
)

// ReembedRequest says what the vectors shall be made by. What is left out stays as it is.
type ReembedRequest struct {
	Model     *string          `json:"model,omitempty"`
	Precision *index.Precision `json:"precision,omitempty"`
	Template  *string          `json:"template,omitempty"`
	// Switch moves the collection over when the gate is passed, Force also when it is not.
	Switch bool `json:"switch,omitempty"`
	Force  bool `json:"force,omitempty"`
	// MaxAUCLoss is by how much the stored audiences' hold-out AUC may fall in the mean;
	// default 0.02. MinOverlap is the least share of nearest customers that stay.
	MaxAUCLoss *float64 `json:"max_auc_loss,omitempty"`
	MinOverlap *float64 `json:"min_overlap,omitempty"`
	// Relearn makes audiences, segments and tags anew once switched; default true.
	Relearn *bool `json:"relearn,omitempty"`
}

func (r *ReembedRequest) validate() error {
	var faults []error
	if v := r.MaxAUCLoss; v != nil && !(*v >= 0 && *v <= 1) {
		faults = append(faults, faultf("max_auc_loss", "%v: want 0 to 1", *v))
	}
	if v := r.MinOverlap; v != nil && !(*v >= 0 && *v <= 1) {
		faults = append(faults, faultf("min_overlap", "%v: want 0 to 1", *v))
	}
	if r.Force && !r.Switch {
		faults = append(faults, faultf("force", "forces a switch: give switch as well"))
	}
	return errors.Join(faults...)
}

// Generation is one set of a collection's vectors.
type Generation struct {
	Number    int             `json:"number"`
	Model     string          `json:"model"`
	Dim       int             `json:"dim"`
	Precision index.Precision `json:"precision"`
	Template  string          `json:"template,omitempty"`
	Stamp     string          `json:"stamp"`
}

func (c *Config) generation() Generation {
	return Generation{Number: c.Generation, Model: c.Model, Dim: c.Dim, Precision: c.Precision, Template: c.Schema.Template, Stamp: c.Stamp}
}

// as is the configuration with another generation.
func (c Config) as(g Generation) Config {
	c.Generation, c.Model, c.Dim, c.Precision, c.Schema.Template, c.Stamp = g.Number, g.Model, g.Dim, g.Precision, g.Template, g.Stamp
	return c
}

// Reembedding is how far a collection's is.
type Reembedding struct {
	State string     `json:"state" enum:"filling,ready,switched"`
	Now   Generation `json:"now" doc:"what answers"`
	// Other is the generation that is made, or, once switched, the one before.
	Other    Generation `json:"other" doc:"what is made, or, once switched, what was before"`
	Back     bool       `json:"back,omitempty" doc:"the generation before is made ready to count again"`
	Job      string     `json:"job" doc:"the last job of it"`
	Started  time.Time  `json:"started"`
	Switched time.Time  `json:"switched,omitzero"`
	Gate     *Gate      `json:"gate,omitempty" doc:"the comparison, once it was made"`
}

func reembedKey(coll string) string { return "reembed/" + coll }

// Reembedding says how far a collection's is; index.ErrNotFound where there is none.
func (s *Service) Reembedding(_ context.Context, coll string) (*Reembedding, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	return s.reembedding(cfg)
}

func (s *Service) reembedding(cfg Config) (*Reembedding, error) {
	var r Reembedding
	err := s.read(reembedKey(cfg.Name), &r)
	if errors.Is(err, index.ErrNotFound) {
		return nil, fmt.Errorf("collection %q is not being embedded anew: %w", cfg.Name, index.ErrNotFound)
	}
	r.Now = cfg.generation()
	return &r, err
}

func (s *Service) putReembedding(ctx context.Context, coll string, r *Reembedding, with ...Config) error {
	pairs := map[string][]byte{}
	if err := r.pairs(coll, pairs); err != nil {
		return err
	}
	for _, cfg := range with {
		raw, err := json.Marshal(cfg)
		if err != nil {
			return err
		}
		pairs[configPrefix+cfg.Name] = raw
	}
	return s.opt.KV.Put(ctx, pairs)
}

func (r *Reembedding) pairs(coll string, into map[string][]byte) error {
	raw, err := json.Marshal(r)
	into[reembedKey(coll)] = raw
	return err
}

// Reembed makes the vectors of a collection anew, as a job: with another model, precision
// or template, or, where one that was begun is unfinished or waits to be switched, that
// one. A job that is asked again does only what has changed since.
func (s *Service) Reembed(ctx context.Context, coll string, req ReembedRequest) (Job, error) {
	if err := req.validate(); err != nil {
		return Job{}, err
	}
	cfg, err := s.config(coll)
	if err != nil {
		return Job{}, err
	}
	next := cfg
	if req.Model != nil {
		next.Model = *req.Model
	}
	if next.Model == "" {
		return Job{}, faultf("model", "the collection's vectors are made by none: say which")
	}
	enc, err := s.Encoder(ctx, next.Model) // outside the lock: it may be fetched first
	if err != nil {
		return Job{}, err
	}
	if req.Precision != nil {
		next.Precision = *req.Precision
	}
	if req.Template != nil {
		next.Schema.Template = *req.Template
	}
	if err := next.Schema.Validate(); err != nil {
		return Job{}, fmt.Errorf("template: %w", err)
	}
	next.Dim, next.Stamp = enc.Info().Dim, enc.Info().Stamp+"/"+profile.CompositionStamp(next.Schema)
	if err := (index.Spec{Name: cfg.Name, Dim: next.Dim, Precision: next.Precision}).Validate(); err != nil {
		return Job{}, err
	}

	var job Job
	err = s.Exclusively(ctx, coll, func(ctx context.Context) (err error) {
		job, err = s.beginReembed(ctx, cfg, next, req)
		return err
	})
	return job, err
}

// beginReembed begins, or goes on with, making next of what was cfg when it was asked for.
func (s *Service) beginReembed(ctx context.Context, cfg, next Config, req ReembedRequest) (Job, error) {
	coll := cfg.Name
	s.creating.Lock()
	defer s.creating.Unlock()
	now, err := s.idle(coll)
	if err != nil {
		return Job{}, err
	}
	if now.Generation != cfg.Generation {
		return Job{}, fmt.Errorf("collection %q was switched just now: look at it, and ask again: %w", coll, index.ErrExists)
	}
	r, err := s.reembedding(now)
	switch {
	case errors.Is(err, index.ErrNotFound):
		if next.Stamp == now.Stamp && next.Precision == now.Precision {
			return Job{}, faultf("model", "the collection's vectors are of %s already: name another model, precision or template", now.Model)
		}
		r = &Reembedding{State: ReembedFilling, Other: next.generation(), Started: s.opt.Clock().UTC()}
		r.Other.Number = now.Generation + 1
	case err != nil:
		return Job{}, err
	case r.State == ReembedSwitched:
		return Job{}, fmt.Errorf("collection %q still keeps its vectors of before (%s): confirm the switch or roll it back first: %w", coll, r.Other.Model, index.ErrExists)
	case r.Back:
		return Job{}, fmt.Errorf("collection %q is on its way back to %s: roll back again to end that: %w", coll, r.Other.Model, index.ErrExists)
	default:
		asked := req.Model != nil || req.Precision != nil || req.Template != nil
		if asked && (next.Stamp != r.Other.Stamp || next.Precision != r.Other.Precision) {
			return Job{}, fmt.Errorf("collection %q is being embedded by %s, and what is asked for differs: go on with that, or abort it first: %w", coll, r.Other.Model, index.ErrExists)
		}
	}
	return s.startReembed(ctx, coll, r, req)
}

// Rollback moves a collection back to the generation before, as a job: what was written
// since the switch is embedded there first.
func (s *Service) Rollback(ctx context.Context, coll string) (job Job, err error) {
	err = s.Exclusively(ctx, coll, func(ctx context.Context) (err error) {
		job, err = s.rollback(ctx, coll)
		return err
	})
	return job, err
}

func (s *Service) rollback(ctx context.Context, coll string) (Job, error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	cfg, err := s.idle(coll)
	if err != nil {
		return Job{}, err
	}
	r, err := s.reembedding(cfg)
	if err != nil {
		return Job{}, err
	}
	if r.State != ReembedSwitched && !r.Back {
		return Job{}, fmt.Errorf("collection %q was not switched: abort drops what was made: %w", coll, index.ErrExists)
	}
	r.Back = true
	return s.startReembed(ctx, coll, r, ReembedRequest{Switch: true, Force: true})
}

func (s *Service) startReembed(ctx context.Context, coll string, r *Reembedding, req ReembedRequest) (Job, error) {
	id := uuid.NewString()
	r.Job, r.State, r.Gate = id, ReembedFilling, nil
	pairs := map[string][]byte{}
	if err := r.pairs(coll, pairs); err != nil {
		return Job{}, err
	}
	return s.jobs.add(ctx, &storedJob{Job: Job{ID: id, Kind: "reembed", Collection: coll, Target: r.Other.Model}, Reembed: &req}, pairs)
}

// idle is the configuration of a collection that no job embeds anew; others are
// index.ErrExists.
func (s *Service) idle(coll string) (Config, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Config{}, err
	}
	r, err := s.reembedding(cfg)
	if errors.Is(err, index.ErrNotFound) {
		return cfg, nil
	}
	if err != nil {
		return Config{}, err
	}
	var job storedJob // which another process may have
	if err := s.read(jobPrefix+r.Job, &job); err != nil && !errors.Is(err, index.ErrNotFound) {
		return Config{}, err
	}
	if now, err := s.Job(r.Job); err == nil && now.State.Final() { // of ours, what is stored may be a moment behind
		job.Job = now
	}
	if job.ID != "" && !job.State.Final() {
		return Config{}, fmt.Errorf("collection %q is being embedded by job %s: wait until it has ended, or cancel it: %w", coll, job.ID, index.ErrExists)
	}
	return cfg, nil
}

// Confirm drops the generation before a switch. There is no way back after it.
func (s *Service) Confirm(ctx context.Context, coll string) error {
	return s.dropOther(ctx, coll, func(r *Reembedding) error {
		if r.State != ReembedSwitched {
			return fmt.Errorf("collection %q was not switched yet: there is nothing to confirm: %w", coll, index.ErrExists)
		}
		return nil
	})
}

// Abort drops what was made of the next generation. After a switch, Rollback goes back.
func (s *Service) Abort(ctx context.Context, coll string) error {
	return s.dropOther(ctx, coll, func(r *Reembedding) error {
		if r.State == ReembedSwitched || r.Back {
			return fmt.Errorf("collection %q was switched to %s: roll it back, or confirm it: %w", coll, r.Now.Model, index.ErrExists)
		}
		return nil
	})
}

func (s *Service) dropOther(ctx context.Context, coll string, may func(*Reembedding) error) error {
	return s.Exclusively(ctx, coll, func(ctx context.Context) error { return s.dropOtherOf(ctx, coll, may) })
}

func (s *Service) dropOtherOf(ctx context.Context, coll string, may func(*Reembedding) error) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	cfg, err := s.idle(coll)
	if err != nil {
		return err
	}
	r, err := s.reembedding(cfg)
	if err != nil {
		return err
	}
	if err := may(r); err != nil {
		return err
	}
	// The store first: what a crash leaves is still known, and dropped when asked again.
	if err := s.opt.Store.Drop(ctx, heldAs(coll, r.Other.Number)); err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	return s.opt.KV.Delete(ctx, reembedKey(coll))
}

// aside are the generations that lie beside the one that counts.
func (s *Service) aside(coll string) ([]string, error) {
	var r Reembedding
	err := s.read(reembedKey(coll), &r)
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil
	}
	return []string{heldAs(coll, r.Other.Number)}, err
}

// removeAside deletes a customer from the generations that do not count.
func (s *Service) removeAside(ctx context.Context, coll, id string) error {
	names, err := s.aside(coll)
	if err != nil {
		return err
	}
	for _, name := range names {
		eng, err := s.opt.Store.Open(ctx, name)
		if errors.Is(err, index.ErrNotFound) {
			continue // not made yet
		}
		if err == nil {
			_, err = eng.Delete(ctx, []string{id})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// alterAside adds columns to the generations that do not count, but those that one has.
func (s *Service) alterAside(ctx context.Context, coll string, add []index.Column) error {
	names, err := s.aside(coll)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.alter(ctx, name, add); err != nil && !errors.Is(err, index.ErrNotFound) {
			return err
		}
	}
	return nil
}

// alter adds the columns that are not there: those of a change that was broken off are.
func (s *Service) alter(ctx context.Context, held string, add []index.Column) error {
	eng, err := s.opt.Store.Open(ctx, held)
	if err != nil {
		return err
	}
	has := map[index.Column]bool{}
	for _, c := range eng.Spec().Columns {
		has[c] = true
	}
	var missing []index.Column
	for _, c := range add {
		if !has[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.opt.Store.Alter(ctx, held, missing)
}
