package api

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/embed"
)

// vectorOf reads an embedding in either format.
func vectorOf(t *testing.T, raw json.RawMessage) (out []float32) {
	t.Helper()
	var packed []byte // base64 in JSON
	if raw[0] != '"' {
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := json.Unmarshal(raw, &packed); err != nil || len(packed)%4 != 0 {
		t.Fatalf("%d bytes of base64: %v", len(packed), err)
	}
	for i := 0; i < len(packed); i += 4 {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(packed[i:])))
	}
	return out
}

type openaiAnswer struct {
	Object, Model string
	Data          []struct {
		Object    string
		Index     int
		Embedding json.RawMessage
	}
	Usage struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	}
}

// ask posts to /v1/embeddings and returns the answer with its vectors.
func (f *fixture) ask(body any) (out openaiAnswer, vectors [][]float32) {
	f.t.Helper()
	f.do("POST", "/v1/embeddings", body).want(200).into(&out)
	for i, d := range out.Data {
		if d.Index != i || d.Object != "embedding" {
			f.t.Errorf("element %d is %s %d", i, d.Object, d.Index)
		}
		vectors = append(vectors, vectorOf(f.t, d.Embedding))
	}
	if out.Object != "list" || out.Usage.Prompt != out.Usage.Total {
		f.t.Errorf("answer %+v", out)
	}
	return out, vectors
}

func TestOpenAIEmbeddings(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{tinyModel, fakeModel}}})
	texts := []string{"abc", "a b c d", "好 z"}
	out, float := f.ask(map[string]any{"model": tinyModel, "input": texts})
	if out.Model != tinyModel || len(float) != 3 || len(float[0]) != 24 {
		t.Fatalf("%d vectors, model %s", len(float), out.Model)
	}
	_, packed := f.ask(map[string]any{"model": tinyModel, "input": texts, "encoding_format": "base64"})
	sum := 0
	for i, text := range texts {
		if !slices.Equal(float[i], packed[i]) {
			t.Errorf("%q: float and base64 differ", text)
		}
		one, alone := f.ask(map[string]any{"model": tinyModel, "input": text, "encoding_format": "float"})
		if len(alone) != 1 || !slices.Equal(alone[0], float[i]) {
			t.Errorf("%q alone and in a list differ", text)
		}
		sum += one.Usage.Prompt
	}
	// Usage counts real tokens, with the two special ones: a, ##b, ##c or [UNK].
	if one, _ := f.ask(map[string]any{"model": tinyModel, "input": "a b c d"}); one.Usage.Prompt != 6 {
		t.Errorf("a b c d and two special tokens count as %d", one.Usage.Prompt)
	}
	if out.Usage.Prompt != sum {
		t.Errorf("a list counts %d tokens, its texts %d", out.Usage.Prompt, sum)
	}
	_, short := f.ask(map[string]any{"model": tinyModel, "input": texts[0], "dimensions": 5})
	norm, scale := 0.0, float64(float[0][0])/float64(short[0][0])
	for i, x := range short[0] {
		norm += float64(x) * float64(x)
		if math.Abs(float64(x)*scale-float64(float[0][i])) > 1e-5 {
			t.Errorf("dimension %d is not the whole vector's, rescaled", i)
		}
	}
	if len(short[0]) != 5 || math.Abs(norm-1) > 1e-5 {
		t.Errorf("%d dimensions of length %v", len(short[0]), norm)
	}
}

// Lists of token ids give what PyTorch made of the same ids.
func TestOpenAITokens(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{tinyModel, fakeModel}}})
	file, err := os.Open("../embed/testdata/golden-tiny.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		IDs     [][]int32              `json:"ids"`
		Vectors map[string][][]float64 `json:"vectors"`
	}
	if err := json.NewDecoder(z).Decode(&golden); err != nil {
		t.Fatal(err)
	}
	out, got := f.ask(map[string]any{"model": tinyModel, "input": golden.IDs})
	tokens := 0
	for i, ids := range golden.IDs {
		tokens += len(ids)
		cos := 0.0
		for j, want := range golden.Vectors["mean"][i] {
			cos += want * float64(got[i][j])
		}
		if cos < 0.99999 {
			t.Errorf("text %d: cosine %v with PyTorch's", i, cos)
		}
	}
	if out.Usage.Prompt != tokens {
		t.Errorf("usage %d, sent %d tokens", out.Usage.Prompt, tokens)
	}
	if _, one := f.ask(map[string]any{"model": tinyModel, "input": golden.IDs[1]}); len(one) != 1 || !slices.Equal(one[0], got[1]) {
		t.Error("one list of ids is not what it is among others")
	}
	for body, param := range map[string]string{
		`{"model":"tiny","input":[2,99999,3]}`: "", `{"model":"tiny","input":[-1]}`: "", `{"model":"tiny","input":[[]]}`: "",
		`{"model":"tiny","input":[1.5]}`: "input", `{"model":"words","input":[1]}`: "input",
	} {
		f.openaiFault(body, 400, param)
	}
}

// openaiFault wants an error as OpenAI's clients know it.
func (f *fixture) openaiFault(body string, status int, param string) openaiError {
	f.t.Helper()
	got := f.do("POST", "/v1/embeddings", body)
	var e openaiError
	if got.want(status).into(&e); e.Error.Message == "" || e.Error.Type == "" || e.Error.Code == "" {
		f.t.Errorf("%.100s: %s", body, got.body)
	}
	if param != "" && (e.Error.Param == nil || *e.Error.Param != param) {
		f.t.Errorf("%.100s: want the parameter %s named: %s", body, param, got.body)
	}
	if (status == 429 || status == 503) && got.header.Get("Retry-After") == "" {
		f.t.Errorf("%.100s: %d without Retry-After", body, status)
	}
	return e
}

func TestOpenAIRefusals(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{fakeModel, "gone"}, MaxInputs: 3, MaxBody: 1 << 16}})
	for _, c := range []struct {
		body   string
		status int
		param  string
	}{
		{`{"model":"words"}`, 400, "input"},
		{`{"model":"words","input":null}`, 400, "input"},
		{`{"model":"words","input":[]}`, 400, "input"},
		{`{"model":"words","input":""}`, 400, "input"},
		{`{"model":"words","input":["a",""]}`, 400, "input[1]"},
		{`{"model":"words","input":["a",null]}`, 400, "input[1]"},
		{`{"model":"words","input":[1,"a"]}`, 400, "input"},
		{`{"model":"words","input":{"a":1}}`, 400, "input"},
		{`{"model":"words","input":["a","b","c","d"]}`, 400, "input"},
		{`{"model":"words","input":"` + strings.Repeat("a ", fakeMax) + `"}`, 400, "input"},
		{`{"input":"a"}`, 400, "model"},
		{`{"model":"other","input":"a"}`, 404, "model"},
		{`{"model":"words","input":"a","dimensions":0}`, 400, "dimensions"},
		{`{"model":"words","input":"a","dimensions":` + fmt.Sprint(fakeDim+1) + `}`, 400, "dimensions"},
		{`{"model":"words","input":"a","encoding_format":"hex"}`, 400, "encoding_format"},
		{`nonsense`, 400, ""},
		{"{\"model\":\"words\",\"input\":\"\xff\"}", 400, ""},
		{`{"model":7,"input":"a"}`, 400, ""},
		{`{"model":"words","input":"busy"}`, 429, ""},
		{`{"model":"words","input":"panic"}`, 500, ""},
		{`{"model":"words","input":"` + strings.Repeat("a", 1<<16) + `"}`, 413, ""},
	} {
		f.openaiFault(c.body, c.status, c.param)
	}
	if e := f.openaiFault(`{"model":"words","input":"busy"}`, 429, ""); e.Error.Type != "rate_limit_error" {
		t.Errorf("429 is of type %s", e.Error.Type)
	}
}

func TestOpenAIModels(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{fakeModel, tinyModel}}})
	var list struct {
		Object string
		Data   []struct{ ID, Object string }
	}
	f.do("GET", "/v1/models", nil).want(200).into(&list)
	if list.Object != "list" || len(list.Data) != 2 || list.Data[1].ID != tinyModel || list.Data[1].Object != "model" {
		t.Errorf("models %+v", list)
	}
	f.do("GET", "/v1/models/tiny", nil).want(200)
	var e openaiError
	f.do("GET", "/v1/models/none", nil).want(404).into(&e)
	if !strings.Contains(e.Error.Message, "none") {
		t.Errorf("error %+v", e)
	}
}

// The bytes of base64 are little-endian float32, as OpenAI's clients read them.
func TestBase64IsLittleEndian(t *testing.T) {
	f := start(t, setup{})
	var out openaiAnswer
	f.do("POST", "/v1/embeddings", `{"model":"words","input":"a","encoding_format":"base64"}`).want(200).into(&out)
	var text string
	if err := json.Unmarshal(out.Data[0].Embedding, &text); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 4*fakeDim {
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
	want, err := f.enc.Encode(t.Context(), []string{"a"}, embed.EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := math.Float32frombits(uint32(raw[0]) | uint32(raw[1])<<8 | uint32(raw[2])<<16 | uint32(raw[3])<<24); got != want.Vectors[0] {
		t.Errorf("first number %v, want %v", got, want.Vectors[0])
	}
}
