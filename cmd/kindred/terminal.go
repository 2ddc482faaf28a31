package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/collection"
)

// app is what commands share: where they write and the settings. It is the one
// place in which the program's voice is made.
type app struct {
	out, err io.Writer
	cfg      Config
	limits   collection.Limits // of serve
	// outside is what lists ask of a Milvus; nil without one. Set by openData.
	outside func(coll string) *audience.Outside
	milvus  *milvusMetrics // of the Milvus that is open; nil without one

	deviceOnce sync.Once // see theDevice
	device     *device
	deviceErr  error
}

// say writes a line for people. A terminal that is gone is no reason to fail.
func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.err, format+"\n", args...) }

// inline keeps what customers' data hold from steering a terminal.
func inline(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '\ufffd'
		}
		return r
	}, s)
}

// printf writes a result.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// json writes a result for machines.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// quietTime is how long a pipe hears nothing of work that goes on: what takes
// less needs no line.
const quietTime = 2 * time.Second

// meter shows progress: a bar that is drawn over on a terminal, a line now and
// then in a pipe. It is used from one goroutine at a time.
type meter struct {
	a       *app
	live    bool
	what    string
	start   time.Time
	drawn   time.Time
	tenth   int64
	pending bool
}

func (a *app) meter() *meter {
	m := &meter{a: a, tenth: -1}
	if f, ok := a.err.(*os.File); ok {
		m.live = term.IsTerminal(int(f.Fd()))
	}
	return m
}

// show reports that done of total (0: unknown) of what is done.
func (m *meter) show(what string, done, total int64) {
	if m.a.cfg.Quiet {
		return
	}
	now := time.Now()
	if what != m.what {
		m.what, m.start, m.tenth, m.drawn = what, now, -1, time.Time{}
		if !m.live {
			m.drawn = now
		}
	}
	if m.live {
		if now.Sub(m.drawn) < 100*time.Millisecond && done != total {
			return
		}
		m.drawn, m.pending = now, true
		_, _ = fmt.Fprintf(m.a.err, "\r\x1b[K%s", m.line(done, total, now))
		return
	}
	tenth := int64(0)
	if total > 0 {
		tenth = 10 * done / total
	}
	if total <= 0 {
		tenth = m.tenth + 1
	}
	if tenth > m.tenth && now.Sub(m.drawn) >= quietTime {
		m.tenth, m.drawn = tenth, now
		m.a.say("%s", m.line(done, total, now))
	}
}

func (m *meter) line(done, total int64, now time.Time) string {
	if total <= 0 {
		return fmt.Sprintf("%s: %d", m.what, done)
	}
	out := fmt.Sprintf("%s: %d of %d (%d %%)", m.what, done, total, 100*done/total)
	if m.live {
		full := int(20 * min(done, total) / total)
		out = fmt.Sprintf("%-26s [%s%s] %3d %%", m.what, strings.Repeat("=", full), strings.Repeat(" ", 20-full), 100*done/total)
	}
	if took := now.Sub(m.start); done > 0 && done < total && took > time.Second {
		left := time.Duration(float64(took) * float64(total-done) / float64(done))
		out += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return out
}

// end takes the bar away: what came of the work is said next.
func (m *meter) end() {
	if m.pending {
		m.pending = false
		_, _ = fmt.Fprint(m.a.err, "\r\x1b[K")
	}
}
