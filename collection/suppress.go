package collection

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// A suppression list names people who must not be in an audience. It holds no ids but
// the first 16 bytes of their SHA-256, after the collection's name: a person who was
// erased stays suppressed, should they come back in an import, and the list names
// nobody to who reads it (who can guess ids can ask for them, though).
//
// It applies when an audience is built, when it is read or exported later, and to live
// membership. Lists lie under suppress/<collection>/: what is said of each at
// info/<name>, and the sorted hashes in blocks under ids/<name>/<generation>/; info
// says which generation counts.

// SuppressionList is a stored list without its ids.
type SuppressionList struct {
	Name    string    `json:"name"`
	Always  bool      `json:"always"`  // applies to all audiences, not just those that name it
	IDs     int       `json:"ids"`     // on the list
	Matched int       `json:"matched"` // customers of the collection who are on it
	Updated time.Time `json:"updated"`
}

// ErrTooSmall means that an audience is smaller than may leave.
var ErrTooSmall = errors.New("the audience is too small to hand out")

const (
	hashSize         = 16
	hashesPerBlock   = 1 << 12
	maxID            = 256        // bytes
	mostSuppressed   = 20_000_000 // ids of one list
	mostSuppressions = 1000       // lists of one collection
)

type idHash [hashSize]byte

func hashOf(coll, id string) idHash {
	sum := sha256.Sum256([]byte(coll + "\x00" + id))
	return idHash(sum[:hashSize])
}

// suppression is a list in memory.
type suppression struct {
	storedSuppression
	hashes []idHash // ascending
}

type storedSuppression struct {
	Name       string    `json:"name"`
	Always     bool      `json:"always"`
	IDs        int       `json:"ids"`
	Updated    time.Time `json:"updated"`
	Generation uint64    `json:"generation"`
}

func (l *suppression) has(h idHash) bool {
	i := sort.Search(len(l.hashes), func(i int) bool { return bytes.Compare(l.hashes[i][:], h[:]) >= 0 })
	return i < len(l.hashes) && l.hashes[i] == h
}

// suppressions are the lists of collections, read at first use.
type suppressions struct {
	mu   sync.Mutex
	list map[string][]*suppression // in order of name; never changed once there
	read map[string]time.Time      // when, of a store that is shared
}

// sharedFor is how long what was read of a shared store counts.
const sharedFor = 2 * time.Second

func suppressPrefix(coll string) string { return "suppress/" + coll + "/" }

func suppressInfo(coll, name string) string { return suppressPrefix(coll) + "info/" + name }

func suppressIDs(coll, name string) string { return suppressPrefix(coll) + "ids/" + name + "/" }

func suppressBlocks(coll, name string, generation uint64) string {
	return fmt.Sprintf("%s%d/", suppressIDs(coll, name), generation)
}

// suppressions returns a collection's lists. The caller holds no lock.
func (s *Service) suppressions(coll string) ([]*suppression, error) {
	s.suppress.mu.Lock()
	defer s.suppress.mu.Unlock()
	return s.readSuppressions(coll)
}

// readSuppressions is suppressions under the lock.
func (s *Service) readSuppressions(coll string) ([]*suppression, error) {
	have, ok := s.suppress.list[coll]
	if ok && (!s.opt.Shared || time.Since(s.suppress.read[coll]) < sharedFor) {
		return have, nil
	}
	read := time.Now()
	out, err := s.loadSuppressions(coll, have)
	for try := 1; s.opt.Shared && errors.Is(err, index.ErrCorrupt) && try < 5; try++ { // another process changes them
		time.Sleep(time.Duration(try) * 100 * time.Millisecond)
		out, err = s.loadSuppressions(coll, have)
	}
	if err != nil {
		return nil, err
	}
	s.suppress.list[coll], s.suppress.read[coll] = out, read
	return out, nil
}

// loadSuppressions reads lists; those that have not changed since they were read are
// taken from there.
func (s *Service) loadSuppressions(coll string, have []*suppression) ([]*suppression, error) {
	out := []*suppression{}
	err := s.each(suppressInfo(coll, ""), func(key string, value []byte) error {
		l := &suppression{}
		if err := json.Unmarshal(value, &l.storedSuppression); err != nil {
			return fmt.Errorf("suppression list %s: %w", key, errors.Join(err, index.ErrCorrupt))
		}
		out = append(out, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, l := range out {
		if at := slices.IndexFunc(have, func(h *suppression) bool { return h.storedSuppression == l.storedSuppression }); at >= 0 {
			out[i] = have[at]
			continue
		}
		err := s.each(suppressBlocks(coll, l.Name, l.Generation), func(key string, value []byte) error {
			if len(value)%hashSize != 0 {
				return fmt.Errorf("suppression list %s: %w", key, index.ErrCorrupt)
			}
			for at := 0; at < len(value); at += hashSize {
				l.hashes = append(l.hashes, idHash(value[at:at+hashSize]))
			}
			return nil
		})
		if err == nil && len(l.hashes) != l.IDs {
			err = fmt.Errorf("suppression list %q has %d of %d ids: %w", l.Name, len(l.hashes), l.IDs, index.ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b *suppression) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// suppressedBy tells who is on one of the named lists or on one that always applies;
// nil when no list applies. A name that is not there is an error unless gone is set.
func (s *Service) suppressedBy(coll string, names []string, gone bool) (func(id string) bool, error) {
	all, err := s.suppressions(coll)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !gone && !slices.ContainsFunc(all, func(l *suppression) bool { return l.Name == name }) {
			return nil, fmt.Errorf("suppression list %q of collection %q: %w", name, coll, index.ErrNotFound)
		}
	}
	var on []*suppression
	for _, l := range all {
		if l.Always || slices.Contains(names, l.Name) {
			on = append(on, l)
		}
	}
	if len(on) == 0 {
		return nil, nil
	}
	return func(id string) bool {
		h := hashOf(coll, id)
		return slices.ContainsFunc(on, func(l *suppression) bool { return l.has(h) })
	}, nil
}

// Suppressions returns a collection's suppression lists in order of name.
func (s *Service) Suppressions(ctx context.Context, coll string) ([]SuppressionList, error) {
	if _, err := s.config(coll); err != nil {
		return nil, err
	}
	all, err := s.suppressions(coll)
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshot(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer closeSnapshot(snap, s.log)
	out := make([]SuppressionList, len(all))
	for i, l := range all {
		out[i] = SuppressionList{Name: l.Name, Always: l.Always, IDs: l.IDs, Updated: l.Updated}
	}
	if len(all) == 0 {
		return out, nil
	}
	for it := snap.Live().Iterator(); it.HasNext(); {
		h := hashOf(coll, snap.ID(it.Next()))
		for i, l := range all {
			if l.has(h) {
				out[i].Matched++
			}
		}
	}
	return out, nil
}

// PutSuppression makes a list of these ids, in place of one of the name that is there.
func (s *Service) PutSuppression(ctx context.Context, coll, name string, ids []string, always bool) (SuppressionList, error) {
	return s.changeSuppression(ctx, coll, name, func(*suppression) (storedSuppression, []idHash, error) {
		out := storedSuppression{Always: always}
		hashes, err := hashesOf(coll, "ids", ids)
		return out, hashes, err
	})
}

// ChangeSuppression adds ids to a list and removes ids from it; what is in both is on
// the list afterwards.
func (s *Service) ChangeSuppression(ctx context.Context, coll, name string, add, remove []string) (SuppressionList, error) {
	return s.changeSuppression(ctx, coll, name, func(old *suppression) (storedSuppression, []idHash, error) {
		if old == nil {
			return storedSuppression{}, nil, fmt.Errorf("suppression list %q of collection %q: %w", name, coll, index.ErrNotFound)
		}
		more, err := hashesOf(coll, "add", add)
		less, err2 := hashesOf(coll, "remove", remove)
		if err := errors.Join(err, err2); err != nil {
			return storedSuppression{}, nil, err
		}
		gone := &suppression{hashes: sorted(less)}
		kept := make([]idHash, 0, len(old.hashes)+len(more))
		for _, h := range old.hashes {
			if !gone.has(h) {
				kept = append(kept, h)
			}
		}
		return old.storedSuppression, append(kept, more...), nil
	})
}

func hashesOf(coll, at string, ids []string) ([]idHash, error) {
	var faults []error
	out := make([]idHash, len(ids))
	for i, id := range ids {
		if id == "" || len(id) > maxID {
			if len(faults) < 20 {
				faults = append(faults, faultf(fmt.Sprintf("%s[%d]", at, i), "an id has 1 to %d bytes, this %d", maxID, len(id)))
			}
			continue
		}
		out[i] = hashOf(coll, id)
	}
	return out, errors.Join(faults...)
}

func sorted(list []idHash) []idHash {
	slices.SortFunc(list, func(a, b idHash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

func (s *Service) changeSuppression(ctx context.Context, coll, name string, change func(old *suppression) (storedSuppression, []idHash, error)) (SuppressionList, error) {
	if _, err := s.config(coll); err != nil {
		return SuppressionList{}, err
	}
	if !nameRule.MatchString(name) {
		return SuppressionList{}, faultf("name", "%q: want 1 to 64 of a-z, 0-9, _ and -", name)
	}
	err := s.exclusively(ctx, suppressPrefix(coll)+"lists", func(ctx context.Context) error {
		return s.observeSuppression(ctx, coll, name, change, func() error {
			defer s.forgetJudges(coll)
			return s.putSuppression(ctx, coll, name, change)
		})
	})
	if err != nil {
		return SuppressionList{}, err
	}
	all, err := s.Suppressions(ctx, coll)
	if err != nil {
		return SuppressionList{}, err
	}
	i := slices.IndexFunc(all, func(l SuppressionList) bool { return l.Name == name })
	if i < 0 {
		return SuppressionList{}, fmt.Errorf("suppression list %q of collection %q: deleted meanwhile: %w", name, coll, index.ErrNotFound)
	}
	return all[i], nil
}

// observeSuppression runs a write of a list and tells the watchers of audiences who leaves
// or enters by it. change is what the write makes of the list, nil that it goes. Without
// watchers it costs nothing.
func (s *Service) observeSuppression(ctx context.Context, coll, name string, change func(old *suppression) (storedSuppression, []idHash, error), write func() error) error {
	if !s.changes.watched(coll) {
		return write()
	}
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	all, err := s.suppressions(coll)
	if err != nil {
		return err
	}
	old, now := (*suppression)(nil), &suppression{}
	if i := slices.IndexFunc(all, func(l *suppression) bool { return l.Name == name }); i >= 0 {
		old = all[i]
	}
	if change != nil {
		if now.storedSuppression, now.hashes, err = change(old); err != nil {
			return err
		}
		now.hashes = sorted(now.hashes)
	}
	if old == nil {
		old = &suppression{storedSuppression: storedSuppression{Always: now.Always}}
	}
	moved := func(id string) bool {
		h := hashOf(coll, id)
		was, is := old.has(h), now.has(h)
		return was != is || was && change != nil && old.Always != now.Always
	}
	snap, err := s.snapshot(ctx, coll)
	if err != nil {
		return err
	}
	var ids []string
	for it := snap.Live().Iterator(); it.HasNext() && len(ids) <= maxBehind; {
		if id := snap.ID(it.Next()); moved(id) {
			ids = append(ids, id)
		}
	}
	closeSnapshot(snap, s.log)
	if len(ids) > maxBehind { // more than any watcher can be told
		err := write()
		if err == nil {
			s.changes.cut(coll)
		}
		return err
	}
	eng, err := s.open(ctx, coll)
	if err != nil {
		return err
	}
	return s.observe(ctx, coll, eng, ids, write)
}

func (s *Service) putSuppression(ctx context.Context, coll, name string, change func(old *suppression) (storedSuppression, []idHash, error)) error {
	s.suppress.mu.Lock()
	defer s.suppress.mu.Unlock()
	delete(s.suppress.read, coll) // another process may have changed it just now
	all, err := s.readSuppressions(coll)
	if err != nil {
		return err
	}
	var old *suppression
	generation := uint64(1)
	if i := slices.IndexFunc(all, func(l *suppression) bool { return l.Name == name }); i >= 0 {
		old = all[i]
		generation = old.Generation + 1
		if s.opt.Shared { // or two processes could write blocks of one generation
			generation = max(generation, uint64(time.Now().UnixNano()))
		}
	} else if len(all) >= mostSuppressions {
		return faultf("name", "the collection has %d suppression lists: delete one first", len(all))
	}
	info, hashes, err := change(old)
	if err != nil {
		return err
	}
	hashes = sorted(hashes)
	if len(hashes) > mostSuppressed {
		return faultf("ids", "%d ids: a list holds at most %d", len(hashes), mostSuppressed)
	}
	info.Name, info.IDs, info.Updated, info.Generation = name, len(hashes), s.opt.Clock().UTC(), generation
	// What a killed write left of this generation does not count.
	if err := s.opt.KV.DeletePrefix(ctx, suppressBlocks(coll, name, generation)); err != nil {
		return err
	}
	block := 0
	for part := range slices.Chunk(hashes, hashesPerBlock) {
		raw := make([]byte, 0, len(part)*hashSize)
		for _, h := range part {
			raw = append(raw, h[:]...)
		}
		if err := s.opt.KV.Put(ctx, map[string][]byte{fmt.Sprintf("%s%08d", suppressBlocks(coll, name, generation), block): raw}); err != nil {
			return err
		}
		block++
	}
	raw, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := s.opt.KV.Put(ctx, map[string][]byte{suppressInfo(coll, name): raw}); err != nil {
		return err
	}
	delete(s.suppress.list, coll)
	if old != nil {
		return s.opt.KV.DeletePrefix(context.WithoutCancel(ctx), suppressBlocks(coll, name, old.Generation))
	}
	return nil
}

// DropSuppression deletes a list. Audiences that name it can still be read; to build
// them anew is an error until the name is gone from their request.
func (s *Service) DropSuppression(ctx context.Context, coll, name string) error {
	if _, err := s.config(coll); err != nil {
		return err
	}
	return s.exclusively(ctx, suppressPrefix(coll)+"lists", func(ctx context.Context) error {
		return s.observeSuppression(ctx, coll, name, nil, func() error {
			defer s.forgetJudges(coll)
			return s.dropSuppression(ctx, coll, name)
		})
	})
}

func (s *Service) dropSuppression(ctx context.Context, coll, name string) error {
	s.suppress.mu.Lock()
	defer s.suppress.mu.Unlock()
	delete(s.suppress.read, coll) // another process may have changed it just now
	all, err := s.readSuppressions(coll)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(l *suppression) bool { return l.Name == name }) {
		return fmt.Errorf("suppression list %q of collection %q: %w", name, coll, index.ErrNotFound)
	}
	delete(s.suppress.list, coll)
	if err := s.opt.KV.Delete(ctx, suppressInfo(coll, name)); err != nil {
		return err
	}
	return s.opt.KV.DeletePrefix(ctx, suppressIDs(coll, name))
}

// forgetSuppressions is called when a collection goes.
func (s *Service) forgetSuppressions(coll string) {
	s.suppress.mu.Lock()
	defer s.suppress.mu.Unlock()
	delete(s.suppress.list, coll)
}

// Releasable returns nil when a version of an audience may be handed out, 0 being the
// one that counts: when as many of its members as Limits.MinAudience are on no suppression
// list that applies now and are not held back. A smaller list can single people out.
func (s *Service) Releasable(ctx context.Context, coll, name string, version int) error {
	info, err := s.at(coll, name, version)
	if err != nil {
		return err
	}
	off, err := s.suppressedFrom(coll, name)
	if err != nil {
		return err
	}
	least, n := s.opt.Limits.MinAudience, info.Size
	if n >= least && (off != nil || info.Result != nil && info.Result.Manifest.Control != nil) {
		n = 0
		for page := 0; page*pageSize < info.Size && n < least; page++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			members, err := s.membersPage(coll, &info, page)
			if err != nil {
				return err
			}
			for _, m := range members {
				if !m.Control && (off == nil || !off(m.ID)) {
					n++
				}
			}
		}
	}
	if n < least {
		return fmt.Errorf("audience %q has %d members who may be named, at least %d are needed: %w", name, n, least, ErrTooSmall)
	}
	return nil
}

// suppressedFrom says who is kept off an audience's lists now, of whatever version: its
// definition is of the one that counts. nil: nobody is.
func (s *Service) suppressedFrom(coll, name string) (func(id string) bool, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	return s.suppressedBy(coll, info.Request.Exclude.Lists, true)
}

// CheckSeeds looks at the seeds of a request, as audience.Check does.
func (s *Service) CheckSeeds(ctx context.Context, coll string, req audience.Request) (*audience.SeedCheck, error) {
	pop, done, err := s.population(ctx, coll)
	if err != nil {
		return nil, err
	}
	defer done()
	faults := errors.Join(filterFaults("seeds.filter", req.Seeds.Filter, pop.Spec), filterFaults("filter", req.Filter, pop.Spec))
	if faults != nil {
		return nil, faults
	}
	return audience.Check(ctx, pop, req, nil)
}
