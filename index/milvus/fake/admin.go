package fake

import (
	"context"
	"maps"
	"strconv"
	"strings"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
)

// Flush is Milvus's call.
func (s *Server) Flush(_ context.Context, r *milvuspb.FlushRequest) (*milvuspb.FlushResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &milvuspb.FlushResponse{Status: ok(), CollSegIDs: map[string]*schemapb.LongArray{}, CollFlushTs: map[string]uint64{}}
	for _, n := range r.CollectionNames {
		if _, bad := s.find(n); bad != nil {
			return &milvuspb.FlushResponse{Status: bad}, nil
		}
		out.CollSegIDs[n] = &schemapb.LongArray{Data: []int64{1}}
		out.CollFlushTs[n] = s.clock
	}
	return out, nil
}

// GetFlushState is Milvus's call.
func (s *Server) GetFlushState(context.Context, *milvuspb.GetFlushStateRequest) (*milvuspb.GetFlushStateResponse, error) {
	return &milvuspb.GetFlushStateResponse{Status: ok(), Flushed: true}, nil
}

// CreateIndex is Milvus's call.
func (s *Server) CreateIndex(_ context.Context, r *milvuspb.CreateIndexRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return bad, nil
	}
	p := map[string]string{}
	for _, kv := range r.ExtraParams {
		p[kv.Key] = kv.Value
	}
	if bad := checkIndex(p); bad != nil {
		return bad, nil
	}
	if old := c.indexes[r.FieldName]; old != nil && !maps.Equal(old, p) {
		return no(65535, "CreateIndex failed: at most one distinct index is allowed per field"), nil
	}
	c.indexes[r.FieldName] = p
	return ok(), nil
}

// checkIndex is what 2.3.5 without GPUs says of an index.
func checkIndex(p map[string]string) *commonpb.Status {
	needs := map[string][]string{
		"": nil, "FLAT": nil, "IVF_FLAT": {"nlist"}, "IVF_SQ8": {"nlist"}, "IVF_PQ": {"nlist", "m"}, "SCANN": {"nlist"},
		"HNSW": {"M", "efConstruction"}, "DISKANN": nil, "GPU_IVF_FLAT": {"nlist"}, "GPU_IVF_PQ": {"nlist", "m"}, "STL_SORT": nil, "Trie": nil,
	}
	names, there := needs[p["index_type"]]
	if !there {
		return no(1100, "invalid index type: %s", p["index_type"])
	}
	for _, n := range names {
		if x, err := strconv.Atoi(p[n]); err != nil || x < 1 {
			return no(65535, "%s out of range: [1, 65536]", n)
		}
	}
	return nil
}

// neverBuilt are the types that 2.3.5 takes without having them: their build goes on for ever.
func neverBuilt(typ string) bool { return typ == "DISKANN" || strings.HasPrefix(typ, "GPU_") }

// DescribeIndex is Milvus's call.
func (s *Server) DescribeIndex(_ context.Context, r *milvuspb.DescribeIndexRequest) (*milvuspb.DescribeIndexResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return &milvuspb.DescribeIndexResponse{Status: bad}, nil
	}
	out := &milvuspb.DescribeIndexResponse{Status: ok()}
	for f, p := range c.indexes {
		if r.FieldName != "" && r.FieldName != f {
			continue
		}
		d := &milvuspb.IndexDescription{FieldName: f, IndexName: f, State: commonpb.IndexState_Finished, IndexedRows: int64(len(c.rows)), TotalRows: int64(len(c.rows))}
		if neverBuilt(p["index_type"]) && len(c.rows) >= 1024 {
			d.State, d.PendingIndexRows, d.IndexedRows = commonpb.IndexState_InProgress, d.TotalRows, 0
		}
		for k, v := range p {
			d.Params = append(d.Params, &commonpb.KeyValuePair{Key: k, Value: v})
		}
		out.IndexDescriptions = append(out.IndexDescriptions, d)
	}
	if len(out.IndexDescriptions) == 0 {
		out.Status = no(700, "index not found[collection=%s]", r.CollectionName)
	}
	return out, nil
}

// GetPersistentSegmentInfo is Milvus's call: all rows are in one segment.
func (s *Server) GetPersistentSegmentInfo(_ context.Context, r *milvuspb.GetPersistentSegmentInfoRequest) (*milvuspb.GetPersistentSegmentInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return &milvuspb.GetPersistentSegmentInfoResponse{Status: bad}, nil
	}
	return &milvuspb.GetPersistentSegmentInfoResponse{Status: ok(), Infos: []*milvuspb.PersistentSegmentInfo{{
		SegmentID: 1, NumRows: int64(len(c.rows)), State: commonpb.SegmentState_Flushed,
	}}}, nil
}

// GetQuerySegmentInfo is Milvus's call.
func (s *Server) GetQuerySegmentInfo(_ context.Context, r *milvuspb.GetQuerySegmentInfoRequest) (*milvuspb.GetQuerySegmentInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return &milvuspb.GetQuerySegmentInfoResponse{Status: bad}, nil
	}
	info := &milvuspb.QuerySegmentInfo{SegmentID: 1, NumRows: int64(len(c.rows)), State: commonpb.SegmentState_Sealed}
	for _, p := range c.indexes {
		if t := p["index_type"]; t != "FLAT" && !neverBuilt(t) {
			info.IndexName, info.IndexID = "vec", 1
		}
	}
	return &milvuspb.GetQuerySegmentInfoResponse{Status: ok(), Infos: []*milvuspb.QuerySegmentInfo{info}}, nil
}

// DropIndex is Milvus's call.
func (s *Server) DropIndex(_ context.Context, r *milvuspb.DropIndexRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, bad := s.find(r.CollectionName); bad == nil {
		if c.loaded {
			return no(65535, "index cannot be dropped, collection is loaded, please release it first"), nil
		}
		delete(c.indexes, r.FieldName) //nolint:staticcheck // as servers of 2.3 do
	}
	return ok(), nil
}

// LoadCollection is Milvus's call.
func (s *Server) LoadCollection(_ context.Context, r *milvuspb.LoadCollectionRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return bad, nil
	}
	c.loaded = true
	return ok(), nil
}

// ReleaseCollection is Milvus's call.
func (s *Server) ReleaseCollection(_ context.Context, r *milvuspb.ReleaseCollectionRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, bad := s.find(r.CollectionName)
	if bad != nil {
		return bad, nil
	}
	c.loaded = false
	return ok(), nil
}

// GetLoadState is Milvus's call.
func (s *Server) GetLoadState(_ context.Context, r *milvuspb.GetLoadStateRequest) (*milvuspb.GetLoadStateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := commonpb.LoadState_LoadStateNotLoad
	c, bad := s.find(r.CollectionName)
	switch {
	case bad != nil:
		st = commonpb.LoadState_LoadStateNotExist
	case c.loaded:
		st = commonpb.LoadState_LoadStateLoaded
	}
	return &milvuspb.GetLoadStateResponse{Status: ok(), State: st}, nil
}

// CreateAlias is Milvus's call.
func (s *Server) CreateAlias(_ context.Context, r *milvuspb.CreateAliasRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.aliases[r.Alias]; there {
		return no(1602, "alias already exist[alias=%s]", r.Alias), nil
	}
	s.aliases[r.Alias] = r.CollectionName
	return ok(), nil
}

// AlterAlias is Milvus's call.
func (s *Server) AlterAlias(_ context.Context, r *milvuspb.AlterAliasRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.aliases[r.Alias]; !there {
		return no(1600, "alias not found[alias=%s]", r.Alias), nil
	}
	s.aliases[r.Alias] = r.CollectionName
	return ok(), nil
}

// DropAlias is Milvus's call.
func (s *Server) DropAlias(_ context.Context, r *milvuspb.DropAliasRequest) (*commonpb.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.aliases, r.Alias)
	return ok(), nil
}
