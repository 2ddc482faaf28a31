package collection

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// decodeSet reads a set of strings and dated events, decayed as the field says.
func decodeSet(field profile.Field, v any) (index.Value, []error) {
	list, ok := v.([]any)
	if !ok {
		return index.Value{}, []error{faultf("fields."+field.Name, "want a list of strings, have %s", profile.JSONType(v))}
	}
	var faults []error
	events := make([]profile.Event, 0, len(list))
	for i, e := range list {
		event, err := profile.ParseEvent("item", e)
		if err != nil {
			faults = append(faults, faultf(fmt.Sprintf("fields.%s[%d]", field.Name, i), "%v", err))
			continue
		}
		events = append(events, event)
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
	said, err := profile.ParseEvent("text", event)
	return profile.Text{Field: in.Field, Body: said.Item, At: said.At, Weight: said.Weight}, err
}
