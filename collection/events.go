package collection

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// decodeTime reads a time as text or as seconds since 1970.
func decodeTime(v any) (float64, error) {
	if n, ok := asNumber(v); ok {
		return n, nil
	}
	str, _ := v.(string)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, str); err == nil {
			return float64(t.UnixNano()) / 1e9, nil
		}
	}
	return 0, fmt.Errorf("want a time such as 2026-03-01T12:00:00Z or seconds since 1970, have %s", jsonType(v))
}

// decodeEvent reads an element of a set or a text field: a string, or an object of
// what ("item" or "text") with "at" and "weight".
func decodeEvent(what string, v any) (name string, at, weight float64, err error) {
	if str, ok := v.(string); ok {
		return str, 0, 0, nil
	}
	object, ok := v.(map[string]any)
	if !ok {
		return "", 0, 0, fmt.Errorf("want a string or {%q, \"at\", \"weight\"}, have %s", what, jsonType(v))
	}
	if name, ok = object[what].(string); !ok {
		return "", 0, 0, fmt.Errorf("%s: want a string, have %s", what, jsonType(object[what]))
	}
	for key, x := range object {
		switch key {
		case what:
		case "at":
			if at, err = decodeTime(x); err != nil {
				return "", 0, 0, fmt.Errorf("at: %w", err)
			}
			if at == 0 {
				at = 1 // 0 is what is not dated; a second is nothing
			}
		case "weight":
			if weight, ok = asNumber(x); !ok || weight <= 0 || weight > 1e9 {
				return "", 0, 0, fmt.Errorf("weight: want a number above 0 and up to 1e9, have %s", jsonType(x))
			}
		default:
			return "", 0, 0, fmt.Errorf("%q is not a part of an event: want %q, \"at\" and \"weight\"", key, what)
		}
	}
	return name, at, weight, nil
}

// decodeSet reads a set of strings and dated events, decayed as the field says.
func decodeSet(field profile.Field, v any) (index.Value, []error) {
	list, ok := v.([]any)
	if !ok {
		return index.Value{}, []error{faultf("fields."+field.Name, "want a list of strings, have %s", jsonType(v))}
	}
	var faults []error
	events := make([]profile.Event, 0, len(list))
	for i, e := range list {
		item, at, weight, err := decodeEvent("item", e)
		if err != nil {
			faults = append(faults, faultf(fmt.Sprintf("fields.%s[%d]", field.Name, i), "%v", err))
			continue
		}
		events = append(events, profile.Event{Item: item, At: at, Weight: weight})
	}
	return index.Value{Kind: index.Set, Set: field.Decay.Elements(events)}, faults
}

// parseText reads {"field", "body", "at", "weight"}.
func parseText(raw []byte) (profile.Text, error) {
	var in struct {
		Field  string
		Body   *string
		At     any
		Weight any
	}
	if err := json.Unmarshal(raw, &in); err != nil || in.Body == nil {
		return profile.Text{}, errors.New(`neither a string nor {"field", "body", "at", "weight"}`)
	}
	event := map[string]any{"text": *in.Body}
	if in.At != nil {
		event["at"] = in.At
	}
	if in.Weight != nil {
		event["weight"] = in.Weight
	}
	body, at, weight, err := decodeEvent("text", event)
	return profile.Text{Field: in.Field, Body: body, At: at, Weight: weight}, err
}
