package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
)

// pages calls f with every page of rows that satisfy expr, in order of key: for parts of
// the population, such as those of a sweep.
func (m *Mirror) pages(ctx context.Context, expr string, fields []string, f func(*client.Batch) error) error {
	it, err := m.src.Client.Iterate(client.IterateRequest{
		Collection: m.src.Collection, Key: m.src.Key, Expr: expr,
		Fields: append([]string{m.src.Version}, fields...), Batch: m.src.Page, Consistency: client.Session,
	})
	if err != nil {
		return err
	}
	for {
		page, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := m.checkPage(&page); err != nil {
			return err
		}
		if err := f(&page); err != nil {
			return err
		}
	}
}

// span is the rows with hashes from lo to hi-1.
type span struct{ lo, hi int64 }

// all calls f with the whole population, by ranges of the hash from `from` up, and says
// after each what the next range begins with. A range that comes back full may have
// been cut off: it is split. One page is fetched ahead of the one that f has.
//
// Pages by key would make the server compare every row's key for every page; comparing
// numbers is three times as fast for 200,000 rows in 2.3.5.
func (m *Mirror) all(ctx context.Context, total, from int64, fields []string, f func(page *client.Batch, next int64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	type got struct {
		page client.Batch
		next int64
		err  error
	}
	ahead := make(chan got)
	defer func() { // nothing is left running
		cancel()
		for range ahead {
		}
	}()
	go func() {
		defer close(ahead)
		step := max(pushdown.HashSpan/max(total/int64(m.src.Page)+1, 1), 1)
		for lo := from; lo < pushdown.HashSpan; {
			todo := []span{{lo, min(lo+step, pushdown.HashSpan)}}
			for len(todo) > 0 {
				s := todo[0]
				page, full, err := m.span(ctx, s, fields)
				if full {
					mid := s.lo + (s.hi-s.lo)/2
					todo = append([]span{{s.lo, mid}, {mid, s.hi}}, todo[1:]...)
					continue
				}
				select {
				case ahead <- got{page, s.hi, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
				todo = todo[1:]
				lo = s.hi
			}
		}
	}()
	for g := range ahead {
		if g.err != nil {
			return g.err
		}
		if err := f(&g.page, g.next); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// span fetches one range. full: there may be more rows than came, and nothing of them
// is to be used.
func (m *Mirror) span(ctx context.Context, s span, fields []string) (page client.Batch, full bool, err error) {
	limit := min(2*m.src.Page, client.MaxResults)
	page, err = m.src.Client.Query(ctx, client.QueryRequest{
		Collection: m.src.Collection, Expr: fmt.Sprintf("%s >= %d and %s < %d", m.src.Hash, s.lo, m.src.Hash, s.hi),
		Fields: append([]string{m.src.Key, m.src.Version}, fields...), Limit: limit, Consistency: client.Session,
	})
	switch {
	case errors.Is(err, client.ErrTooLarge) && s.hi-s.lo > 1:
		return client.Batch{}, true, nil
	case err != nil:
		return page, false, err
	case page.Rows >= limit && s.hi-s.lo > 1:
		return client.Batch{}, true, nil
	case page.Rows >= limit:
		return page, false, m.broken("%d rows or more share the hash %d: fill the field %q with pushdown.Hash of the key", limit, s.lo, m.src.Hash)
	case page.Rows == 0:
		return page, false, nil
	}
	if err := m.checkPage(&page); err != nil {
		return page, false, err
	}
	seen := make(map[string]bool, page.Rows)
	for _, id := range page.Column(m.src.Key).Strings {
		if h := pushdown.Hash(id); h < s.lo || h >= s.hi {
			return page, false, m.broken("the row %.80q came for hashes from %d to %d, and its own is %d: fill the field %q with pushdown.Hash of the key", id, s.lo, s.hi-1, h, m.src.Hash)
		}
		if seen[id] {
			return page, false, m.broken("the row %.80q came twice in one page", id)
		}
		seen[id] = true
	}
	return page, false, nil
}

// checkPage holds the two fields that everything rests on to their types.
func (m *Mirror) checkPage(page *client.Batch) error {
	if page.Rows == 0 {
		return nil
	}
	if k := page.Column(m.src.Key); k.Type != client.VarChar {
		return fmt.Errorf("%w: the field %q of %s is %v, not VarChar: it cannot be the key", client.ErrSchema, m.src.Key, m.src.Collection, k.Type)
	}
	if v := page.Column(m.src.Version); v.Type != client.Int64 {
		return fmt.Errorf("%w: the field %q of %s is %v, not Int64: it cannot be a version", client.ErrSchema, m.src.Version, m.src.Collection, v.Type)
	}
	return nil
}

func (m *Mirror) broken(format string, a ...any) error {
	return fmt.Errorf("%w: %s: %s", client.ErrInvalidAnswer, m.src.Collection, fmt.Sprintf(format, a...))
}
