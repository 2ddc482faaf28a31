package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/index"
)

// AtSuppression is the path of one suppression list; exported for the framework to see.
type AtSuppression struct {
	InCollection
	List string `path:"list" pattern:"^[a-z0-9_-]{1,64}$" example:"complaints"`
}

type suppressionBody struct {
	IDs    []string `json:"ids" doc:"all of the list; those that match nobody yet count once they are customers"`
	Always bool     `json:"always,omitempty" doc:"apply to all audiences, not just to those that name the list in exclude.lists"`
}

type suppressionChange struct {
	Add    []string `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty" doc:"an id in both is on the list afterwards"`
}

func (s *Server) suppressionRoutes() {
	svc := s.opt.Service
	base := collectionPath + "/suppressions"
	type lists struct {
		Suppressions []collection.SuppressionList `json:"suppressions"`
	}
	huma.Register(s.api, s.operation("list-suppressions", http.MethodGet, base, "Suppression lists, with how many customers are on each", "suppressions", RoleRead),
		func(ctx context.Context, in *InCollection) (*body[lists], error) {
			all, err := svc.Suppressions(ctx, in.Collection)
			if all == nil {
				all = []collection.SuppressionList{}
			}
			return &body[lists]{lists{all}}, problemOf(err)
		})
	at := base + "/{list}"
	put := s.operation("put-suppression", http.MethodPut, at, "Make a suppression list, in place of one that is there", "suppressions", RoleWrite)
	put.Description = "Who is on it is in no audience that the list applies to: not when one is built, not when it is read or exported later, not in live membership. " +
		"Only hashes of the ids are kept, so the list still holds after a customer was erased."
	huma.Register(s.api, put, func(ctx context.Context, in *struct {
		AtSuppression
		Body suppressionBody
	}) (*body[collection.SuppressionList], error) {
		l, err := svc.PutSuppression(ctx, in.Collection, in.List, in.Body.IDs, in.Body.Always)
		return &body[collection.SuppressionList]{l}, problemOf(err)
	})
	huma.Register(s.api, s.operation("change-suppression", http.MethodPost, at+"/ids", "Add ids to a suppression list and remove ids from it", "suppressions", RoleWrite),
		func(ctx context.Context, in *struct {
			AtSuppression
			Body suppressionChange
		}) (*body[collection.SuppressionList], error) {
			l, err := svc.ChangeSuppression(ctx, in.Collection, in.List, in.Body.Add, in.Body.Remove)
			return &body[collection.SuppressionList]{l}, problemOf(err)
		})
	huma.Register(s.api, s.operation("delete-suppression", http.MethodDelete, at, "Delete a suppression list", "suppressions", RoleWrite),
		func(ctx context.Context, in *AtSuppression) (*struct{}, error) {
			return nil, problemOf(svc.DropSuppression(ctx, in.Collection, in.List))
		})
	s.checkSeedsRoute()
}

// seedsBody is the part of a request for an audience that says who the seeds are.
type seedsBody struct {
	Seeds     audience.Seeds     `json:"seeds"`
	Negatives audience.Negatives `json:"negatives,omitzero"`
	Exclude   audience.Exclude   `json:"exclude,omitzero"`
	Filter    *index.Filter      `json:"filter,omitempty" doc:"who may be a member"`
	Features  audience.Features  `json:"features,omitzero"`
	Holdout   audience.Holdout   `json:"holdout,omitzero"`
	Seed      uint64             `json:"seed,omitempty" maximum:"9007199254740991" doc:"of the random draws"`
}

func (s *Server) checkSeedsRoute() {
	check := s.operation("check-seeds", http.MethodPost, collectionPath+"/seeds/check", "Look at seeds before an audience is built", "audiences", RoleRead)
	check.Description = "Counts of unknown, repeated and contradictory ids, how alike the seeds are against random customers, outliers, interests, and what more seeds would add. " +
		"What building would refuse is the verdict \"refuse\", with the reason among the notes."
	huma.Register(s.api, check, func(ctx context.Context, in *struct {
		InCollection
		Body seedsBody
	}) (*body[*audience.SeedCheck], error) {
		b := in.Body
		got, err := s.opt.Service.CheckSeeds(ctx, in.Collection, audience.Request{Seeds: b.Seeds, Negatives: b.Negatives, Exclude: b.Exclude, Filter: b.Filter, Features: b.Features, Holdout: b.Holdout, Seed: b.Seed})
		return &body[*audience.SeedCheck]{got}, problemOf(err)
	})
}
