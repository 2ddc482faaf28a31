package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// productsPerToken of all-MiniLM-L6-v2 in texts of 128 tokens: four square and
// two feed-forward matrices a layer, and attention over the text.
const productsPerToken = 6 * (4*384*384 + 2*384*1536 + 2*128*384)

// facts are figures that have no target in cpu.md.
func (r results) facts() ([][2]string, error) {
	var out [][2]string
	add := func(what, format string, a ...any) { out = append(out, [2]string{what, fmt.Sprintf(format, a...)}) }
	var e encoderResult
	if ok, err := r.into("encoder", &e); err != nil {
		return nil, err
	} else if ok {
		for _, k := range slices.Sorted(maps.Keys(e.Cosine)) {
			if strings.HasPrefix(k, "batch") {
				add("least cosine to ONNX Runtime fp32, 32 texts, "+strings.Replace(strings.TrimPrefix(k, "batch "), "ort", "ONNX Runtime", 1), "%.7f", e.Cosine[k])
			}
		}
		for _, c := range e.Comparisons {
			for _, k := range []string{"fp32", "int16", "int8", "ort fp32"} {
				took, ceiling := c.Best[k], e.Ceiling[strings.TrimPrefix(k, "ort ")].Max
				if _, batch := c.Best["ort int8"]; !batch || took < 0.02 || ceiling == 0 {
					continue // only the batch of 32 keeps every unit busy
				}
				rate := float64(e.Tokens["batch"]) / took
				add("at best, "+strings.Replace(k, "ort", "ONNX Runtime", 1)+", 32 texts of 128 tokens", "%.1f k tokens/s, %.0f %% of the best ceiling of products", rate/1e3, 100*rate*productsPerToken/ceiling)
			}
		}
	}
	if err := r.precision(add); err != nil {
		return nil, err
	}
	var s scanResult
	if ok, err := r.into("scan", &s); err != nil {
		return nil, err
	} else if ok {
		add("scan of 1 M x 384 int8", "%.0f ms (%.0f to %.0f)", s.ScanMS.Median, s.ScanMS.Min, s.ScanMS.Max)
		add("selection of 100,000 of 1 M; reach curve of 200 sizes", "%.0f ms; %.0f ms", s.SelectMS.Median, s.CurveMS.Median)
		add("four audiences in one scan, as a share of four scans", "%.2f (%.2f to %.2f)", s.Four.Median, s.Four.Min, s.Four.Max)
		add("restart with 1 M x 384", "%.1f s", s.RestartS)
		add("resident with 1 M x 384 int8", "%.0f MB after a restart, %.0f MB at most in an import, %.0f MB at most while two fifths are rewritten; bound %.0f MB",
			s.Resident["after_restart"], s.Resident["peak_of_import"], s.Resident["peak_of_rewriting"], s.Bound)
	}
	var l lookalikeResult
	if ok, err := r.into("lookalike", &l); err != nil {
		return nil, err
	} else if ok {
		p := l.Parts["int8"]
		add(fmt.Sprintf("memory of %d M x 384 int8 in the table", p.Rows/1_000_000), "%.1f GB at most; the read bandwidth in that run was %.1f GB/s (%.1f to %.1f)", p.PeakMB/1e3, p.Bandwidth.Median, p.Bandwidth.Min, p.Bandwidth.Max)
		if m := p.Many; m != nil {
			add(fmt.Sprintf("%d audiences of %d from %d M in one pass, as many times one of them", m.Audiences, l.Members, p.Rows/1_000_000),
				"%.1f (%.1f to %.1f), by processor time %.1f; %.2f s against %.2f s; %.1f GB at most, the table included",
				m.Wall.Median, m.Wall.Min, m.Wall.Max, m.CPU.Median, m.Seconds.Median, m.One.Median, m.PeakMB/1e3)
			add(fmt.Sprintf("an audience of %d from %d M by text and ten columns", l.Members, p.Rows/1_000_000), "%.2f s (%.2f to %.2f)", p.Columns.Median, p.Columns.Min, p.Columns.Max)
		}
	}
	var a struct {
		Rows, Columns, Cores int
		Runs                 []struct {
			Seeds, Members int
			Seconds        float64
			CPU            float64 `json:"processor_seconds"`
			PeakMB         float64 `json:"peak_mb"`
		}
	}
	if ok, err := r.into("audience", &a); err != nil {
		return nil, err
	} else if ok {
		for _, run := range a.Runs {
			add(fmt.Sprintf("a whole audience of %d from %d customers and %d columns, %d seeds, method auto", run.Members, a.Rows, a.Columns, run.Seeds),
				"%.1f s on %d cores, %.1f of processor time; %.1f GB at most", run.Seconds, a.Cores, run.CPU, run.PeakMB/1e3)
		}
	}
	if err := r.edge(add); err != nil {
		return nil, err
	}
	if err := r.milvus(add); err != nil {
		return nil, err
	}
	var i struct {
		Rows, Columns int
		PerS          spread `json:"rows_per_s"`
	}
	if ok, err := r.into("import", &i); err != nil {
		return nil, err
	} else if ok {
		add(fmt.Sprintf("import of a CSV of %d rows and %d columns, to disk", i.Rows, i.Columns), "%.0f k rows/s (%.0f to %.0f)", i.PerS.Median/1e3, i.PerS.Min/1e3, i.PerS.Max/1e3)
	}
	var q struct {
		Cells int `json:"cells_measured"`
		First int `json:"first"`
		Near  int `json:"first_or_within_0_005"`
		Tasks map[string]any
	}
	if ok, err := r.into("quality", &q); err != nil {
		return nil, err
	} else if ok {
		add("quality of audiences: AUC against the best rival of each of "+fmt.Sprint(q.Cells)+" cells, chosen after the fact", "first in %d, first or within 0.005 in %d; %d tasks", q.First, q.Near, len(q.Tasks))
	}
	return out, nil
}

// precision says what a precision of the encoder changes.
func (r results) precision(add func(string, string, ...any)) error {
	var p struct {
		Models map[string]map[string]json.RawMessage
	}
	ok, err := r.into("precision", &p)
	if !ok {
		return err
	}
	for _, model := range slices.Sorted(maps.Keys(p.Models)) {
		for _, k := range []string{"fp32", "int16", "int8"} {
			var f struct {
				Least    float64  `json:"minimum_cosine"`
				First    float64  `json:"first_percentile_cosine"`
				Spearman float64  `json:"spearman_stsb_test"`
				KNN      *float64 `json:"banking77_knn10_accuracy"`
			}
			data, ok := p.Models[model][k]
			if !ok {
				continue
			}
			if err := json.Unmarshal(data, &f); err != nil {
				return fmt.Errorf("bench/results/precision.json: %s %s: %w", model, k, err)
			}
			text := fmt.Sprintf("STS Spearman %.4f", f.Spearman)
			if f.KNN != nil {
				text += fmt.Sprintf(", banking77 kNN %.4f", *f.KNN)
			}
			if f.Least > 0 {
				text += fmt.Sprintf("; cosine to fp32 on real text %.6f at least, %.6f at the 1st percentile", f.Least, f.First)
			}
			add(model+" in "+k, "%s", text)
		}
	}
	return nil
}

// edge is a small machine.
func (r results) edge(add func(string, string, ...any)) error {
	var e struct {
		Customers int
		Limit     int    `json:"limit_mb"`
		By        string `json:"limit_by"`
		Own       *int   `json:"own_mb_after_restart"`
		Steps     map[string]struct {
			Seconds float64
			CPU     float64 `json:"processor_seconds"`
			Peak    int     `json:"resident_peak_mb"`
		}
		Questions map[string]struct{ Median float64 } `json:"questions_ms"`
		Lookalike float64                             `json:"lookalike_seconds"`
		Ready     float64                             `json:"ready_after_restart_seconds"`
		Threads   map[string]float64                  `json:"cores_taken_by_threads"`
		Shown     bool                                `json:"threads_shown"`
		Binary    float64                             `json:"binary_mb"`
	}
	ok, err := r.into("edge", &e)
	if !ok {
		return err
	}
	most := 0
	for _, s := range e.Steps {
		most = max(most, s.Peak)
	}
	own := ""
	if e.Own != nil {
		own = fmt.Sprintf(", %d MB without the page cache after a restart", *e.Own)
	}
	add(fmt.Sprintf("%d customers with a text each within %d MB", e.Customers, e.Limit), "resident %d MB at most%s; limit by %s; the static binary has %.0f MB", most, own, e.By, e.Binary)
	add("import, lookalike and restart there", "%.0f s (%.0f s of processor time), %.1f s and %.1f s; search %.0f ms, similar %.0f ms", e.Steps["import"].Seconds, e.Steps["import"].CPU, e.Lookalike, e.Ready, e.Questions["search"].Median, e.Questions["similar"].Median)
	var threads []string
	for _, n := range slices.Sorted(maps.Keys(e.Threads)) {
		threads = append(threads, fmt.Sprintf("%.2f with --threads %s", e.Threads[n], n))
	}
	busy := ""
	if !e.Shown {
		busy = "; the machine was too busy to show a difference"
	}
	add("cores that an import takes, by the kernel's count", "%s%s", strings.Join(threads, ", "), busy)
	return nil
}

// origin is where and when a result was measured.
type origin struct {
	date, commit, hardware, load string
	versions                     []string
}

// source reads the origin of any result. The commands name things alike but
// not the same.
func source(data json.RawMessage) origin {
	var m map[string]any
	if json.Unmarshal(data, &m) != nil {
		return origin{} // load has seen that it is JSON; a list has no origin
	}
	text := func(v any) string {
		switch v := v.(type) {
		case nil:
			return ""
		case float64:
			return fmt.Sprintf("%.4g", v)
		case []any:
			if len(v) > 0 {
				return fmt.Sprint(v[0])
			}
			return ""
		}
		return fmt.Sprint(v)
	}
	under := func(name, key string) any {
		sub, _ := m[name].(map[string]any)
		return sub[key]
	}
	first := func(values ...any) string {
		for _, v := range values {
			if s := text(v); s != "" {
				return s
			}
		}
		return "not stated"
	}
	short := func(commit string) string {
		hash, rest, _ := strings.Cut(commit, " ")
		if len(hash) > 7 && commit != "not stated" {
			commit = strings.TrimSpace(hash[:7] + " " + rest)
		}
		return commit
	}
	o := origin{
		date:     first(m["date"]),
		commit:   short(first(m["commit"], under("versions", "commit"), under("build", "commit"), m["git_revision"])),
		hardware: first(m["cpu"], m["machine"]),
	}
	if n := text(m["cores"]); n != "" {
		o.hardware += ", " + n + " cores"
	}
	start, after := first(m["load_1min"], m["load_before"], under("load_average", "start")), first(m["load_after"], under("load_average", "end"))
	switch v := m["load_average"].(type) {
	case float64:
		after = text(v)
	case []any:
		if len(v) == 2 {
			start, _, _ = strings.Cut(text(v[0]), " ")
			after, _, _ = strings.Cut(text(v[1]), " ")
		}
	}
	o.load = load2(start, after)
	seen := map[string]string{}
	for _, name := range []string{"versions", "modules"} {
		sub, _ := m[name].(map[string]any)
		for k, v := range sub {
			if k != "commit" && !strings.HasSuffix(k, "_since") {
				seen[k[strings.LastIndex(k[:max(0, len(k)-3)], "/")+1:]] = text(v)
			}
		}
	}
	if v := first(m["go"], under("build", "go")); v != "not stated" {
		seen["go"] = v
	}
	if v := text(m["python"]); v != "" {
		seen["python"] = v
	}
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		o.versions = append(o.versions, k+" "+strings.TrimPrefix(seen[k], "go"))
	}
	return o
}

func load2(start, after string) string {
	const none = "not stated"
	switch {
	case start == none && after == none:
		return none
	case start == none:
		return after + " at the end"
	case after == none:
		return start + " at the start"
	}
	return start + " to " + after
}
