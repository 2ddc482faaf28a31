// Package mirror keeps a copy of a Milvus collection in memory, where the whole
// population can be scanned with any head.
//
// A Mirror is filled once (Hydrate), kept current by the process's own writes (Apply,
// Remove) and by Sweep, which asks for rows of other writers by a version field, and
// compared with the server by Check. Reconcile mends what Sweep cannot see: deletes by
// others. Run does both in the background. Snapshots are those of package rows: they
// cost no copy and never change.
//
// # Memory
//
// What package rows says for the precision (int8: about dim + 40 bytes a row and its
// columns), 8 bytes a row for the version, and two pages while filling.
//
// # Order of writes
//
// Every row has a version, a number that grows with each write of that row by one
// process; package index/milvus takes it from a clock. Of our own writes the greater
// version wins, and a page that was read before one of them never undoes it. Otherwise
// the server is right: clocks of other processes may be behind ours.
package mirror

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/rows"
)

// Path is how answers of scans of a mirror are named.
const Path = "mirror"

// VersionColumn holds the version of each row in snapshots; no column of a collection
// may be called so.
const VersionColumn = "_version"

// MaxVersion is the greatest version: what a float64 holds exactly.
const MaxVersion = int64(1) << 53

// Source says what is mirrored, and how a row is read.
type Source struct {
	Client     *client.Client
	Collection string
	Key        string   // the key field, a string
	Version    string   // the version field, an Int64 from 1
	Hash       string   // the field that holds pushdown.Hash of the key
	Fields     []string // what Decode needs besides
	Spec       index.Spec
	// Decode makes a row of row i of a page; Record is dropped. The vector must be a copy
	// where the precision is Fp32. An error ends the hydration.
	Decode func(page *client.Batch, i int) (index.Row, error)
	Page   int // rows of a page; 0: as many as make 16 MB, at most 10,000
	// Overlap is how far back Sweep looks behind the greatest version seen, for writers
	// whose clocks or commits are late; in units of the version. 0 looks back not at all.
	Overlap int64
	// Now, where given, is a version that a write at this moment would have: what others
	// write while the mirror is filled is then seen by the sweep after that.
	Now  func() int64
	Rows rows.Options // of the copy
}

// Row is a write of this process. Its vector is unit length, zeros or nil, as it is in
// Milvus; the mirror may keep it.
type Row struct {
	index.Row
	Version int64
}

// Mirror is the copy. Methods are safe for concurrent use.
type Mirror struct {
	src  Source
	spec index.Spec // with the version's column

	filling sync.Mutex // one of Hydrate, Sweep and Reconcile at a time

	mu      sync.Mutex // orders changes of the table
	table   *rows.Table
	high    int64            // greatest version seen
	floor   int64            // what the next sweep looks from at most; 0: no bound
	next    int64            // where a hydration that is not finished goes on; of who holds filling
	removed map[string]int64 // our own deletes while pages are under way
	wrote   map[string]bool  // our own writes likewise
	paging  int
	state   State
}

// State is how the copy stands.
type State struct {
	Ready    bool      // filled once, and not known to differ
	Rows     int64     // live
	Total    int64     // of the server, when last counted
	Behind   int64     // rows that it has too few or too many: still to be filled, or by the last sweep's count
	Hydrated time.Time // when filling ended; zero before
	Swept    time.Time // when it was last brought up to date
	Checked  time.Time // when a checksum last agreed
	Err      error     // of the last sweep or check; nil where it went well
	Mended   int64     // rows that Reconcile had to mend, in all
	Bytes    int64     // about what the copy takes in memory, dead rows included
}

// New makes an empty mirror. ErrInvalid where the spec has a column of its own name
// for versions.
func New(src Source) (*Mirror, error) {
	if src.Page == 0 {
		src.Page = max(200, min(10_000, 16<<20/(4*src.Spec.Dim+200)))
	}
	spec := src.Spec
	// The version comes first, where columns that are added later do not move it.
	spec.Columns = append([]index.Column{{Name: VersionColumn, Kind: index.Number}}, spec.Columns...)
	for _, c := range src.Spec.Columns {
		if c.Name == VersionColumn {
			return nil, fmt.Errorf("%w: a column of the collection %q is called %s, which the mirror needs; rename it", index.ErrInvalid, spec.Name, VersionColumn)
		}
	}
	if !client.ValidName(src.Version) || !client.ValidName(src.Key) || !client.ValidName(src.Hash) || src.Decode == nil {
		return nil, fmt.Errorf("%w: a mirror needs the key, version and hash fields and a way to read rows", index.ErrInvalid)
	}
	return &Mirror{src: src, spec: spec, table: rows.New(spec, src.Rows), removed: map[string]int64{}, wrote: map[string]bool{}}, nil
}

// State says how the copy stands.
func (m *Mirror) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state
	v := m.table.Snapshot()
	s.Rows = int64(v.Live().GetCardinality())
	if s.Hydrated.IsZero() {
		s.Behind = max(s.Total-s.Rows, 0)
	}
	s.Bytes = int64(v.Len()) * rows.RowBytes(m.table.Spec())
	return s
}

// Close gives back what the copy holds on a device, once lists that are being made there have
// been given up for the CPU. The copy can still be read.
func (m *Mirror) Close() { m.table.Close() }

// Snapshot is the copy as it is now. Before Hydrate has returned nil it holds part of
// the population: ask State.
func (m *Mirror) Snapshot() *rows.View { return m.table.Snapshot() }

// Apply takes the process's own writes, after Milvus acknowledged them. A row that the
// mirror has with a greater version stays.
func (m *Mirror) Apply(batch []Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.apply(batch, true)
}

// apply runs under m.mu. Our own writes also cancel our own deletes.
func (m *Mirror) apply(batch []Row, own bool) error {
	view, spec := m.table.Snapshot(), m.table.Spec()
	ready := make([]rows.Prepared, 0, len(batch))
	for i := range batch {
		r := &batch[i]
		if r.Version < 1 || r.Version > MaxVersion {
			return fmt.Errorf("%w: the version %d of %q is not from 1 to %d", index.ErrInvalid, r.Version, r.ID, MaxVersion)
		}
		m.high = max(m.high, r.Version)
		if gone, ok := m.removed[r.ID]; ok {
			if gone >= r.Version && !own {
				continue // the page was read before we deleted it
			}
			delete(m.removed, r.ID)
		}
		// A page shows what the server has, even where another clock gave it a smaller
		// version, unless it was read before a write of our own.
		have, ok := m.version(view, r.ID)
		if ok && (have > r.Version && (own || m.wrote[r.ID]) || have == r.Version && !own) {
			continue
		}
		if own && m.paging > 0 {
			m.wrote[r.ID] = true
		}
		vec := r.Vector
		r.Vector = nil // Prepare would make it unit length again, and round it twice
		p := rows.Prepare(&spec, &r.Row)
		if r.Vector = vec; slices.ContainsFunc(vec, func(x float32) bool { return x != 0 }) {
			p.Vec = rows.EncodeUnit(m.spec.Precision, vec)
		}
		p.Values[0] = index.Value{Kind: index.Number, Num: float64(r.Version)}
		ready = append(ready, p)
	}
	if len(ready) == 0 {
		return nil
	}
	return m.table.Apply(ready, 0)
}

// version is that of a live row.
func (m *Mirror) version(view *rows.View, id string) (int64, bool) {
	row, ok := view.Find(id)
	if !ok {
		return 0, false
	}
	return int64(view.Number(0, row)), true
}

// Remove takes the process's own deletes, after Milvus acknowledged them. version is
// the clock at the delete.
func (m *Mirror) Remove(ids []string, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table.Remove(ids, 0)
	if m.paging > 0 {
		for _, id := range ids {
			m.removed[id] = version
		}
	}
}

// Alter adds columns, missing in every row until it is written again or read by
// Reconcile in a greater version. ErrInvalid where one has the version's name.
func (m *Mirror) Alter(add []index.Column) error {
	for _, c := range add {
		if c.Name == VersionColumn {
			return fmt.Errorf("%w: a column may not be called %s, which the mirror needs; choose another name", index.ErrInvalid, VersionColumn)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table.Alter(add, 0)
	return nil
}

// High is the greatest version seen: who gives the next write a greater one, whatever
// other clocks say, is seen by their sweeps.
func (m *Mirror) High() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.high
}

// Count says how many of ids the mirror has.
func (m *Mirror) Count(ids []string) int { return m.table.Count(ids) }

// begin frames work on pages, and what it returns ends it: while it lasts, own deletes
// are remembered.
func (m *Mirror) begin() func() {
	m.filling.Lock()
	m.mu.Lock()
	m.paging++
	m.mu.Unlock()
	return func() {
		m.mu.Lock()
		if m.paging--; m.paging == 0 {
			clear(m.removed)
			clear(m.wrote)
		}
		m.mu.Unlock()
		m.filling.Unlock()
	}
}

// Hydrate fills the mirror from the server. After an error it may be called again, and
// goes on behind the last page that came. progress, where given, hears rows done and
// rows in all, after each page.
func (m *Mirror) Hydrate(ctx context.Context, progress func(done, total int64)) error {
	defer m.begin()()
	if m.src.Now != nil && m.floor == 0 {
		m.floor = m.src.Now()
	}
	total, err := m.src.Client.Count(ctx, m.src.Collection, "", client.Strong)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.state.Total = total
	m.mu.Unlock()
	err = m.all(ctx, total, m.next, m.src.Fields, func(page *client.Batch, next int64) error {
		if err := m.take(page); err != nil {
			return err
		}
		m.next = next
		if progress != nil {
			done := int64(m.table.Snapshot().Live().GetCardinality())
			progress(done, max(total, done))
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = 0
	m.state.Ready, m.state.Hydrated, m.state.Swept, m.state.Err = true, time.Now(), time.Now(), nil
	return nil
}

// take applies a page of the server.
func (m *Mirror) take(page *client.Batch) error {
	if page.Rows == 0 {
		return nil
	}
	versions := page.Column(m.src.Version).Ints
	batch := make([]Row, page.Rows)
	for i := range batch {
		r, err := m.src.Decode(page, i)
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", page.Column(m.src.Key).Strings[i], m.src.Collection, err)
		}
		batch[i] = Row{Row: r, Version: versions[i]}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.apply(batch, false)
}

// Sweep brings in what others wrote since the last time: rows with a version above the
// greatest that was seen, less Overlap. It says whether the number of rows then agrees
// with the server's; if not, others have deleted, and Reconcile is due.
func (m *Mirror) Sweep(ctx context.Context) (agrees bool, err error) {
	defer m.begin()()
	m.mu.Lock()
	from := m.high
	if m.floor > 0 {
		from = min(from, m.floor)
	}
	from = max(from-m.src.Overlap, 0)
	m.mu.Unlock()
	// The count waits for the server to catch up with everyone's writes; pages need not.
	total, err := m.src.Client.Count(ctx, m.src.Collection, "", client.Strong)
	if err == nil {
		err = m.pages(ctx, m.src.Version+" > "+strconv.FormatInt(from, 10), m.src.Fields, m.take)
	}
	if err == nil && int64(m.table.Snapshot().Live().GetCardinality()) != total {
		total, err = m.src.Client.Count(ctx, m.src.Collection, "", client.Strong) // written meanwhile?
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Err = err
	if err != nil {
		return false, err
	}
	m.state.Total, m.state.Swept, m.floor = total, time.Now(), 0
	have := int64(m.table.Snapshot().Live().GetCardinality())
	m.state.Behind = max(have-total, total-have)
	return have == total, nil
}

// Report compares the mirror with the server.
type Report struct {
	Server, Local       int64  // rows
	ServerSum, LocalSum uint64 // checksums of ids and versions, independent of order
}

// Equal says whether both hold the same rows in the same versions.
func (r Report) Equal() bool { return r.Server == r.Local && r.ServerSum == r.LocalSum }

// sum is a row's part of the checksum; parts are added.
func sum(id string, version int64) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, id) // never fails
	x := h.Sum64() ^ uint64(version)*0x9e3779b97f4a7c15
	x ^= x >> 31
	x *= 0xbf58476d1ce4e5b9
	return x ^ x>>29
}

// Check reads ids and versions of all rows, without vectors, and compares checksums.
// Writes meanwhile make a difference that is none; then check again.
func (m *Mirror) Check(ctx context.Context) (Report, error) {
	defer m.begin()()
	view := m.table.Snapshot()
	var out Report
	total, err := m.src.Client.Count(ctx, m.src.Collection, "", client.Strong) // see Sweep
	if err != nil {
		return out, err
	}
	err = m.all(ctx, total, 0, nil, func(page *client.Batch, _ int64) error {
		if page.Rows == 0 {
			return nil
		}
		v := page.Column(m.src.Version).Ints
		for i, id := range page.Column(m.src.Key).Strings {
			out.Server++
			out.ServerSum += sum(id, v[i])
		}
		return ctx.Err()
	})
	if err != nil {
		return out, err
	}
	versions, err := view.Column(VersionColumn)
	if err != nil {
		return out, err
	}
	for it := view.Live().Iterator(); it.HasNext(); {
		row := it.Next()
		out.Local++
		out.LocalSum += sum(view.ID(row), int64(versions.Numbers[row]))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if out.Equal() {
		m.state.Checked = time.Now()
	}
	return out, nil
}

// Reconcile compares every id and version with the server's, fetches what differs and
// removes what the server no longer has. It returns how many rows it mended.
func (m *Mirror) Reconcile(ctx context.Context) (int64, error) {
	defer m.begin()()
	view := m.table.Snapshot()
	seen := roaring.New()
	var stale []string
	mended := int64(0)
	fetch := func() error {
		expr, err := client.InStrings(m.src.Key, stale)
		if err != nil {
			return err
		}
		mended += int64(len(stale))
		stale = stale[:0]
		return m.pages(ctx, expr, m.src.Fields, m.take)
	}
	total, err := m.src.Client.Count(ctx, m.src.Collection, "", client.Strong) // see Sweep
	if err != nil {
		return 0, err
	}
	err = m.all(ctx, total, 0, nil, func(page *client.Batch, _ int64) error {
		if page.Rows == 0 {
			return nil
		}
		v := page.Column(m.src.Version).Ints
		for i, id := range page.Column(m.src.Key).Strings {
			row, ok := view.Find(id)
			if ok {
				seen.Add(row)
			}
			if have, _ := m.version(view, id); !ok || have != v[i] {
				stale = append(stale, id)
			}
		}
		if len(stale) >= m.src.Page {
			return fetch()
		}
		return nil
	})
	if err == nil && len(stale) > 0 {
		err = fetch()
	}
	if err != nil {
		return mended, err
	}
	gone, err := m.gone(ctx, view, roaring.AndNot(view.Live(), seen))
	if err != nil {
		return mended, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.table.Snapshot()
	var ids []string
	for _, id := range gone {
		was, _ := m.version(view, id)
		if is, ok := m.version(now, id); ok && is == was { // not written again meanwhile
			ids = append(ids, id)
		}
	}
	mended += int64(m.table.Remove(ids, 0))
	m.state.Mended += mended
	m.state.Swept, m.state.Behind = time.Now(), 0
	return mended, nil
}

// gone asks, with everyone's writes in sight, which of the rows the server really does
// not have.
func (m *Mirror) gone(ctx context.Context, view *rows.View, maybe *roaring.Bitmap) ([]string, error) {
	var out []string
	for part := range slices.Chunk(maybe.ToArray(), 1000) {
		ids := make([]string, len(part))
		for i, row := range part {
			ids[i] = view.ID(row)
		}
		expr, err := client.InStrings(m.src.Key, ids)
		if err != nil {
			return nil, err
		}
		there, err := m.src.Client.Query(ctx, client.QueryRequest{Collection: m.src.Collection, Expr: expr, Fields: []string{m.src.Key}, Consistency: client.Strong})
		if err != nil {
			return nil, err
		}
		still := map[string]bool{}
		if c := there.Column(m.src.Key); c != nil {
			for _, id := range c.Strings {
				still[id] = true
			}
		}
		out = append(out, slices.DeleteFunc(ids, func(id string) bool { return still[id] })...)
	}
	return out, nil
}

// Run sweeps every so often until ctx ends, and reconciles where a sweep does not
// agree, but no more than a tenth of the time: while others write, counts differ for a
// moment, and a reconciliation reads everyone's id. Every ten minutes it reconciles
// anyway, a hundredth of the time at most: a sweep cannot see a row that a clock far
// behind has changed. Errors are kept in State, and the next round tries again.
func (m *Mirror) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var next time.Time
	audit := time.Now().Add(audited)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		agrees, err := m.Sweep(ctx)
		if now := time.Now(); err != nil || now.Before(next) || agrees && now.Before(audit) {
			continue
		}
		start := time.Now()
		if _, err = m.Reconcile(ctx); err != nil {
			m.mu.Lock()
			m.state.Err = err
			m.mu.Unlock()
		}
		took := time.Since(start)
		next, audit = time.Now().Add(9*took), time.Now().Add(max(audited, 99*took))
	}
}

// audited is how often Run reconciles though nothing speaks for it.
const audited = 10 * time.Minute
