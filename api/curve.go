package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
)

type curveBody struct {
	Curve []audience.Point `json:"curve"`
}

// curveRoute serves the reach curve.
func (s *Server) curveRoute(at string) {
	curve := s.operation("get-curve", http.MethodGet, at+"/curve", "Size against score and expected precision", "audiences", RoleRead)
	curve.Description = "Without sizes, the curve as the list was built: every size up to 20, then about 400 at equal steps of the size and of its logarithm. " +
		"With sizes, exactly those, of the customers as they are now. low and high are the 95 % interval of the precision."
	huma.Register(s.api, curve, func(ctx context.Context, in *struct {
		AtAudience
		Sizes []int `query:"sizes" maxItems:"1000" doc:"of lists, separated by commas"`
	}) (*body[curveBody], error) {
		info, err := s.finished(ctx, &in.AtAudience)
		if err != nil {
			return nil, problemOf(err)
		}
		if len(in.Sizes) == 0 {
			return &body[curveBody]{curveBody{info.Result.Curve}}, nil
		}
		points, err := s.opt.Service.Reach(ctx, in.Collection, in.Audience, in.Sizes)
		return &body[curveBody]{curveBody{points}}, problemOf(err)
	})
}
