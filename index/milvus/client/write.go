package client

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
)

// Written is what the server acknowledged.
type Written struct {
	Rows      int
	Timestamp uint64 // of the server's clock; 0 where it gives none, as 2.3 for deletes. Later reads of Session wait for it
}

// Insert appends rows, even where their key is there already: for collections that
// are known to be empty, where it is cheaper than Upsert. It is never repeated once
// the server may have had it; check by count and key after an error with Sent.
func (c *Client) Insert(ctx context.Context, coll string, cols []Column) (Written, error) {
	o := op{name: "insert", coll: coll, timeout: c.cfg.WriteTimeout}
	data, rows, err := c.batch(o, cols)
	if err != nil {
		return Written{}, err
	}
	ans, err := ask(ctx, c, o, c.api.Insert, &milvuspb.InsertRequest{CollectionName: coll, FieldsData: data, NumRows: uint32(rows)},
		func(a *milvuspb.MutationResult) error { return complete(a, a.GetInsertCnt(), rows) })
	return c.written(coll, ans, rows, err)
}

// Upsert writes rows by key: those that are there are replaced whole. Every field of
// the schema needs a column. Keys must differ within one call. Repeating it is the
// same as doing it once, so it is tried again on its own.
func (c *Client) Upsert(ctx context.Context, coll string, cols []Column) (Written, error) {
	o := op{name: "upsert", coll: coll, timeout: c.cfg.WriteTimeout, repeat: true}
	data, rows, err := c.batch(o, cols)
	if err != nil {
		return Written{}, err
	}
	ans, err := ask(ctx, c, o, c.api.Upsert, &milvuspb.UpsertRequest{CollectionName: coll, FieldsData: data, NumRows: uint32(rows)},
		func(a *milvuspb.MutationResult) error { return complete(a, a.GetUpsertCnt(), rows) })
	return c.written(coll, ans, rows, err)
}

// DeleteKeys removes rows by a string key. Milvus does not say how many there were.
func (c *Client) DeleteKeys(ctx context.Context, coll, field string, keys []string) (Written, error) {
	if len(keys) == 0 {
		return Written{}, nil
	}
	expr, err := InStrings(field, keys)
	if err != nil {
		return Written{}, c.refuse(op{name: "delete", coll: coll}, ErrInvalidRequest, "%v", err)
	}
	return c.Delete(ctx, coll, expr)
}

// Delete removes the rows that an expression selects. On servers before 2.3.2 only
// expressions by key are possible.
func (c *Client) Delete(ctx context.Context, coll, expr string) (Written, error) {
	o := op{name: "delete", coll: coll, timeout: c.cfg.WriteTimeout, repeat: true}
	if expr == "" {
		return Written{}, c.refuse(o, ErrInvalidRequest, "no expression: that would be everyone; drop the collection instead")
	}
	if len(expr) > c.cfg.MaxMessage {
		return Written{}, c.refuse(o, ErrTooLarge, "the expression has %d bytes, and a message takes %d", len(expr), c.cfg.MaxMessage)
	}
	ans, err := ask(ctx, c, o, c.api.Delete, &milvuspb.DeleteRequest{CollectionName: coll, Expr: expr}, nil)
	return c.written(coll, ans, int(ans.GetDeleteCnt()), err)
}

func (c *Client) written(coll string, ans *milvuspb.MutationResult, rows int, err error) (Written, error) {
	if err != nil {
		return Written{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[coll] = max(c.last[coll], ans.GetTimestamp())
	if ans.GetTimestamp() == 0 {
		c.unseen[coll]++
	}
	return Written{Rows: rows, Timestamp: ans.GetTimestamp()}, nil
}

// batch turns columns into a request's fields, or says what is wrong with them.
func (c *Client) batch(o op, cols []Column) ([]*schemapb.FieldData, int, error) {
	if len(cols) == 0 {
		return nil, 0, c.refuse(o, ErrInvalidRequest, "no columns")
	}
	rows, bytes := cols[0].Len(), 0
	out := make([]*schemapb.FieldData, len(cols))
	seen := make(map[string]bool, len(cols))
	for i := range cols {
		col := &cols[i]
		if col.Len() != rows {
			return nil, 0, c.refuse(o, ErrInvalidRequest, "the field %q has %d rows, and %q has %d", col.Name, col.Len(), cols[0].Name, rows)
		}
		if seen[col.Name] {
			return nil, 0, c.refuse(o, ErrInvalidRequest, "the field %q is there twice", col.Name)
		}
		seen[col.Name] = true
		p, err := col.proto()
		if err != nil {
			return nil, 0, c.refuse(o, ErrInvalidRequest, "%v", err)
		}
		out[i] = p
		bytes += col.Bytes()
	}
	if rows == 0 {
		return nil, 0, c.refuse(o, ErrInvalidRequest, "no rows")
	}
	if bytes > c.cfg.MaxMessage {
		return nil, 0, c.refuse(o, ErrTooLarge, "the batch has about %d bytes, and a message takes %d: write %d rows in parts", bytes, c.cfg.MaxMessage, rows)
	}
	return out, rows, nil
}

// complete says whether all rows were taken. Milvus names the rows that it refused
// in the answer, beside a status of success.
func complete(a *milvuspb.MutationResult, counted int64, rows int) error {
	if n := len(a.GetErrIndex()); n > 0 {
		return fmt.Errorf("%d of %d rows were not taken, the first of them row %d", n, rows, a.GetErrIndex()[0])
	}
	if counted != int64(rows) {
		return fmt.Errorf("%d rows were sent and %d acknowledged", rows, counted)
	}
	if n := idCount(a.GetIDs()); n != rows {
		return fmt.Errorf("%d rows were sent and %d keys came back", rows, n)
	}
	return nil
}

func idCount(ids *schemapb.IDs) int {
	if s := ids.GetStrId(); s != nil {
		return len(s.GetData())
	}
	return len(ids.GetIntId().GetData())
}

// Quote writes a string as a literal of Milvus's expressions. Everything but letters,
// digits and a few harmless signs is escaped, so that no value ends its own literal.
// An error where it is not UTF-8 or holds a NUL, which the server's parser cuts at.
func Quote(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%q is not UTF-8", s)
	}
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == 0:
			return "", fmt.Errorf("%q holds a NUL, which Milvus cannot compare", s)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 32 || r == 127:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}

// InStrings is the expression that a string field is one of values.
func InStrings(field string, values []string) (string, error) {
	if !ValidName(field) {
		return "", fmt.Errorf("%q is no name of a field", field)
	}
	var b strings.Builder
	b.WriteString(field)
	b.WriteString(" in [")
	for i, v := range values {
		q, err := Quote(v)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(q)
	}
	b.WriteByte(']')
	return b.String(), nil
}
