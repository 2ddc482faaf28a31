package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
)

// wanted replaces the framework's answer to a value that is none of several forms, which
// does not say what they are.
func wanted(reg huma.Registry, body *huma.Schema, p *Problem) {
	for i, f := range p.Errors {
		path, inBody := strings.CutPrefix(f.Location, "body")
		if f.Message != validation.MsgExpectedMatchExactlyOneSchema || !inBody {
			continue
		}
		if s := schemaAt(reg, body, path); s != nil && len(s.OneOf) > 0 {
			forms := make([]string, len(s.OneOf))
			for j, one := range s.OneOf {
				forms[j] = form(reg, one, 0)
			}
			p.Errors[i].Message = "want " + strings.Join(forms, ", or ")
		}
	}
}

func resolved(reg huma.Registry, s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return reg.SchemaFromRef(s.Ref)
	}
	return s
}

// schemaAt is what a place such as .seeds.ids[3] of a body should be, nil where nothing
// says so.
func schemaAt(reg huma.Registry, s *huma.Schema, path string) *huma.Schema {
	for s = resolved(reg, s); s != nil && path != ""; s = resolved(reg, s) {
		if path[0] == '[' {
			_, path, _ = strings.Cut(path, "]")
			s = s.Items
			continue
		}
		path = path[1:]
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		s, path = s.Properties[path[:end]], path[end:]
	}
	return s
}

// form is a schema in words, for people; deep is how many objects it lies in.
func form(reg huma.Registry, s *huma.Schema, deep int) string {
	s = resolved(reg, s)
	var words string
	switch {
	case s == nil:
		return "a value"
	case len(s.Enum) > 0:
		list := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			list[i] = fmt.Sprint(v)
		}
		return strings.Join(list, " or ")
	case s.Type == "object" && len(s.Properties) > 0 && deep == 0:
		var fields []string
		for name, of := range s.Properties {
			field := name + " (" + form(reg, of, deep+1)
			if slices.Contains(s.Required, name) {
				field += ", required"
			}
			fields = append(fields, field+")")
		}
		slices.Sort(fields)
		return "an object of " + strings.Join(fields, ", ")
	case s.Type == "array" && s.Items != nil:
		return "an array of each " + form(reg, s.Items, deep)
	case len(s.OneOf) > 0:
		forms := make([]string, len(s.OneOf))
		for i, one := range s.OneOf {
			forms[i] = form(reg, one, deep)
		}
		return strings.Join(forms, " or ")
	case s.Type == "string":
		words = "text"
	case s.Type == "":
		words = "a value"
	case s.Type == "integer":
		words = "a whole number"
	default:
		words = "a " + s.Type
		if s.Type == "object" || s.Type == "array" {
			words = "an " + s.Type
		}
	}
	for _, bound := range []struct {
		word string
		at   *float64
	}{{"above", s.ExclusiveMinimum}, {"from", s.Minimum}, {"below", s.ExclusiveMaximum}, {"up to", s.Maximum}} {
		if bound.at != nil {
			words += fmt.Sprintf(" %s %v", bound.word, *bound.at)
		}
	}
	return words
}
