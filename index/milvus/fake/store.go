package fake

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type row map[string]any // bool, int64, float64, string, []byte (JSON) or []float32

type coll struct {
	id      int64
	name    string
	schema  *schemapb.CollectionSchema
	props   map[string]string
	shards  int32
	rows    map[string]row
	loaded  bool
	indexes map[string]map[string]string
}

func ok() *commonpb.Status { return &commonpb.Status{} }

func no(code int32, format string, a ...any) *commonpb.Status {
	return &commonpb.Status{Code: code, ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: fmt.Sprintf(format, a...)} //nolint:staticcheck // as servers of 2.3 do
}

func (s *Server) authorised(ctx context.Context, method string) error {
	if s.Token == "" || method == "Connect" {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != s.Token {
		return status.Error(codes.Unauthenticated, "auth check failure, please check username and password are correct")
	}
	return nil
}

// find returns the collection of a name or alias; s.mu is held.
func (s *Server) find(name string) (*coll, *commonpb.Status) {
	if to, is := s.aliases[name]; is {
		name = to
	}
	if c := s.colls[name]; c != nil {
		return c, nil
	}
	return nil, no(100, "can't find collection[database=default][collection=%s]", name)
}

func (c *coll) key() string {
	for _, f := range c.schema.Fields {
		if f.IsPrimaryKey {
			return f.Name
		}
	}
	return ""
}

// Connect and the others below are Milvus's calls.
func (s *Server) Connect(context.Context, *milvuspb.ConnectRequest) (*milvuspb.ConnectResponse, error) {
	return &milvuspb.ConnectResponse{Status: ok(), Identifier: 7, ServerInfo: &commonpb.ServerInfo{BuildTags: s.Version, DeployMode: "STANDALONE"}}, nil
}

// GetVersion is Milvus's call.
func (s *Server) GetVersion(context.Context, *milvuspb.GetVersionRequest) (*milvuspb.GetVersionResponse, error) {
	return &milvuspb.GetVersionResponse{Status: ok(), Version: s.Version}, nil
}

// CheckHealth is Milvus's call.
func (s *Server) CheckHealth(context.Context, *milvuspb.CheckHealthRequest) (*milvuspb.CheckHealthResponse, error) {
	return &milvuspb.CheckHealthResponse{Status: ok(), IsHealthy: true}, nil
}

// CreateCollection is Milvus's call.
func (s *Server) CreateCollection(_ context.Context, r *milvuspb.CreateCollectionRequest) (*commonpb.Status, error) {
	sch := &schemapb.CollectionSchema{}
	if err := proto.Unmarshal(r.Schema, sch); err != nil {
		return no(1100, "%v", err), nil
	}
	for i, f := range sch.Fields {
		f.FieldID = int64(100 + i)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.colls[r.CollectionName]; old != nil {
		if proto.Equal(old.schema, sch) {
			return ok(), nil
		}
		return no(0, "create duplicate collection with different parameters, collection: %s", r.CollectionName), nil
	}
	s.nextID++
	c := &coll{id: s.nextID, name: r.CollectionName, schema: sch, props: map[string]string{}, shards: max(r.ShardsNum, 1), rows: map[string]row{}, indexes: map[string]map[string]string{}}
	for _, p := range r.Properties {
		c.props[p.Key] = p.Value
	}
	s.colls[c.name] = c
	return ok(), nil
}

// DescribeCollection is Milvus's call.
func (s *Server) DescribeCollection(_ context.Context, r *milvuspb.DescribeCollectionRequest) (*milvuspb.DescribeCollectionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return &milvuspb.DescribeCollectionResponse{Status: bad}, nil
	}
	out := &milvuspb.DescribeCollectionResponse{Status: ok(), CollectionID: c.id, Schema: c.schema, ShardsNum: c.shards, CollectionName: c.name}
	for a, to := range s.aliases {
		if to == c.name {
			out.Aliases = append(out.Aliases, a)
		}
	}
	for k, v := range c.props {
		out.Properties = append(out.Properties, &commonpb.KeyValuePair{Key: k, Value: v})
	}
	return out, nil
}

// DropCollection is Milvus's call.
func (s *Server) DropCollection(_ context.Context, r *milvuspb.DropCollectionRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.colls, r.CollectionName)
	return ok(), nil
}

// ShowCollections is Milvus's call.
func (s *Server) ShowCollections(context.Context, *milvuspb.ShowCollectionsRequest) (*milvuspb.ShowCollectionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &milvuspb.ShowCollectionsResponse{Status: ok()}
	for n, c := range s.colls {
		out.CollectionNames = append(out.CollectionNames, n)
		out.CollectionIds = append(out.CollectionIds, c.id)
	}
	return out, nil
}

// AlterCollection is Milvus's call.
func (s *Server) AlterCollection(_ context.Context, r *milvuspb.AlterCollectionRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return bad, nil
	}
	for _, p := range r.Properties {
		c.props[p.Key] = p.Value
	}
	return ok(), nil
}

// RenameCollection is Milvus's call.
func (s *Server) RenameCollection(_ context.Context, r *milvuspb.RenameCollectionRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.OldName)
	if bad != nil {
		return bad, nil
	}
	delete(s.colls, c.name)
	c.name = r.NewName
	s.colls[c.name] = c
	return ok(), nil
}

// GetCollectionStatistics is Milvus's call.
func (s *Server) GetCollectionStatistics(_ context.Context, r *milvuspb.GetCollectionStatisticsRequest) (*milvuspb.GetCollectionStatisticsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return &milvuspb.GetCollectionStatisticsResponse{Status: bad}, nil
	}
	return &milvuspb.GetCollectionStatisticsResponse{Status: ok(), Stats: []*commonpb.KeyValuePair{{Key: "row_count", Value: strconv.Itoa(len(c.rows))}}}, nil
}

// cell is row i of a field.
func cell(f *schemapb.FieldData, i int) any {
	sc := f.GetScalars()
	switch f.Type {
	case schemapb.DataType_Bool:
		return sc.GetBoolData().Data[i]
	case schemapb.DataType_Int64:
		return sc.GetLongData().Data[i]
	case schemapb.DataType_Double:
		return sc.GetDoubleData().Data[i]
	case schemapb.DataType_VarChar:
		return sc.GetStringData().Data[i]
	case schemapb.DataType_JSON:
		return sc.GetJsonData().Data[i]
	case schemapb.DataType_FloatVector:
		d := int(f.GetVectors().Dim)
		return f.GetVectors().GetFloatVector().Data[i*d : (i+1)*d]
	}
	return nil
}

func (s *Server) write(name string, fields []*schemapb.FieldData, n int) (*milvuspb.MutationResult, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(name)
	if bad != nil {
		return &milvuspb.MutationResult{Status: bad}, nil
	}
	for _, f := range c.schema.Fields {
		if !slices.ContainsFunc(fields, func(d *schemapb.FieldData) bool { return d.FieldName == f.Name && d.Type == f.DataType }) {
			return &milvuspb.MutationResult{Status: no(1100, "field %s not passed, or of another type", f.Name)}, nil
		}
	}
	key := c.key()
	ids := make([]string, n)
	for i := range n {
		r := row{}
		for _, f := range fields {
			fn := f.FieldName
			if f.IsDynamic {
				fn = "$meta"
			}
			r[fn] = cell(f, i)
		}
		id, isString := r[key].(string)
		if !isString {
			return &milvuspb.MutationResult{Status: no(1100, "the key must be a VarChar here")}, nil
		}
		ids[i] = id
		c.rows[id] = r
	}
	s.clock++
	return &milvuspb.MutationResult{
		Status: ok(), Timestamp: s.clock,
		IDs: &schemapb.IDs{IdField: &schemapb.IDs_StrId{StrId: &schemapb.StringArray{Data: ids}}},
	}, ids
}

// Insert is Milvus's call; keys that are there are replaced.
func (s *Server) Insert(_ context.Context, r *milvuspb.InsertRequest) (*milvuspb.MutationResult, error) {
	out, ids := s.write(r.CollectionName, r.FieldsData, int(r.NumRows))
	out.InsertCnt = int64(len(ids))
	return out, nil
}

// Upsert is Milvus's call.
func (s *Server) Upsert(_ context.Context, r *milvuspb.UpsertRequest) (*milvuspb.MutationResult, error) {
	out, ids := s.write(r.CollectionName, r.FieldsData, int(r.NumRows))
	out.UpsertCnt = int64(len(ids))
	return out, nil
}

// Delete is Milvus's call.
func (s *Server) Delete(_ context.Context, r *milvuspb.DeleteRequest) (*milvuspb.MutationResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, keys, bad := s.match(r.CollectionName, r.Expr)
	if bad != nil {
		return &milvuspb.MutationResult{Status: bad}, nil
	}
	for _, k := range keys {
		delete(c.rows, k)
	}
	s.clock++
	return &milvuspb.MutationResult{Status: ok(), DeleteCnt: int64(len(keys))}, nil // no timestamp, as 2.3
}

// match returns the keys, ascending, of the rows that an expression selects.
func (s *Server) match(name, expr string) (*coll, []string, *commonpb.Status) {
	c, bad := s.find(name)
	if bad != nil {
		return nil, nil, bad
	}
	test, err := parse(expr)
	if err != nil {
		return nil, nil, no(1100, "failed to create query plan: cannot parse expression: %s, error: %v", expr, err)
	}
	var keys []string
	for k, r := range c.rows {
		if test(r) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return c, keys, nil
}

// column makes a field of an answer.
func (c *coll) column(name string, keys []string) (*schemapb.FieldData, error) {
	f := &schemapb.FieldData{FieldName: name}
	if name == "$meta" {
		f.Type, f.IsDynamic = schemapb.DataType_JSON, true
	}
	dim := int64(0)
	for _, d := range c.schema.Fields {
		if d.Name == name {
			f.Type, f.FieldId = d.DataType, d.FieldID
			for _, p := range d.TypeParams {
				if p.Key == "dim" {
					dim, _ = strconv.ParseInt(p.Value, 10, 64)
				}
			}
		}
	}
	sc := &schemapb.ScalarField{}
	f.Field = &schemapb.FieldData_Scalars{Scalars: sc}
	switch f.Type {
	case schemapb.DataType_Bool:
		sc.Data = &schemapb.ScalarField_BoolData{BoolData: &schemapb.BoolArray{Data: gather[bool](c, keys, name)}}
	case schemapb.DataType_Int64:
		sc.Data = &schemapb.ScalarField_LongData{LongData: &schemapb.LongArray{Data: gather[int64](c, keys, name)}}
	case schemapb.DataType_Double:
		sc.Data = &schemapb.ScalarField_DoubleData{DoubleData: &schemapb.DoubleArray{Data: gather[float64](c, keys, name)}}
	case schemapb.DataType_VarChar:
		sc.Data = &schemapb.ScalarField_StringData{StringData: &schemapb.StringArray{Data: gather[string](c, keys, name)}}
	case schemapb.DataType_JSON:
		sc.Data = &schemapb.ScalarField_JsonData{JsonData: &schemapb.JSONArray{Data: gather[[]byte](c, keys, name)}}
	case schemapb.DataType_FloatVector:
		f.Field = &schemapb.FieldData_Vectors{Vectors: &schemapb.VectorField{Dim: dim, Data: &schemapb.VectorField_FloatVector{
			FloatVector: &schemapb.FloatArray{Data: slices.Concat(gather[[]float32](c, keys, name)...)},
		}}}
	default:
		return nil, fmt.Errorf("field %s not exist", name)
	}
	return f, nil
}

func gather[T any](c *coll, keys []string, name string) []T {
	out := make([]T, len(keys))
	for i, k := range keys {
		out[i], _ = c.rows[k][name].(T)
	}
	return out
}

func (c *coll) fields(names, keys []string) ([]*schemapb.FieldData, *commonpb.Status) {
	var out []*schemapb.FieldData
	for _, n := range names {
		f, err := c.column(n, keys)
		if err != nil {
			return nil, no(1100, "%v", err)
		}
		out = append(out, f)
	}
	return out, nil
}

// Query is Milvus's call; rows come in order of key.
func (s *Server) Query(_ context.Context, r *milvuspb.QueryRequest) (*milvuspb.QueryResults, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, keys, bad := s.match(r.CollectionName, r.Expr)
	if bad == nil && !c.loaded {
		bad = no(101, "collection not loaded[collection=%s]", r.CollectionName)
	}
	if bad != nil {
		return &milvuspb.QueryResults{Status: bad}, nil
	}
	if len(r.OutputFields) == 1 && r.OutputFields[0] == "count(*)" {
		return &milvuspb.QueryResults{Status: ok(), FieldsData: []*schemapb.FieldData{{
			Type: schemapb.DataType_Int64, FieldName: "count(*)",
			Field: &schemapb.FieldData_Scalars{Scalars: &schemapb.ScalarField{Data: &schemapb.ScalarField_LongData{LongData: &schemapb.LongArray{Data: []int64{int64(len(keys))}}}}},
		}}}, nil
	}
	limit, offset := len(keys), 0
	for _, p := range r.QueryParams {
		n, _ := strconv.Atoi(p.Value)
		switch p.Key {
		case "limit":
			limit = n
		case "offset":
			offset = n
		}
	}
	keys = keys[min(offset, len(keys)):]
	keys = keys[:min(limit, len(keys))]
	fields, bad := c.fields(r.OutputFields, keys)
	if bad != nil {
		return &milvuspb.QueryResults{Status: bad}, nil
	}
	return &milvuspb.QueryResults{Status: ok(), FieldsData: fields, CollectionName: r.CollectionName, OutputFields: r.OutputFields}, nil
}

// Search is Milvus's call, by brute force.
func (s *Server) Search(_ context.Context, r *milvuspb.SearchRequest) (*milvuspb.SearchResults, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(st *commonpb.Status) (*milvuspb.SearchResults, error) {
		return &milvuspb.SearchResults{Status: st}, nil
	}
	c, keys, bad := s.match(r.CollectionName, r.Dsl)
	if bad == nil && !c.loaded {
		bad = no(101, "collection not loaded[collection=%s]", r.CollectionName)
	}
	if bad != nil {
		return fail(bad)
	}
	p := map[string]string{}
	for _, kv := range r.SearchParams {
		p[kv.Key] = kv.Value
	}
	top, _ := strconv.Atoi(p["topk"])
	offset, _ := strconv.Atoi(p["offset"])
	if top < 1 || top+offset > 16384 {
		return fail(no(65535, "topk [%d] is invalid, top k should be in range [1, 16384]", top))
	}
	var bound struct {
		Radius      *float64 `json:"radius"`
		RangeFilter *float64 `json:"range_filter"`
	}
	if err := json.Unmarshal([]byte(p["params"]), &bound); err != nil {
		return fail(no(1100, "%v", err))
	}
	group := &commonpb.PlaceholderGroup{}
	if err := proto.Unmarshal(r.GetPlaceholderGroup(), group); err != nil || len(group.Placeholders) != 1 {
		return fail(no(1100, "invalid placeholders"))
	}
	sign := float32(1)
	if p["metric_type"] == "L2" {
		sign = -1
	}
	res := &schemapb.SearchResultData{NumQueries: r.Nq, TopK: int64(top)}
	var all []string
	for _, raw := range group.Placeholders[0].Values {
		q := make([]float32, len(raw)/4)
		for i := range q {
			q[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		type hit struct {
			key   string
			score float32
		}
		var hits []hit
		for _, k := range keys {
			v, _ := c.rows[k][p["anns_field"]].([]float32)
			if len(v) != len(q) {
				return fail(no(1100, "vector dimension mismatch, expected vector size(byte) %d, actual %d", 4*len(v), len(raw)))
			}
			sc := score(p["metric_type"], q, v)
			if bound.Radius != nil && sign*sc <= sign*float32(*bound.Radius) || bound.RangeFilter != nil && sign*sc > sign*float32(*bound.RangeFilter) {
				continue
			}
			hits = append(hits, hit{k, sc})
		}
		slices.SortFunc(hits, func(a, b hit) int {
			return cmp.Or(cmp.Compare(sign*b.score, sign*a.score), cmp.Compare(a.key, b.key))
		})
		hits = hits[min(offset, len(hits)):]
		hits = hits[:min(top, len(hits))]
		for _, h := range hits {
			all = append(all, h.key)
			res.Scores = append(res.Scores, h.score)
		}
		res.Topks = append(res.Topks, int64(len(hits)))
	}
	res.Ids = &schemapb.IDs{IdField: &schemapb.IDs_StrId{StrId: &schemapb.StringArray{Data: all}}}
	if res.FieldsData, bad = c.fields(r.OutputFields, all); bad != nil {
		return fail(bad)
	}
	return &milvuspb.SearchResults{Status: ok(), Results: res, CollectionName: r.CollectionName}, nil
}

func score(metric string, a, b []float32) float32 {
	var dot, aa, bb, l2 float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
		d := float64(a[i] - b[i])
		l2 += d * d
	}
	switch metric {
	case "L2":
		return float32(l2)
	case "COSINE":
		if aa == 0 || bb == 0 {
			return 0
		}
		return float32(dot / math.Sqrt(aa*bb))
	}
	return float32(dot)
}
