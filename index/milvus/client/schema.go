package client

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
	"google.golang.org/protobuf/proto"
)

// Consistency is how fresh an answer must be.
type Consistency int

// Strong sees every acknowledged write, and waits for Milvus's clock to pass now: 0.2 s
// on an idle server. Session sees every write of this client to the collection, and is
// Bounded where there was none; it waits only right after a write. Bounded sees those
// older than a few seconds, Eventually whatever is there.
const (
	Strong Consistency = iota
	Session
	Bounded
	Eventually
)

// Field is one field of a schema. MaxLength is in bytes, of VarChar; Dim of
// FloatVector.
type Field struct {
	Name         string
	Type         FieldType
	Description  string
	Primary      bool
	PartitionKey bool
	MaxLength    int
	Dim          int
}

// Schema is what a collection is made from. Shards and Partitions of 0 leave them
// to Milvus; Partitions counts only where a field is a partition key.
type Schema struct {
	Name        string
	Description string
	Fields      []Field
	Dynamic     bool // takes fields that are not in the schema
	Shards      int
	Partitions  int
	Consistency Consistency       // where a call asks for none; ours all do
	Properties  map[string]string // known to Milvus, such as collection.ttl.seconds
}

// Info is a collection as the server describes it.
type Info struct {
	Schema
	ID      int64
	Aliases []string
}

// Primary is the key field, nil where there is none.
func (s *Schema) Primary() *Field {
	for i := range s.Fields {
		if s.Fields[i].Primary {
			return &s.Fields[i]
		}
	}
	return nil
}

// Field is the field of a name, nil where there is none.
func (s *Schema) Field(name string) *Field {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

// Mismatch compares what a collection has with what it should have and describes
// the first difference as an error that matches ErrSchema; nil where they agree.
// Order, description and properties do not count.
func (c *Client) Mismatch(want Schema, got Info) error {
	o := op{name: "compare schema", coll: got.Name}
	diff := func(format string, a ...any) error {
		return c.finish(o, &Error{Kind: ErrSchema, Detail: fmt.Sprintf(format, a...)})
	}
	for _, w := range want.Fields {
		g := got.Field(w.Name)
		switch {
		case g == nil:
			return diff("the field %q is missing", w.Name)
		case g.Type != w.Type:
			return diff("the field %q is of type %v, not %v", w.Name, g.Type, w.Type)
		case g.Primary != w.Primary:
			return diff("the field %q is the key in one and not in the other", w.Name)
		case g.PartitionKey != w.PartitionKey:
			return diff("the field %q is the partition key in one and not in the other", w.Name)
		case w.Type == FloatVector && g.Dim != w.Dim:
			return diff("the field %q has %d dimensions, not %d", w.Name, g.Dim, w.Dim)
		case w.Type == VarChar && g.MaxLength < w.MaxLength:
			return diff("the field %q takes %d bytes, not %d", w.Name, g.MaxLength, w.MaxLength)
		}
	}
	for _, g := range got.Fields {
		if want.Field(g.Name) == nil {
			return diff("it has a field %q that is not expected", g.Name)
		}
	}
	if want.Dynamic && !got.Dynamic {
		return diff("it takes no dynamic fields")
	}
	return nil
}

var nameRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// ValidName says whether Milvus takes it for a collection, a field or an alias.
func ValidName(s string) bool { return nameRule.MatchString(s) }

func (s *Schema) check() error {
	if !ValidName(s.Name) {
		return fmt.Errorf("the name %q of the collection must be letters, digits and underscores, not begin with a digit, and have at most 255", s.Name)
	}
	if len(s.Fields) > MaxFields {
		return fmt.Errorf("%d fields, and Milvus takes %d", len(s.Fields), MaxFields)
	}
	if len(s.Description) > MaxVarChar {
		return fmt.Errorf("the description has %d bytes, more than %d", len(s.Description), MaxVarChar)
	}
	keys, vectors := 0, 0
	for i, f := range s.Fields {
		if !ValidName(f.Name) {
			return fmt.Errorf("the name %q of a field must be letters, digits and underscores, not begin with a digit, and have at most 255", f.Name)
		}
		if s.Field(f.Name) != &s.Fields[i] {
			return fmt.Errorf("the field %q is there twice", f.Name)
		}
		if f.Primary {
			keys++
			if f.Type != VarChar && f.Type != Int64 {
				return fmt.Errorf("the key %q must be VarChar or Int64, not %v", f.Name, f.Type)
			}
		}
		switch f.Type {
		case VarChar:
			if f.MaxLength < 1 || f.MaxLength > MaxVarChar {
				return fmt.Errorf("the field %q has a length of %d, not 1 to %d", f.Name, f.MaxLength, MaxVarChar)
			}
		case FloatVector:
			vectors++
			if f.Dim < 1 || f.Dim > MaxDim {
				return fmt.Errorf("the field %q has %d dimensions, not 1 to %d", f.Name, f.Dim, MaxDim)
			}
		case Bool, Int64, Double, JSON:
		default:
			return fmt.Errorf("the field %q has no type", f.Name)
		}
	}
	if keys != 1 || vectors < 1 {
		return fmt.Errorf("%d keys and %d vectors; Milvus wants one key and at least one vector", keys, vectors)
	}
	return nil
}

func (s *Schema) proto() *schemapb.CollectionSchema {
	out := &schemapb.CollectionSchema{Name: s.Name, Description: s.Description, EnableDynamicField: s.Dynamic}
	for _, f := range s.Fields {
		p := &schemapb.FieldSchema{
			Name: f.Name, Description: f.Description, DataType: protoType[f.Type],
			IsPrimaryKey: f.Primary, IsPartitionKey: f.PartitionKey,
		}
		switch f.Type {
		case VarChar:
			p.TypeParams = pairs(map[string]string{"max_length": strconv.Itoa(f.MaxLength)})
		case FloatVector:
			p.TypeParams = pairs(map[string]string{"dim": strconv.Itoa(f.Dim)})
		}
		out.Fields = append(out.Fields, p)
	}
	return out
}

// pairs in order of key, so that equal requests are equal bytes.
func pairs(m map[string]string) []*commonpb.KeyValuePair {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]*commonpb.KeyValuePair, len(keys))
	for i, k := range keys {
		out[i] = &commonpb.KeyValuePair{Key: k, Value: m[k]}
	}
	return out
}

func unpairs(kv []*commonpb.KeyValuePair) map[string]string {
	out := make(map[string]string, len(kv))
	for _, p := range kv {
		out[p.GetKey()] = p.GetValue()
	}
	return out
}

// Create makes a collection. ErrExists where the name is taken. Milvus takes the
// same schema twice without an error, so that a repeated call is not one.
func (c *Client) Create(ctx context.Context, s Schema) error {
	o := op{name: "create", coll: s.Name, timeout: c.cfg.SlowTimeout, repeat: true}
	if err := s.check(); err != nil {
		return c.refuse(o, ErrInvalidRequest, "%v", err)
	}
	raw, err := proto.Marshal(s.proto())
	if err != nil {
		return c.refuse(o, ErrInvalidRequest, "%v", err)
	}
	_, err = ask(ctx, c, o, c.api.CreateCollection, &milvuspb.CreateCollectionRequest{
		CollectionName: s.Name, Schema: raw, ShardsNum: int32(s.Shards), NumPartitions: int64(s.Partitions),
		ConsistencyLevel: s.Consistency.proto(), Properties: pairs(s.Properties),
	}, nil)
	return err
}

// Describe says what a collection (or an alias's) looks like. ErrGone where there
// is none.
func (c *Client) Describe(ctx context.Context, name string) (Info, error) {
	o := op{name: "describe", coll: name, timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.DescribeCollection, &milvuspb.DescribeCollectionRequest{CollectionName: name},
		func(a *milvuspb.DescribeCollectionResponse) error {
			switch {
			case a.GetSchema() == nil:
				return fmt.Errorf("the description has no schema")
			case len(a.GetSchema().GetFields()) == 0:
				return fmt.Errorf("the schema has no fields")
			}
			return nil
		})
	if err != nil {
		return Info{}, err
	}
	s := ans.GetSchema()
	out := Info{ID: ans.GetCollectionID(), Aliases: ans.GetAliases()}
	slices.Sort(out.Aliases)
	out.Schema = Schema{
		Name: s.GetName(), Description: s.GetDescription(), Dynamic: s.GetEnableDynamicField(),
		Shards: int(ans.GetShardsNum()), Partitions: int(ans.GetNumPartitions()),
		Consistency: ofProtoConsistency(ans.GetConsistencyLevel()), Properties: unpairs(ans.GetProperties()),
	}
	for _, f := range s.GetFields() {
		params := unpairs(f.GetTypeParams())
		length, _ := strconv.Atoi(params["max_length"]) // 0 where it has none
		dim, _ := strconv.Atoi(params["dim"])
		out.Fields = append(out.Fields, Field{
			Name: f.GetName(), Type: ofProtoType(f.GetDataType()), Description: f.GetDescription(),
			Primary: f.GetIsPrimaryKey(), PartitionKey: f.GetIsPartitionKey(), MaxLength: length, Dim: dim,
		})
	}
	return out, nil
}

// Drop deletes a collection. One that is not there is no error: Milvus says so too.
func (c *Client) Drop(ctx context.Context, name string) error {
	o := op{name: "drop", coll: name, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.DropCollection, &milvuspb.DropCollectionRequest{CollectionName: name}, nil)
	c.mu.Lock()
	delete(c.last, name)
	c.mu.Unlock()
	return err
}

// List returns the names of the collections, sorted.
func (c *Client) List(ctx context.Context) ([]string, error) {
	o := op{name: "list", timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.ShowCollections, &milvuspb.ShowCollectionsRequest{}, func(a *milvuspb.ShowCollectionsResponse) error {
		if len(a.GetCollectionNames()) != len(a.GetCollectionIds()) {
			return fmt.Errorf("%d names for %d collections", len(a.GetCollectionNames()), len(a.GetCollectionIds()))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := slices.Clone(ans.GetCollectionNames())
	slices.Sort(out)
	return out, nil
}

// SetProperties changes properties of a collection; those not named stay.
func (c *Client) SetProperties(ctx context.Context, name string, p map[string]string) error {
	o := op{name: "alter", coll: name, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.AlterCollection, &milvuspb.AlterCollectionRequest{CollectionName: name, Properties: pairs(p)}, nil)
	return err
}

// Rename changes a collection's name.
func (c *Client) Rename(ctx context.Context, from, to string) error {
	o := op{name: "rename", coll: from, timeout: c.cfg.SlowTimeout}
	if !ValidName(to) {
		return c.refuse(o, ErrInvalidRequest, "the new name %q must be letters, digits and underscores", to)
	}
	_, err := ask(ctx, c, o, c.api.RenameCollection, &milvuspb.RenameCollectionRequest{OldName: from, NewName: to}, nil)
	return err
}

// Alias points an alias at a collection, whether it was there before or not. The
// switch is atomic: a search sees the one or the other.
func (c *Client) Alias(ctx context.Context, alias, coll string) error {
	o := op{name: "alias", coll: coll, timeout: c.cfg.SlowTimeout, repeat: true}
	if !ValidName(alias) {
		return c.refuse(o, ErrInvalidRequest, "the alias %q must be letters, digits and underscores", alias)
	}
	_, first := ask(ctx, c, o, c.api.AlterAlias, &milvuspb.AlterAliasRequest{CollectionName: coll, Alias: alias}, nil)
	if first == nil {
		return nil
	}
	if Unavailable(first) {
		return first
	}
	_, err := ask(ctx, c, o, c.api.CreateAlias, &milvuspb.CreateAliasRequest{CollectionName: coll, Alias: alias}, nil)
	return err
}

// DropAlias removes an alias; the collection stays.
func (c *Client) DropAlias(ctx context.Context, alias string) error {
	o := op{name: "drop alias", coll: alias, timeout: c.cfg.SlowTimeout, repeat: true}
	_, err := ask(ctx, c, o, c.api.DropAlias, &milvuspb.DropAliasRequest{Alias: alias}, nil)
	return err
}

func (k Consistency) proto() commonpb.ConsistencyLevel {
	switch k {
	case Session:
		return commonpb.ConsistencyLevel_Session
	case Bounded:
		return commonpb.ConsistencyLevel_Bounded
	case Eventually:
		return commonpb.ConsistencyLevel_Eventually
	}
	return commonpb.ConsistencyLevel_Strong
}

func ofProtoConsistency(l commonpb.ConsistencyLevel) Consistency {
	switch l {
	case commonpb.ConsistencyLevel_Session:
		return Session
	case commonpb.ConsistencyLevel_Bounded:
		return Bounded
	case commonpb.ConsistencyLevel_Eventually:
		return Eventually
	}
	return Strong
}
