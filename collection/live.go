package collection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
)

// A list is of the moment when it was built. Who is in an audience now: a
// customer who was not written since is in when the list says so; one who was
// is in when the stored model scores it at the list's threshold or above and the
// request lets it be a member. The time of the last write lies in the customer's
// own record, so the answer is right after a kill at any moment.

// judge is what it takes to say whether a customer belongs to one audience.
type judge struct {
	name, job string
	stamp     string // of the vectors that the model scores; "" where it scores none
	built     time.Time
	expires   time.Time // zero: never
	threshold float32
	floor     float32                     // what it takes to stay; see audience.Result
	model     *audience.Model             // nil: the list alone decides
	filter    *index.Predicate            // who may be a member
	seeds     *index.Predicate            // who is a seed by filter, nil: nobody
	within    []func(row *index.Row) bool // who may be a member, by groups: who is of each
	group     func(row *index.Row) bool   // who is a seed by a segment or a tag, nil: nobody
	out       map[string]bool             // ids that cannot be members
	not       []string                    // audiences whose members cannot be

	suppressed func(id string) bool // by lists; nil: none apply
}

// judges are a collection's finished audiences.
type judges struct {
	named map[string]*judge
	list  []*judge  // in order of name
	until time.Time // when the first of them expires; zero: never
}

// slack is by how much a score of one customer may differ from the scan's,
// relative to the threshold: the scan works on rounded vectors and heads. Who is
// on the list leaves only when it falls below by more.
const slack = 2e-3

// now is the time, read while nobody writes: what is in a later snapshot and not
// newer than this was there before.
func (s *Service) now(coll string) time.Time {
	lock := s.lock(coll)
	lock.Lock()
	defer lock.Unlock()
	return s.opt.Clock().UTC()
}

// judges returns a collection's finished audiences. The caller must not change
// them. They are made at first use, and after an audience changed, its own again.
func (s *Service) judges(coll string) (*judges, error) {
	if err := s.hearJudges(coll); err != nil {
		return nil, err
	}
	s.mu.Lock()
	have, ok := s.judged[coll]
	version, kept := s.judgedVersion[coll], maps.Clone(s.keptJudges[coll])
	s.mu.Unlock()
	if ok && (have.until.IsZero() || s.opt.Clock().Before(have.until)) {
		return have, nil
	}
	names, err := s.audienceNames(coll)
	if err != nil {
		return nil, err
	}
	out, now := &judges{named: make(map[string]*judge, len(names))}, s.opt.Clock()
	for _, name := range names {
		j := kept[name]
		if j != nil && !j.expires.IsZero() && !now.Before(j.expires) {
			continue
		}
		if j == nil {
			info, err := s.info(coll, name)
			if errors.Is(err, index.ErrNotFound) {
				continue // deleted since
			}
			if err != nil {
				return nil, err
			}
			if info.State != JobDone || info.Result == nil {
				continue
			}
			if j, err = s.newJudge(coll, &info); err != nil {
				return nil, err
			}
			j.expires = info.Expires
		}
		out.named[name], out.list = j, append(out.list, j)
		if e := j.expires; !e.IsZero() && (out.until.IsZero() || e.Before(out.until)) {
			out.until = e
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.judgedVersion[coll] == version {
		s.judged[coll], s.keptJudges[coll] = out, maps.Clone(out.named)
	}
	return out, nil
}

// forgetJudges is called after something that many audiences of the collection go by
// has changed, such as a suppression list.
func (s *Service) forgetJudges(coll string) {
	defer s.tellJudges(coll)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judgedVersion[coll]++
	delete(s.judged, coll)
	delete(s.keptJudges, coll)
}

// forgetJudge is called after one audience has changed.
func (s *Service) forgetJudge(coll, name string) {
	defer s.tellJudges(coll)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judgedVersion[coll]++
	delete(s.judged, coll)
	delete(s.keptJudges[coll], name)
}

// judgesMark is where processes that share a store tell each other that audiences have
// changed: a value that is new after each change.
func judgesMark(coll string) string { return "judges/" + coll }

// tellJudges tells the other processes.
func (s *Service) tellJudges(coll string) {
	if !s.opt.Shared {
		return
	}
	mark := uuid.NewString()
	if err := s.opt.KV.Put(context.Background(), map[string][]byte{judgesMark(coll): []byte(mark)}); err != nil {
		s.log.Warn("other processes hear late that an audience has changed", "collection", coll, "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judgesSeen[coll] = seenMark{mark, time.Now()}
}

// seenMark is a judgesMark as it was read.
type seenMark struct {
	mark string
	at   time.Time
}

// hearJudges forgets what another process has changed, some seconds after at most.
func (s *Service) hearJudges(coll string) error {
	s.mu.Lock()
	seen, known := s.judgesSeen[coll]
	s.mu.Unlock()
	if !s.opt.Shared || known && time.Since(seen.at) < sharedFor {
		return nil
	}
	now := time.Now()
	mark, err := s.opt.KV.Get(judgesMark(coll))
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judgesSeen[coll] = seenMark{string(mark), now}
	if string(mark) == seen.mark {
		return nil
	}
	s.judgedVersion[coll]++
	delete(s.judged, coll)
	delete(s.keptJudges, coll)
	s.kept.Lock()
	defer s.kept.Unlock()
	s.kept.by, s.kept.size = nil, 0
	return nil
}

func (s *Service) newJudge(coll string, info *AudienceInfo) (*judge, error) {
	j := &judge{name: info.Name, job: info.Job, built: info.Built, threshold: info.Result.Threshold, floor: info.Result.Threshold}
	var err error
	if j.suppressed, err = s.suppressedBy(coll, info.Request.Exclude.Lists, true); err != nil {
		return nil, err
	}
	if info.Result.Floor != nil {
		j.floor = *info.Result.Floor
	}
	if info.Built.IsZero() || info.Request.Fairness != nil || len(info.Result.Model.Set.Heads) == 0 || info.Size == 0 {
		return j, nil // no model, or no one threshold: the list alone decides
	}
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	spec := cfg.spec()
	if err := s.whole(coll, info); err != nil {
		return nil, err
	}
	req := &info.Request
	if j.filter, err = req.Filter.Compile(spec.Columns); err != nil {
		return nil, err
	}
	err = req.Within.Each(func(group audience.Seeds) error {
		of, err := s.inGroup(cfg, group)
		if of == nil { // the group has gone: nobody new is of it
			of = func(*index.Row) bool { return false }
		}
		j.within = append(j.within, of)
		return err
	})
	if err != nil {
		return nil, err
	}
	j.out = map[string]bool{}
	for _, id := range req.Exclude.IDs {
		j.out[id] = true
	}
	for _, ref := range req.Negatives.IDs {
		j.out[ref.ID] = true
	}
	j.not = slices.Clone(req.Exclude.Audiences)
	if req.Exclude.Seeds == nil || *req.Exclude.Seeds {
		for _, ref := range req.Seeds.IDs {
			j.out[ref.ID] = true
		}
		if req.Seeds.Filter != nil {
			if j.seeds, err = req.Seeds.Filter.Compile(spec.Columns); err != nil {
				return nil, err
			}
		}
		if j.group, err = s.inGroup(cfg, req.Seeds); err != nil {
			return nil, err
		}
		if req.Seeds.Audience != "" {
			j.not = append(j.not, req.Seeds.Audience)
		}
	}
	j.model = &info.Result.Model
	if info.Result.Manifest.Text {
		j.stamp = info.Result.Manifest.Stamp
	}
	return j, nil
}

// standing is one customer with what is needed to judge it.
type standing struct {
	row     *index.Row // nil: not in the collection
	updated time.Time
	listed  map[string]int // its rank in each list
	columns []index.Column
	stamp   string // of its vector
}

// standing is of a row as an engine of the spec has it.
func (s *Service) standing(coll, id string, row *index.Row, spec index.Spec, all *judges) (standing, error) {
	at := standing{row: row, columns: spec.Columns, stamp: spec.Stamp}
	if row == nil {
		return at, nil
	}
	var st stored
	if len(row.Record) > 0 {
		if err := json.Unmarshal(row.Record, &st); err != nil {
			return at, fmt.Errorf("customer %q: its record cannot be read: %w", clip(id), errors.Join(err, index.ErrCorrupt))
		}
	}
	at.updated = st.Updated
	var err error
	at.listed, err = s.listed(coll, id, all)
	return at, err
}

// in says whether the customer is in the judge's audience now.
func (j *judge) in(c *standing, all *judges) bool {
	_, was := c.listed[j.name]
	if c.row != nil && j.suppressed != nil && j.suppressed(c.row.ID) {
		return false
	}
	if !j.scores(c) || c.updated.Before(j.built) {
		return was && c.row != nil
	}
	if j.out[c.row.ID] || !holds(j.filter, c.row, c.columns) || j.seeds != nil && holds(j.seeds, c.row, c.columns) || j.group != nil && j.group(c.row) || !j.isWithin(c.row) {
		return false
	}
	for _, name := range j.not {
		// One step: lists that exclude each other would have no end.
		if other := all.named[name]; other != nil {
			if _, there := c.listed[name]; there {
				return false
			}
		}
	}
	least := float64(j.threshold)
	if was {
		least = float64(j.floor)
		least -= slack * math.Max(1, math.Abs(least))
	}
	return float64(j.model.Value(c.row.Vector, c.row.Values)) >= least
}

// scores says whether the judge's model scores the customer: one that was learned from
// other vectors than the customer's does not, and then the list alone decides until the
// audience is refreshed.
func (j *judge) scores(c *standing) bool {
	return c.row != nil && j.model != nil && (j.stamp == "" || j.stamp == c.stamp)
}

// isWithin says whether a customer, as it is now, is of the groups that limit members.
func (j *judge) isWithin(row *index.Row) bool {
	for _, of := range j.within {
		if !of(row) {
			return false
		}
	}
	return true
}

// memberships are the names of the audiences that a customer is in now, in order.
func memberships(c *standing, all *judges) []string {
	out := []string{}
	if c.row == nil {
		return out
	}
	for _, j := range all.list {
		if j.in(c, all) {
			out = append(out, j.name)
		}
	}
	return out
}

// AudiencesOf returns the names of the audiences that a customer is in now.
func (s *Service) AudiencesOf(ctx context.Context, coll, id string) ([]string, error) {
	cfg, err := s.config(coll)
	if err != nil {
		return nil, err
	}
	row, _, err := s.get(ctx, cfg, id)
	if err != nil {
		return nil, err
	}
	all, err := s.judges(coll)
	if err != nil {
		return nil, err
	}
	at, err := s.standing(coll, id, row, cfg.spec(), all)
	return memberships(&at, all), err
}

// Check says for each id whether it is in the audience now. Who is not on the
// list as it was built is scored by the stored model.
func (s *Service) Check(ctx context.Context, coll, name string, ids []string) ([]Membership, error) {
	info, err := s.finished(coll, name)
	if err != nil {
		return nil, err
	}
	if len(ids) > s.opt.Limits.MaxBatch {
		return nil, faultf("ids", "%d ids: at most %d", len(ids), s.opt.Limits.MaxBatch)
	}
	eng, err := s.open(ctx, coll)
	if err != nil {
		return nil, err
	}
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	all, err := s.judges(coll)
	if err != nil {
		return nil, err
	}
	j := all.named[name]
	if j == nil {
		return nil, fmt.Errorf("audience %q of collection %q: %w", name, coll, index.ErrNotFound)
	}
	spec := eng.Spec()
	out := make([]Membership, len(ids))
	for i, id := range ids {
		out[i] = Membership{ID: id, Known: rows[i] != nil}
		at, err := s.standing(coll, id, rows[i], spec, all)
		if err != nil {
			return nil, err
		}
		out[i].In = j.in(&at, all)
		if rank, listed := at.listed[name]; listed && at.updated.Before(j.built) {
			members, err := s.membersPage(coll, &info, (rank-1)/pageSize)
			if err != nil {
				return nil, err
			}
			if at := slices.IndexFunc(members, func(m audience.Member) bool { return m.ID == id }); at >= 0 {
				out[i].Score = members[at].Score
			}
		} else if j.scores(&at) {
			out[i].Score = j.model.Value(rows[i].Vector, rows[i].Values)
		}
	}
	return out, nil
}

// Change is one customer entering or leaving an audience, or what happened to
// the audience itself. Who entered and left in a refresh, the diff of its
// versions says.
type Change struct {
	Audience string    `json:"audience"`
	ID       string    `json:"id,omitempty" doc:"of enter and leave"`
	Change   string    `json:"change" enum:"enter,leave,refreshed,refresh_failed,expired,deleted"`
	At       time.Time `json:"at"`
	Version  int       `json:"version,omitempty" doc:"of refreshed"`
	Entered  int       `json:"entered,omitempty" doc:"of refreshed"`
	Left     int       `json:"left,omitempty" doc:"of refreshed"`
	Problem  string    `json:"problem,omitempty" doc:"of refresh_failed"`
}

// maxBehind is how many changes may wait for a watcher.
const maxBehind = 4096

// watchers hear of changes, by collection and audience.
type watchers struct {
	mu   sync.Mutex
	list map[string][]chan Change
}

// Changes returns the changes of an audience's members from now on, as writes of
// customers and of suppression lists cause them. The channel closes when ctx ends, and when the reader is more
// than 4,096 changes behind: Check says where things stand.
func (s *Service) Changes(ctx context.Context, coll, name string) (<-chan Change, error) {
	if _, err := s.finished(coll, name); err != nil {
		return nil, err
	}
	w, key, ch := &s.changes, coll+"/"+name, make(chan Change, maxBehind)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list[key] = append(w.list[key], ch)
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.remove(key, ch)
	})
	return ch, nil
}

// remove closes a channel once. The caller holds mu.
func (w *watchers) remove(key string, ch chan Change) {
	if at := slices.Index(w.list[key], ch); at >= 0 {
		close(ch)
		if w.list[key] = slices.Delete(w.list[key], at, at+1); len(w.list[key]) == 0 {
			delete(w.list, key)
		}
	}
}

func (w *watchers) watched(coll string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.list {
		if strings.HasPrefix(key, coll+"/") {
			return true
		}
	}
	return false
}

// end tells the watchers of an audience of its end and closes their channels.
func (w *watchers) end(coll string, c Change) {
	w.tell(coll, c)
	w.mu.Lock()
	defer w.mu.Unlock()
	key := coll + "/" + c.Audience
	for _, ch := range slices.Clone(w.list[key]) {
		w.remove(key, ch)
	}
}

// cut closes the channels of all watchers of a collection, who would be too far behind.
func (w *watchers) cut(coll string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, list := range w.list {
		if strings.HasPrefix(key, coll+"/") {
			for _, ch := range slices.Clone(list) {
				w.remove(key, ch)
			}
		}
	}
}

func (w *watchers) tell(coll string, c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := coll + "/" + c.Audience
	for _, ch := range slices.Clone(w.list[key]) {
		select {
		case ch <- c:
		default:
			w.remove(key, ch)
		}
	}
}

// observe runs a write on some customers and tells the watchers what it changed.
// The caller holds the collection's lock. Without watchers it costs nothing.
func (s *Service) observe(ctx context.Context, coll string, eng index.Engine, ids []string, write func() error) error {
	if !s.changes.watched(coll) {
		return write()
	}
	before, err := s.allMemberships(ctx, coll, eng, ids)
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	after, err := s.allMemberships(context.WithoutCancel(ctx), coll, eng, ids)
	if err != nil { // the write is done: what follows it may not undo the answer
		s.log.Warn("changes of audiences could not be told", "collection", coll, "error", err)
		return nil
	}
	at := s.opt.Clock().UTC()
	for i, id := range ids {
		for _, name := range after[i] {
			if !slices.Contains(before[i], name) {
				s.changes.tell(coll, Change{Audience: name, ID: id, Change: "enter", At: at})
			}
		}
		for _, name := range before[i] {
			if !slices.Contains(after[i], name) {
				s.changes.tell(coll, Change{Audience: name, ID: id, Change: "leave", At: at})
			}
		}
	}
	return nil
}

func (s *Service) allMemberships(ctx context.Context, coll string, eng index.Engine, ids []string) ([][]string, error) {
	all, err := s.judges(coll)
	if err != nil {
		return nil, err
	}
	rows, err := eng.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([][]string, len(ids))
	spec := eng.Spec()
	for i, id := range ids {
		at, err := s.standing(coll, id, rows[i], spec, all)
		if err != nil {
			return nil, err
		}
		out[i] = memberships(&at, all)
	}
	return out, nil
}
