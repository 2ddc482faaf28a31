package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
)

func (s *Server) draftRoutes() {
	type drafts struct {
		Drafts []collection.Draft `json:"drafts" doc:"in the order of lists"`
	}
	op := s.operation("draft-audiences", http.MethodPost, collectionPath+"/drafts", "Up to 64 lists from as many lists of seeds, in one pass over the customers", "audiences", RoleRead)
	op.Description = "A first look at many ideas: each list is the plain centroid of its seeds, who are left out. Nothing is stored, and no list is judged or explained: build an audience for that."
	huma.Register(s.api, op, func(ctx context.Context, in *struct {
		InCollection
		Body struct {
			Lists []collection.SeedList `json:"lists" minItems:"1" maxItems:"64"`
			Size  int                   `json:"size" minimum:"1" maximum:"10000" doc:"members of each"`
		}
	}) (*body[drafts], error) {
		made, err := s.opt.Service.Drafts(ctx, in.Collection, in.Body.Lists, in.Body.Size)
		if made == nil {
			made = []collection.Draft{}
		}
		return &body[drafts]{drafts{made}}, problemOf(err)
	})
}
