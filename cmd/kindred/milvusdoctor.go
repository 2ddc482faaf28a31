package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kindred-search/kindred/index/milvus"
)

// doctorTime bounds what doctor asks of a Milvus, all calls together.
const doctorTime = 30 * time.Second

// examineMilvus looks at the Milvus that the settings name; nothing without one.
func (a *app) examineMilvus(ctx context.Context) []finding {
	if a.cfg.Milvus == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	var out []finding
	var memory int64
	for _, f := range milvus.Examine(ctx, milvus.Options{Client: a.milvusClient(), Prefix: a.cfg.MilvusPrefix}) {
		out = append(out, finding{What: f.What, Found: inline(f.Found), Wrong: f.Wrong, Collection: f.Collection})
		if f.Collection != nil {
			memory += f.Collection.MemoryBytes
		}
	}
	room, of := a.cfg.customerMemory(), "half of --memory"
	if size, ok := memorySize(); ok && room <= 0 {
		room, of = int64(size), "this machine's memory"
	}
	if room > 0 && memory > room {
		out = append(out, finding{What: "milvus memory", Wrong: true, Found: fmt.Sprintf("the collections take about %s in each process, more than %s, %s: give it more, or keep them under several --milvus-prefix", gigabytes(uint64(memory)), gigabytes(uint64(room)), of)})
	}
	return out
}
