package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/models"
)

// openaiError is the shape that OpenAI's clients expect.
type openaiError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

// rawAnswer is a body written by hand, with its type and status.
type rawAnswer struct {
	ContentType string `header:"Content-Type"`
	RetryAfter  string `header:"Retry-After"`
	Status      int
	Body        []byte
}

func openaiProblem(err error) *rawAnswer {
	var p *Problem
	if !errors.As(problemOf(err), &p) {
		p = newProblem(http.StatusInternalServerError, "internal", err.Error())
	}
	var e openaiError
	e.Error.Message, e.Error.Code = p.Detail, p.Code
	e.Error.Type = "invalid_request_error"
	status := p.Status
	switch {
	case status == http.StatusUnprocessableEntity:
		status = http.StatusBadRequest
	case status == http.StatusTooManyRequests:
		e.Error.Type = "rate_limit_error"
	case status >= 500:
		e.Error.Type = "server_error"
	}
	for _, f := range p.Errors {
		if f.Location != "" {
			e.Error.Param = &f.Location
			break
		}
	}
	raw, merr := json.Marshal(e)
	if merr != nil {
		raw = []byte(`{"error":{"message":"internal fault","type":"server_error","param":null,"code":"internal"}}`)
	}
	out := &rawAnswer{ContentType: "application/json", Status: status, Body: raw}
	if h := p.GetHeaders(); h != nil {
		out.RetryAfter = h.Get("Retry-After")
	}
	return out
}

type embeddingsRequest struct {
	Model          string          `json:"model"`
	Input          json.RawMessage `json:"input"`
	EncodingFormat string          `json:"encoding_format"`
	Dimensions     *int            `json:"dimensions"`
	User           string          `json:"user"`
}

// invalid is a fault of an embedding request.
func invalid(at, format string, args ...any) error {
	return refused("invalid", at, format, args...)
}

// at names one of a request's texts. Clients know no more than "input" of one.
func at[T any](list []T, i int) string {
	if len(list) == 1 {
		return "input"
	}
	return fmt.Sprintf("input[%d]", i)
}

// refused is invalid with a code of its own.
func refused(code, at, format string, args ...any) error {
	p := newProblem(http.StatusUnprocessableEntity, code, at+": "+fmt.Sprintf(format, args...))
	p.Errors = []Fault{{Location: at, Message: fmt.Sprintf(format, args...)}}
	return p
}

// tokenEncoder encodes texts that are tokens already. *embed.Queue and
// *embed.Model are ones.
type tokenEncoder interface {
	EncodeTokens(ctx context.Context, ids [][]int32, opt embed.EncodeOptions) (*embed.Result, error)
}

func (s *Server) noModel(name string) *Problem {
	p := newProblem(http.StatusNotFound, "model_not_found", fmt.Sprintf("model %q is not served here: have %q", name, s.opt.Models))
	p.Errors = []Fault{{Location: "model", Message: "unknown"}}
	return p
}

func (s *Server) encoder(ctx context.Context, model string) (collection.Encoder, error) {
	if !slices.Contains(s.opt.Models, model) {
		return nil, s.noModel(model)
	}
	enc, err := s.opt.Service.Encoder(ctx, model)
	if err != nil && errors.Is(err, models.ErrUnavailable) {
		return nil, newProblem(http.StatusServiceUnavailable, "model_unavailable", err.Error())
	}
	return enc, err
}

func (s *Server) embeddings(ctx context.Context, raw []byte) (*rawAnswer, error) {
	var req embeddingsRequest
	if err := unmarshal(raw, &req); err != nil {
		return nil, newProblem(http.StatusBadRequest, "bad_request", "the body is not the JSON this route takes: "+err.Error())
	}
	if req.EncodingFormat != "" && req.EncodingFormat != "float" && req.EncodingFormat != "base64" {
		return nil, invalid("encoding_format", "%q: want float or base64", req.EncodingFormat)
	}
	if req.Model == "" {
		return nil, invalid("model", "missing")
	}
	enc, err := s.encoder(ctx, req.Model)
	if err != nil {
		return nil, err
	}
	dim := enc.Info().Dim
	if req.Dimensions != nil {
		if *req.Dimensions < 1 || *req.Dimensions > dim {
			return nil, invalid("dimensions", "%d: want 1 to %d for %s", *req.Dimensions, dim, req.Model)
		}
		dim = *req.Dimensions
	}
	texts, tokens, err := parseInput(req.Input, s.opt.MaxInputs)
	if err != nil {
		return nil, err
	}
	var res *embed.Result
	if tokens != nil {
		te, ok := enc.(tokenEncoder)
		if !ok {
			return nil, invalid("input", "this model takes no tokens: send text")
		}
		res, err = te.EncodeTokens(ctx, tokens, embed.EncodeOptions{})
	} else {
		res, err = enc.Encode(ctx, texts, embed.EncodeOptions{})
	}
	if err != nil {
		return nil, err
	}
	n := 0
	for i, cut := range res.Truncated {
		n += res.Tokens[i]
		if cut {
			return nil, invalid(at(res.Truncated, i), "longer than the %d tokens that %s takes: cut it into passages", enc.Info().MaxTokens, req.Model)
		}
	}
	s.metrics.tokens.WithLabelValues(req.Model).Add(float64(n))
	return &rawAnswer{ContentType: "application/json", Status: http.StatusOK, Body: writeEmbeddings(res, enc.Info(), dim, req.EncodingFormat == "base64", n)}, nil
}

func (s *Server) openaiRoutes() {
	reg := s.api.OpenAPI().Components.Schemas
	text := &huma.Schema{Type: "string"}
	number := &huma.Schema{Type: "number"}
	ids := &huma.Schema{Type: "array", Items: &huma.Schema{Type: "integer"}}
	op := s.operation("create-embeddings", http.MethodPost, "/v1/embeddings", "Embeddings, as OpenAI's clients ask for them", "embeddings", RoleRead)
	vector := &huma.Schema{OneOf: []*huma.Schema{{Type: "array", Items: number}, {Type: "string", ContentEncoding: "base64"}}}
	count := &huma.Schema{Type: "integer"}
	documented(&op, &huma.Schema{Type: "object", Required: []string{"object", "data", "model", "usage"}, Properties: map[string]*huma.Schema{
		"object": text, "model": text,
		"data": {Type: "array", Items: &huma.Schema{Type: "object", Required: []string{"object", "index", "embedding"}, Properties: map[string]*huma.Schema{
			"object": text, "index": count, "embedding": vector,
		}}},
		"usage": {Type: "object", Required: []string{"prompt_tokens", "total_tokens"}, Properties: map[string]*huma.Schema{"prompt_tokens": count, "total_tokens": count}},
	}}, reg.Schema(reflect.TypeFor[openaiError](), true, "OpenAIError"))
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ Stream }) (*rawAnswer, error) {
		raw, err := readBody(in.body)
		if err != nil {
			return openaiProblem(err), nil
		}
		out, err := s.embeddings(ctx, raw)
		if err != nil {
			return openaiProblem(err), nil
		}
		return out, nil
	})
	s.takes(op.Path, map[string]*huma.Schema{"application/json": {
		Type: "object", Required: []string{"model", "input"}, Properties: map[string]*huma.Schema{
			"model": {Type: "string", Examples: []any{"all-MiniLM-L6-v2"}},
			"input": {
				Description: "a text, texts, one text's token ids or several texts'", Examples: []any{"good coffee"},
				OneOf: []*huma.Schema{text, {Type: "array", Items: text}, ids, {Type: "array", Items: ids}},
			},
			"encoding_format": {Type: "string", Enum: []any{"float", "base64"}, Default: "float"},
			"dimensions":      {Type: "integer", Description: "1 to the model's: the vectors' beginnings, at unit length again"},
			"user":            {Type: "string", Description: "not used"},
		},
	}})

	type servedModel struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	type modelList struct {
		Object string        `json:"object"`
		Data   []servedModel `json:"data"`
	}
	list := s.operation("list-models", http.MethodGet, "/v1/models", "The models served", "embeddings", RoleRead)
	documented(&list, reg.Schema(reflect.TypeFor[modelList](), true, "ModelList"), reg.Schema(reflect.TypeFor[openaiError](), true, "OpenAIError"))
	huma.Register(s.api, list, func(context.Context, *struct{}) (*rawAnswer, error) {
		out := modelList{Object: "list", Data: []servedModel{}}
		for _, name := range s.opt.Models {
			out.Data = append(out.Data, servedModel{ID: name, Object: "model", OwnedBy: "kindred"})
		}
		return jsonAnswer(out)
	})
	get := s.operation("get-model", http.MethodGet, "/v1/models/{model}", "One of the models served", "embeddings", RoleRead)
	documented(&get, reg.Schema(reflect.TypeFor[servedModel](), true, "ServedModel"), reg.Schema(reflect.TypeFor[openaiError](), true, "OpenAIError"))
	huma.Register(s.api, get, func(_ context.Context, in *struct {
		Model string `path:"model" example:"all-MiniLM-L6-v2"`
	}) (*rawAnswer, error) {
		if !slices.Contains(s.opt.Models, in.Model) {
			return openaiProblem(s.noModel(in.Model)), nil
		}
		return jsonAnswer(servedModel{ID: in.Model, Object: "model", OwnedBy: "kindred"})
	})
}

func jsonAnswer(v any) (*rawAnswer, error) {
	raw, err := json.Marshal(v)
	return &rawAnswer{ContentType: "application/json", Status: http.StatusOK, Body: raw}, err
}

// documented describes the answers of a route of another convention: its body
// when all is well, and its fault otherwise.
func documented(op *huma.Operation, body, fault *huma.Schema) {
	errs := op.Errors
	op.Errors = nil
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: body}}}}
	for _, st := range append(errs, http.StatusFailedDependency, http.StatusInternalServerError) {
		op.Responses[strconv.Itoa(st)] = &huma.Response{Description: http.StatusText(st), Content: map[string]*huma.MediaType{"application/json": {Schema: fault}}}
	}
}
