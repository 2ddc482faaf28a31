package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Numbers of the fields that are read, from onnx.proto3
// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
const (
	modelGraph = 7

	graphNode        = 1
	graphInitializer = 5

	nodeInput  = 1
	nodeOutput = 2
	nodeOpType = 4

	tensorDims      = 1
	tensorType      = 2
	tensorFloats    = 4
	tensorInt32s    = 5
	tensorName      = 8
	tensorRaw       = 9
	tensorExternal  = 13
	tensorLocation  = 14
	onnxFloat       = 1
	onnxFloat16     = 10
	onnxBFloat16    = 16
	wireVarint      = 0
	wireFixed64     = 1
	wireBytes       = 2
	wireFixed32     = 5
	maxFieldNumber  = 1<<29 - 1
	maxVarintLength = 10
)

// onnxNode is what the walk needs of a NodeProto.
type onnxNode struct {
	op      string
	inputs  []string
	outputs []string
}

// ReadONNX parses a whole ONNX model and returns its floating-point
// initialisers. Data is not kept.
//
// The exporter keeps the names of biases, layer norms and embeddings but folds
// the transposition of a linear layer's weight into an anonymous constant
// ("onnx::MatMul_541"). Such a weight is found again by the graph: the right
// operand of a MatMul whose result is added to "X.bias" is X's weight,
// transposed; it is returned as "X.weight" with shape [out, in].
//
// Weights kept in a second file (external data) are refused by name.
func ReadONNX(data []byte) (*Tensors, error) {
	var graph []byte
	err := eachField(data, func(f field) error {
		if f.num == modelGraph && f.wire == wireBytes {
			if graph != nil {
				return fmt.Errorf("%w: two graphs", ErrFormat)
			}
			graph = f.bytes
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if graph == nil {
		return nil, fmt.Errorf("%w: no graph; not an ONNX model", ErrFormat)
	}
	raw := make(map[string]Tensor)
	var order []string
	var nodes []onnxNode
	err = eachField(graph, func(f field) error {
		if f.wire != wireBytes {
			return nil
		}
		switch f.num {
		case graphNode:
			n, err := parseNode(f.bytes)
			if err == nil && (n.op == "MatMul" || n.op == "Add") {
				nodes = append(nodes, n)
			}
			return err
		case graphInitializer:
			name, x, err := parseTensor(f.bytes)
			if err != nil {
				return err
			}
			if x.Shape == nil {
				return nil
			}
			if _, ok := raw[name]; ok {
				return fmt.Errorf("%w: two initialisers are named %q", ErrFormat, name)
			}
			raw[name] = x
			order = append(order, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	names, err := nameLinears(nodes, raw)
	if err != nil {
		return nil, err
	}
	t := &Tensors{byName: make(map[string]Tensor, len(raw))}
	for _, name := range order {
		x, target := raw[name], name
		if linear, ok := names[name]; ok {
			target, x = linear, transpose(x)
		}
		if err := t.add(target, x); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// nameLinears maps the name of an initialiser that is a MatMul's right operand
// to the name its layer's bias gives it.
func nameLinears(nodes []onnxNode, raw map[string]Tensor) (map[string]string, error) {
	product := make(map[string]string) // output of a MatMul -> its weight
	for _, n := range nodes {
		if n.op != "MatMul" || len(n.inputs) != 2 || len(n.outputs) != 1 {
			continue
		}
		if w, ok := raw[n.inputs[1]]; ok && len(w.Shape) == 2 {
			product[n.outputs[0]] = n.inputs[1]
		}
	}
	names := make(map[string]string)
	for _, n := range nodes {
		if n.op != "Add" || len(n.inputs) != 2 {
			continue
		}
		for i, in := range n.inputs {
			layer, ok := strings.CutSuffix(in, ".bias")
			bias, known := raw[in]
			weight, fed := product[n.inputs[1-i]]
			if !ok || !known || !fed || len(bias.Shape) != 1 || bias.Shape[0] != raw[weight].Shape[1] {
				continue
			}
			if old, ok := names[weight]; ok && old != layer+".weight" {
				return nil, fmt.Errorf("%w: initialiser %q is the weight of both %q and %q; shared layers are not supported", ErrFormat, weight, old, layer+".weight")
			}
			names[weight] = layer + ".weight"
		}
	}
	return names, nil
}

func transpose(x Tensor) Tensor {
	rows, cols := x.Shape[0], x.Shape[1]
	out := make([]float32, len(x.Data))
	for i := range rows {
		for j, v := range x.Data[i*cols : (i+1)*cols] {
			out[j*rows+i] = v
		}
	}
	return Tensor{Shape: []int{cols, rows}, Data: out}
}

func parseNode(b []byte) (onnxNode, error) {
	var n onnxNode
	err := eachField(b, func(f field) error {
		if f.wire != wireBytes {
			return nil
		}
		switch f.num {
		case nodeInput:
			n.inputs = append(n.inputs, string(f.bytes))
		case nodeOutput:
			n.outputs = append(n.outputs, string(f.bytes))
		case nodeOpType:
			n.op = string(f.bytes)
		}
		return nil
	})
	return n, err
}

// parseTensor returns the name and values of a TensorProto; the shape is nil
// for types that hold no weights (integers, strings).
func parseTensor(b []byte) (string, Tensor, error) {
	var (
		name           string
		dims           []int
		dtype          uint64
		raw, f32s, i32 []byte
		loose          []byte // float_data written one by one instead of packed
		external, fp   bool
	)
	err := eachField(b, func(f field) error {
		switch {
		case f.num == tensorDims:
			return varints(f, func(v uint64) error {
				if v > math.MaxInt32*64 || len(dims) == maxRank {
					return fmt.Errorf("%w: initialiser with dimension %d", ErrFormat, v)
				}
				dims = append(dims, int(v))
				return nil
			})
		case f.num == tensorType && f.wire == wireVarint:
			dtype = f.varint
		case f.num == tensorFloats && f.wire == wireBytes:
			f32s = f.bytes
		case f.num == tensorFloats && f.wire == wireFixed32:
			loose = binary.LittleEndian.AppendUint32(loose, uint32(f.varint))
		case f.num == tensorInt32s && f.wire == wireBytes:
			i32 = f.bytes
		case f.num == tensorName && f.wire == wireBytes:
			name = string(f.bytes)
		case f.num == tensorRaw && f.wire == wireBytes:
			raw = f.bytes
		case f.num == tensorExternal, f.num == tensorLocation && f.varint != 0:
			external = true
		}
		return nil
	})
	if err != nil {
		return "", Tensor{}, err
	}
	fp = dtype == onnxFloat || dtype == onnxFloat16 || dtype == onnxBFloat16
	if !fp {
		return name, Tensor{}, nil
	}
	if external {
		return "", Tensor{}, fmt.Errorf("%w: initialiser %q is kept in a second file (external data); export the model as one file", ErrFormat, name)
	}
	if dims == nil {
		dims = []int{} // a scalar
	}
	n, ok := elements(dims, len(b))
	bad := fmt.Errorf("%w: initialiser %q of shape %v does not hold that many values", ErrFormat, name, dims)
	if !ok {
		return "", Tensor{}, bad
	}
	x := Tensor{Shape: dims}
	if raw == nil && dtype == onnxFloat {
		if raw = f32s; raw == nil {
			raw = loose
		}
	}
	size := 2
	if dtype == onnxFloat {
		size = 4
	}
	if raw == nil && dtype != onnxFloat {
		raw, err = narrow(i32)
		if err != nil {
			return "", Tensor{}, err
		}
	}
	if len(raw) != n*size {
		return "", Tensor{}, bad
	}
	switch dtype {
	case onnxFloat:
		x.Data = fromF32(raw)
	case onnxFloat16:
		x.Data = fromF16(raw)
	default:
		x.Data = fromBF16(raw)
	}
	return name, x, nil
}

// narrow turns int32_data, where ONNX keeps 16-bit floats as varints, into
// their two-byte form.
func narrow(b []byte) ([]byte, error) {
	var out []byte
	err := varints(field{wire: wireBytes, bytes: b}, func(v uint64) error {
		if v > math.MaxUint16 {
			return fmt.Errorf("%w: %d is not a 16-bit float", ErrFormat, v)
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(v))
		return nil
	})
	return out, err
}

// field is one field of a protobuf message: a number, and either bytes or a
// number, by the wire type (https://protobuf.dev/programming-guides/encoding).
type field struct {
	num, wire int
	varint    uint64
	bytes     []byte
}

// eachField calls fn for every field of message b, in order.
func eachField(b []byte, fn func(field) error) error {
	cut := fmt.Errorf("%w: a protobuf message is cut short or malformed", ErrFormat)
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || n > maxVarintLength || key>>3 == 0 || key>>3 > maxFieldNumber {
			return cut
		}
		b = b[n:]
		f := field{num: int(key >> 3), wire: int(key & 7)}
		switch f.wire {
		case wireVarint:
			if f.varint, n = binary.Uvarint(b); n <= 0 {
				return cut
			}
		case wireFixed64:
			if n = 8; len(b) < n {
				return cut
			}
			f.varint = binary.LittleEndian.Uint64(b)
		case wireFixed32:
			if n = 4; len(b) < n {
				return cut
			}
			f.varint = uint64(binary.LittleEndian.Uint32(b))
		case wireBytes:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return cut
			}
			n = m + int(size)
			f.bytes = b[m:n:n]
		default:
			return cut
		}
		b = b[n:]
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// varints calls fn for the value of a varint field or for each value of a
// packed one.
func varints(f field, fn func(uint64) error) error {
	if f.wire == wireVarint {
		return fn(f.varint)
	}
	if f.wire != wireBytes {
		return fmt.Errorf("%w: field %d has wire type %d", ErrFormat, f.num, f.wire)
	}
	for b := f.bytes; len(b) > 0; {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%w: field %d is cut short", ErrFormat, f.num)
		}
		if err := fn(v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
