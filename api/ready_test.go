package api

import (
	"context"
	"slices"
	"testing"
)

// TestReadiness is /readyz of a server whose customers lie elsewhere.
func TestReadiness(t *testing.T) {
	var is Readiness
	f := start(t, setup{opt: Options{Readiness: func(context.Context) Readiness { return is }}})
	for _, c := range []struct {
		is     Readiness
		path   string
		code   int
		status string
	}{
		{Readiness{}, "/readyz", 200, "ok"},
		{Readiness{Degraded: []string{"old"}}, "/readyz", 200, "degraded"},
		{Readiness{Degraded: []string{"old"}}, "/readyz?writes=true", 200, "degraded"},
		{Readiness{Degraded: []string{"away"}, ReadOnly: true}, "/readyz", 200, "degraded"},
		{Readiness{Degraded: []string{"away"}, ReadOnly: true}, "/readyz?writes=false", 200, "degraded"},
		{Readiness{Degraded: []string{"away"}, ReadOnly: true}, "/readyz?writes=true", 503, "not ready"},
		{Readiness{Missing: []string{"reading"}, Degraded: []string{"one"}}, "/readyz", 503, "not ready"},
	} {
		is = c.is
		var h health
		f.do("GET", c.path, nil).want(c.code).into(&h)
		if h.Status != c.status || !slices.Equal(h.Degraded, c.is.Degraded) || (len(h.Missing) > 0) != (c.code == 503) {
			t.Errorf("%s with %+v: %+v", c.path, c.is, h)
		}
	}
	f.do("GET", "/readyz?writes=perhaps", nil).want(422)
	f.do("GET", "/readyz?writes=", nil).want(422)
	for _, status := range []string{"200", "422", "503"} {
		op := f.srv.Document().Paths["/readyz"].Get
		if op.Responses[status] == nil || op.Description == "" {
			t.Errorf("the document does not have %s of /readyz", status)
		}
	}
}
