package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/export"
)

// A phone number without a calling code is of its contact's country, in a layout too
// that does not write the country. The hashes are of sha256sum.
func TestPhoneIsOfItsContactsCountry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "people.csv")
	writeRows(t, path, [][]string{
		{"id", "phone", "country"}, {"a", "(201) 555-0123", "us"}, {"b", "0151 12345678", ""},
	})
	f := &exportFlags{contacts: path, layout: export.TikTok}
	contacts, absent, err := f.read(t.Context(), []audience.Member{{ID: "a"}, {ID: "b"}})
	if err != nil || absent != 0 {
		t.Fatal(absent, err)
	}
	var out strings.Builder
	if _, err := export.Write(&out, f.layout, "DE", contacts); err != nil {
		t.Fatal(err)
	}
	want := "Email_SHA256,Phone_SHA256\n" +
		",e7e096141fe6290f8c04e20b51a686070a9c40f7f304667849b430645aaaf07d\n" + // +12015550123
		",536afd523e19dc83fccba822ef5e4ca646111314aaf0aa286667c5bea18dd70b\n" // +4915112345678
	if out.String() != want {
		t.Errorf("got %s", out.String())
	}
	country := filepath.Join(t.TempDir(), "country.csv")
	writeRows(t, country, [][]string{{"id", "country"}, {"a", "us"}})
	f.contacts, f.id = country, "id"
	if _, _, err := f.read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no column of email, phone") {
		t.Errorf("a country alone: %v", err)
	}
}
