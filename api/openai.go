package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

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

func writeOpenAI(c *gin.Context, status int, kind, code, message string) {
	var e openaiError
	e.Error.Message, e.Error.Type, e.Error.Code = message, kind, code
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		c.Header("Retry-After", "1")
	}
	c.JSON(status, e)
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
	p := newProblem(http.StatusUnprocessableEntity, "invalid", at+": "+fmt.Sprintf(format, args...))
	p.Errors = []collection.Fault{{Location: at, Message: fmt.Sprintf(format, args...)}}
	return p
}

// tokenEncoder encodes texts that are tokens already. *embed.Queue and
// *embed.Model are ones.
type tokenEncoder interface {
	EncodeTokens(ctx context.Context, ids [][]int32, opt embed.EncodeOptions) (*embed.Result, error)
}

func (s *Server) encoder(ctx context.Context, model string) (collection.Encoder, error) {
	if !slices.Contains(s.opt.Models, model) {
		p := newProblem(http.StatusNotFound, "model_not_found", fmt.Sprintf("model %q is not served here: have %q", model, s.opt.Models))
		p.Errors = []collection.Fault{{Location: "model", Message: "unknown"}}
		return nil, p
	}
	enc, err := s.opt.Service.Encoder(ctx, model)
	if err != nil && errors.Is(err, models.ErrUnavailable) {
		return nil, newProblem(http.StatusServiceUnavailable, "model_unavailable", err.Error())
	}
	return enc, err
}

func (s *Server) embeddings(ctx context.Context, raw []byte) (*rawAnswer, error) {
	var req embeddingsRequest
	if err := json.Unmarshal(raw, &req); err != nil {
		return nil, newProblem(http.StatusBadRequest, "bad_json", "the body is not the JSON this route takes: "+err.Error())
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
			return nil, invalid(fmt.Sprintf("input[%d]", i), "longer than the %d tokens that %s takes: cut it into passages", enc.Info().MaxTokens, req.Model)
		}
	}
	s.metrics.tokens.WithLabelValues(req.Model).Add(float64(n))
	return &rawAnswer{ContentType: "application/json", Status: http.StatusOK, Body: writeEmbeddings(res, enc.Info(), dim, req.EncodingFormat == "base64", n)}, nil
}

// parseInput takes a string, strings, one list of token ids, or several.
func parseInput(raw json.RawMessage, most int) (texts []string, tokens [][]int32, err error) {
	raw = bytes.TrimSpace(raw)
	var one string
	if json.Unmarshal(raw, &one) == nil && len(raw) > 0 && raw[0] == '"' {
		texts = []string{one}
	} else {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil || list == nil {
			return nil, nil, invalid("input", "want a string, a list of strings, a list of token ids or a list of such lists")
		}
		if len(list) == 0 {
			return nil, nil, invalid("input", "empty: give at least one text")
		}
		var ids []int32
		var lists [][]int32
		switch {
		case json.Unmarshal(raw, &texts) == nil && list[0][0] == '"':
		case json.Unmarshal(raw, &ids) == nil:
			texts, tokens = nil, [][]int32{ids}
		case json.Unmarshal(raw, &lists) == nil:
			texts, tokens = nil, lists
		default:
			return nil, nil, invalid("input", "mixed: want only strings, only token ids or only lists of token ids")
		}
		// null decodes as an empty string or zero: it is neither.
		for i, e := range list {
			if bytes.Equal(e, []byte("null")) {
				return nil, nil, invalid(fmt.Sprintf("input[%d]", i), "null")
			}
		}
	}
	if n := max(len(texts), len(tokens)); n > most {
		return nil, nil, invalid("input", "%d texts: at most %d a request", n, most)
	}
	for i, t := range texts {
		if t == "" {
			return nil, nil, invalid(fmt.Sprintf("input[%d]", i), "empty")
		}
	}
	return texts, tokens, nil
}

// writeEmbeddings writes the answer without reflection: encoding/json takes
// longer for the numbers than the encoder for a short text.
func writeEmbeddings(res *embed.Result, info embed.Info, dim int, b64 bool, tokens int) []byte {
	n := len(res.Tokens)
	size := dim * 12
	if b64 {
		size = dim*16/3 + 8
	}
	out := make([]byte, 0, n*(size+64)+256)
	buf := make([]byte, 0, 4*dim)
	out = append(out, `{"object":"list","data":[`...)
	for i := range n {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"object":"embedding","index":`...)
		out = strconv.AppendInt(out, int64(i), 10)
		out = append(out, `,"embedding":`...)
		v := cut(res.Vectors[i*info.Dim:(i+1)*info.Dim], dim)
		if b64 {
			buf = buf[:0]
			for _, x := range v {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
			}
			out = append(out, '"')
			out = base64.StdEncoding.AppendEncode(out, buf)
			out = append(out, '"')
		} else {
			out = appendFloats(out, v)
		}
		out = append(out, '}')
	}
	out = append(out, `],"model":`...)
	out = strconv.AppendQuote(out, info.Name)
	out = append(out, `,"usage":{"prompt_tokens":`...)
	out = strconv.AppendInt(out, int64(tokens), 10)
	out = append(out, `,"total_tokens":`...)
	out = strconv.AppendInt(out, int64(tokens), 10)
	return append(out, "}}"...)
}

func appendFloats(out []byte, v []float32) []byte {
	out = append(out, '[')
	for j, x := range v {
		if j > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendFloat(out, float64(x), 'g', -1, 32)
	}
	return append(out, ']')
}

// cut keeps the first dim numbers and makes them unit length again.
func cut(v []float32, dim int) []float32 {
	if dim == len(v) {
		return v
	}
	sum := 0.0
	for _, x := range v[:dim] {
		sum += float64(x) * float64(x)
	}
	out := slices.Clone(v[:dim])
	if sum > 0 {
		for i := range out {
			out[i] = float32(float64(out[i]) / math.Sqrt(sum))
		}
	}
	return out
}

func (s *Server) openaiRoutes() {
	text := &huma.Schema{Type: "string"}
	ids := &huma.Schema{Type: "array", Items: &huma.Schema{Type: "integer"}}
	op := operation("create-embeddings", http.MethodPost, "/v1/embeddings", "Embeddings, as OpenAI's clients ask for them", "embeddings", RoleRead)
	one := 1
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
		Type: "object", Required: []string{"model", "input"}, Properties: map[string]*huma.Schema{
			"model":           {Type: "string"},
			"input":           {OneOf: []*huma.Schema{text, {Type: "array", Items: text, MinItems: &one}, ids, {Type: "array", Items: ids}}},
			"encoding_format": {Type: "string", Enum: []any{"float", "base64"}},
			"dimensions":      {Type: "integer"},
			"user":            text,
		},
	}}}}
	op.SkipValidateBody = true // faults are told in the shape of this convention
	s.setJSON(&op, 200, 400, 401, 403, 404, 413, 429, 500, 503)
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ RawBody []byte }) (*rawAnswer, error) {
		out, err := s.embeddings(ctx, in.RawBody)
		if err != nil {
			return openaiProblem(err), nil
		}
		return out, nil
	})
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
	huma.Register(s.api, operation("list-models", http.MethodGet, "/v1/models", "The models served", "embeddings", RoleRead),
		func(context.Context, *struct{}) (*body[modelList], error) {
			out := &body[modelList]{modelList{Object: "list", Data: []servedModel{}}}
			for _, name := range s.opt.Models {
				out.Body.Data = append(out.Body.Data, servedModel{ID: name, Object: "model", OwnedBy: "kindred"})
			}
			return out, nil
		})
	get := operation("get-model", http.MethodGet, "/v1/models/{model}", "One of the models served", "embeddings", RoleRead)
	huma.Register(s.api, get, func(_ context.Context, in *struct {
		Model string `path:"model" maxLength:"128"`
	}) (*body[servedModel], error) {
		if !slices.Contains(s.opt.Models, in.Model) {
			return nil, newProblem(http.StatusNotFound, "model_not_found", fmt.Sprintf("model %q is not served here: have %q", in.Model, s.opt.Models))
		}
		return &body[servedModel]{servedModel{ID: in.Model, Object: "model", OwnedBy: "kindred"}}, nil
	})
}

// setJSON documents the answers of a route whose bodies are written by hand.
func (s *Server) setJSON(op *huma.Operation, statuses ...int) {
	op.Errors = nil
	op.Responses = map[string]*huma.Response{}
	for _, st := range statuses {
		types := map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}}
		if st >= 400 {
			types["application/problem+json"] = types["application/json"]
		}
		op.Responses[strconv.Itoa(st)] = &huma.Response{Description: http.StatusText(st), Content: types}
	}
}
