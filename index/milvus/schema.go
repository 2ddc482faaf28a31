package milvus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
	"github.com/kindred-search/kindred/index/rows"
)

// The fields of every collection.
const (
	fieldID      = "id"
	fieldHash    = "hash"    // pushdown.Hash of the id
	fieldVersion = "version" // see clock
	fieldCols    = "cols"    // JSON: numbers, strings and lists of strings by column
	fieldRecord  = "record"  // base64
	fieldVector  = "vec"
)

// maxRecord is what base64 makes a VarChar's 65,535 bytes of.
const maxRecord = client.MaxVarChar / 4 * 3

// marker is how a collection says that it is ours: its description begins so.
const marker = "kindred "

// collectionName maps a name to one that Milvus takes: it knows no '-', and ours have
// no capitals.
// collectionNames writes what Milvus does not take in a name in capitals, which names have
// none of.
var collectionNames = strings.NewReplacer("-", "D", "~", "G")

func collectionName(prefix, name string) string {
	return prefix + "_c_" + collectionNames.Replace(name)
}

// vectorDim is the dimension in Milvus, which has none without vectors.
func vectorDim(dim int) int { return max(dim, 2) }

func schemaOf(prefix string, spec index.Spec, shards int) client.Schema {
	return client.Schema{
		Name: collectionName(prefix, spec.Name), Description: marker + spec.Name, Shards: shards,
		Fields: []client.Field{
			{Name: fieldID, Type: client.VarChar, Primary: true, MaxLength: index.MaxID},
			{Name: fieldHash, Type: client.Int64},
			{Name: fieldVersion, Type: client.Int64},
			{Name: fieldCols, Type: client.JSON},
			{Name: fieldRecord, Type: client.VarChar, MaxLength: client.MaxVarChar},
			{Name: fieldVector, Type: client.FloatVector, Dim: vectorDim(spec.Dim)},
		},
	}
}

// encodeValues writes a row's columns as JSON.
func encodeValues(values map[string]index.Value) ([]byte, error) {
	doc := make(map[string]any, len(values))
	for name, v := range values {
		switch {
		case v.Kind == "":
		case v.Kind.Numeric():
			doc[name] = v.Num
		case v.Kind == index.Category:
			doc[name] = v.Str
		case len(v.Set) > 0:
			doc[name] = v.Set
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// decodeValues reads the columns of a spec; others, of a later version, are left alone.
func decodeValues(cols []index.Column, raw []byte) (map[string]index.Value, error) {
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%w: columns: %w", index.ErrCorrupt, err)
	}
	out := make(map[string]index.Value, len(doc))
	for _, c := range cols {
		v, ok := doc[c.Name]
		if !ok {
			continue
		}
		val := index.Value{Kind: c.Kind}
		var err error
		switch {
		case c.Kind.Numeric():
			err = json.Unmarshal(v, &val.Num)
		case c.Kind == index.Category:
			err = json.Unmarshal(v, &val.Str)
		default:
			err = json.Unmarshal(v, &val.Set)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: column %q: %w", index.ErrCorrupt, c.Name, err)
		}
		out[c.Name] = val
	}
	return out, nil
}

// encoded is a batch as it goes to Milvus and to the mirror.
type encoded struct {
	cols   []client.Column
	mirror []mirror.Row
}

// rowsOfWorker is from how many rows on another core is worth waking.
const rowsOfWorker = 256

// encode turns checked rows into columns. Faults are *index.RowError, joined.
func encode(spec *index.Spec, batch []index.Row, version func() int64) (encoded, error) {
	n, dim := len(batch), vectorDim(spec.Dim)
	id := client.Column{Name: fieldID, Type: client.VarChar, Strings: make([]string, n)}
	hash := client.Column{Name: fieldHash, Type: client.Int64, Ints: make([]int64, n)}
	ver := client.Column{Name: fieldVersion, Type: client.Int64, Ints: make([]int64, n)}
	cols := client.Column{Name: fieldCols, Type: client.JSON, JSON: make([][]byte, n)}
	record := client.Column{Name: fieldRecord, Type: client.VarChar, Strings: make([]string, n)}
	vec := client.Column{Name: fieldVector, Type: client.FloatVector, Vectors: make([]float32, n*dim), Dim: dim}
	out := encoded{mirror: make([]mirror.Row, n)}
	for i := range ver.Ints {
		ver.Ints[i] = version()
	}
	one := func(i int) (errs []error) {
		r := &batch[i]
		refuse := func(format string, a ...any) {
			errs = append(errs, &index.RowError{Row: i, ID: r.ID, Reason: fmt.Sprintf(format, a...)})
		}
		if strings.ContainsRune(r.ID, 0) {
			refuse("the id holds a NUL, which Milvus cannot compare")
		}
		if len(r.Record) > maxRecord {
			refuse("the record has %d bytes, and Milvus takes %d; shorten its texts, or keep this collection in the flat engine", len(r.Record), maxRecord)
			return errs
		}
		doc, err := encodeValues(r.Values)
		if err != nil {
			refuse("the columns are no JSON: %v", err)
		}
		if len(doc) > client.MaxVarChar {
			refuse("the columns have %d bytes as JSON, and Milvus takes %d; shorten them, or keep this collection in the flat engine", len(doc), client.MaxVarChar)
		}
		id.Strings[i], hash.Ints[i], cols.JSON[i] = r.ID, pushdown.Hash(r.ID), doc
		record.Strings[i] = base64.StdEncoding.EncodeToString(r.Record)
		m := index.Row{ID: r.ID, Values: r.Values}
		if unit, ok := rows.Unit(r.Vector); ok {
			copy(vec.Vectors[i*dim:], unit)
			m.Vector = unit
		}
		out.mirror[i] = mirror.Row{Row: m, Version: ver.Ints[i]}
		return errs
	}
	// The server waits meanwhile: on all cores, a range of rows each.
	workers := max(min(runtime.GOMAXPROCS(0), n/rowsOfWorker), 1)
	errs := make([][]error, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				errs[w] = append(errs[w], one(i)...)
			}
		})
	}
	group.Wait()
	out.cols = []client.Column{id, hash, ver, cols, record, vec}
	return out, errors.Join(slices.Concat(errs...)...)
}

// part is rows from to to of the columns, sharing memory.
func part(cols []client.Column, from, to int) []client.Column {
	out := make([]client.Column, len(cols))
	for i := range cols {
		out[i] = cols[i].Slice(from, to)
	}
	return out
}

// decode reads row i of a page for the mirror.
func decode(spec *index.Spec, page *client.Batch, i int) (index.Row, error) {
	vec := page.Column(fieldVector)
	if vec.Type != client.FloatVector || vec.Dim != vectorDim(spec.Dim) || page.Column(fieldCols).Type != client.JSON {
		return index.Row{}, fmt.Errorf("%w: the vectors have %d dimensions, not %d, or the columns are no JSON", client.ErrSchema, vec.Dim, vectorDim(spec.Dim))
	}
	values, err := decodeValues(spec.Columns, page.Column(fieldCols).JSON[i])
	if err != nil {
		return index.Row{}, err
	}
	r := index.Row{ID: page.Column(fieldID).Strings[i], Values: values}
	if spec.Dim > 0 {
		r.Vector = append(r.Vector, vec.Vectors[i*vec.Dim:(i+1)*vec.Dim]...)
	}
	return r, nil
}
