package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// fullQuery refuses a parameter of the query that is there without a value where its type
// has no empty one: the framework would take it for absent.
func (s *Server) fullQuery(ctx huma.Context, next func(huma.Context)) {
	url := ctx.URL()
	query := url.Query()
	for _, p := range ctx.Operation().Parameters {
		if p.In != "query" || !query.Has(p.Name) || query.Get(p.Name) != "" || p.Schema == nil {
			continue
		}
		if p.Schema.Type == huma.TypeString && len(p.Schema.Enum) == 0 {
			continue
		}
		// What cannot be written is the client's broken connection.
		_ = huma.WriteErr(s.api, ctx, http.StatusUnprocessableEntity, "validation failed", &huma.ErrorDetail{
			Location: "query." + p.Name, Message: "empty: give a value, or leave it out", Value: "",
		})
		return
	}
	next(ctx)
}
