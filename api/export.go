package api

import (
	"archive/zip"
	"context"
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/parquet-go/parquet-go"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/export"
)

// ExportOf says which file of an audience; exported for the framework to see.
type ExportOf struct {
	AtAudience
	Format  string `query:"format" enum:"csv,ndjson,parquet" default:"csv"`
	Reasons bool   `query:"reasons" doc:"a column with the parts of each score"`
	AtVersion
}

type exportInput struct {
	ExportOf
	Bundle string `query:"bundle" enum:"none,zip" default:"none" doc:"zip: the file and its manifest in one archive"`
}

// exported is a file that is about to be made.
type exported struct {
	s        *Server
	of       *ExportOf
	manifest export.FileManifest
	first    []audience.Member // the first page, read before anything is sent
}

// exporting looks at everything that can be wrong with a file before a byte of it is
// sent. The version is settled here, so that a refresh meanwhile changes nothing.
func (s *Server) exporting(ctx context.Context, of *ExportOf) (*exported, error) {
	svc := s.opt.Service
	if _, err := s.finished(ctx, &of.AtAudience); err != nil {
		return nil, problemOf(err)
	}
	info, err := svc.AudienceAt(ctx, of.Collection, of.Audience, of.Version)
	if err != nil {
		return nil, problemOf(err)
	}
	of.Version = info.Version
	if err := svc.Releasable(ctx, of.Collection, of.Audience, of.Version); err != nil {
		return nil, problemOf(err)
	}
	e := &exported{s: s, of: of, manifest: export.FileManifest{
		File: of.Audience + "." + of.Format, Collection: of.Collection, Audience: of.Audience, Version: of.Version, Built: info.Built,
		Members: info.Size, Minimum: svc.MinAudience(), Layout: export.Plain, Tool: "kindred " + s.opt.Version,
	}}
	if info.Result != nil {
		e.manifest.Control, e.manifest.List = info.Result.Manifest.Control, &info.Result.Manifest
	}
	e.first, err = svc.MembersAt(ctx, of.Collection, of.Audience, of.Version, 0, maxPage)
	return e, problemOf(err)
}

// write makes the file, without the control group, and completes the manifest.
func (e *exported) write(ctx context.Context, to io.Writer) error {
	sealed := export.Seal(to)
	w := newMemberWriter(e.of.Format, sealed, e.of.Reasons)
	var err error
	for page := e.first; err == nil && len(page) > 0; {
		for _, m := range page {
			if m.Control {
				continue // held back, to measure against
			}
			if err = w.write(m); err != nil {
				break
			}
			e.manifest.Rows++
		}
		if err != nil || len(page) < maxPage {
			break
		}
		page, err = e.s.opt.Service.MembersAt(ctx, e.of.Collection, e.of.Audience, e.of.Version, page[len(page)-1].Rank, maxPage)
	}
	if cerr := w.close(); err == nil {
		err = cerr
	}
	sealed.Describe(&e.manifest)
	return err
}

// zip writes the file and its manifest as an archive. Its times are the list's, so that
// the same list gives the same bytes.
func (e *exported) zip(ctx context.Context, to io.Writer) error {
	archive := zip.NewWriter(to)
	entry := func(name string) (io.Writer, error) {
		return archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: e.manifest.Built.UTC()})
	}
	file, err := entry(e.manifest.File)
	if err != nil {
		return err
	}
	if err := e.write(ctx, file); err != nil {
		return err
	}
	if file, err = entry(e.manifest.File + export.ManifestEnd); err != nil {
		return err
	}
	if err := e.manifest.Write(file); err != nil {
		return err
	}
	return archive.Close()
}

// exportRoutes serve a list as a file and what describes the file.
func (s *Server) exportRoutes(at string) {
	op := s.operation("export-members", http.MethodGet, at+"/export", "The whole list as a file, without the control group", "audiences", RoleRead)
	op.Description = "The SHA-256 of what is sent follows as the trailer Repr-Digest (RFC 9530). With bundle=zip the file comes in an archive with its manifest, " +
		"which has the file's own SHA-256, its rows and what made the list. A list of fewer members than the server's minimum is refused."
	text, binary := &huma.MediaType{Schema: &huma.Schema{Type: "string"}}, &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	op.Responses = map[string]*huma.Response{"200": {Description: "the file", Content: map[string]*huma.MediaType{
		"text/csv": text, "application/x-ndjson": text, "application/vnd.apache.parquet": binary, "application/zip": binary,
	}}}
	huma.Register(s.api, op, func(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
		file, err := s.exporting(ctx, &in.ExportOf)
		if err != nil {
			return nil, err
		}
		kind := map[string]string{"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}[in.Format]
		name, write := file.manifest.File, file.write
		if in.Bundle == "zip" {
			kind, name, write = "application/zip", name+".zip", file.zip
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", kind)
			hc.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
			// The checksum is known when all is written, so it follows as a trailer.
			hc.SetHeader("Trailer", digestTrailer)
			hc.SetStatus(http.StatusOK)
			sealed := export.Seal(hc.BodyWriter())
			if err := write(ctx, sealed); err != nil {
				s.opt.Logger.Warn("an export broke off", "audience", in.Audience, "error", err)
				panic(http.ErrAbortHandler) // the client must not take half a list for a whole one
			}
			hc.SetHeader(digestTrailer, "sha-256=:"+base64.StdEncoding.EncodeToString(sealed.Sum())+":")
		}}, nil
	})
	manifest := s.operation("export-manifest", http.MethodGet, at+"/export/manifest", "What the exported file is: checksum, length, rows, version, what made the list", "audiences", RoleRead)
	manifest.Description = "Of the file that export gives for the same parameters. Ask for it first and export with its version: a refresh in between then changes nothing. " +
		"Members who are suppressed, erased or held back in between do leave the file, and it no longer has this checksum."
	huma.Register(s.api, manifest, func(ctx context.Context, in *ExportOf) (*body[export.FileManifest], error) {
		file, err := s.exporting(ctx, in)
		if err != nil {
			return nil, err
		}
		if err := file.write(ctx, io.Discard); err != nil {
			return nil, problemOf(err)
		}
		return &body[export.FileManifest]{file.manifest}, nil
	})
}

// digestTrailer carries the checksum of an export, as RFC 9530 writes it.
const digestTrailer = "Repr-Digest"

// memberWriter writes members as one format.
type memberWriter interface {
	write(audience.Member) error
	close() error
}

func newMemberWriter(format string, w io.Writer, reasons bool) memberWriter {
	switch format {
	case "ndjson":
		return &ndjsonMembers{w, reasons}
	case "parquet":
		return &parquetMembers{w: parquet.NewGenericWriter[parquetMember](w), reasons: reasons}
	}
	return &csvMembers{w: csv.NewWriter(w), reasons: reasons}
}

// csvMembers writes rank, id, score, probability and, when asked, reasons.
type csvMembers struct {
	w       *csv.Writer
	reasons bool
	headed  bool
}

func (c *csvMembers) head() error {
	if c.headed {
		return nil
	}
	c.headed = true
	head := []string{"rank", "id", "score", "probability"}
	if c.reasons {
		head = append(head, "reasons")
	}
	return c.w.Write(head)
}

func (c *csvMembers) write(m audience.Member) error {
	if err := c.head(); err != nil {
		return err
	}
	row := []string{strconv.Itoa(m.Rank), export.Cell(m.ID), export.Number(m.Score), export.Number(m.Probability)}
	if c.reasons {
		row = append(row, export.Cell(export.Reasons(m.Parts)))
	}
	return c.w.Write(row)
}

func (c *csvMembers) close() error {
	if err := c.head(); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}

type ndjsonMembers struct {
	w       io.Writer
	reasons bool
}

func (n *ndjsonMembers) write(m audience.Member) error {
	if !n.reasons {
		m.Parts = nil
	}
	raw, err := compact(m)
	if err != nil {
		return err
	}
	_, err = n.w.Write(raw)
	return err
}

func (n *ndjsonMembers) close() error { return nil }

type parquetMember struct {
	Rank        int64   `parquet:"rank"`
	ID          string  `parquet:"id"`
	Score       float32 `parquet:"score"`
	Probability float32 `parquet:"probability"`
	Reasons     string  `parquet:"reasons,optional"`
}

type parquetMembers struct {
	w       *parquet.GenericWriter[parquetMember]
	reasons bool
}

func (p *parquetMembers) write(m audience.Member) error {
	row := parquetMember{Rank: int64(m.Rank), ID: m.ID, Score: m.Score, Probability: m.Probability}
	if p.reasons {
		row.Reasons = export.Reasons(m.Parts)
	}
	_, err := p.w.Write([]parquetMember{row})
	return err
}

func (p *parquetMembers) close() error { return p.w.Close() }
