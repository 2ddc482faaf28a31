package api

import (
	"bytes"
	"encoding/json"
	"iter"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/kindred-search/kindred/embed"
)

// The hot routes' bodies, read and written without reflection: at 64 texts a
// request encoding/json would take a good part of the time that the encoder
// does. What is written means what encoding/json would write; the tests hold
// the two against each other.

// parseInput takes a string, strings, one list of token ids, or several. raw is
// a valid JSON value or empty. The texts share no memory with it.
func parseInput(raw json.RawMessage, most int) (texts []string, tokens [][]int32, err error) {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) > 0 && raw[0] == '"':
		texts = []string{unquote(raw)}
	case len(raw) > 0 && raw[0] == '[':
		if texts, tokens, err = parseList(raw, most); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, invalid("input", "want a string, a list of strings, a list of token ids or a list of such lists")
	}
	if n := max(len(texts), len(tokens)); n > most {
		return nil, nil, refused("too_many", "input", "more than %d texts in one request", most)
	}
	for i, t := range texts {
		if t == "" {
			return nil, nil, refused("empty", at(texts, i), "empty")
		}
	}
	return texts, tokens, nil
}

// maxIDs is how many token ids one text may have, far above what models take.
const maxIDs = 1 << 20

// parseList reads the elements of a list by the kind of the first, and of more
// than most texts only one more.
func parseList(raw []byte, most int) (texts []string, tokens [][]int32, err error) {
	items := collect(raw, most)
	if len(items) > 0 && items[0][0] != '"' && items[0][0] != '[' {
		items = collect(raw, maxIDs)
	}
	if len(items) == 0 {
		return nil, nil, refused("empty", "input", "empty: give at least one text")
	}
	mixed := func() error {
		return invalid("input", "mixed: want only strings, only token ids or only lists of token ids")
	}
	for i, e := range items {
		if e[0] == 'n' { // null is neither an empty string nor zero
			return nil, nil, invalid(at(items, i), "null")
		}
	}
	switch items[0][0] {
	case '"':
		texts = make([]string, len(items))
		for i, e := range items {
			if e[0] != '"' {
				return nil, nil, mixed()
			}
			texts[i] = unquote(e)
		}
		return texts, nil, nil
	case '[':
		tokens = make([][]int32, len(items))
		for i, e := range items {
			ok := e[0] == '['
			if ok {
				tokens[i], ok = tokenIDs(collect(e, maxIDs))
			}
			if !ok {
				return nil, nil, mixed()
			}
		}
		return nil, tokens, nil
	}
	ids, ok := tokenIDs(items)
	if !ok {
		return nil, nil, mixed()
	}
	return nil, [][]int32{ids}, nil
}

// tokenIDs reads whole numbers of 32 bits.
func tokenIDs(items [][]byte) ([]int32, bool) {
	ids := make([]int32, len(items))
	for i, e := range items {
		n, err := strconv.ParseInt(string(e), 10, 32)
		if err != nil {
			return nil, false
		}
		ids[i] = int32(n)
	}
	return ids, true
}

// elements yields the elements of a valid JSON list, without space around them.
// They share raw's memory.
func elements(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		depth, from := 0, -1
		for i := 0; i < len(raw); i++ {
			c := raw[i]
			if depth == 1 && from < 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != ',' && c != ']' {
				from = i
			}
			switch c {
			case '"':
				i += stringEnd(raw[i:])
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			if from >= 0 && (depth == 0 || c == ',' && depth == 1) {
				if !yield(bytes.TrimRight(raw[from:i], " \t\r\n")) {
					return
				}
				from = -1
			}
		}
	}
}

// collect returns the first elements of a list, one more than most where there
// are more.
func collect(raw []byte, most int) [][]byte {
	var out [][]byte
	for e := range elements(raw) {
		if out = append(out, e); len(out) > most {
			break
		}
	}
	return out
}

// stringEnd is the place of the quote that ends the string which raw begins with.
func stringEnd(raw []byte) int {
	for at := 1; ; {
		q := at + bytes.IndexByte(raw[at:], '"')
		slashes := 0
		for raw[q-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return q
		}
		at = q + 1
	}
}

// unquote reads a valid JSON string.
func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "" // never: the body was valid JSON
	}
	return s
}

// writeEmbeddings writes the answer of /v1/embeddings.
func writeEmbeddings(res *embed.Result, info embed.Info, dim int, b64 bool, tokens int) []byte {
	size := dim * 14
	if b64 {
		size = dim*16/3 + 8
	}
	out := make([]byte, 0, len(res.Tokens)*(size+64)+256+len(info.Name))
	out = append(out, `{"object":"list","data":[`...)
	var short []float32
	for i := range res.Tokens {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"object":"embedding","index":`...)
		out = strconv.AppendInt(out, int64(i), 10)
		out = append(out, `,"embedding":`...)
		v := res.Row(i)
		if dim < len(v) {
			short = cut(append(short[:0], v[:dim]...))
			v = short
		}
		if b64 {
			out = append(out, '"')
			out = appendBase64(out, v)
			out = append(out, '"')
		} else {
			out = appendFloats(out, v)
		}
		out = append(out, '}')
	}
	out = append(out, `],"model":`...)
	out = appendString(out, info.Name)
	out = append(out, `,"usage":{"prompt_tokens":`...)
	out = strconv.AppendInt(out, int64(tokens), 10)
	out = append(out, `,"total_tokens":`...)
	out = strconv.AppendInt(out, int64(tokens), 10)
	return append(out, "}}"...)
}

// writeVectors writes the answer of /embed.
func writeVectors(res *embed.Result, dim int) []byte {
	out := make([]byte, 0, len(res.Tokens)*(dim*14+2)+2)
	out = append(out, '[')
	var short []float32
	for i := range res.Tokens {
		if i > 0 {
			out = append(out, ',')
		}
		v := res.Row(i)
		if dim < len(v) {
			short = cut(append(short[:0], v[:dim]...))
			v = short
		}
		out = appendFloats(out, v)
	}
	return append(out, ']')
}

// appendFloats writes a list of finite numbers, each as the shortest decimal
// that reads back as the same float32, in encoding/json's form.
func appendFloats(out []byte, v []float32) []byte {
	out = append(out, '[')
	for j, x := range v {
		if j > 0 {
			out = append(out, ',')
		}
		out = appendFloat(out, x)
	}
	return append(out, ']')
}

func appendFloat(out []byte, x float32) []byte {
	size := math.Abs(float64(x))
	if size == 0 || float32(size) >= 1e-6 && float32(size) < 1e21 {
		return strconv.AppendFloat(out, float64(x), 'f', -1, 32)
	}
	out = strconv.AppendFloat(out, float64(x), 'e', -1, 32)
	if n := len(out); out[n-4] == 'e' && out[n-3] == '-' && out[n-2] == '0' { // e-09 as e-9
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// base64Pairs are the two digits of each 12 bits.
var base64Pairs = func() (t [1 << 12][2]byte) {
	for i := range t {
		t[i] = [2]byte{base64Digits[i>>6], base64Digits[i&63]}
	}
	return t
}()

// appendBase64 writes the floats' little-endian bytes in base64 with padding:
// three floats are 12 bytes and 16 digits.
func appendBase64(out []byte, v []float32) []byte {
	from := len(out)
	out = slices.Grow(out, (4*len(v)+2)/3*4)[:from+(4*len(v)+2)/3*4]
	to := out[from:]
	for ; len(v) >= 3; v, to = v[3:], to[16:] {
		a, b, c := reverse(v[0]), reverse(v[1]), reverse(v[2])
		put(to[0:], a>>20)
		put(to[2:], a>>8)
		put(to[4:], a<<4|b>>28)
		put(to[6:], b>>16)
		put(to[8:], b>>4)
		put(to[10:], b<<8|c>>24)
		put(to[12:], c>>12)
		put(to[14:], c)
	}
	switch len(v) {
	case 1:
		a := reverse(v[0])
		put(to[0:], a>>20)
		put(to[2:], a>>8)
		put(to[4:], a<<4)
		to[6], to[7] = '=', '='
	case 2:
		a, b := reverse(v[0]), reverse(v[1])
		put(to[0:], a>>20)
		put(to[2:], a>>8)
		put(to[4:], a<<4|b>>28)
		put(to[6:], b>>16)
		put(to[8:], b>>4)
		put(to[10:], b<<8)
		to[11] = '='
	}
	return out
}

// put writes the digits of the lowest 12 bits.
func put(to []byte, bits uint32) {
	pair := base64Pairs[bits&0xfff]
	to[0], to[1] = pair[0], pair[1]
}

// reverse is a float's bits with the lowest byte, which is sent first, on top.
func reverse(x float32) uint32 {
	b := math.Float32bits(x)
	return b<<24 | b>>24 | b<<8&0xff0000 | b>>8&0xff00
}

// appendString writes a JSON string.
func appendString(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			raw, err := json.Marshal(s)
			if err != nil {
				return append(out, `""`...) // never: a string has JSON
			}
			return append(out, raw...)
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}

// cut makes the beginning of a vector unit length again, in place.
func cut(v []float32) []float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum > 0 {
		for i := range v {
			v[i] = float32(float64(v[i]) / math.Sqrt(sum))
		}
	}
	return v
}
