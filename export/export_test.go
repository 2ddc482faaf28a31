package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/index"
)

type raw struct {
	Email, Phone, First, Last, City, State, Zip, Country string
}

func (r raw) contact() Contact {
	return Contact{Email: r.Email, Phone: r.Phone, FirstName: r.First, LastName: r.Last, City: r.City, State: r.State, PostalCode: r.Zip, Country: r.Country}
}

// vectors are what the platforms' own code makes; testdata/vectors.py wrote
// them.
type vectors struct {
	Contacts []raw
	Meta     []raw
	Phone    []struct{ Raw, Region, E164 string }
	Google   []struct{ Raw, Hash string }
}

func read(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil || len(v.Contacts) < 4 || len(v.Meta) != len(v.Contacts) || len(v.Phone) < 5 || len(v.Google) < 3 {
		t.Fatalf("%+v, %v", v, err)
	}
	return v
}

func each(list ...Contact) iter.Seq2[Contact, error] {
	return func(yield func(Contact, error) bool) {
		for _, c := range list {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func table(t *testing.T, layout, region string, list ...Contact) (Summary, [][]string) {
	t.Helper()
	var out bytes.Buffer
	sum, err := Write(&out, layout, region, each(list...))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return sum, rows
}

func TestMeta(t *testing.T) {
	v := read(t)
	for i, c := range v.Contacts {
		sum, rows := table(t, Meta, "", c.contact())
		m := v.Meta[i]
		if want := []string{m.Email, m.Phone, m.First, m.Last, m.City, m.State, m.Zip, m.Country}; !reflect.DeepEqual(rows[1], want) {
			t.Errorf("%+v:\n%q, want\n%q", c, rows[1], want)
		}
		if sum.Rows != 1 || sum.Rules != "meta/1" || sum.Identifiers["zip"] != 1 || len(sum.Refused) > 0 {
			t.Errorf("%+v", sum)
		}
	}
}

func TestPhones(t *testing.T) {
	for _, p := range read(t).Phone {
		if got := (rules{region: p.Region}).e164(&Contact{Phone: p.Raw}); got != p.E164 {
			t.Errorf("%q in %s: %q, want %q", p.Raw, p.Region, got, p.E164)
		}
	}
	r := rules{}
	for in, want := range map[string]string{"030 901820": "", "+49 30 901820": "+4930901820", "0049 30 901820": "+4930901820", "12": "", "": "", "call me": "", "+999999999999999999": ""} {
		if got := r.e164(&Contact{Phone: in}); got != want {
			t.Errorf("%q without a region: %q, want %q", in, got, want)
		}
	}
	if got := (rules{region: "US"}).e164(&Contact{Phone: "030 901820", Country: "de"}); got != "+4930901820" {
		t.Errorf("the contact's country does not win: %q", got)
	}
}

func TestGoogle(t *testing.T) {
	for _, g := range read(t).Google {
		if _, rows := table(t, Google, "", Contact{Email: g.Raw}); rows[1][0] != g.Hash {
			t.Errorf("%q: %s, want %s", g.Raw, rows[1][0], g.Hash)
		}
	}
	whole := Contact{FirstName: "Ann", LastName: "Lee", Country: "us", PostalCode: "=94035-1234"}
	part := whole
	part.PostalCode, part.Email = "", "a@b.org"
	sum, rows := table(t, Google, "", whole, part, Contact{LastName: "Lee", Country: "US"})
	if rows[1][4] != "US" || rows[1][5] != "94035-1234" || rows[1][2] != digest("ann") {
		t.Errorf("an address: %q", rows[1])
	}
	if want := []string{digest("a@b.org"), "", "", "", "", ""}; !reflect.DeepEqual(rows[2], want) || sum.Unusable != 1 || len(rows) != 3 {
		t.Errorf("a part of an address: %q, %+v", rows[2:], sum)
	}
}

func TestTikTok(t *testing.T) {
	done := digest("x@y.org")
	sum, rows := table(t, TikTok, "US", Contact{Email: "X@Y.org", Phone: "650 555 1212"}, Contact{Email: strings.ToUpper(done), Phone: "6505551212"}, Contact{Email: "x at y", Phone: "1"}, Contact{City: "Rome"})
	if want := [][]string{{"Email_SHA256", "Phone_SHA256"}, {done, digest("+16505551212")}}; !reflect.DeepEqual(rows, want) {
		t.Errorf("%q, want %q", rows, want)
	}
	if sum.Duplicates != 1 || sum.Unusable != 2 || sum.Refused["email"] != 1 || sum.Refused["phone"] != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range [][2]string{{"pigeon", ""}, {Meta, "Germany"}, {Meta, "XX1"}} {
		if _, err := Write(&bytes.Buffer{}, c[0], c[1], each()); !errors.Is(err, index.ErrInvalid) {
			t.Errorf("%v: %v", c, err)
		}
	}
	want := errors.New("the disk is gone")
	if _, err := Write(&bytes.Buffer{}, Meta, "", func(yield func(Contact, error) bool) { yield(Contact{}, want) }); !errors.Is(err, want) {
		t.Error(err)
	}
}

// FuzzContact: any words make cells that are hashes or plain, and never a
// formula of a spreadsheet.
func FuzzContact(f *testing.F) {
	f.Add("=1@b.de", "+49 30 1", "-x", "DE", "=cmd|' /C calc'!A0")
	f.Fuzz(func(t *testing.T, mail, phone, name, country, post string) {
		c := Contact{Email: mail, Phone: phone, FirstName: name, LastName: name, City: name, State: name, PostalCode: post, Country: country}
		for _, l := range Layouts() {
			var out bytes.Buffer
			if _, err := Write(&out, l, "DE", each(c)); err != nil {
				t.Fatal(err)
			}
			rows, err := csv.NewReader(&out).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows[1:] {
				for _, cell := range row {
					if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) || strings.ContainsAny(cell, "\r\n") {
						t.Fatalf("%s: cell %q", l, cell)
					}
				}
			}
		}
	})
}
