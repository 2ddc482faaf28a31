package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
)

// AtTag is the path of one tag; exported for the framework to see.
type AtTag struct {
	InCollection
	Tag string `path:"tag" pattern:"^[a-z0-9_-]{1,64}$" example:"mood"`
}

func (s *Server) tagRoutes() {
	svc := s.opt.Service
	base := collectionPath + "/tags"
	create := s.operation("create-tag", http.MethodPost, base, "Learn a tag (a sentiment, a topic) from labelled examples, as a job", "tags", RoleWrite)
	create.Description = "Eight examples a label, customers' ids or texts, are a beginning. The tag is there when the job is done, with its quality on held-out examples and how many customers have each label; examples that do not separate fail the job, and its problem says by how much."
	create.DefaultStatus = http.StatusAccepted
	huma.Register(s.api, create, func(ctx context.Context, in *struct {
		InCollection
		Body collection.TagRequest
	}) (*jobAnswer, error) {
		job, err := svc.CreateTag(ctx, in.Collection, in.Body)
		return accepted(job), problemOf(err)
	})
	s.example(base, map[string]any{"name": "mood", "labels": []any{
		map[string]any{"label": "happy", "ids": []string{"c1", "c7"}, "texts": []string{"great service", "love it", "arrived early, well packed"}},
		map[string]any{"label": "unhappy", "texts": []string{"never again", "it broke on the first day", "nobody answers", "late and damaged"}},
	}})
	type tagList struct {
		Tags []collection.TagInfo `json:"tags"`
	}
	huma.Register(s.api, s.operation("list-tags", http.MethodGet, base, "A collection's tags", "tags", RoleRead),
		func(ctx context.Context, in *InCollection) (*body[tagList], error) {
			got, err := svc.Tags(ctx, in.Collection)
			return &body[tagList]{tagList{got}}, problemOf(err)
		})
	huma.Register(s.api, s.operation("get-tag", http.MethodGet, base+"/{tag}", "One tag: quality and counts", "tags", RoleRead),
		func(ctx context.Context, in *AtTag) (*body[*collection.TagInfo], error) {
			got, err := svc.Tag(ctx, in.Collection, in.Tag)
			return &body[*collection.TagInfo]{got}, problemOf(err)
		})
	huma.Register(s.api, s.operation("delete-tag", http.MethodDelete, base+"/{tag}", "Delete a tag", "tags", RoleWrite),
		func(ctx context.Context, in *AtTag) (*struct{}, error) {
			return nil, problemOf(svc.DropTag(ctx, in.Collection, in.Tag))
		})
	list := s.operation("list-tagged-customers", http.MethodPost, base+"/{tag}/customers", "The customers that have a label, the surest first, and their number", "tags", RoleRead)
	huma.Register(s.api, list, func(ctx context.Context, in *struct {
		AtTag
		Body collection.TaggedRequest
	}) (*body[*collection.Listed], error) {
		got, err := svc.Tagged(ctx, in.Collection, in.Tag, in.Body)
		return &body[*collection.Listed]{got}, problemOf(err)
	})
	s.example(list.Path, map[string]any{"label": "unhappy", "above": 0.8, "limit": 20})
	type customerTags struct {
		Tags []collection.CustomerTag `json:"tags"`
	}
	huma.Register(s.api, s.operation("list-customer-tags", http.MethodGet, collectionPath+"/customers/{id}/tags", "All tags of a customer as the customer is now, with confidence", "tags", RoleRead),
		func(ctx context.Context, in *AtCustomer) (*body[customerTags], error) {
			got, err := svc.CustomerTags(ctx, in.Collection, in.ID)
			return &body[customerTags]{customerTags{got}}, problemOf(err)
		})
}
