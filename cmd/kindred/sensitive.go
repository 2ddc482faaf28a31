package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// protectedNames are usual names of columns that laws on equal treatment are about,
// without case and punctuation. Age is none of them here: it is what most lists go by.
var protectedNames = []string{
	"sex", "gender", "性别", "race", "ethnicity", "ethnicgroup", "ethnicorigin", "民族", "种族", "religion", "faith", "宗教", "宗教信仰",
	"disability", "disabled", "残疾", "nationality", "nationalorigin", "国籍", "sexualorientation", "性取向", "politics", "politicalparty", "political", "政治面貌",
	"pregnant", "pregnancy", "unionmember", "tradeunion",
}

// unmarked says which fields are named like protected ones and are scored by all the
// same, as nobody marked them; "" when none is.
func unmarked(schema profile.Schema) string {
	var names []string
	for _, f := range schema.Fields {
		if !f.Sensitive && !f.PII && f.Type != profile.TypeText && slices.Contains(protectedNames, ingest.FlatName(f.Name)) {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("customers are scored by %s: --sensitive %s keeps that out and reports on it instead", strings.Join(names, ", "), strings.Join(names, ","))
}
