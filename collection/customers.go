package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// stored is what Row.Record holds: what the columns and the vector do not.
type stored struct {
	Texts   []profile.Text `json:"texts,omitempty"`
	Brought bool           `json:"brought,omitempty"` // the vector came from outside
	Updated time.Time      `json:"updated"`
}

// Upsert takes customers in. Valid records are stored in one durable batch,
// the others are named in the outcome with the reason. An error means that
// nothing was stored.
func (s *Service) Upsert(ctx context.Context, coll string, in []Input) (Outcome, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return Outcome{}, err
	}
	if len(in) > s.opt.Limits.MaxBatch {
		return Outcome{}, fmt.Errorf("%d customers in one batch: at most %d, send several: %w", len(in), s.opt.Limits.MaxBatch, index.ErrInvalid)
	}
	return s.write(ctx, cfg, in)
}

// prepared is a batch ready for the engine: the rows of the valid inputs, with
// their lines, and what was refused.
type prepared struct {
	rows    []index.Row
	records []stored // of the rows, without the time of the write
	lines   []int
	refused []Verdict
}

// prepare checks, composes and encodes a batch. It needs no lock: encoding is
// the slow part, and other writers go on meanwhile.
func (s *Service) prepare(ctx context.Context, cfg Config, in []Input, progress func(done, total int)) (prepared, error) {
	out := prepared{refused: []Verdict{}}
	valid := make([]Input, 0, len(in))
	first := make(map[string]int, len(in))
	for _, item := range in {
		err := s.checkRecord(cfg, item.Record)
		if line, twice := first[item.Record.ID]; twice && err == nil {
			err = fmt.Errorf("the id is on line %d already: an id may be in a batch once", line)
		}
		if err != nil {
			out.refused = append(out.refused, Verdict{Line: item.Line, ID: clip(item.Record.ID), Reason: reason(err)})
			continue
		}
		first[item.Record.ID] = item.Line
		valid = append(valid, item)
		out.lines = append(out.lines, item.Line)
	}
	if len(valid) == 0 {
		return out, nil
	}
	var err error
	out.rows, out.records, err = s.rows(ctx, cfg, valid, progress)
	return out, err
}

// store hands a prepared batch to the engine. The caller holds the
// collection's lock.
func (s *Service) store(ctx context.Context, cfg Config, b prepared) (Outcome, error) {
	out := Outcome{Refused: b.refused}
	if len(b.rows) == 0 {
		return out, nil
	}
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return Outcome{}, err
	}
	rows, now := b.rows, s.opt.Clock().UTC()
	ids := make([]string, len(rows))
	for i := range rows {
		// The time of the write, not of the reading: live.go goes by it.
		b.records[i].Updated = now
		if rows[i].Record, err = json.Marshal(b.records[i]); err != nil {
			return Outcome{}, err
		}
		ids[i] = rows[i].ID
	}
	s.touched(cfg.Name, ids)
	err = s.observe(ctx, cfg.Name, eng, ids, func() error {
		rows, err = s.upsert(ctx, eng, b, &out)
		return err
	})
	if err != nil {
		return Outcome{}, err
	}
	out.Accepted = len(rows)
	return out, nil
}

// upsert stores a batch's rows but those that the engine refuses, which it
// names in the outcome, and returns the stored ones.
func (s *Service) upsert(ctx context.Context, eng index.Engine, b prepared, out *Outcome) ([]index.Row, error) {
	rows := b.rows
	err := eng.Upsert(ctx, rows)
	// What the engine alone can see, it names by row: the rest goes in.
	if bad := rowErrors(err); len(bad) > 0 {
		kept := make([]index.Row, 0, len(rows))
		for i, row := range rows {
			if why, refused := bad[i]; refused {
				out.Refused = append(out.Refused, Verdict{Line: b.lines[i], ID: clip(row.ID), Reason: why})
				continue
			}
			kept = append(kept, row)
		}
		rows = kept
		err = nil
		if len(rows) > 0 {
			err = eng.Upsert(ctx, rows)
		}
	}
	return rows, err
}

// rowErrors collects the refused rows of a batch by position, or nil when the
// error is about something else as well.
func rowErrors(err error) map[int]string {
	if err == nil {
		return nil
	}
	bad := map[int]string{}
	var walk func(error) bool
	walk = func(e error) bool {
		switch x := any(e).(type) {
		case *index.RowError:
			if _, had := bad[x.Row]; had {
				bad[x.Row] += "; " + x.Reason
			} else {
				bad[x.Row] = x.Reason
			}
			return true
		case interface{ Unwrap() []error }:
			for _, inner := range x.Unwrap() {
				if !walk(inner) {
					return false
				}
			}
			return true
		case interface{ Unwrap() error }:
			return x.Unwrap() != nil && walk(x.Unwrap())
		}
		return false
	}
	if !walk(err) {
		return nil
	}
	return bad
}

// reason joins all faults of one record into a line.
func reason(err error) string {
	text := ""
	for i, f := range Faults(err) {
		if i > 0 {
			text += "; "
		}
		if f.Location != "" {
			text += f.Location + ": "
		}
		text += f.Message
	}
	return text
}

func clip(id string) string {
	if len(id) <= 256 {
		return id
	}
	return id[:256] + "…"
}

func (s *Service) checkRecord(cfg Config, rec profile.Record) error {
	var faults []error
	switch {
	case rec.ID == "":
		faults = append(faults, faultf("id", "empty: give 1 to 256 bytes"))
	case len(rec.ID) > 256:
		faults = append(faults, faultf("id", "%d bytes: at most 256", len(rec.ID)))
	case !utf8.ValidString(rec.ID):
		faults = append(faults, faultf("id", "not valid UTF-8"))
	}
	if len(rec.Texts) > s.opt.Limits.MaxTexts {
		faults = append(faults, faultf("texts", "%d texts: at most %d a customer", len(rec.Texts), s.opt.Limits.MaxTexts))
	}
	for i, t := range rec.Texts {
		at := fmt.Sprintf("texts[%d]", i)
		if len(t.Body) > s.opt.Limits.MaxTextLen {
			faults = append(faults, faultf(at, "%d bytes: at most %d, cut it or split it", len(t.Body), s.opt.Limits.MaxTextLen))
		}
		if !utf8.ValidString(t.Body) {
			faults = append(faults, faultf(at, "not valid UTF-8"))
		}
	}
	if rec.Vector != nil {
		switch {
		case cfg.Dim == 0:
			faults = append(faults, faultf("vector", "the collection has no vectors: create it with a model or a dim"))
		case len(rec.Vector) != cfg.Dim:
			faults = append(faults, faultf("vector", "%d numbers: the collection has %d", len(rec.Vector), cfg.Dim))
		case cfg.Model != "":
			faults = append(faults, faultf("vector", "the collection's vectors are made by %s: send texts", cfg.Model))
		}
	}
	return errors.Join(faults...)
}

// rows composes and encodes records.
func (s *Service) rows(ctx context.Context, cfg Config, in []Input, progress func(done, total int)) ([]index.Row, []stored, error) {
	type span struct{ from, to int }
	var texts []string
	var weights []float64
	spans := make([]span, len(in))
	for i, item := range in {
		spans[i].from = len(texts)
		if cfg.Model != "" && item.Record.Vector == nil {
			for _, p := range cfg.Schema.Compose(item.Record, profile.ComposeOptions{}) {
				texts = append(texts, p.Body)
				weights = append(weights, p.Weight)
			}
		}
		spans[i].to = len(texts)
	}
	var enc *embed.Result
	if len(texts) > 0 {
		var err error
		if enc, err = s.encode(ctx, cfg, texts, embed.EncodeOptions{Progress: progress}); err != nil {
			return nil, nil, err
		}
	}
	rows, records := make([]index.Row, len(in)), make([]stored, len(in))
	for i, item := range in {
		rec := item.Record
		records[i] = stored{Texts: rec.Texts, Brought: rec.Vector != nil}
		rows[i] = index.Row{ID: rec.ID, Vector: rec.Vector, Values: rec.Fields}
		if at := spans[i]; at.to > at.from {
			rows[i].Vector = profile.Pool(enc.Vectors[at.from*cfg.Dim:at.to*cfg.Dim], weights[at.from:at.to], cfg.Dim)
		}
	}
	return rows, records, nil
}

// Customer returns one customer as it came in.
func (s *Service) Customer(ctx context.Context, coll, id string) (*Customer, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	row, st, err := s.get(ctx, cfg, id)
	if err != nil {
		return nil, err
	}
	return &Customer{ID: row.ID, Fields: fieldsOf(row, nil), Texts: st.Texts, Updated: st.Updated}, nil
}

func (s *Service) get(ctx context.Context, cfg Config, id string) (*index.Row, stored, error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return nil, stored{}, err
	}
	rows, err := eng.Get(ctx, []string{id})
	if err != nil {
		return nil, stored{}, err
	}
	if rows[0] == nil {
		return nil, stored{}, fmt.Errorf("customer %q of collection %q: %w", clip(id), cfg.Name, index.ErrNotFound)
	}
	var st stored
	if len(rows[0].Record) > 0 {
		if err := json.Unmarshal(rows[0].Record, &st); err != nil {
			return nil, stored{}, fmt.Errorf("customer %q: its record cannot be read: %w", clip(id), errors.Join(err, index.ErrCorrupt))
		}
	}
	return rows[0], st, nil
}

// fieldsOf renders a row's columns; want nil means all.
func fieldsOf(row *index.Row, want []string) map[string]any {
	out := make(map[string]any, len(row.Values))
	for name, v := range row.Values {
		out[name] = encodeField(v)
	}
	if want == nil {
		return out
	}
	some := make(map[string]any, len(want))
	for _, name := range want {
		if v, ok := out[name]; ok {
			some[name] = v
		}
	}
	return some
}

// Patch changes some fields of a customer; null removes one. texts nil keeps
// the texts. The vector is made anew when the texts change.
func (s *Service) Patch(ctx context.Context, coll, id string, fields map[string]any, texts []profile.Text) (*Customer, error) {
	err := s.locked(coll, func(cfg Config) error { return s.patch(ctx, cfg, id, fields, texts) })
	if err != nil {
		return nil, err
	}
	return s.Customer(ctx, coll, id)
}

func (s *Service) patch(ctx context.Context, cfg Config, id string, fields map[string]any, texts []profile.Text) error {
	row, st, err := s.get(ctx, cfg, id)
	if err != nil {
		return err
	}
	values, fieldTexts, err := DecodeFields(cfg.Schema, fields)
	if err != nil {
		return err
	}
	merged := maps.Clone(row.Values)
	if merged == nil {
		merged = map[string]index.Value{}
	}
	for name, v := range fields {
		if v == nil {
			delete(merged, name)
		}
	}
	maps.Copy(merged, values)
	rec := profile.Record{ID: id, Fields: merged, Texts: patchTexts(cfg.Schema, st.Texts, texts, fields, fieldTexts)}
	if st.Brought && cfg.Model == "" {
		rec.Vector = row.Vector
	}
	batch, err := s.prepare(ctx, cfg, []Input{{Line: 1, Record: rec}}, nil)
	if err != nil {
		return err
	}
	out, err := s.store(ctx, cfg, batch)
	if err == nil && len(out.Refused) > 0 {
		err = faultf("customer", "%s", out.Refused[0].Reason)
	}
	return err
}

// patchTexts replaces the free texts when given anew, and those of the text
// fields that the patch names.
func patchTexts(schema profile.Schema, old, given []profile.Text, fields map[string]any, fieldTexts []profile.Text) []profile.Text {
	isField := map[string]bool{}
	for _, f := range schema.Fields {
		isField[f.Name] = f.Type == profile.TypeText
	}
	var out []profile.Text
	for _, t := range old {
		_, renewed := fields[t.Field]
		fromField := isField[t.Field]
		if fromField && renewed || !fromField && given != nil {
			continue
		}
		out = append(out, t)
	}
	return append(append(out, fieldTexts...), given...)
}

// Delete removes a customer from the population. Stored audiences keep their
// lists until refreshed; Erase removes the customer from those too.
func (s *Service) Delete(ctx context.Context, coll, id string) error {
	n := 0
	err := s.locked(coll, func(cfg Config) (err error) {
		n, err = s.remove(ctx, cfg, id)
		return err
	})
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("customer %q of collection %q: %w", clip(id), coll, index.ErrNotFound)
	}
	return nil
}

// Erase removes a customer from the population and from every stored
// audience's list, and says what it found. Erasing twice finds nothing and is
// no error: the receipt says so.
func (s *Service) Erase(ctx context.Context, coll, id string) (Receipt, error) {
	rec := Receipt{ID: id, Erased: s.opt.Clock().UTC()}
	err := s.locked(coll, func(cfg Config) error { return s.erase(ctx, cfg, id, &rec) })
	return rec, err
}

func (s *Service) erase(ctx context.Context, cfg Config, id string, rec *Receipt) (err error) {
	coll := cfg.Name
	if rec.Records, err = s.remove(ctx, cfg, id); err != nil {
		return err
	}
	if rec.Audiences, rec.Outcomes, err = s.eraseMember(ctx, coll, id); err != nil {
		return err
	}
	if rec.Groups, err = s.eraseDerived(ctx, coll, id); err != nil {
		return err
	}
	rec.Note = "models of stored audiences whose seeds held the customer keep numbers learned from all seeds: build those audiences anew to drop them; so do segments, and tags whose examples held the customer"
	return nil
}

// remove deletes a customer from all generations and returns how many of the one that
// counts it was. The caller holds the collection's lock.
func (s *Service) remove(ctx context.Context, cfg Config, id string) (n int, err error) {
	eng, err := s.opt.Store.Open(ctx, cfg.held())
	if err != nil {
		return 0, err
	}
	s.touched(cfg.Name, []string{id})
	if err := s.removeAside(ctx, cfg.Name, id); err != nil {
		return 0, err
	}
	err = s.observe(ctx, cfg.Name, eng, []string{id}, func() error {
		n, err = eng.Delete(ctx, []string{id})
		return err
	})
	return n, err
}
