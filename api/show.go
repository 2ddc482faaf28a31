package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

type audienceList struct {
	Audiences []collection.AudienceInfo `json:"audiences"`
}

type idsInput struct {
	AtAudience
	Of     string `query:"of" enum:"seeds,negatives,excluded" default:"seeds" doc:"which list of the request"`
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	Cursor string `query:"cursor" maxLength:"64" doc:"next of the page before"`
}

type idsBody struct {
	IDs   []namedID `json:"ids"`
	Total int       `json:"total" doc:"of the list; who was erased is not on it"`
	Next  string    `json:"next,omitempty" doc:"cursor of the next page; absent on the last"`
}

type namedID struct {
	ID     string  `json:"id"`
	Weight float64 `json:"weight" doc:"as given, 1 where none was"`
}

// showRoutes show audiences: all in brief, one in full, and the ids that its request
// names.
func (s *Server) showRoutes(base, at string) {
	svc := s.opt.Service
	list := s.operation("list-audiences", http.MethodGet, base, "A collection's audiences", "audiences", RoleRead)
	list.Description = "In brief each has its definition, its state and, in sheet, its quality in a line. With view=full each has what get-audience gives: some 60 KB."
	huma.Register(s.api, list, func(ctx context.Context, in *struct {
		InCollection
		View string `query:"view" enum:"brief,full" default:"brief"`
	}) (*body[audienceList], error) {
		all, err := svc.Audiences(ctx, in.Collection)
		if err != nil {
			return nil, problemOf(err)
		}
		for i := range all {
			if in.View == "full" {
				all[i] = all[i].Shown()
			} else {
				all[i] = all[i].Brief()
			}
		}
		return &body[audienceList]{audienceList{all}}, nil
	})
	get := s.operation("get-audience", http.MethodGet, at, "State, quality sheet, doctor, curve and reasons", "audiences", RoleRead)
	get.Description = "The ids of the request are counted in named, and listed by list-audience-ids. view=brief leaves the result out, for who waits for a state."
	huma.Register(s.api, get, func(ctx context.Context, in *struct {
		AtAudience
		View string `query:"view" enum:"brief,full" default:"full"`
	}) (*body[*collection.AudienceInfo], error) {
		info, err := svc.Audience(ctx, in.Collection, in.Audience)
		if err != nil {
			return nil, problemOf(err)
		}
		shown := info.Shown()
		if in.View == "brief" {
			shown = info.Brief()
		}
		return &body[*collection.AudienceInfo]{&shown}, nil
	})
	ids := s.operation("list-audience-ids", http.MethodGet, at+"/ids", "The ids that an audience's request names, in pages", "audiences", RoleRead)
	ids.Description = "As they were given: with those that match no customer, and more than once where they were given so."
	huma.Register(s.api, ids, func(ctx context.Context, in *idsInput) (*body[idsBody], error) {
		from, err := placeOf(in.Cursor)
		if err != nil {
			return nil, err
		}
		part, total, err := svc.AudienceIDs(ctx, in.Collection, in.Audience, in.Of, from, in.Limit)
		if err != nil {
			return nil, problemOf(err)
		}
		out := &body[idsBody]{idsBody{IDs: make([]namedID, len(part)), Total: total}}
		for i, ref := range part {
			out.Body.IDs[i] = namedID{ref.ID, weightOf(ref)}
		}
		if next := from + len(part); len(part) > 0 && next < total {
			out.Body.Next = base64.RawURLEncoding.EncodeToString([]byte("i" + strconv.Itoa(next)))
		}
		return out, nil
	})
}

func weightOf(ref audience.SeedRef) float64 {
	if ref.Weight == 0 {
		return 1
	}
	return ref.Weight
}

// placeOf reads a cursor of list-audience-ids.
func placeOf(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	digits, ok := strings.CutPrefix(string(raw), "i")
	n, nerr := strconv.Atoi(digits)
	if err != nil || nerr != nil || !ok || n < 0 {
		return 0, badCursor()
	}
	return n, nil
}
