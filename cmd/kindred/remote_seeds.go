package main

import (
	"context"
	"net/http"
	"net/url"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// CheckSeeds asks POST /v1/collections/{c}/seeds/check.
func (r *remote) CheckSeeds(ctx context.Context, coll string, req audience.Request) (*audience.SeedCheck, error) {
	var out audience.SeedCheck
	in := map[string]any{"seeds": req.Seeds, "negatives": req.Negatives, "exclude": req.Exclude, "features": req.Features, "holdout": req.Holdout, "seed": req.Seed}
	if req.Filter != nil {
		in["filter"] = req.Filter
	}
	err := r.call(ctx, http.MethodPost, collectionPath(coll)+"/seeds/check", in, &out)
	return &out, err
}

func suppressionPath(coll, name string) string {
	return collectionPath(coll) + "/suppressions/" + url.PathEscape(name)
}

// Suppressions asks GET /v1/collections/{c}/suppressions.
func (r *remote) Suppressions(ctx context.Context, coll string) ([]collection.SuppressionList, error) {
	var out struct {
		Suppressions []collection.SuppressionList `json:"suppressions"`
	}
	err := r.call(ctx, http.MethodGet, collectionPath(coll)+"/suppressions", nil, &out)
	return out.Suppressions, err
}

// PutSuppression asks PUT /v1/collections/{c}/suppressions/{list}.
func (r *remote) PutSuppression(ctx context.Context, coll, name string, ids []string, always bool) (collection.SuppressionList, error) {
	var out collection.SuppressionList
	err := r.call(ctx, http.MethodPut, suppressionPath(coll, name), map[string]any{"ids": ids, "always": always}, &out)
	return out, err
}

// ChangeSuppression asks POST /v1/collections/{c}/suppressions/{list}/ids.
func (r *remote) ChangeSuppression(ctx context.Context, coll, name string, add, remove []string) (collection.SuppressionList, error) {
	var out collection.SuppressionList
	in := map[string]any{}
	if len(add) > 0 {
		in["add"] = add
	}
	if len(remove) > 0 {
		in["remove"] = remove
	}
	err := r.call(ctx, http.MethodPost, suppressionPath(coll, name)+"/ids", in, &out)
	return out, err
}

// DropSuppression asks DELETE /v1/collections/{c}/suppressions/{list}.
func (r *remote) DropSuppression(ctx context.Context, coll, name string) error {
	return r.call(ctx, http.MethodDelete, suppressionPath(coll, name), nil, nil)
}
