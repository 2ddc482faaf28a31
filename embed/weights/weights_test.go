package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

const tiny, tinyONNX = "../testdata/tiny/model.safetensors", "../testdata/tiny-onnx/model.onnx"

// safetensors lays out a file by hand.
func safetensors(header string, body []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), body...)
}

func TestSafetensorsTypes(t *testing.T) {
	var body []byte
	for _, v := range []float32{1.5, -0.25} {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
	}
	for _, h := range []uint16{0x3e00, 0xb400, 0x0001, 0x8400, 0x7bff} { // fp16: 1.5, -0.25, smallest, -2^-14, 65504
		body = binary.LittleEndian.AppendUint16(body, h)
	}
	for _, h := range []uint16{0x3fc0, 0xbe80} { // bf16: 1.5, -0.25
		body = binary.LittleEndian.AppendUint16(body, h)
	}
	body = append(body, make([]byte, 8)...)
	got, err := ReadSafetensors(safetensors(`{"__metadata__":{"format":"pt"},
		"bert.a.LayerNorm.gamma":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
		"model.h":{"dtype":"F16","shape":[5,1],"data_offsets":[8,18]},
		"0.auto_model.b":{"dtype":"BF16","shape":[1,2],"data_offsets":[18,22]},
		"position_ids":{"dtype":"I64","shape":[1],"data_offsets":[22,30]}}  `, body))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.LayerNorm.weight", "b", "h"}; !slices.Equal(got.Names(), want) {
		t.Fatalf("names %v, want %v", got.Names(), want)
	}
	for _, c := range []struct {
		name  string
		shape []int
		data  []float32
	}{
		{"a.LayerNorm.weight", []int{2}, []float32{1.5, -0.25}},
		{"h", []int{5, 1}, []float32{1.5, -0.25, 1.0 / (1 << 24), -1.0 / (1 << 14), 65504}},
		{"b", []int{1, 2}, []float32{1.5, -0.25}},
	} {
		data, err := got.Want(c.name, c.shape...)
		if err != nil || !slices.Equal(data, c.data) {
			t.Errorf("%s: %v, %v, want %v", c.name, data, err, c.data)
		}
	}
	if _, err := got.Want("b", 2); !errors.Is(err, ErrFormat) {
		t.Errorf("a wrong shape: %v", err)
	}
	if _, err := got.Want("c", 2); !errors.Is(err, ErrFormat) {
		t.Errorf("a wrong name: %v", err)
	}
}

func TestSafetensorsRefuses(t *testing.T) {
	one := `{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`
	for _, c := range []struct {
		name, header string
		body         int
	}{
		{"no object", `[]`, 0},
		{"cut JSON", `{"a":`, 0},
		{"text after it", `{"a":` + one + `} x`, 4},
		{"a name twice", `{"a":` + one + `,"a":` + one + `}`, 4},
		{"a name twice once normalised", `{"a":` + one + `,"bert.a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8},
		{"overlap", `{"a":` + one + `,"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 6},
		{"same bytes twice", `{"a":` + one + `,"b":` + one + `}`, 4},
		{"a gap", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8},
		{"bytes left over", `{"a":` + one + `}`, 8},
		{"past the end", `{"a":` + one + `}`, 3},
		{"offsets backwards", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4},
		{"negative offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4},
		{"one offset", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}`, 4},
		{"shape too small", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}`, 8},
		{"shape overflows to 0", `{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0},
		{"shape overflows to 4", `{"a":{"dtype":"F32","shape":[9223372036854775807,3],"data_offsets":[0,4]}}`, 4},
		{"negative shape", `{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, 4},
		{"a number beyond int", `{"a":{"dtype":"F32","shape":[1e30],"data_offsets":[0,4]}}`, 4},
		{"nine dimensions", `{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4},
		{"unknown type", `{"a":{"dtype":"F12","shape":[1],"data_offsets":[0,4]}}`, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := ReadSafetensors(safetensors(c.header, make([]byte, c.body))); !errors.Is(err, ErrFormat) {
				t.Errorf("read %v, %v", got, err)
			}
		})
	}
	for _, data := range [][]byte{nil, make([]byte, 7), binary.LittleEndian.AppendUint64(nil, 1<<63), binary.LittleEndian.AppendUint64(nil, 1<<20)} {
		if _, err := ReadSafetensors(data); !errors.Is(err, ErrFormat) {
			t.Errorf("% x: %v", data, err)
		}
	}
	nan, err := ReadSafetensors(safetensors(`{"a":`+one+`}`, []byte{0, 0, 0xc0, 0x7f}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nan.Want("a", 1); !errors.Is(err, ErrFormat) {
		t.Errorf("NaN: %v", err)
	}
}

// The same random model, written by two exporters: every parameter must come
// out with the same name, shape and bits, anonymous weights included.
func TestONNXIsTheSafetensors(t *testing.T) {
	a, err := Open(tiny)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(tinyONNX)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Names()) != 37 { // 3 tables + 1 norm, 2 layers of 6 linears and 2 norms, two tensors each
		t.Fatalf("%d tensors", len(a.Names()))
	}
	for _, name := range a.Names() {
		x, _ := a.Get(name)
		data, err := b.Want(name, x.Shape...)
		if err != nil {
			t.Error(err)
		} else if !slices.Equal(data, x.Data) {
			t.Errorf("%s differs", name)
		}
	}
	if len(a.SHA256()) != 64 || a.SHA256() == b.SHA256() {
		t.Errorf("digests %s and %s", a.SHA256(), b.SHA256())
	}
}

// msg builds protobuf messages by hand: bytes fields, varints as numbers.
func msg(parts ...any) []byte {
	var out []byte
	for i := 0; i < len(parts); i += 2 {
		num := uint64(parts[i].(int)) << 3
		switch v := parts[i+1].(type) {
		case int:
			out = binary.AppendUvarint(binary.AppendUvarint(out, num), uint64(v))
		case string:
			out = binary.AppendUvarint(binary.AppendUvarint(out, num|2), uint64(len(v)))
			out = append(out, v...)
		case []byte:
			out = binary.AppendUvarint(binary.AppendUvarint(out, num|2), uint64(len(v)))
			out = append(out, v...)
		default:
			panic(fmt.Sprintf("part %d", i))
		}
	}
	return out
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func TestONNXInitialisers(t *testing.T) {
	node := func(op, a, b, out string) []byte {
		return msg(nodeInput, a, nodeInput, b, nodeOutput, out, nodeOpType, op)
	}
	graph := msg(
		graphInitializer, msg(tensorDims, 2, tensorDims, 3, tensorType, 1, tensorName, "w1", tensorRaw, floats(1, 2, 3, 4, 5, 6)),
		graphInitializer, msg(tensorDims, []byte{3}, tensorType, 1, tensorFloats, floats(7, 8, 9), tensorName, "x.bias"),
		graphInitializer, msg(tensorDims, 2, tensorType, 10, tensorInt32s, binary.AppendUvarint(binary.AppendUvarint(nil, 0x3e00), 0xb400), tensorName, "half"),
		graphInitializer, msg(tensorDims, 1, tensorType, 16, tensorRaw, []byte{0xc0, 0x3f}, tensorName, "brain"),
		graphInitializer, msg(tensorType, 7, tensorRaw, make([]byte, 8), tensorName, "an int64"),
		graphNode, node("MatMul", "in", "w1", "product"),
		graphNode, node("Add", "x.bias", "product", "out"),
	)
	got, err := ReadONNX(msg(1, 8, modelGraph, graph))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		shape []int
		data  []float32
	}{
		{"x.weight", []int{3, 2}, []float32{1, 4, 2, 5, 3, 6}},
		{"x.bias", []int{3}, []float32{7, 8, 9}},
		{"half", []int{2}, []float32{1.5, -0.25}},
		{"brain", []int{1}, []float32{1.5}},
	} {
		data, err := got.Want(c.name, c.shape...)
		if err != nil || !slices.Equal(data, c.data) {
			t.Errorf("%s: %v, %v, want %v", c.name, data, err, c.data)
		}
	}
	if len(got.Names()) != 4 {
		t.Errorf("names %v", got.Names())
	}
}

func TestONNXRefuses(t *testing.T) {
	weight := msg(tensorDims, 1, tensorDims, 1, tensorType, 1, tensorName, "w", tensorRaw, floats(1))
	bias := func(name string) []byte {
		return msg(tensorDims, 1, tensorType, 1, tensorName, name, tensorRaw, floats(1))
	}
	add := func(b string) []byte { return msg(nodeInput, b, nodeInput, "p", nodeOpType, "Add") }
	for name, data := range map[string][]byte{
		"empty":             {},
		"no graph":          msg(1, 8),
		"two graphs":        msg(modelGraph, "", modelGraph, ""),
		"cut":               msg(modelGraph, weight)[:5],
		"group wire type":   {modelGraph<<3 | 3},
		"field 0":           {0, 0},
		"length 2^63":       append([]byte{modelGraph<<3 | 2}, binary.AppendUvarint(nil, 1<<63)...),
		"too few values":    msg(modelGraph, msg(graphInitializer, msg(tensorDims, 2, tensorType, 1, tensorRaw, floats(1)))),
		"huge shape":        msg(modelGraph, msg(graphInitializer, msg(tensorDims, 1<<31, tensorDims, 1<<31, tensorDims, 4, tensorType, 1))),
		"negative shape":    msg(modelGraph, msg(graphInitializer, msg(tensorDims, -1, tensorType, 1))),
		"a second file":     msg(modelGraph, msg(graphInitializer, msg(tensorDims, 1, tensorType, 1, tensorLocation, 1))),
		"a name twice":      msg(modelGraph, msg(graphInitializer, weight, graphInitializer, weight)),
		"a half of 17 bits": msg(modelGraph, msg(graphInitializer, msg(tensorDims, 1, tensorType, 10, tensorInt32s, []byte{0xff, 0xff, 0x7f}))),
		"a shared layer": msg(modelGraph, msg(graphInitializer, weight, graphInitializer, bias("a.bias"), graphInitializer, bias("b.bias"),
			graphNode, msg(nodeInput, "x", nodeInput, "w", nodeOutput, "p", nodeOpType, "MatMul"), graphNode, add("a.bias"), graphNode, add("b.bias"))),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ReadONNX(data); !errors.Is(err, ErrFormat) {
				t.Errorf("read %v, %v", got, err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir + "/none.safetensors", dir + "/model.bin", dir} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "weights") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := os.Mkdir(dir+"/folder.onnx", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir + "/folder.onnx"); !errors.Is(err, ErrFormat) {
		t.Errorf("a folder: %v", err)
	}
}

// checkTensors holds for whatever a reader accepts.
func checkTensors(t *testing.T, got *Tensors, size int) {
	total := 0
	for _, name := range got.Names() {
		x, ok := got.Get(name)
		n := 1
		for _, d := range x.Shape {
			n *= d
		}
		if !ok || n != len(x.Data) {
			t.Fatalf("%q: shape %v with %d values", name, x.Shape, len(x.Data))
		}
		total += n
	}
	if total > size/2 {
		t.Fatalf("%d values from %d bytes", total, size)
	}
}

func FuzzSafetensors(f *testing.F) {
	one := map[string]any{"a": map[string]any{"dtype": "F16", "shape": []int{2}, "data_offsets": []int{0, 4}}}
	header, err := json.Marshal(one)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(safetensors(string(header), make([]byte, 4)))
	f.Add(safetensors(`{"__metadata__":{},"z":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}`, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ReadSafetensors(data)
		if err == nil {
			checkTensors(t, got, len(data))
		} else if !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}

func FuzzONNX(f *testing.F) {
	f.Add(msg(modelGraph, msg(
		graphInitializer, msg(tensorDims, 1, tensorDims, 1, tensorType, 1, tensorName, "w", tensorRaw, floats(1)),
		graphInitializer, msg(tensorDims, 1, tensorType, 1, tensorName, "a.bias", tensorFloats, floats(1)),
		graphNode, msg(nodeInput, "x", nodeInput, "w", nodeOutput, "p", nodeOpType, "MatMul"),
		graphNode, msg(nodeInput, "a.bias", nodeInput, "p", nodeOpType, "Add"))))
	f.Add(msg(modelGraph, msg(graphInitializer, msg(tensorType, 10, tensorInt32s, []byte{1}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ReadONNX(data)
		if err == nil {
			checkTensors(t, got, len(data))
		} else if !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}
