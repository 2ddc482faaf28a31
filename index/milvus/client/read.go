package client

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
)

// QueryRequest asks for rows by expression. Expr is never empty: build it with Quote
// and InStrings, so that values stay values. Fields are those returned.
type QueryRequest struct {
	Collection  string
	Expr        string
	Fields      []string
	Partitions  []string
	Limit       int // 0: no limit of ours; Milvus refuses more than MaxResults
	Offset      int
	Consistency Consistency
	paging      bool // by an iterator: rows come in order of key
}

// Batch is rows as columns.
type Batch struct {
	Rows    int
	Columns []Column
}

// Column is the column of a name, nil where there is none.
func (b *Batch) Column(name string) *Column {
	for i := range b.Columns {
		if b.Columns[i].Name == name {
			return &b.Columns[i]
		}
	}
	return nil
}

// Query returns the rows that satisfy an expression. Their order is Milvus's.
func (c *Client) Query(ctx context.Context, q QueryRequest) (Batch, error) {
	return c.query(ctx, op{name: "query", coll: q.Collection, timeout: c.cfg.ReadTimeout, repeat: true}, q)
}

func (c *Client) query(ctx context.Context, o op, q QueryRequest) (Batch, error) {
	if q.Limit < 0 || q.Offset < 0 || q.Limit+q.Offset > MaxResults {
		return Batch{}, c.refuse(o, ErrInvalidRequest, "limit %d and offset %d; together at most %d: page by key for more", q.Limit, q.Offset, MaxResults)
	}
	level, after, seen := c.guarantee(q.Collection, q.Consistency)
	req := &milvuspb.QueryRequest{
		CollectionName: q.Collection, Expr: q.Expr, OutputFields: q.Fields, PartitionNames: q.Partitions,
		ConsistencyLevel: level, GuaranteeTimestamp: after,
	}
	params := map[string]string{}
	if q.Limit > 0 {
		params["limit"] = strconv.Itoa(q.Limit)
	}
	if q.Offset > 0 {
		params["offset"] = strconv.Itoa(q.Offset)
	}
	if q.paging {
		params["iterator"], params["reduce_stop_for_best"] = "true", "true"
	}
	req.QueryParams = pairs(params)
	var out Batch
	_, err := ask(ctx, c, o, c.api.Query, req, func(a *milvuspb.QueryResults) error {
		var err error
		out, err = readBatch(a.GetFieldsData(), q.Fields, -1)
		switch {
		case err != nil || q.Limit == 0 || out.Rows <= q.Limit:
		case q.paging:
			// Seen of 2.3.5 with two shards: each gives its first Limit rows, and the merge
			// goes on until one of them has none left. The first Limit are whole.
			for i := range out.Columns {
				out.Columns[i] = out.Columns[i].Slice(0, q.Limit)
			}
			out.Rows = q.Limit
		default:
			err = fmt.Errorf("%d rows came, and %d were asked for", out.Rows, q.Limit)
		}
		return err
	})
	if err == nil {
		seen()
	}
	return out, err
}

// guarantee turns a consistency into the request's two fields. seen is to be called when
// the read has gone well.
//
// A session begins with all that was acknowledged before, to whomever: its first read of a
// collection is a Strong one. Servers of 2.3 give no timestamp for a delete, so that no read could wait for it: the
// first Session read after one waits as a Strong one does, and those after it, of the same
// replica, are no older.
func (c *Client) guarantee(coll string, k Consistency) (level commonpb.ConsistencyLevel, after uint64, seen func()) {
	switch k {
	case Bounded:
		return commonpb.ConsistencyLevel_Bounded, 2, func() {}
	case Eventually:
		return commonpb.ConsistencyLevel_Eventually, 1, func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.unseen[coll]
	if k == Session && n == 0 && c.begun[coll] {
		if ts := c.last[coll]; ts > 0 {
			return commonpb.ConsistencyLevel_Session, ts, func() {}
		}
		return commonpb.ConsistencyLevel_Bounded, 2, func() {}
	}
	return commonpb.ConsistencyLevel_Strong, 0, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.begun[coll] = true
		if c.unseen[coll] == n {
			delete(c.unseen, coll)
		}
	}
}

// readBatch takes the fields of an answer apart: each asked-for field once, all of
// one length. rows of -1: as many as the first has.
func readBatch(data []*schemapb.FieldData, fields []string, rows int) (Batch, error) {
	out := Batch{Columns: make([]Column, 0, len(data))}
	// A server with nothing to say may leave all fields out.
	if len(data) == 0 && rows <= 0 {
		return out, nil
	}
	seen := map[string]bool{}
	for _, f := range data {
		col, err := ofProto(f)
		if err != nil {
			return out, err
		}
		if rows < 0 {
			rows = col.Len()
		}
		if col.Len() != rows {
			return out, fmt.Errorf("the field %q has %d rows, and the others %d", col.Name, col.Len(), rows)
		}
		if seen[col.Name] {
			return out, fmt.Errorf("the field %q came twice", col.Name)
		}
		seen[col.Name] = true
		out.Columns = append(out.Columns, col)
	}
	for _, f := range fields {
		if !seen[f] && f != "count(*)" && rows > 0 {
			return out, fmt.Errorf("the field %q was asked for and did not come", f)
		}
	}
	out.Rows = max(rows, 0)
	return out, nil
}

// Count returns how many rows satisfy an expression; "" counts all.
func (c *Client) Count(ctx context.Context, coll, expr string, k Consistency) (int64, error) {
	o := op{name: "count", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}
	level, after, seen := c.guarantee(coll, k)
	var n int64
	_, err := ask(ctx, c, o, c.api.Query, &milvuspb.QueryRequest{
		CollectionName: coll, Expr: expr, OutputFields: []string{"count(*)"}, ConsistencyLevel: level, GuaranteeTimestamp: after,
	}, func(a *milvuspb.QueryResults) error {
		b, err := readBatch(a.GetFieldsData(), nil, -1)
		if err != nil {
			return err
		}
		if len(b.Columns) != 1 || b.Rows != 1 || b.Columns[0].Type != Int64 || b.Columns[0].Ints[0] < 0 {
			return fmt.Errorf("a count came as %d rows of %d fields", b.Rows, len(b.Columns))
		}
		n = b.Columns[0].Ints[0]
		return nil
	})
	if err == nil {
		seen()
	}
	return n, err
}

// IterateRequest pages through all rows that satisfy Expr ("": all) in ascending
// order of a string key. Batch is the rows of a page, at most MaxResults; 0 is 2,000.
type IterateRequest struct {
	Collection  string
	Key         string // the key field
	Expr        string
	Fields      []string // the key is added where it is missing
	Partitions  []string
	Batch       int
	After       string // starts behind this key, for resuming; "" at the beginning
	Consistency Consistency
}

// Iterator pages by key: memory is one page, and a page that failed may be asked for
// again. It is no snapshot: rows written meanwhile with keys behind the current page
// are seen, others are not. Not safe for concurrent use.
type Iterator struct {
	c    *Client
	req  IterateRequest
	last string
	done bool
}

// Iterate begins. Nothing is asked yet.
func (c *Client) Iterate(req IterateRequest) (*Iterator, error) {
	o := op{name: "iterate", coll: req.Collection}
	if req.Batch == 0 {
		req.Batch = 2000
	}
	if req.Batch < 1 || req.Batch > MaxResults {
		return nil, c.refuse(o, ErrInvalidRequest, "pages of %d rows; Milvus gives 1 to %d", req.Batch, MaxResults)
	}
	if !ValidName(req.Key) {
		return nil, c.refuse(o, ErrInvalidRequest, "%q is no name of a key field", req.Key)
	}
	fields := make([]string, 0, len(req.Fields)+1)
	fields = append(fields, req.Key)
	for _, f := range req.Fields {
		if f != req.Key {
			fields = append(fields, f)
		}
	}
	req.Fields = fields
	return &Iterator{c: c, req: req, last: req.After}, nil
}

// Last is the last key that was returned: pass it as After to resume.
func (it *Iterator) Last() string { return it.last }

// Next returns the next page, io.EOF after the last. Keys ascend strictly, over all
// pages. A page that cannot be had by Milvus's limit on messages is asked for again
// in halves.
func (it *Iterator) Next(ctx context.Context) (Batch, error) {
	if it.done {
		return Batch{}, io.EOF
	}
	o := op{name: "iterate", coll: it.req.Collection, timeout: it.c.cfg.ReadTimeout, repeat: true}
	q := QueryRequest{
		Collection: it.req.Collection, Fields: it.req.Fields, Partitions: it.req.Partitions,
		Consistency: it.req.Consistency, paging: true,
	}
	after, err := Quote(it.last)
	if err != nil {
		return Batch{}, it.c.refuse(o, ErrInvalidRequest, "%v", err)
	}
	q.Expr = it.req.Key + " > " + after
	if it.req.Expr != "" {
		q.Expr = "(" + it.req.Expr + ") and " + q.Expr
	}
	for {
		q.Limit = it.req.Batch
		b, err := it.c.query(ctx, o, q)
		if err != nil {
			if it.req.Batch > 1 && isTooLarge(err) {
				it.req.Batch /= 2
				continue
			}
			return Batch{}, err
		}
		if b.Rows == 0 {
			it.done = true
			return Batch{}, io.EOF
		}
		keys := b.Column(it.req.Key)
		if keys == nil || keys.Type != VarChar {
			return Batch{}, it.c.finish(o, &Error{Kind: ErrSchema, Detail: fmt.Sprintf("the key %q is not a string", it.req.Key)})
		}
		last := it.last
		for i, k := range keys.Strings {
			if k <= last {
				return Batch{}, it.c.finish(o, &Error{Kind: ErrInvalidAnswer, Detail: fmt.Sprintf("row %d of a page has the key %q, which is not behind %q: keys must ascend", i, k, last)})
			}
			last = k
		}
		it.last = last
		return b, nil
	}
}
