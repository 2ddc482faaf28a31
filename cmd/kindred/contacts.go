package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
	"github.com/kindred-search/kindred/export"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// exportFlags say how an audience leaves.
type exportFlags struct {
	out, layout, contacts, id, region string
	columns                           []string
	smallest                          int
	control                           string
	list                              *collection.AudienceInfo // what leaves, once it is known
}

func (f *exportFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.out, "out", "o", "-", ".csv, .ndjson or .parquet, or - for standard output")
	flags.IntVar(&f.smallest, "min-audience", 100, "refuse lists shorter than this")
	flags.StringVar(&f.control, "control", "", "hold this share (10%) or number of members back from this and every later export, to measure against; once for an audience")
	flags.StringVar(&f.layout, "layout", export.Plain, "plain, or hashed contact data for meta, google or tiktok (a CSV file)")
	flags.StringVar(&f.contacts, "contacts", "", "for hashed layouts: file with the customers' ids and contact data; it is read, not stored")
	flags.StringVar(&f.id, "contacts-id", "", "column of the contacts that holds the ids (default: looked for)")
	flags.StringArrayVar(&f.columns, "contact", nil, "kind=column for contacts whose columns have other names, such as email=mail_private; kinds: email, phone, first name, last name, city, state, postal code, country")
	flags.StringVar(&f.region, "region", "", "two-letter country of phone numbers without a calling code, such as DE")
}

// contactNames are the usual names of columns, without case and punctuation.
var contactNames = map[string][]string{
	"email":       {"email", "emailaddress", "mail", "电子邮件", "邮箱"},
	"phone":       {"phone", "phonenumber", "mobile", "mobilephone", "telephone", "tel", "cell", "手机", "手机号", "电话"},
	"first name":  {"firstname", "first", "givenname", "fn"},
	"last name":   {"lastname", "last", "surname", "familyname", "ln"},
	"city":        {"city", "town", "ct", "城市"},
	"state":       {"state", "province", "st", "省份"},
	"postal code": {"postalcode", "postcode", "zip", "zipcode", "邮编"},
	"country":     {"country", "countrycode", "国家"},
}

// check finds what can be wrong before anything is opened.
func (f *exportFlags) check() error {
	var faults []error
	hashed := f.layout != export.Plain
	switch {
	case hashed && !slices.Contains(export.Layouts(), f.layout):
		faults = append(faults, fmt.Errorf("--layout %q: want plain, %s", f.layout, strings.Join(export.Layouts(), ", ")))
	case hashed && f.contacts == "":
		faults = append(faults, fmt.Errorf("--layout %s: --contacts FILE is missing: the customers' ids with their e-mail addresses or phones", f.layout))
	case hashed && f.out != "-" && !strings.EqualFold(filepath.Ext(f.out), ".csv"):
		faults = append(faults, fmt.Errorf("-o %s: --layout %s is a .csv", f.out, f.layout))
	case !hashed && (f.contacts != "" || f.id != "" || f.region != "" || len(f.columns) > 0):
		faults = append(faults, errors.New("--contacts, --contacts-id, --contact and --region are for --layout meta, google or tiktok"))
	}
	if !export.ValidRegion(f.region) {
		faults = append(faults, fmt.Errorf("--region %q: want a two-letter country such as DE", f.region))
	}
	for _, c := range f.columns {
		if kind, column, ok := strings.Cut(c, "="); !ok || column == "" || contactNames[kind] == nil {
			faults = append(faults, fmt.Errorf("--contact %q: want kind=column, kind one of %s", c, strings.Join(slices.Sorted(maps.Keys(contactNames)), ", ")))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return &usageError{err}
	}
	if f.out != "-" {
		if _, err := formOf(f.out); err != nil {
			return err
		}
		return checkOutputs([]string{f.contacts}, []string{f.out, f.out + export.ManifestEnd})
	}
	return nil
}

// exportAudience writes members to a file and its manifest beside it.
func (a *app) exportAudience(ctx context.Context, f exportFlags, coll, name string, members []audience.Member) error {
	short := func(n int, what string) error {
		if n >= f.smallest {
			return nil
		}
		return fmt.Errorf("audience %s has %d %s, fewer than --min-audience %d: a list that short can single people out", name, n, what, f.smallest)
	}
	if err := short(len(members), "members"); err != nil {
		return err
	}
	m := export.FileManifest{Collection: coll, Audience: name, Members: len(members), Rows: len(members), Minimum: f.smallest, Layout: f.layout, Tool: tool()}
	if f.list != nil && f.list.Result != nil {
		m.Version, m.Built, m.Control, m.List = f.list.Version, f.list.Built, f.list.Result.Manifest.Control, &f.list.Result.Manifest
	}
	var write func(io.Writer) error
	switch form, err := formOf(f.out); {
	case f.layout != export.Plain:
		contacts, absent, err := f.read(ctx, members)
		if err != nil {
			return err
		}
		write = func(w io.Writer) error {
			sum, err := export.Write(w, f.layout, f.region, contacts)
			if err != nil {
				return err
			}
			m.Rows, m.Contacts = sum.Rows, &export.Contacts{Summary: sum, Absent: absent}
			return short(sum.Rows, "members with contact data that "+f.layout+" takes")
		}
		if f.out == "-" {
			// Nothing leaves before it is known to be enough.
			if err := write(io.Discard); err != nil {
				return err
			}
		}
	case f.out == "-":
		return a.export(f.out, members)
	case err != nil:
		return err
	default:
		write = func(w io.Writer) error { return form(w, members) }
	}
	if f.out == "-" {
		return write(a.out)
	}
	m.File = filepath.Base(f.out)
	err := writeAtomic(f.out, func(w *os.File) error {
		sealed := export.Seal(w)
		err := write(sealed)
		sealed.Describe(&m)
		return err
	})
	if err != nil {
		return err
	}
	if c := m.Contacts; c != nil {
		a.say("%s: %d rows for %d members; %d not among the contacts, %d without what %s takes, %d twice", c.Rules, c.Rows, m.Members, c.Absent, c.Unusable, f.layout, c.Duplicates)
		for _, kind := range slices.Sorted(maps.Keys(c.Refused)) {
			a.say("note: %d values of %s could not be used", c.Refused[kind], kind)
		}
	}
	a.say("audience: %s", f.out)
	return writeAtomic(f.out+export.ManifestEnd, func(w *os.File) error { return m.Write(w) })
}

// read finds the contacts of members, in the members' order. absent is how many
// members the file does not name.
func (f *exportFlags) read(ctx context.Context, members []audience.Member) (_ iter.Seq2[export.Contact, error], absent int, err error) {
	path, done, err := regular(ctx, f.contacts)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, done()) }()
	plan, columns, err := f.plan(ctx, path)
	if err != nil {
		return nil, 0, fmt.Errorf("contacts: %w", err)
	}
	wanted := make(map[string]int, len(members))
	for i, m := range members {
		wanted[m.ID] = i
	}
	found, list := make([]bool, len(members)), make([]export.Contact, len(members))
	_, err = eachRecord(ctx, plan, func(rec profile.Record) bool {
		if at, ok := wanted[rec.ID]; ok {
			get := func(kind string) string {
				if columns[kind] == plan.IDColumn {
					return rec.ID
				}
				return rec.Fields[columns[kind]].Str
			}
			found[at], list[at] = true, export.Contact{Email: get("email"), Phone: get("phone"), FirstName: get("first name"), LastName: get("last name"), City: get("city"), State: get("state"), PostalCode: get("postal code"), Country: get("country")}
		}
		return true
	})
	if err != nil {
		return nil, 0, fmt.Errorf("contacts: %w", err)
	}
	for _, is := range found {
		if !is {
			absent++
		}
	}
	return func(yield func(export.Contact, error) bool) {
		for i, c := range list {
			if found[i] && !yield(c, ctx.Err()) {
				return
			}
		}
	}, absent, nil
}

// plan reads the contacts' columns: all as they are written, the id as found or
// said. columns is the column of each kind that is there.
func (f *exportFlags) plan(ctx context.Context, path string) (plan *ingest.Plan, columns map[string]string, err error) {
	opt := ingest.Options{IDColumn: f.id}
	if plan, err = ingest.Inspect(ctx, path, opt); err != nil {
		return nil, nil, err
	}
	if plan.IDColumn == "" {
		return nil, nil, fmt.Errorf("%s: no column is taken for the id: --contacts-id COLUMN names one", f.contacts)
	}
	columns = map[string]string{}
	for _, c := range f.columns {
		kind, column, _ := strings.Cut(c, "=")
		columns[kind] = column
	}
	opt.IDColumn, opt.Types = plan.IDColumn, map[string]profile.FieldType{}
	kinds, usable := export.Uses(f.layout), false
	if !slices.Contains(kinds, "country") {
		kinds = append(kinds, "country") // not written, but it is what a phone number without a calling code is of
	}
	for i, kind := range kinds {
		for _, c := range plan.Columns {
			if columns[kind] == "" && slices.Contains(contactNames[kind], ingest.FlatName(c.Name)) {
				columns[kind] = c.Name
			}
		}
		if columns[kind] != "" && columns[kind] != plan.IDColumn {
			opt.Types[columns[kind]] = profile.TypeCategory
		}
		usable = usable || columns[kind] != "" && i < len(export.Uses(f.layout))
	}
	if !usable {
		return nil, nil, fmt.Errorf("%s has no column of %s by its name: --contact kind=COLUMN says which it is", f.contacts, strings.Join(export.Uses(f.layout), ", "))
	}
	plan, err = ingest.Inspect(ctx, path, opt)
	return plan, columns, err
}
