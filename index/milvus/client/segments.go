package client

import (
	"context"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
)

// minIndexed is the fewest rows of a segment that servers index.
const minIndexed = 1024

// Serving says how many of a collection's sealed rows are searched as its index says, of
// how many there are. An index that is built is not yet searched: query nodes search what
// they loaded before by other means, which may miss more, and load it some seconds later.
// Segments too small for an index count as indexed, and with FLAT, which servers finish
// without building anything, every one that is loaded.
func (c *Client) Serving(ctx context.Context, coll string, flat bool) (indexed, total int64, err error) {
	o := op{name: "segments", coll: coll, timeout: c.cfg.ReadTimeout, repeat: true}
	kept, err := ask(ctx, c, o, c.api.GetPersistentSegmentInfo, &milvuspb.GetPersistentSegmentInfoRequest{CollectionName: coll}, nil)
	if err != nil {
		return 0, 0, err
	}
	o.name = "query segments"
	loaded, err := ask(ctx, c, o, c.api.GetQuerySegmentInfo, &milvuspb.GetQuerySegmentInfoRequest{CollectionName: coll}, nil)
	if err != nil {
		return 0, 0, err
	}
	has := map[int64]bool{}
	for _, s := range loaded.GetInfos() {
		if flat && s.GetState() == commonpb.SegmentState_Sealed || s.GetIndexName() != "" || s.GetNumRows() < minIndexed {
			has[s.GetSegmentID()] = true
		}
	}
	for _, s := range kept.GetInfos() {
		if s.GetState() != commonpb.SegmentState_Flushed {
			continue
		}
		total += s.GetNumRows()
		if has[s.GetSegmentID()] {
			indexed += s.GetNumRows()
		}
	}
	return indexed, total, nil
}

// MemoryUsed is how many bytes the query nodes say that they use, for all that is in them:
// other collections too, and where one process is all of Milvus, all of it.
func (c *Client) MemoryUsed(ctx context.Context) (int64, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, n := range nodes {
		if n.Kind == "querynode" {
			sum += n.MemoryUsed
		}
	}
	if sum == 0 {
		return 0, c.finish(op{name: "nodes"}, &Error{Kind: ErrInvalidAnswer, Detail: "no query node says what memory it uses"})
	}
	return sum, nil
}
