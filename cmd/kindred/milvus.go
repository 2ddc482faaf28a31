package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/milvus"
	"github.com/kindred-search/kindred/index/milvus/client"
	"github.com/kindred-search/kindred/index/milvus/mirror"
	"github.com/kindred-search/kindred/index/milvus/pushdown"
	"github.com/kindred-search/kindred/index/rows"
)

// The values of --milvus-scan.
const (
	scanMirror   = "mirror"
	scanPushDown = "pushdown"
	scanAuto     = "auto"
)

// sweep is how often other processes' writes are looked for.
const sweep = 5 * time.Second

func (c *Config) validateMilvus() error {
	var faults []error
	switch c.MilvusScan {
	case scanMirror, scanPushDown, scanAuto:
	default:
		faults = append(faults, fmt.Errorf("milvus-scan %q: want mirror, pushdown or auto", c.MilvusScan))
	}
	switch milvus.Searching(c.MilvusSearch) {
	case milvus.SearchAuto, milvus.SearchMirror, milvus.SearchIndex:
	default:
		faults = append(faults, fmt.Errorf("milvus-search %q: want auto, mirror or index", c.MilvusSearch))
	}
	if _, err := milvus.ParseIndex(c.MilvusIndex); err != nil {
		faults = append(faults, fmt.Errorf("milvus-index: %w", err))
	}
	if _, err := c.milvusShards(); err != nil {
		faults = append(faults, err)
	}
	for name, v := range map[string]string{"milvus-shards": c.MilvusShards, "milvus-index": c.MilvusIndex, "milvus-user": c.MilvusUser, "milvus-ca": c.MilvusCA, "milvus-cert": c.MilvusCert, "milvus-cert-key": c.MilvusCertKey, "milvus-server-name": c.MilvusName, "milvus-database": c.MilvusDatabase} {
		if v != "" && c.Milvus == "" {
			faults = append(faults, fmt.Errorf("%s is given, and milvus is not: name the server, such as --milvus localhost:19530", name))
		}
	}
	return errors.Join(faults...)
}

// maxShards is what Milvus allows where its configuration (proxy.maxShardNum) says
// nothing else.
const maxShards = 16

func (c *Config) milvusShards() (int, error) {
	if c.MilvusShards == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(c.MilvusShards)
	if err != nil || n < 1 || n > maxShards {
		return 0, fmt.Errorf("milvus-shards %q: want a number from 1 to %d", c.MilvusShards, maxShards)
	}
	return n, nil
}

// milvusClient is how the Milvus that the settings name is spoken to.
func (a *app) milvusClient() client.Config {
	c := client.Config{
		Address: a.cfg.Milvus, Database: a.cfg.MilvusDatabase, Username: a.cfg.MilvusUser,
		Password: client.Secret(a.cfg.MilvusPassword), APIKey: client.Secret(a.cfg.MilvusAPIKey),
	}
	if a.cfg.MilvusTLS || a.cfg.MilvusCA != "" || a.cfg.MilvusCert != "" || a.cfg.MilvusCertKey != "" || a.cfg.MilvusName != "" {
		c.TLS = &client.TLS{CAFile: a.cfg.MilvusCA, CertFile: a.cfg.MilvusCert, KeyFile: a.cfg.MilvusCertKey, ServerName: a.cfg.MilvusName}
	}
	return c
}

// openMilvus opens the store in Milvus that the settings name. device may be nil; the
// store closes it.
func (a *app) openMilvus(ctx context.Context, device *device) (*milvus.Store, error) {
	c, m := a.milvusClient(), newMilvusMetrics()
	c.Metrics = m
	vectors, err := milvus.ParseIndex(a.cfg.MilvusIndex)
	if err != nil {
		return nil, err
	}
	shards, err := a.cfg.milvusShards()
	if err != nil {
		return nil, err
	}
	store, err := milvus.Open(ctx, milvus.Options{
		Client: c, Shards: shards, Prefix: a.cfg.MilvusPrefix, Index: vectors, Search: milvus.Searching(a.cfg.MilvusSearch), Logf: a.say, Sweep: sweep, Rows: rows.Options{Device: device.tables()}, OnClose: device.Close,
	})
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	m.store, a.milvus = store, m
	return store, nil
}

// outsideOf is what lists ask of a store in Milvus.
func (a *app) outsideOf(store *milvus.Store) func(coll string) *audience.Outside {
	return func(coll string) *audience.Outside {
		out := &audience.Outside{Always: a.cfg.MilvusScan == scanPushDown, Here: func() audience.Scanned {
			how := audience.Scanned{Path: mirror.Path, Exact: true}
			if state, err := store.Mirror(coll); err == nil && state.Err != nil {
				how.Note = fmt.Sprintf("what other processes wrote since %s may be missing: %v", state.Swept.UTC().Format(time.RFC3339), state.Err)
			}
			return how
		}}
		if a.cfg.MilvusScan == scanMirror {
			return out
		}
		out.Best = func(ctx context.Context, list audience.OutsideList) ([]index.Hit, audience.Scanned, error) {
			expr, note, err := filterFor(store, coll, list.Filter)
			if err != nil {
				return nil, audience.Scanned{}, err
			}
			res, err := store.PushDown(ctx, coll, pushdown.Request{
				Head: list.Head, Size: list.Size, Filter: expr, Keep: list.Keep, Eligible: int64(list.Eligible), Progress: list.Progress,
			})
			if res.Changed {
				note = "customers were written while Milvus was asked"
			}
			return res.Hits, audience.Scanned{Path: res.Path, Exact: res.Exact, Note: note}, err
		}
		return out
	}
}

// filterFor writes a filter for Milvus. One that it cannot be asked leaves everyone, of
// whom those who may be on the list are kept here.
func filterFor(store *milvus.Store, coll string, f *index.Filter) (expr, note string, err error) {
	expr, err = store.Filter(coll, f)
	if errors.Is(err, milvus.ErrNotExpressed) {
		return "", "the filter was applied here: " + err.Error(), nil
	}
	return expr, "", err
}
