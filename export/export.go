// Package export writes audiences for advertising platforms: one row a member
// with contact data normalised and hashed (SHA-256, hexadecimal) the way the
// platform asks for.
//
// Write takes contacts and a layout. Every layout has a version of its rules
// (Rules), which belongs into the manifest beside the file: when a platform
// changes what it hashes, a new version is added and old files stay explained.
// Contact data are never stored by Kindred; they pass from the caller's file
// into hashes.
package export

import (
	"crypto/sha256"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/kindred-search/kindred/index"
)

// The layouts.
const (
	Meta   = "meta"   // customer list of Meta's custom audiences
	Google = "google" // Google Customer Match
	TikTok = "tiktok" // TikTok customer file
)

// Layouts returns the layouts in a fixed order.
func Layouts() []string { return []string{Meta, Google, TikTok} }

// Contact is what is known of one member. Any field may be "". Values that are
// SHA-256 already (64 hexadecimal digits) are taken as they are where a hash is
// asked for.
type Contact struct {
	Email, Phone                     string
	FirstName, LastName              string
	City, State, PostalCode, Country string
}

// Summary is what became of the contacts.
type Summary struct {
	Layout      string         `json:"layout"`
	Rules       string         `json:"rules"`       // version of the normalisation
	Rows        int            `json:"rows"`        // written
	Duplicates  int            `json:"duplicates"`  // contacts that gave a row already written
	Unusable    int            `json:"unusable"`    // contacts without one identifier that the platform takes
	Identifiers map[string]int `json:"identifiers"` // filled cells by column
	Refused     map[string]int `json:"refused"`     // values given but not usable, by kind
}

// column is one column of a layout: its header and what it makes of a contact,
// "" for nothing.
type column struct {
	header string
	kind   string // in Summary.Refused
	given  func(*Contact) string
	value  func(r rules, c *Contact) string
}

// layout is a platform's file.
type layout struct {
	rules   string
	columns []column
	// strong are the columns of which one must be filled for a row to match
	// anybody.
	strong []string
	// complete clears what is worthless in part.
	complete func(row []string)
}

func email(c *Contact) string { return c.Email }
func phone(c *Contact) string { return c.Phone }
func first(c *Contact) string { return c.FirstName }
func last(c *Contact) string  { return c.LastName }
func city(c *Contact) string  { return c.City }
func state(c *Contact) string { return c.State }
func post(c *Contact) string  { return c.PostalCode }
func land(c *Contact) string  { return c.Country }

// hashed makes a column of the hash of a normalised value.
func hashed(header, kind string, given func(*Contact) string, normal func(rules, *Contact) string) column {
	return column{header, kind, given, func(r rules, c *Contact) string {
		if v := strings.ToLower(strings.TrimSpace(given(c))); isHash(v) {
			return v
		}
		return digest(normal(r, c))
	}}
}

var layouts = map[string]layout{
	Meta: {
		rules: "meta/1",
		columns: []column{
			hashed("email", "email", email, func(_ rules, c *Contact) string { return plainEmail(c.Email) }),
			hashed("phone", "phone", phone, func(r rules, c *Contact) string { return strings.TrimPrefix(r.e164(c), "+") }),
			hashed("fn", "first name", first, func(_ rules, c *Contact) string { return name(c.FirstName) }),
			hashed("ln", "last name", last, func(_ rules, c *Contact) string { return name(c.LastName) }),
			hashed("ct", "city", city, func(_ rules, c *Contact) string { return letters(c.City) }),
			hashed("st", "state", state, func(_ rules, c *Contact) string { return letters(c.State) }),
			hashed("zip", "postal code", post, func(_ rules, c *Contact) string { return shortPostal(c.PostalCode) }),
			hashed("country", "country", land, func(r rules, c *Contact) string { return strings.ToLower(r.country(c)) }),
		},
		strong: []string{"email", "phone", "fn"},
	},
	Google: {
		rules: "google/1",
		columns: []column{
			hashed("Email", "email", email, func(_ rules, c *Contact) string { return googleEmail(c.Email) }),
			hashed("Phone", "phone", phone, func(r rules, c *Contact) string { return r.e164(c) }),
			hashed("First Name", "first name", first, func(_ rules, c *Contact) string { return name(c.FirstName) }),
			hashed("Last Name", "last name", last, func(_ rules, c *Contact) string { return name(c.LastName) }),
			{"Country", "country", land, func(r rules, c *Contact) string { return r.country(c) }},
			{"Zip", "postal code", post, func(_ rules, c *Contact) string { return postal(c.PostalCode) }},
		},
		strong: []string{"Email", "Phone", "First Name"},
		complete: func(row []string) {
			if slices.Contains(row[2:], "") { // an address matches whole or not at all
				clear(row[2:])
			}
		},
	},
	TikTok: {
		rules: "tiktok/1",
		columns: []column{
			hashed("Email_SHA256", "email", email, func(_ rules, c *Contact) string { return plainEmail(c.Email) }),
			hashed("Phone_SHA256", "phone", phone, func(r rules, c *Contact) string { return r.e164(c) }),
		},
		strong: []string{"Email_SHA256", "Phone_SHA256"},
	},
}

// Rules returns the version of a layout's normalisation, "" for none of ours.
func Rules(name string) string { return layouts[name].rules }

// Uses returns the fields of Contact that a layout reads, by the names of
// Summary.Refused.
func Uses(name string) []string {
	var out []string
	for _, c := range layouts[name].columns {
		out = append(out, c.kind)
	}
	return out
}

// ValidRegion says whether a region for phone numbers is "" or a two-letter
// ISO 3166-1 code.
func ValidRegion(region string) bool { return region == "" || isCountry(region) }

func isCountry(code string) bool {
	r, err := language.ParseRegion(code)
	return err == nil && len(code) == 2 && r.IsCountry()
}

// Write writes contacts as CSV in the order given, equal rows once. region is
// the two-letter country of phone numbers that have no calling code and whose
// contact names no country; "" refuses those.
func Write(w io.Writer, name, region string, contacts iter.Seq2[Contact, error]) (Summary, error) {
	l, ok := layouts[name]
	if !ok {
		return Summary{}, fmt.Errorf("layout %q: want %s: %w", name, strings.Join(Layouts(), ", "), index.ErrInvalid)
	}
	if !ValidRegion(region) {
		return Summary{}, fmt.Errorf("region %q: want a two-letter country such as DE: %w", region, index.ErrInvalid)
	}
	sum := Summary{Layout: name, Rules: l.rules, Identifiers: map[string]int{}, Refused: map[string]int{}}
	out := csv.NewWriter(w)
	row := make([]string, len(l.columns))
	for i, c := range l.columns {
		row[i] = c.header
	}
	if err := out.Write(row); err != nil {
		return sum, err
	}
	seen := map[[sha256.Size]byte]bool{}
	r := rules{region: strings.ToUpper(region)}
	for contact, err := range contacts {
		if err != nil {
			return sum, err
		}
		usable := false
		for i, c := range l.columns {
			row[i] = c.value(r, &contact)
			if row[i] == "" && strings.TrimSpace(c.given(&contact)) != "" {
				sum.Refused[c.kind]++
			}
		}
		if l.complete != nil {
			l.complete(row)
		}
		for i, c := range l.columns {
			usable = usable || row[i] != "" && slices.Contains(l.strong, c.header)
		}
		key := sha256.Sum256([]byte(strings.Join(row, "\x00")))
		switch {
		case !usable:
			sum.Unusable++
			continue
		case seen[key]:
			sum.Duplicates++
			continue
		}
		seen[key] = true
		for i, c := range l.columns {
			if row[i] != "" {
				sum.Identifiers[c.header]++
			}
		}
		if err := out.Write(row); err != nil {
			return sum, err
		}
		sum.Rows++
	}
	out.Flush()
	return sum, out.Error()
}
