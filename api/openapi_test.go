package api

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What the router knows and what the document says are the same routes.
func TestEveryRouteIsDocumented(t *testing.T) {
	f := start(t, setup{})
	served := []string{}
	param := regexp.MustCompile(`:([a-z]+)`)
	for _, r := range f.srv.engine.Routes() {
		if !strings.HasPrefix(r.Path, "/openapi") { // the document itself
			served = append(served, r.Method+" "+param.ReplaceAllString(r.Path, "{$1}"))
		}
	}
	documented := []string{}
	for path, item := range f.srv.Document().Paths {
		for method := range operations(item) {
			documented = append(documented, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(documented)
	if !slices.Equal(served, documented) {
		t.Errorf("served:\n%s\ndocumented:\n%s", strings.Join(served, "\n"), strings.Join(documented, "\n"))
	}
	if len(served) < 30 {
		t.Errorf("only %d routes", len(served))
	}
}

// Each status has a body with a schema, or is one that has none; each
// operation says who may call it and has a name of its own.
func TestEveryAnswerIsDocumented(t *testing.T) {
	f := start(t, setup{})
	doc := f.srv.Document()
	empty := []string{"204", "304"}
	ids := map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range operations(item) {
			what := method + " " + path
			if op.Summary == "" || op.OperationID == "" || ids[op.OperationID] || len(op.Tags) != 1 {
				t.Errorf("%s: summary %q, operation id %q (again: %v), tags %v", what, op.Summary, op.OperationID, ids[op.OperationID], op.Tags)
			}
			ids[op.OperationID] = true
			good := 0
			for status, res := range op.Responses {
				if status[0] == '2' {
					good++
				}
				if res.Description == "" {
					t.Errorf("%s: status %s has no description", what, status)
				}
				if slices.Contains(empty, status) {
					continue
				}
				if len(res.Content) == 0 {
					t.Errorf("%s: status %s has no body", what, status)
				}
				for kind, media := range res.Content {
					if s := media.Schema; s == nil || s.Ref == "" && s.Type == "" && len(s.OneOf) == 0 {
						t.Errorf("%s: status %s as %s has no schema", what, status, kind)
					}
				}
			}
			if good == 0 {
				t.Errorf("%s: no good answer is documented", what)
			}
			if op.RequestBody != nil {
				for kind, media := range op.RequestBody.Content {
					if media.Schema == nil {
						t.Errorf("%s: the body as %s has no schema", what, kind)
					}
				}
			}
		}
	}
	problem := doc.Components.Schemas.Map()["Problem"]
	if problem == nil {
		t.Fatal("the document has no Problem")
	}
	for _, name := range []string{"type", "title", "status", "detail", "instance", "code", "errors", "fix"} {
		if problem.Properties[name] == nil || problem.Properties[name].Description == "" {
			t.Errorf("the document does not describe a problem's %s", name)
		}
	}
}

// Every status of the table of errors is documented wherever a handler may
// meet it.
func TestErrorTableIsDocumented(t *testing.T) {
	f := start(t, setup{})
	for _, row := range table {
		if row.code == "" || row.status == 499 { // nobody is there to read it
			continue
		}
		if row.status == http.StatusPreconditionFailed { // of routes with preconditions
			continue
		}
		for path, item := range f.srv.Document().Paths {
			for method, op := range operations(item) {
				if op.Tags[0] == "system" {
					continue
				}
				if op.Responses[strconv.Itoa(row.status)] == nil {
					t.Errorf("%s %s: status %d (%s) is not documented", method, path, row.status, row.code)
				}
			}
		}
	}
}

// The document is JSON and YAML of OpenAPI 3.1, and names the way to
// authenticate.
func TestDocumentIsServed(t *testing.T) {
	f := start(t, setup{})
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]any
	}
	f.do("GET", "/openapi.json", nil).want(200).into(&doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Version != "v9.9.9" || len(doc.Paths) != len(f.srv.Document().Paths) {
		t.Errorf("%s, %+v, %d paths", doc.OpenAPI, doc.Info, len(doc.Paths))
	}
	if yaml := f.do("GET", "/openapi.yaml", nil).want(200); !strings.Contains(string(yaml.body), "openapi: 3.1") {
		t.Errorf("YAML begins %.60s", yaml.body)
	}
	if s := f.srv.Document().Components.SecuritySchemes["key"]; s == nil || s.Scheme != "bearer" {
		t.Errorf("security %+v", s)
	}
}
