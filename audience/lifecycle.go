package audience

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kindred-search/kindred/index"
)

// Lifecycle is what happens to a stored audience after it was built. Build
// itself looks at Control alone.
type Lifecycle struct {
	Refresh   *Refresh   `json:"refresh,omitempty"`
	Control   *Control   `json:"control,omitempty"`    // members held back from every export, to measure against
	TTL       string     `json:"ttl,omitempty"`        // how long the audience lives, such as "720h"
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // or until when
}

// Refresh says when a stored audience is built anew, from its definition on the
// customers of that day, and how far its list may change.
type Refresh struct {
	Every string   `json:"every,omitempty"` // such as "24h", at least "1m"
	At    string   `json:"at,omitempty"`    // or daily at a time in UTC, such as "03:30"
	Churn *float64 `json:"churn,omitempty"` // most members replaced at a time, as a share; absent: any
	Keep  *int     `json:"keep,omitempty"`  // earlier versions of the list that are kept, 0 to 20; default 3
}

// DefaultKeep is how many earlier versions of a list are kept.
const DefaultKeep = 3

const (
	maxKeep  = 20
	minEvery = time.Minute
	day      = 24 * time.Hour
)

// Kept is how many earlier versions are kept.
func (r *Refresh) Kept() int {
	if r == nil || r.Keep == nil {
		return DefaultKeep
	}
	return *r.Keep
}

// Next is the first time after t when a refresh is due: a multiple of Every
// after origin, or the next time of day. Zero: never.
func (r *Refresh) Next(origin, t time.Time) time.Time {
	switch {
	case r == nil:
	case r.Every != "":
		every, err := time.ParseDuration(r.Every)
		if err != nil || every < minEvery { // Validate refuses those
			return time.Time{}
		}
		if t.Before(origin) {
			return origin.Add(every)
		}
		return origin.Add((t.Sub(origin)/every + 1) * every)
	case r.At != "":
		at, err := time.Parse("15:04", r.At)
		if err != nil {
			return time.Time{}
		}
		due := t.UTC().Truncate(day).Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
		if !due.After(t) {
			due = due.Add(day)
		}
		return due
	}
	return time.Time{}
}

// Validate reports all faults.
func (r *Refresh) Validate() error {
	if r == nil {
		return nil
	}
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format+": %w", append(args, index.ErrInvalid)...))
	}
	if r.Every != "" && r.At != "" {
		bad("refresh: give one of every and at")
	}
	if r.Every != "" {
		if every, err := time.ParseDuration(r.Every); err != nil || every < minEvery || every > 366*day {
			bad("refresh.every %q: want a duration of 1m to 8784h, such as 24h", r.Every)
		}
	}
	if r.At != "" {
		if _, err := time.Parse("15:04", r.At); err != nil {
			bad("refresh.at %q: want a time of day in UTC, such as 03:30", r.At)
		}
	}
	if c := r.Churn; c != nil && !(*c >= 0 && *c <= 1) {
		bad("refresh.churn %v: want a share of 0 to 1", *c)
	}
	if k := r.Keep; k != nil && (*k < 0 || *k > maxKeep) {
		bad("refresh.keep %d: want 0 to %d versions", *k, maxKeep)
	}
	return errors.Join(faults...)
}

// Expires is when an audience made at created ends; zero: never.
func (l *Lifecycle) Expires(created time.Time) time.Time {
	if l.ExpiresAt != nil {
		return l.ExpiresAt.UTC()
	}
	if ttl, err := time.ParseDuration(l.TTL); err == nil && ttl > 0 {
		return created.Add(ttl)
	}
	return time.Time{}
}

// Validate reports all faults.
func (l *Lifecycle) Validate() error {
	faults := []error{l.Refresh.Validate(), l.Control.Validate()}
	if l.ExpiresAt != nil && l.ExpiresAt.IsZero() {
		faults = append(faults, fmt.Errorf("expires_at: the year 1 is no time to expire: %w", index.ErrInvalid))
	}
	if l.TTL != "" {
		if l.ExpiresAt != nil {
			faults = append(faults, fmt.Errorf("ttl: give one of ttl and expires_at: %w", index.ErrInvalid))
		}
		if ttl, err := time.ParseDuration(l.TTL); err != nil || ttl < 0 {
			faults = append(faults, fmt.Errorf("ttl %q: want a duration such as 720h: %w", l.TTL, index.ErrInvalid))
		}
	}
	return errors.Join(faults...)
}

// Control asks for a group of members that is held back, at random, from every
// export: what the others do more of is then the campaign's doing. In JSON a
// number is a share.
type Control struct {
	Share float64 `json:"share,omitempty"` // of the members, above 0 and below 1
	Count int     `json:"count,omitempty"` // or how many
	Seed  *uint64 `json:"seed,omitempty"`  // of the draw; default: from the audience's name and seed
}

// UnmarshalJSON takes 0.1 or {"share"} or {"count"}.
func (c *Control) UnmarshalJSON(raw []byte) error {
	if raw = bytes.TrimSpace(raw); len(raw) > 0 && raw[0] != '{' {
		*c = Control{}
		return json.Unmarshal(raw, &c.Share)
	}
	type plain Control
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(c))
}

// Validate reports what is wrong.
func (c *Control) Validate() error {
	switch {
	case c == nil:
	case (c.Share != 0) == (c.Count != 0):
		return fmt.Errorf("control: give one of share and count: %w", index.ErrInvalid)
	case c.Share != 0 && !(c.Share > 0 && c.Share < 1):
		return fmt.Errorf("control.share %v: want a share above 0 and below 1: %w", c.Share, index.ErrInvalid)
	case c.Count < 0:
		return fmt.Errorf("control.count %d: want 1 or more: %w", c.Count, index.ErrInvalid)
	}
	return nil
}

// Holdback is a control group as a rule: a customer whose place, which is drawn
// from the id and the seed alone, is below Below is held back. So nobody changes
// sides when the list is refreshed, and nothing is stored of who is held back.
// One of Several holds back whom any of them does.
type Holdback struct {
	Seed    uint64     `json:"seed"`
	Below   float64    `json:"below"`
	Members int        `json:"members"` // of the list, when it was built
	Several []Holdback `json:"several,omitempty"`
}

// Holds says whether a customer is held back. A nil Holdback holds nobody.
func (h *Holdback) Holds(id string) bool {
	if h == nil {
		return false
	}
	for i := range h.Several {
		if h.Several[i].Holds(id) {
			return true
		}
	}
	return h.Below > 0 && place(id, h.Seed) < h.Below
}

// Share is the probability with which a customer is held back, where the rules
// of Several have seeds of their own.
func (h *Holdback) Share() float64 {
	if h == nil {
		return 0
	}
	free := 1 - h.Below
	for i := range h.Several {
		free *= 1 - h.Several[i].Share()
	}
	return 1 - free
}

// place is a number in [0, 1) drawn from an id and a seed, independent of every
// other draw of this package.
func place(id string, seed uint64) float64 {
	buf := append([]byte("control"), make([]byte, 8)...)
	binary.LittleEndian.PutUint64(buf[7:], seed)
	sum := sha256.Sum256(append(buf, id...))
	return float64(binary.LittleEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// HoldBack draws the control group of a list of ids. Asked for a count, it is
// exact on this list; lists of later refreshes keep the rule.
func HoldBack(c *Control, name string, seed uint64, ids []string) (*Holdback, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // no control group is a proper answer
	}
	h := &Holdback{Below: c.Share}
	if c.Seed != nil {
		h.Seed = *c.Seed
	} else {
		h.Seed = hashID(name, seed) >> 11 // exact in JSON
	}
	if c.Count > 0 {
		if c.Count >= len(ids) {
			return nil, fmt.Errorf("control.count %d: the list has %d members, somebody must be left: %w", c.Count, len(ids), index.ErrInvalid)
		}
		places := make([]float64, len(ids))
		for i, id := range ids {
			places[i] = place(id, h.Seed)
		}
		slices.Sort(places)
		h.Below = math.Max(places[c.Count], math.SmallestNonzeroFloat64)
	}
	for _, id := range ids {
		if h.Holds(id) {
			h.Members++
		}
	}
	return h, nil
}
