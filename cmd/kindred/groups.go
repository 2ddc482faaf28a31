package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/kindred-search/kindred/audience/segment"
	"github.com/kindred-search/kindred/collection"
)

// grouping is the part of a backend that knows segments and tags.
type grouping interface {
	DiscoverSegments(ctx context.Context, coll string, req segment.Params) (collection.Job, error)
	Segments(ctx context.Context, coll string) (*collection.SegmentSet, error)
	SegmentOf(ctx context.Context, coll, id string) (*collection.CustomerSegment, error)
	SegmentCustomers(ctx context.Context, coll string, number int, q collection.ListRequest) (*collection.Listed, error)
	SimilarSegments(ctx context.Context, coll string, q collection.SimilarSegmentsRequest) ([]collection.NearSegment, error)
	CreateTag(ctx context.Context, coll string, req collection.TagRequest) (collection.Job, error)
	Tags(ctx context.Context, coll string) ([]collection.TagInfo, error)
	Tag(ctx context.Context, coll, name string) (*collection.TagInfo, error)
	DropTag(ctx context.Context, coll, name string) error
	CustomerTags(ctx context.Context, coll, id string) ([]collection.CustomerTag, error)
	Tagged(ctx context.Context, coll, name string, q collection.TaggedRequest) (*collection.Listed, error)
}

// await follows a job to its end. One of this process is cancelled when nobody
// waits any more, or the next command would resume it; a server goes on.
func (a *app) await(ctx context.Context, b backend, id string) error {
	err := a.follow(ctx, b, id)
	if err == nil || ctx.Err() == nil {
		return err
	}
	if _, here := b.(direct); !here {
		a.say("the server goes on: kindred jobs cancel %s stops it", id)
		return err
	}
	last := context.WithoutCancel(ctx)
	job, failed := b.Cancel(last, id)
	for failed == nil && !job.State.Final() {
		time.Sleep(pollEvery)
		job, failed = b.Job(last, id)
	}
	return errors.Join(err, failed)
}

// DiscoverSegments asks POST /v1/collections/{c}/segments.
func (r *remote) DiscoverSegments(ctx context.Context, coll string, req segment.Params) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/segments", req, &out)
	return out, err
}

// Segments asks GET /v1/collections/{c}/segments.
func (r *remote) Segments(ctx context.Context, coll string) (*collection.SegmentSet, error) {
	var out collection.SegmentSet
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/segments", nil, &out)
	return &out, err
}

// SegmentOf asks GET /v1/collections/{c}/customers/{id}/segment.
func (r *remote) SegmentOf(ctx context.Context, coll, id string) (*collection.CustomerSegment, error) {
	var out collection.CustomerSegment
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/customers/"+url.PathEscape(id)+"/segment", nil, &out)
	return &out, err
}

// SegmentCustomers asks POST /v1/collections/{c}/segments/{n}/customers.
func (r *remote) SegmentCustomers(ctx context.Context, coll string, number int, q collection.ListRequest) (*collection.Listed, error) {
	var out collection.Listed
	err := r.call(ctx, http.MethodPost, fmt.Sprintf("%s/segments/%d/customers", collectionPath(coll), number), q, &out)
	return &out, err
}

// SimilarSegments asks POST /v1/collections/{c}/segments/similar.
func (r *remote) SimilarSegments(ctx context.Context, coll string, q collection.SimilarSegmentsRequest) ([]collection.NearSegment, error) {
	var out struct {
		Segments []collection.NearSegment `json:"segments"`
	}
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/segments/similar", q, &out)
	return out.Segments, err
}

// CreateTag asks POST /v1/collections/{c}/tags.
func (r *remote) CreateTag(ctx context.Context, coll string, req collection.TagRequest) (collection.Job, error) {
	var out collection.Job
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/tags", req, &out)
	return out, err
}

// Tags asks GET /v1/collections/{c}/tags.
func (r *remote) Tags(ctx context.Context, coll string) ([]collection.TagInfo, error) {
	var out struct {
		Tags []collection.TagInfo `json:"tags"`
	}
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/tags", nil, &out)
	return out.Tags, err
}

func tagPath(coll, name string) string { return collectionPath(coll) + "/tags/" + url.PathEscape(name) }

// Tag asks GET /v1/collections/{c}/tags/{t}.
func (r *remote) Tag(ctx context.Context, coll, name string) (*collection.TagInfo, error) {
	var out collection.TagInfo
	err := r.call(ctx, http.MethodGet, tagPath(coll, name), nil, &out)
	return &out, err
}

// DropTag asks DELETE /v1/collections/{c}/tags/{t}.
func (r *remote) DropTag(ctx context.Context, coll, name string) error {
	return r.call(ctx, http.MethodDelete, tagPath(coll, name), nil, nil)
}

// CustomerTags asks GET /v1/collections/{c}/customers/{id}/tags.
func (r *remote) CustomerTags(ctx context.Context, coll, id string) ([]collection.CustomerTag, error) {
	var out struct {
		Tags []collection.CustomerTag `json:"tags"`
	}
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/customers/"+url.PathEscape(id)+"/tags", nil, &out)
	return out.Tags, err
}

// Tagged asks POST /v1/collections/{c}/tags/{t}/customers.
func (r *remote) Tagged(ctx context.Context, coll, name string, q collection.TaggedRequest) (*collection.Listed, error) {
	var out collection.Listed
	err := r.call(ctx, http.MethodPost, tagPath(coll, name)+"/customers", q, &out)
	return &out, err
}
