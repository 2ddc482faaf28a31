package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
)

// Index describes how a field is indexed.
type Index struct {
	Field  string
	Name   string // "": Milvus names it after the field
	Type   string // FLAT, IVF_FLAT, IVF_SQ8, HNSW, DISKANN, ...; of scalars "" or STL_SORT, Trie
	Metric Metric // of vectors
	Params map[string]string
}

// IndexState is how far building is. Rows counts those that are in the index.
type IndexState struct {
	Index
	Rows    int64
	Total   int64
	Pending int64
	Ready   bool
}

// CreateIndex asks for an index and does not wait; see WaitIndex. The same index
// twice is no error.
func (c *Client) CreateIndex(ctx context.Context, coll string, ix Index) error {
	o := op{name: "create index", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	p := map[string]string{}
	for k, v := range ix.Params {
		p[k] = v
	}
	if ix.Type != "" {
		p["index_type"] = ix.Type
	}
	if ix.Metric != "" {
		p["metric_type"] = string(ix.Metric)
	}
	_, err := ask(ctx, c, o, c.api.CreateIndex, &milvuspb.CreateIndexRequest{
		CollectionName: coll, FieldName: ix.Field, IndexName: ix.Name, ExtraParams: pairs(p),
	}, nil)
	return err
}

// DescribeIndex says what the index of a field is and how far it is built. ErrGone
// where the field has none.
func (c *Client) DescribeIndex(ctx context.Context, coll, field string) (IndexState, error) {
	o := op{name: "describe index", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.DescribeIndex, &milvuspb.DescribeIndexRequest{CollectionName: coll, FieldName: field}, nil)
	if err != nil {
		return IndexState{}, err
	}
	for _, d := range ans.GetIndexDescriptions() {
		if d.GetFieldName() != field {
			continue
		}
		p := unpairs(d.GetParams())
		s := IndexState{
			Index: Index{Field: field, Name: d.GetIndexName(), Type: p["index_type"], Metric: Metric(p["metric_type"]), Params: p},
			Rows:  d.GetIndexedRows(), Total: d.GetTotalRows(), Pending: d.GetPendingIndexRows(),
			Ready: d.GetState() == commonpb.IndexState_Finished,
		}
		delete(p, "index_type")
		delete(p, "metric_type")
		if d.GetState() == commonpb.IndexState_Failed {
			return s, c.finish(o, &Error{Kind: ErrServer, Detail: "building the index failed: " + d.GetIndexStateFailReason()})
		}
		return s, nil
	}
	return IndexState{}, c.finish(o, &Error{Kind: ErrGone, Detail: fmt.Sprintf("the field %q has no index", field)})
}

// DropIndex removes the index of a field; the collection must be released first.
func (c *Client) DropIndex(ctx context.Context, coll, field, name string) error {
	o := op{name: "drop index", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.DropIndex, &milvuspb.DropIndexRequest{CollectionName: coll, FieldName: field, IndexName: name}, nil) //nolint:staticcheck // servers of 2.3 find the index by its field
	return err
}

// Flush seals what was written, so that it is indexed, and waits until that is on
// the server's storage or ctx ends. Writes are safe without it.
func (c *Client) Flush(ctx context.Context, coll string) error {
	o := op{name: "flush", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.Flush, &milvuspb.FlushRequest{CollectionNames: []string{coll}}, nil)
	if err != nil {
		return err
	}
	segments := ans.GetCollSegIDs()[coll].GetData()
	ts, ok := ans.GetCollFlushTs()[coll]
	if len(segments) == 0 && !ok {
		return nil
	}
	return c.wait(ctx, o, func(ctx context.Context) (bool, error) {
		s, err := ask(ctx, c, op{name: "flush state", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}, c.api.GetFlushState,
			&milvuspb.GetFlushStateRequest{CollectionName: coll, SegmentIDs: segments, FlushTs: ts}, nil)
		return s.GetFlushed(), err
	})
}

// WaitIndex waits until the index of a field holds every sealed row.
func (c *Client) WaitIndex(ctx context.Context, coll, field string) error {
	o := op{name: "wait for index", coll: coll, timeout: c.cfg.SlowTimeout}
	return c.wait(ctx, o, func(ctx context.Context) (bool, error) {
		s, err := c.DescribeIndex(ctx, coll, field)
		return s.Ready && s.Pending == 0, err
	})
}

// Load brings a collection into the server's memory and waits until it is there.
func (c *Client) Load(ctx context.Context, coll string) error {
	o := op{name: "load", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.LoadCollection, &milvuspb.LoadCollectionRequest{CollectionName: coll, ReplicaNumber: 1}, nil)
	if err != nil {
		return err
	}
	return c.wait(ctx, o, func(ctx context.Context) (bool, error) {
		s, err := c.LoadState(ctx, coll)
		if errors.Is(err, ErrNotLoaded) {
			return false, nil // between the request and the first progress
		}
		return s == Loaded, err
	})
}

// Release takes a collection out of the server's memory.
func (c *Client) Release(ctx context.Context, coll string) error {
	o := op{name: "release", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.ReleaseCollection, &milvuspb.ReleaseCollectionRequest{CollectionName: coll}, nil)
	return err
}

// LoadState is whether a collection can be searched.
type LoadState int

// The states.
const (
	NotLoaded LoadState = iota
	Loading
	Loaded
)

// LoadState asks whether a collection is loaded. ErrGone where there is none.
func (c *Client) LoadState(ctx context.Context, coll string) (LoadState, error) {
	o := op{name: "load state", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.GetLoadState, &milvuspb.GetLoadStateRequest{CollectionName: coll}, nil)
	if err != nil {
		return NotLoaded, err
	}
	switch ans.GetState() {
	case commonpb.LoadState_LoadStateLoaded:
		return Loaded, nil
	case commonpb.LoadState_LoadStateLoading:
		return Loading, nil
	case commonpb.LoadState_LoadStateNotExist:
		return NotLoaded, c.finish(o, &Error{Kind: ErrGone})
	}
	return NotLoaded, nil
}

// wait asks again and again, at growing pauses, until it is so or o.timeout is over.
func (c *Client) wait(parent context.Context, o op, is func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(parent, o.timeout)
	defer cancel()
	pause := 20 * time.Millisecond
	for {
		ok, err := is(ctx)
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			e := &Error{Kind: ErrTimeout, Detail: "it was accepted and is not finished", Sent: true}
			if errors.Is(parent.Err(), context.Canceled) {
				e.Kind = context.Canceled
			}
			return c.finish(o, e)
		}
		pause = min(pause*3/2, 500*time.Millisecond)
	}
}

// Rows is the number of rows by the server's book-keeping: fast, and late by what is
// not yet sealed or compacted. Count is exact.
func (c *Client) Rows(ctx context.Context, coll string) (int64, error) {
	o := op{name: "statistics", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}
	var n int64
	_, err := ask(ctx, c, o, c.api.GetCollectionStatistics, &milvuspb.GetCollectionStatisticsRequest{CollectionName: coll},
		func(a *milvuspb.GetCollectionStatisticsResponse) error {
			s, ok := unpairs(a.GetStats())["row_count"]
			var err error
			if n, err = strconv.ParseInt(s, 10, 64); !ok || err != nil || n < 0 {
				return fmt.Errorf("the number of rows came as %.40q", s)
			}
			return nil
		})
	return n, err
}

// Health is nil when the server says that it can work, and otherwise its reasons.
func (c *Client) Health(ctx context.Context) error {
	r, err := c.Report(ctx)
	if err == nil && !r.Healthy {
		err = c.Unwell(r)
	}
	return err
}
