package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
)

// whyRoute explains one customer.
func (s *Server) whyRoute(at string) {
	why := s.operation("explain-member", http.MethodGet, at+"/members/{id}/why", "Why a customer is in the audience, or not", "audiences", RoleRead)
	why.Description = "The parts of the score, which add up to it; the customer's own passages with what each gives to the text's part; the nearest seeds; " +
		"and the smallest changes of one or two columns that would take the customer out or bring it in. Sensitive, personal and immutable columns are never proposed."
	huma.Register(s.api, why, func(ctx context.Context, in *struct {
		AtAudience
		ID string `path:"id" minLength:"1" maxLength:"256" example:"c1"`
	}) (*body[*audience.Explanation], error) {
		if _, err := s.finished(ctx, &in.AtAudience); err != nil {
			return nil, problemOf(err)
		}
		out, err := s.opt.Service.Why(ctx, in.Collection, in.Audience, in.ID)
		return &body[*audience.Explanation]{out}, problemOf(err)
	})
}
