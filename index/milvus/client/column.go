package client

import (
	"encoding/base64"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
)

// FieldType is the type of a field.
type FieldType int

// The types that are spoken here.
const (
	Bool FieldType = iota + 1
	Int64
	Double
	VarChar
	JSON
	FloatVector
)

// String is Milvus's name of the type.
func (t FieldType) String() string {
	switch t {
	case Bool:
		return "Bool"
	case Int64:
		return "Int64"
	case Double:
		return "Double"
	case VarChar:
		return "VarChar"
	case JSON:
		return "JSON"
	case FloatVector:
		return "FloatVector"
	}
	return fmt.Sprintf("type %d", int(t))
}

var protoType = map[FieldType]schemapb.DataType{
	Bool: schemapb.DataType_Bool, Int64: schemapb.DataType_Int64, Double: schemapb.DataType_Double,
	VarChar: schemapb.DataType_VarChar, JSON: schemapb.DataType_JSON, FloatVector: schemapb.DataType_FloatVector,
}

func ofProtoType(t schemapb.DataType) FieldType {
	for ours, theirs := range protoType {
		if t == theirs {
			return ours
		}
	}
	return FieldType(-int(t)) // of a collection that is not ours: Describe reports it
}

// Column is one field of many rows. The slice of its type is filled, row by row;
// the others are nil. Dynamic marks the JSON of the dynamic field, whose name is
// then ignored.
type Column struct {
	Name    string
	Type    FieldType
	Bools   []bool
	Ints    []int64
	Doubles []float64
	Strings []string
	JSON    [][]byte  // each a JSON document
	Vectors []float32 // [rows, Dim] row-major
	Dim     int
	Dynamic bool
}

// Len is the number of rows.
func (c *Column) Len() int {
	switch c.Type {
	case Bool:
		return len(c.Bools)
	case Int64:
		return len(c.Ints)
	case Double:
		return len(c.Doubles)
	case VarChar:
		return len(c.Strings)
	case JSON:
		return len(c.JSON)
	case FloatVector:
		if c.Dim > 0 {
			return len(c.Vectors) / c.Dim
		}
	}
	return 0
}

// Bytes is about how many bytes the column takes on the wire.
func (c *Column) Bytes() int {
	n := 9*len(c.Ints) + 8*len(c.Doubles) + len(c.Bools) + 4*len(c.Vectors) + len(c.Name) + 32
	for _, s := range c.Strings {
		n += len(s) + 4
	}
	for _, s := range c.JSON {
		n += len(s) + 4
	}
	return n
}

// check says what Milvus would refuse, or take and not give back as it was.
func (c *Column) check() error {
	switch c.Type {
	case VarChar:
		for i, s := range c.Strings {
			if len(s) > MaxVarChar {
				return fmt.Errorf("field %q, row %d: the string has %d bytes, and Milvus takes %d: shorten it", c.Name, i, len(s), MaxVarChar)
			}
			if !utf8.ValidString(s) {
				return fmt.Errorf("field %q, row %d: the string is not UTF-8", c.Name, i)
			}
		}
	case JSON:
		for i, s := range c.JSON {
			if len(s) > MaxVarChar {
				return fmt.Errorf("field %q, row %d: the JSON has %d bytes, and Milvus takes %d: shorten it", c.Name, i, len(s), MaxVarChar)
			}
		}
	case Double:
		for i, x := range c.Doubles {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return fmt.Errorf("field %q, row %d: %v is not a finite number", c.Name, i, x)
			}
		}
	case FloatVector:
		if c.Dim < 1 || c.Dim > MaxDim {
			return fmt.Errorf("field %q: %d dimensions, and Milvus takes 1 to %d", c.Name, c.Dim, MaxDim)
		}
		if len(c.Vectors)%c.Dim != 0 {
			return fmt.Errorf("field %q: %d numbers are no multiple of %d dimensions", c.Name, len(c.Vectors), c.Dim)
		}
		if i := notFinite(c.Vectors); i >= 0 {
			return fmt.Errorf("field %q, row %d: the vector holds %v", c.Name, i/c.Dim, c.Vectors[i])
		}
	}
	return nil
}

// notFinite is the place of the first NaN or infinity, -1 where there is none.
func notFinite(v []float32) int {
	for i, x := range v {
		if x-x != 0 { // NaN or infinite
			return i
		}
	}
	return -1
}

func (c *Column) proto() (*schemapb.FieldData, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	out := &schemapb.FieldData{Type: protoType[c.Type], FieldName: c.Name, IsDynamic: c.Dynamic}
	if c.Dynamic {
		out.FieldName = ""
	}
	scalar := &schemapb.ScalarField{}
	switch c.Type {
	case Bool:
		scalar.Data = &schemapb.ScalarField_BoolData{BoolData: &schemapb.BoolArray{Data: c.Bools}}
	case Int64:
		scalar.Data = &schemapb.ScalarField_LongData{LongData: &schemapb.LongArray{Data: c.Ints}}
	case Double:
		scalar.Data = &schemapb.ScalarField_DoubleData{DoubleData: &schemapb.DoubleArray{Data: c.Doubles}}
	case VarChar:
		scalar.Data = &schemapb.ScalarField_StringData{StringData: &schemapb.StringArray{Data: c.Strings}}
	case JSON:
		scalar.Data = &schemapb.ScalarField_JsonData{JsonData: &schemapb.JSONArray{Data: c.JSON}}
	case FloatVector:
		out.Field = &schemapb.FieldData_Vectors{Vectors: &schemapb.VectorField{
			Dim:  int64(c.Dim),
			Data: &schemapb.VectorField_FloatVector{FloatVector: &schemapb.FloatArray{Data: c.Vectors}},
		}}
		return out, nil
	default:
		return nil, fmt.Errorf("field %q has no type that is spoken here: %v", c.Name, c.Type)
	}
	out.Field = &schemapb.FieldData_Scalars{Scalars: scalar}
	return out, nil
}

// ofProto reads a column of an answer and holds it to its own description.
func ofProto(f *schemapb.FieldData) (Column, error) {
	out := Column{Name: f.GetFieldName(), Dynamic: f.GetIsDynamic(), Type: ofProtoType(f.GetType())}
	s := f.GetScalars()
	missing := false
	switch out.Type {
	case Bool:
		out.Bools, missing = s.GetBoolData().GetData(), s.GetBoolData() == nil
	case Int64:
		out.Ints, missing = s.GetLongData().GetData(), s.GetLongData() == nil
	case Double:
		out.Doubles, missing = s.GetDoubleData().GetData(), s.GetDoubleData() == nil
	case VarChar:
		out.Strings, missing = s.GetStringData().GetData(), s.GetStringData() == nil
	case JSON:
		out.JSON, missing = s.GetJsonData().GetData(), s.GetJsonData() == nil
	case FloatVector:
		v := f.GetVectors()
		out.Vectors, out.Dim, missing = v.GetFloatVector().GetData(), int(v.GetDim()), v.GetFloatVector() == nil
		if out.Dim < 1 || out.Dim > MaxDim || len(out.Vectors)%out.Dim != 0 {
			return out, fmt.Errorf("field %q has %d numbers of %d dimensions", out.Name, len(out.Vectors), out.Dim)
		}
		if i := notFinite(out.Vectors); i >= 0 {
			return out, fmt.Errorf("field %q, row %d, holds %v", out.Name, i/out.Dim, out.Vectors[i])
		}
	default:
		return out, fmt.Errorf("field %q came as %v, which is not spoken here", out.Name, f.GetType())
	}
	if missing && f.GetField() != nil {
		return out, fmt.Errorf("field %q says %v and holds another type", out.Name, out.Type)
	}
	for i, x := range out.Doubles {
		if x-x != 0 {
			return out, fmt.Errorf("field %q, row %d, holds %v", out.Name, i, x)
		}
	}
	return out, nil
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
