package profile

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// ParseTime reads a JSON value that is a time: text, or seconds since 1970.
func ParseTime(v any) (float64, error) {
	if n, ok := JSONNumber(v); ok {
		return n, nil
	}
	str, _ := v.(string)
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, str); err == nil {
			return float64(t.UnixNano()) / 1e9, nil
		}
	}
	return 0, fmt.Errorf("want a time such as 2026-03-01T12:00:00Z or seconds since 1970, have %s", JSONType(v))
}

// ParseEvent reads a JSON element of a set or of a text field: a string, or an object of
// what ("item" or "text") with "at" and "weight".
func ParseEvent(what string, v any) (Event, error) {
	var e Event
	if str, ok := v.(string); ok {
		return Event{Item: str}, nil
	}
	object, ok := v.(map[string]any)
	if !ok {
		return e, fmt.Errorf("want a string or {%q, \"at\", \"weight\"}, have %s", what, JSONType(v))
	}
	if e.Item, ok = object[what].(string); !ok {
		return e, fmt.Errorf("%s: want a string, have %s", what, JSONType(object[what]))
	}
	for key, x := range object {
		switch key {
		case what:
		case "at":
			at, err := ParseTime(x)
			if err != nil {
				return e, fmt.Errorf("at: %w", err)
			}
			if at == 0 {
				at = 1 // 0 is what is not dated; a second is nothing
			}
			e.At = at
		case "weight":
			if e.Weight, ok = JSONNumber(x); !ok || e.Weight <= 0 || e.Weight > 1e9 {
				return e, fmt.Errorf("weight: want a number above 0 and up to 1e9, have %s", JSONType(x))
			}
		default:
			return e, fmt.Errorf("%q is not a part of an event: want %q, \"at\" and \"weight\"", key, what)
		}
	}
	return e, nil
}

// JSONNumber is a decoded JSON value as a finite number.
func JSONNumber(v any) (float64, bool) {
	var n float64
	switch x := v.(type) {
	case float64:
		n = x
	case int:
		n = float64(x)
	case int64:
		n = float64(x)
	case json.Number:
		f, err := x.Float64()
		if err != nil {
			return 0, false
		}
		n = f
	default:
		return 0, false
	}
	return n, !math.IsNaN(n) && !math.IsInf(n, 0)
}

// JSONType names a decoded JSON value, for messages.
func JSONType(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		if len(x) > 40 {
			x = strings.ToValidUTF8(x[:40], "") + "…"
		}
		return fmt.Sprintf("the string %q", x)
	case bool:
		return fmt.Sprintf("the boolean %v", x)
	case float64, json.Number, int, int64:
		return fmt.Sprintf("the number %v", x)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}
