package api

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/export"
)

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
	row := []string{strconv.Itoa(m.Rank), export.Cell(m.ID), number(m.Score), number(m.Probability)}
	if c.reasons {
		row = append(row, export.Cell(reasonsText(m.Parts)))
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

func number(x float32) string { return strconv.FormatFloat(float64(x), 'g', -1, 32) }

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
		row.Reasons = reasonsText(m.Parts)
	}
	_, err := p.w.Write([]parquetMember{row})
	return err
}

func (p *parquetMembers) close() error { return p.w.Close() }
