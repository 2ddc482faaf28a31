package collection

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// The customers of a collection lie in the store under the collection's name and, once
// they were embedded anew, under the name with a number: its generation. Which one counts
// the configuration says, so one durable write of it moves searches, scans and writes from
// one to the other. Whoever has read a configuration opens what that one says, and goes on
// with a model and vectors that belong together; a write looks again under the
// collection's lock.

// ErrOtherModel means that something was learned from vectors of a model that the
// collection's are no longer of.
var ErrOtherModel = errors.New("learned with a model that the collection has no longer")

// errMoved: the collection was switched to another generation since a batch was prepared.
var errMoved = errors.New("the collection was embedded anew meanwhile")

// held is the name of the collection's customers in the store.
func (c *Config) held() string { return heldAs(c.Name, c.Generation) }

// Held is the name in a store of the customers that answer for a collection, for who reads
// them without a Service.
func Held(kv index.KV, name string) (string, error) {
	cfg, err := readConfig(kv, name)
	return cfg.held(), err
}

func heldAs(name string, generation int) string {
	if generation == 0 {
		return name
	}
	return fmt.Sprintf("%s~%d", name, generation)
}

// spec is the collection as a store makes it.
func (c *Config) spec() index.Spec {
	return index.Spec{Name: c.held(), Dim: c.Dim, Precision: c.Precision, Columns: c.Schema.Columns(), Stamp: c.Stamp}
}

// learned refuses what was learned from vectors of another stamp. what names it.
func (c *Config) learned(what, stamp string) error {
	if stamp == c.Stamp || stamp == "" && c.Generation == 0 {
		return nil
	}
	was, _, _ := strings.Cut(stamp, "/")
	is, _, _ := strings.Cut(c.Stamp, "/")
	if was == is {
		was, is = "an earlier template", "the present one"
	}
	if was == "" {
		was = "an earlier model"
	}
	return fmt.Errorf("%s learned from vectors of %s, and the collection's are of %s now: %w", what, was, is, ErrOtherModel)
}

// write prepares and stores a batch, and prepares it again if the collection was switched to
// another generation meanwhile.
func (s *Service) write(ctx context.Context, cfg Config, in []Input) (Outcome, error) {
	for {
		batch, err := s.prepare(ctx, cfg, in, nil)
		if err != nil {
			return Outcome{}, err
		}
		var out Outcome
		err = s.locked(cfg.Name, func(now Config) error {
			if now.Generation != cfg.Generation {
				cfg = now
				return errMoved
			}
			out, err = s.store(ctx, cfg, batch)
			return err
		})
		if !errors.Is(err, errMoved) {
			return out, err
		}
	}
}

// otherVectors says whether a list's model scores vectors of another stamp.
func otherVectors(m *audience.Manifest, stamp string) bool { return m.Text && m.Stamp != stamp }

// locked runs f while nobody else writes customers of the collection or switches it.
func (s *Service) locked(coll string, f func(Config) error) error {
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	cfg, err := s.config(coll)
	if err != nil {
		return err
	}
	return f(cfg)
}
