package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTEIEmbed(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{tinyModel}, MaxInputs: 3, MaxBody: 1 << 16}})
	var one, many, cut [][]float32
	f.do("POST", "/embed", `{"inputs":"a b c"}`).want(200).into(&one)
	f.do("POST", "/embed", `{"inputs":["x","a b c"],"normalize":true,"truncate":false}`).want(200).into(&many)
	if len(one) != 1 || len(many) != 2 || len(one[0]) != 24 || !slices.Equal(one[0], many[1]) {
		t.Fatalf("%d and %d vectors", len(one), len(many))
	}
	_, openai := f.ask(`{"model":"tiny","input":"a b c"}`)
	if !slices.Equal(openai[0], one[0]) {
		t.Error("the two conventions give different vectors")
	}
	f.do("POST", "/embed", `{"inputs":"a b c","dimensions":7}`).want(200).into(&cut)
	if len(cut[0]) != 7 {
		t.Errorf("%d dimensions", len(cut[0]))
	}
	long := strings.Repeat("a ", 60)
	f.do("POST", "/embed", `{"inputs":"`+long+`","truncate":true}`).want(200).into(&cut)
	if len(cut) != 1 {
		t.Errorf("%d vectors of one long text", len(cut))
	}
	for _, c := range []struct {
		body   string
		status int
		kind   string
	}{
		{`{"inputs":"` + long + `"}`, 413, "Validation"},
		{`{"inputs":[]}`, 400, "Empty"},
		{`{"inputs":""}`, 400, "Empty"},
		{`{"inputs":["a","b","c","d"]}`, 413, "Validation"},
		{`{"inputs":[1,2]}`, 422, "Validation"},
		{`{}`, 422, "Validation"},
		{`{"inputs":7}`, 422, "Validation"},
		{"{\"inputs\":\"\xff\"}", 422, "Validation"},
		{`{"inputs":"a","normalize":false}`, 422, "Validation"},
		{`{"inputs":"a","prompt_name":"query"}`, 422, "Validation"},
		{`{"inputs":"a","dimensions":25}`, 422, "Validation"},
		{`{`, 422, "Validation"},
		{`{"inputs":"` + strings.Repeat("a", 1<<16) + `"}`, 413, "Validation"},
	} {
		f.teiFault("/embed", c.body, c.status, c.kind)
	}
	g := start(t, setup{})
	g.teiFault("/embed", `{"inputs":"busy"}`, 429, "Overloaded")
	g.teiFault("/embed", `{"inputs":"full"}`, 424, "Backend")
	g.teiFault("/embed", `{"inputs":"panic"}`, 424, "Backend")
}

func (f *fixture) teiFault(path, body string, status int, kind string) {
	f.t.Helper()
	got := f.do("POST", path, body).want(status)
	var e teiFault
	if got.into(&e); e.Error == "" || e.ErrorType != kind {
		f.t.Errorf("%.80s: %s, want %s", body, got.body, kind)
	}
}

func TestTEITokenize(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{tinyModel}}})
	var got [][]teiToken
	f.do("POST", "/tokenize", `{"inputs":["A b","é x"]}`).want(200).into(&got)
	say := func(list []teiToken) string {
		var b strings.Builder
		for _, k := range list {
			if k.Start == nil {
				fmt.Fprintf(&b, "%d:%s:%v ", k.ID, k.Text, k.Special)
				continue
			}
			fmt.Fprintf(&b, "%d:%s:%v:%d-%d ", k.ID, k.Text, k.Special, *k.Start, *k.Stop)
		}
		return b.String()
	}
	// The ids are the lines of the vocabulary; offsets count characters.
	if want := "2:[CLS]:true 5:A:false:0-1 6:b:false:2-3 3:[SEP]:true "; len(got) != 2 || say(got[0]) != want {
		t.Errorf("tokens %s, want %s", say(got[0]), want)
	}
	if last := got[1][len(got[1])-2]; last.Text != "x" || *last.Start != 2 {
		t.Errorf("x after é is %s", say(got[1]))
	}
	f.do("POST", "/tokenize", `{"inputs":"A b","add_special_tokens":false}`).want(200).into(&got)
	if want := "5:A:false:0-1 6:b:false:2-3 "; say(got[0]) != want {
		t.Errorf("tokens %s, want %s", say(got[0]), want)
	}
	f.teiFault("/tokenize", `{"inputs":[]}`, 400, "Empty")
	f.teiFault("/tokenize", `{"inputs":"a","prompt_name":"x"}`, 422, "Validation")
	g := start(t, setup{}) // an encoder that shows no tokens
	g.teiFault("/tokenize", `{"inputs":"a"}`, 404, "Validation")
}

func TestTEIInfoAndHealth(t *testing.T) {
	f := start(t, setup{opt: Options{Models: []string{tinyModel}, MaxInputs: 9}})
	var info map[string]json.RawMessage
	f.do("GET", "/info", nil).want(200).into(&info)
	for name, want := range map[string]string{
		"model_id": `"tiny"`, "model_dtype": `"float32"`, "max_input_length": "48", "max_client_batch_size": "9",
		"auto_truncate": "false", "version": `"v9.9.9"`, "model_type": `{"embedding":{"pooling":"mean"}}`,
	} {
		if string(info[name]) != want {
			t.Errorf("%s is %s, want %s", name, info[name], want)
		}
	}
	f.do("GET", "/health", nil).want(200)
	none := start(t, setup{opt: Options{Models: []string{}}})
	var e teiFault
	none.do("GET", "/info", nil).want(404).into(&e)
	if e.Error == "" {
		t.Error("no model, and no error")
	}
}
