package ingest

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/profile"
)

// What other programs write beside RFC 4180 is read as it was meant.
func TestMessyFiles(t *testing.T) {
	table := func(end, sep string) string {
		var b strings.Builder
		b.WriteString("id" + sep + "spend" + end)
		for i := range 40 {
			fmt.Fprintf(&b, "c%d%s%d,%02d%s", i, sep, 3*i, i%7, end)
		}
		return b.String()
	}
	for name, data := range map[string]string{"lines": table("\n", ";"), "returns": table("\r", ";"), "both": table("\r\n", ";"), "tabs": table("\r", "\t")} {
		p, recs, bad := readAll(t, write(t, name, []byte(data)), Options{})
		if len(recs) != 40 || len(bad) > 0 || p.IDColumn != "id" {
			t.Fatalf("%s: %d customers, %d bad, id %q", name, len(recs), len(bad), p.IDColumn)
		}
		c := p.Column("spend")
		if got := recs[12].Fields["spend"]; c.Type != profile.TypeNumber || !c.Comma || got.Num != 36.05 {
			t.Errorf("%s: %+v, value %v", name, c, got)
		}
	}
	// Three digits after each comma may be thousands: not guessed, but as asked.
	thousands := "id;spend\na;1,234\nb;5,678\nc;9\n"
	if p, _, _ := readAll(t, write(t, "t", []byte(thousands)), Options{}); p.Column("spend").Comma {
		t.Error("1,234 is taken for a decimal comma")
	}
	// A customer that comes twice costs a row, not the ids of everyone.
	var b strings.Builder
	b.WriteString("id,age\n")
	for i := range 100 {
		fmt.Fprintf(&b, "c%d,%d\n", i, i%50)
	}
	b.WriteString("c1,2\nc2,3\nc3,4\n")
	p, recs, bad := readAll(t, write(t, "d", []byte(b.String())), Options{})
	if p.IDColumn != "id" || len(recs) != 100 || len(bad) != 3 || !strings.Contains(bad[0].Reason, "duplicate id, first on line 3") {
		t.Errorf("id %q, %d customers, bad %v", p.IDColumn, len(recs), bad)
	}
}

// A file that is no table is refused with what it is.
func TestNoTable(t *testing.T) {
	for data, want := range map[string]string{
		"":                                  "the file is empty",
		"\n \r\n":                           "the file is empty",
		` [ {"id": "a"}, {"id": "b"} ]`:     "one object a line",
		"[\n  {\n    \"id\": \"a\"\n  }\n]": "one object a line",
		"{\n  \"id\": \"a\"\n}\n":           "line 1: not a JSON object",
		strings.Repeat(strings.Repeat("a,", maxColumns)+"b\n", 2): "line 1: more than 4096 columns",
	} {
		if _, err := Inspect(context.Background(), write(t, "x", []byte(data)), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", data, err, want)
		}
	}
}

// The id of a seed list is in the column that the customers have theirs in.
func TestSeedsLikeTheCustomers(t *testing.T) {
	ctx := context.Background()
	path := write(t, "s.csv", []byte("mail,Kundennr\nx@y,k1\nz@y,k2\n"))
	for _, c := range []struct {
		like []string
		want []Seed
	}{{[]string{"Kundennr"}, []Seed{{"k1", 1}, {"k2", 1}}}, {[]string{"", "id"}, []Seed{{"mail", 1}, {"x@y", 1}, {"z@y", 1}}}} {
		if got, err := ReadSeeds(ctx, path, Options{}, c.like...); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %v %v", c.like, got, err)
		}
	}
	if got, err := ReadSeeds(ctx, path, Options{IDColumn: "mail"}, "Kundennr"); err != nil || got[0].ID != "x@y" {
		t.Errorf("%v %v", got, err)
	}
}
