package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/embed/tokenize"
)

// The routes of text-embeddings-inference: same bodies, same codes. They serve
// Options.DefaultModel.

// teiPaths are the routes whose errors have that convention's shape.
var teiPaths = []string{"/embed", "/tokenize", "/info"}

type teiRequest struct {
	Inputs     json.RawMessage `json:"inputs"`
	Truncate   bool            `json:"truncate"`
	Normalize  *bool           `json:"normalize"`
	PromptName *string         `json:"prompt_name"`
	Dimensions *int            `json:"dimensions"`
	// AddSpecial is of /tokenize only.
	AddSpecial *bool `json:"add_special_tokens"`
}

// teiFault is the shape of an error.
type teiFault struct {
	Error     string `json:"error"`
	ErrorType string `json:"error_type" enum:"Unhealthy,Backend,Overloaded,Validation,Tokenizer,Empty"`
}

func teiError(err error) *rawAnswer {
	var p *Problem
	if !errors.As(problemOf(err), &p) {
		p = newProblem(http.StatusInternalServerError, "internal", err.Error())
	}
	fault := teiFault{Error: p.Detail}
	status := p.Status
	switch {
	case p.Code == "empty":
		fault.ErrorType = "Empty"
	case status == http.StatusTooManyRequests:
		fault.ErrorType = "Overloaded"
	case status == http.StatusServiceUnavailable:
		fault.ErrorType = "Unhealthy"
	case status >= 500:
		fault.ErrorType, status = "Backend", http.StatusFailedDependency
	default:
		fault.ErrorType = "Validation"
	}
	raw, merr := json.Marshal(fault)
	if merr != nil {
		raw = []byte(`{"error":"internal fault","error_type":"Backend"}`)
	}
	return &rawAnswer{ContentType: "application/json", Status: status, Body: raw, RetryAfter: p.GetHeaders().Get("Retry-After")}
}

// teiInput reads the request and its texts.
func (s *Server) teiInput(in *Stream) (req teiRequest, texts []string, err error) {
	raw, err := readBody(in.body)
	if err != nil {
		return req, nil, err
	}
	if err := unmarshal(raw, &req); err != nil {
		return req, nil, newProblem(http.StatusUnprocessableEntity, "invalid", "the body is not the JSON this route takes: "+err.Error())
	}
	texts, tokens, err := parseInput(req.Inputs, s.opt.MaxInputs)
	var p *Problem
	switch {
	case errors.As(err, &p) && p.Code == "too_many":
		p.Status = http.StatusRequestEntityTooLarge
	case errors.As(err, &p) && p.Code == "empty":
		p.Status = http.StatusBadRequest
	case err == nil && tokens != nil:
		err = invalid("inputs", "want a text or a list of texts")
	}
	return req, texts, err
}

// tei encodes a request's inputs.
func (s *Server) tei(ctx context.Context, in *Stream) (*embed.Result, int, error) {
	req, texts, err := s.teiInput(in)
	if err != nil {
		return nil, 0, err
	}
	if req.Normalize != nil && !*req.Normalize {
		return nil, 0, invalid("normalize", "false: the vectors of this server have unit length")
	}
	enc, err := s.encoder(ctx, s.opt.DefaultModel)
	if err != nil {
		return nil, 0, err
	}
	info, opt := enc.Info(), embed.EncodeOptions{}
	if name := req.PromptName; name != nil {
		if *name != "query" || info.QueryPrompt == "" {
			have := "none"
			if info.QueryPrompt != "" {
				have = "query"
			}
			return nil, 0, invalid("prompt_name", "%q: this model has %s", *name, have)
		}
		opt.Prompt = info.QueryPrompt
	}
	if d := req.Dimensions; d != nil && (*d < 1 || *d > info.Dim) {
		return nil, 0, invalid("dimensions", "%d: want 1 to %d", *d, info.Dim)
	}
	res, err := enc.Encode(ctx, texts, opt)
	if err != nil {
		return nil, 0, err
	}
	n := 0
	for i, was := range res.Truncated {
		if was && !req.Truncate {
			return nil, 0, newProblem(http.StatusRequestEntityTooLarge, "too_long", fmt.Sprintf("Input validation error: `inputs` must have at most %d tokens: text %d has more. Set `truncate` to cut it", info.MaxTokens, i))
		}
		n += res.Tokens[i]
	}
	s.metrics.tokens.WithLabelValues(s.opt.DefaultModel).Add(float64(n))
	dim := info.Dim
	if req.Dimensions != nil {
		dim = *req.Dimensions
	}
	return res, dim, nil
}

// teiToken is one token of a text. Start and Stop count characters; special
// tokens have none.
type teiToken struct {
	ID      int32  `json:"id"`
	Text    string `json:"text"`
	Special bool   `json:"special"`
	Start   *int   `json:"start"`
	Stop    *int   `json:"stop"`
}

// tokenizerOf returns an encoder's tokenizer, nil when it shows none.
func tokenizerOf(enc any) *tokenize.Tokenizer {
	if q, ok := enc.(interface{ Model() *embed.Model }); ok {
		enc = q.Model()
	}
	if m, ok := enc.(interface{ Tokenizer() *tokenize.Tokenizer }); ok {
		return m.Tokenizer()
	}
	return nil
}

// tokensOf cuts one text, without a limit.
func tokensOf(tok *tokenize.Tokenizer, text string, special bool) []teiToken {
	ids, spans, _ := tok.EncodeOffsets(text, 0, nil, nil)
	names := tok.Tokens(ids)
	out := make([]teiToken, 0, len(ids))
	at, chars := 0, 0 // spans ascend: characters are counted on from the last
	count := func(to int) int {
		if to < at {
			return utf8.RuneCountInString(text[:to])
		}
		chars += utf8.RuneCountInString(text[at:to])
		at = to
		return chars
	}
	for i, id := range ids {
		if i == 0 || i == len(ids)-1 { // [CLS] and [SEP]
			if special {
				out = append(out, teiToken{ID: id, Text: names[i], Special: true})
			}
			continue
		}
		span := spans[i]
		start, stop := count(span.Start), count(span.End)
		out = append(out, teiToken{ID: id, Text: text[span.Start:span.End], Start: &start, Stop: &stop})
	}
	return out
}

func (s *Server) teiRoutes() {
	reg := s.api.OpenAPI().Components.Schemas
	fault := reg.Schema(reflect.TypeFor[teiFault](), true, "TEIFault")
	text := &huma.Schema{Type: "string"}
	flag := &huma.Schema{Type: "boolean"}
	inputs := &huma.Schema{Description: "a text or texts", OneOf: []*huma.Schema{text, {Type: "array", Items: text}}, Examples: []any{"good coffee"}}
	takes := func(path string, props map[string]*huma.Schema) {
		props["inputs"] = inputs
		s.takes(path, map[string]*huma.Schema{"application/json": {Type: "object", Required: []string{"inputs"}, Properties: props}})
	}
	op := s.operation("tei-embed", http.MethodPost, "/embed", "Embeddings, as text-embeddings-inference gives them", "embeddings", RoleRead)
	documented(&op, &huma.Schema{Type: "array", Items: &huma.Schema{Type: "array", Items: &huma.Schema{Type: "number"}}}, fault)
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ Stream }) (*rawAnswer, error) {
		res, dim, err := s.tei(ctx, &in.Stream)
		if err != nil {
			return teiError(err), nil
		}
		return &rawAnswer{ContentType: "application/json", Status: http.StatusOK, Body: writeVectors(res, dim)}, nil
	})
	takes(op.Path, map[string]*huma.Schema{
		"truncate":    {Type: "boolean", Description: "cut what is too long, instead of refusing it"},
		"normalize":   {Type: "boolean", Description: "only true: all vectors have unit length"},
		"prompt_name": {Type: "string", Description: "query, where the model has such an instruction"},
		"dimensions":  {Type: "integer"},
	})

	op = s.operation("tei-tokenize", http.MethodPost, "/tokenize", "The tokens of texts, as text-embeddings-inference gives them", "embeddings", RoleRead)
	token := reg.Schema(reflect.TypeFor[teiToken](), true, "Token")
	documented(&op, &huma.Schema{Type: "array", Items: &huma.Schema{Type: "array", Items: token}}, fault)
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ Stream }) (*rawAnswer, error) {
		out, err := s.tokens(ctx, &in.Stream)
		if err != nil {
			return teiError(err), nil
		}
		return jsonAnswer(out)
	})
	takes(op.Path, map[string]*huma.Schema{"add_special_tokens": flag, "prompt_name": text})

	type embedding struct {
		Pooling string `json:"pooling"`
	}
	type modelType struct {
		Embedding embedding `json:"embedding"`
	}
	type infoBody struct {
		ModelID        string    `json:"model_id"`
		ModelDtype     string    `json:"model_dtype"`
		ModelType      modelType `json:"model_type"`
		MaxInputLength int       `json:"max_input_length"`
		MaxClientBatch int       `json:"max_client_batch_size"`
		AutoTruncate   bool      `json:"auto_truncate"`
		Version        string    `json:"version"`
	}
	op = s.operation("tei-info", http.MethodGet, "/info", "The default model, as text-embeddings-inference describes it", "embeddings", RoleRead)
	documented(&op, reg.Schema(reflect.TypeFor[infoBody](), true, "ModelInfo"), fault)
	huma.Register(s.api, op, func(ctx context.Context, _ *struct{}) (*rawAnswer, error) {
		enc, err := s.encoder(ctx, s.opt.DefaultModel)
		if err != nil {
			return teiError(err), nil
		}
		i := enc.Info()
		return jsonAnswer(infoBody{i.Name, "float32", modelType{embedding{i.Pooling}}, i.MaxTokens, s.opt.MaxInputs, false, s.opt.Version})
	})
}

// tokens answers /tokenize.
func (s *Server) tokens(ctx context.Context, in *Stream) ([][]teiToken, error) {
	req, texts, err := s.teiInput(in)
	if err != nil {
		return nil, err
	}
	enc, err := s.encoder(ctx, s.opt.DefaultModel)
	if err != nil {
		return nil, err
	}
	tok := tokenizerOf(enc)
	if tok == nil {
		return nil, newProblem(http.StatusNotFound, "no_tokenizer", "this model shows no tokens")
	}
	prompt := ""
	if req.PromptName != nil {
		if prompt = enc.Info().QueryPrompt; *req.PromptName != "query" || prompt == "" {
			return nil, invalid("prompt_name", "%q: this model has no such prompt", *req.PromptName)
		}
	}
	out := make([][]teiToken, len(texts))
	for i, t := range texts {
		out[i] = tokensOf(tok, prompt+t, req.AddSpecial == nil || *req.AddSpecial)
	}
	return out, nil
}
