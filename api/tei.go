package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/embed"
)

// The routes of text-embeddings-inference: same bodies, same codes. They serve
// Options.DefaultModel.

type teiRequest struct {
	Inputs     json.RawMessage `json:"inputs"`
	Truncate   bool            `json:"truncate"`
	Normalize  *bool           `json:"normalize"`
	PromptName string          `json:"prompt_name"`
	Dimensions *int            `json:"dimensions"`
}

func teiProblem(status int, kind, message string) *rawAnswer {
	raw, err := json.Marshal(map[string]string{"error": message, "error_type": kind})
	if err != nil {
		raw = []byte(`{"error":"internal fault","error_type":"Backend"}`)
	}
	out := &rawAnswer{ContentType: "application/json", Status: status, Body: raw}
	if status == http.StatusTooManyRequests {
		out.RetryAfter = "1"
	}
	return out
}

func teiError(err error) *rawAnswer {
	var p *Problem
	if !errors.As(problemOf(err), &p) {
		return teiProblem(http.StatusInternalServerError, "Backend", err.Error())
	}
	switch p.Status {
	case http.StatusTooManyRequests:
		return teiProblem(p.Status, "Overloaded", p.Detail)
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return teiProblem(p.Status, "Validation", p.Detail)
	}
	return teiProblem(p.Status, "Backend", p.Detail)
}

// tei encodes a request's inputs and says whether any was cut.
func (s *Server) tei(ctx context.Context, raw []byte) (*embed.Result, embed.Info, error) {
	var req teiRequest
	if err := json.Unmarshal(raw, &req); err != nil {
		return nil, embed.Info{}, newProblem(http.StatusUnprocessableEntity, "invalid", "the body is not the JSON this route takes: "+err.Error())
	}
	texts, tokens, err := parseInput(req.Inputs, s.opt.MaxInputs)
	if err != nil {
		return nil, embed.Info{}, err
	}
	if tokens != nil {
		return nil, embed.Info{}, invalid("inputs", "want a text or a list of texts")
	}
	if req.Normalize != nil && !*req.Normalize {
		return nil, embed.Info{}, invalid("normalize", "false: the vectors of this server have unit length")
	}
	enc, err := s.encoder(ctx, s.opt.DefaultModel)
	if err != nil {
		return nil, embed.Info{}, err
	}
	opt := embed.EncodeOptions{}
	switch req.PromptName {
	case "":
	case "query":
		opt.Prompt = enc.Info().QueryPrompt
	default:
		return nil, embed.Info{}, invalid("prompt_name", "%q: this model has only query", req.PromptName)
	}
	res, err := enc.Encode(ctx, texts, opt)
	if err != nil {
		return nil, embed.Info{}, err
	}
	for i, was := range res.Truncated {
		if was && !req.Truncate {
			return nil, embed.Info{}, newProblem(http.StatusRequestEntityTooLarge, "too_long", "`inputs` must have less than "+itoa(enc.Info().MaxTokens)+" tokens: text "+itoa(i)+" is longer; set truncate to cut it")
		}
		s.metrics.tokens.WithLabelValues(s.opt.DefaultModel).Add(float64(res.Tokens[i]))
	}
	return res, enc.Info(), nil
}

func (s *Server) teiRoutes() {
	text := &huma.Schema{Type: "string"}
	requestBody := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
		Type: "object", Required: []string{"inputs"}, Properties: map[string]*huma.Schema{
			"inputs":      {OneOf: []*huma.Schema{text, {Type: "array", Items: text}}},
			"truncate":    {Type: "boolean"},
			"normalize":   {Type: "boolean"},
			"prompt_name": text,
		},
	}}}}
	op := operation("tei-embed", http.MethodPost, "/embed", "Embeddings, as text-embeddings-inference gives them", "embeddings", RoleRead)
	op.RequestBody = requestBody
	op.SkipValidateBody = true // faults are told in the shape of this convention
	s.setJSON(&op, 400, 401, 403, 404, 413, 422, 429, 500, 503)
	op.Responses["200"] = &huma.Response{Description: "a vector a text", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
		Type: "array", Items: &huma.Schema{Type: "array", Items: &huma.Schema{Type: "number"}},
	}}}}
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ RawBody []byte }) (*rawAnswer, error) {
		res, info, err := s.tei(ctx, in.RawBody)
		if err != nil {
			return teiError(err), nil
		}
		out := []byte{'['}
		for i := range res.Tokens {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendFloats(out, res.Vectors[i*info.Dim:(i+1)*info.Dim])
		}
		return &rawAnswer{ContentType: "application/json", Status: http.StatusOK, Body: append(out, ']')}, nil
	})
	type infoBody struct {
		ModelID        string `json:"model_id"`
		ModelDtype     string `json:"model_dtype"`
		MaxInputLength int    `json:"max_input_length"`
		MaxClientBatch int    `json:"max_client_batch_size"`
		Version        string `json:"version"`
	}
	huma.Register(s.api, operation("tei-info", http.MethodGet, "/info", "The default model", "embeddings", RoleRead),
		func(ctx context.Context, _ *struct{}) (*body[infoBody], error) {
			if s.opt.DefaultModel == "" {
				return nil, newProblem(http.StatusNotFound, "no_model", "this server has no model: run `kindred models pull`")
			}
			enc, err := s.encoder(ctx, s.opt.DefaultModel)
			if err != nil {
				return nil, problemOf(err)
			}
			return &body[infoBody]{infoBody{enc.Info().Name, "float32", enc.Info().MaxTokens, s.opt.MaxInputs, s.opt.Version}}, nil
		})
}
