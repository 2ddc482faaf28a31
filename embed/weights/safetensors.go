package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
)

// maxHeader is the format's own limit on the JSON header, 100 MB; see
// https://github.com/huggingface/safetensors#format.
const maxHeader = 100_000_000

// dtypeBytes lists the element types of the format. Only the floating-point
// ones that [ReadSafetensors] widens are kept; the rest are checked and skipped.
func dtypeBytes(dtype string) int {
	switch dtype {
	case "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3":
		return 1
	case "I16", "U16", "F16", "BF16":
		return 2
	case "I32", "U32", "F32":
		return 4
	case "I64", "U64", "F64":
		return 8
	}
	return 0
}

// stEntry is one tensor of the header.
type stEntry struct {
	name    string
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets"`
}

// ReadSafetensors parses a whole safetensors file. Data is not kept. As the
// format demands, the tensors must cover the data part without overlap or gap.
func ReadSafetensors(data []byte) (*Tensors, error) {
	if len(data) < 8 {
		return nil, fmt.Errorf("%w: %d bytes, too short for a safetensors header", ErrFormat, len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader || n > uint64(len(data)-8) {
		return nil, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrFormat, n, len(data))
	}
	header, body := data[8:8+n], data[8+n:]
	entries, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := e.check(len(body)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(entries, func(a, b stEntry) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]), cmp.Compare(a.name, b.name))
	})
	at := 0
	for _, e := range entries {
		if e.Offsets[0] != at {
			return nil, fmt.Errorf("%w: tensor %q starts at %d, the one before it ends at %d", ErrFormat, e.name, e.Offsets[0], at)
		}
		at = e.Offsets[1]
	}
	if at != len(body) {
		return nil, fmt.Errorf("%w: tensors end at byte %d of %d; the file is cut short or has something appended", ErrFormat, at, len(body))
	}
	t := &Tensors{byName: make(map[string]Tensor, len(entries))}
	for _, e := range entries {
		raw := body[e.Offsets[0]:e.Offsets[1]]
		x := Tensor{Shape: e.Shape}
		switch e.DType {
		case "F32":
			x.Data = fromF32(raw)
		case "F16":
			x.Data = fromF16(raw)
		case "BF16":
			x.Data = fromBF16(raw)
		default:
			continue
		}
		if err := t.add(e.name, x); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// parseHeader walks the JSON object key by key, so that a key given twice is
// seen; decoding into a map would keep the last one in silence.
func parseHeader(header []byte) ([]stEntry, error) {
	dec := json.NewDecoder(bytes.NewReader(header))
	tok, err := dec.Token()
	if err != nil || tok != json.Delim('{') {
		return nil, fmt.Errorf("%w: the header is not a JSON object", ErrFormat)
	}
	var entries []stEntry
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
		}
		name, ok := tok.(string)
		if !ok || seen[name] {
			return nil, fmt.Errorf("%w: header key %v is not a new name", ErrFormat, tok)
		}
		seen[name] = true
		if name == "__metadata__" {
			var meta map[string]string
			if err := dec.Decode(&meta); err != nil {
				return nil, fmt.Errorf("%w: __metadata__: %w", ErrFormat, err)
			}
			continue
		}
		e := stEntry{name: name}
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("%w: tensor %q: %w", ErrFormat, name, err)
		}
		entries = append(entries, e)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	if rest := bytes.TrimSpace(header[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the header's object", ErrFormat, len(rest))
	}
	return entries, nil
}

func (e stEntry) check(body int) error {
	size := dtypeBytes(e.DType)
	if size == 0 {
		return fmt.Errorf("%w: tensor %q has the unknown type %q", ErrFormat, e.name, e.DType)
	}
	if len(e.Offsets) != 2 || e.Offsets[0] < 0 || e.Offsets[0] > e.Offsets[1] || e.Offsets[1] > body {
		return fmt.Errorf("%w: tensor %q has offsets %v in %d bytes of data", ErrFormat, e.name, e.Offsets, body)
	}
	n, ok := elements(e.Shape, body/size)
	if !ok || n*size != e.Offsets[1]-e.Offsets[0] {
		return fmt.Errorf("%w: tensor %q of type %s and shape %v has %d bytes", ErrFormat, e.name, e.DType, e.Shape, e.Offsets[1]-e.Offsets[0])
	}
	return nil
}
