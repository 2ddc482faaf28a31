package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// results is every result file by name without its ending.
type results map[string]json.RawMessage

func load(dir string) (results, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	out := results{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if !json.Valid(data) {
			return nil, fmt.Errorf("%s is no JSON: measure it again", p)
		}
		out[strings.TrimSuffix(filepath.Base(p), ".json")] = data
	}
	return out, nil
}

func (r results) names() []string { return slices.Sorted(maps.Keys(r)) }

// into reads one result; false when there is none.
func (r results) into(name string, v any) (bool, error) {
	data, ok := r[name]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("bench/results/%s.json: %w", name, err)
	}
	return true, nil
}

// bar is one measured ratio of ours to another's, more being better, or a share
// of a ceiling.
type bar struct {
	id, chart, what  string
	note             string // for the table alone
	median, min, max float64
	pairs            int
	target, stretch  float64 // 0: none
	share            bool    // of a ceiling, 1 being all of it
}

func (b bar) name() string {
	if b.note != "" {
		return b.what + "; " + b.note
	}
	return b.what
}

func (b bar) number(x float64) string {
	switch {
	case b.share:
		return fmt.Sprintf("%.0f %%", 100*x)
	case x >= 19.95:
		return fmt.Sprintf("%.0fx", x)
	case x >= 9.995:
		return fmt.Sprintf("%.1fx", x)
	}
	return fmt.Sprintf("%.2fx", x)
}

func (b bar) verdict() string {
	switch {
	case b.target == 0:
		return ""
	case b.stretch > 0 && b.median >= b.stretch:
		return "hit, stretch too"
	case b.median >= b.target:
		return "hit"
	}
	return fmt.Sprintf("missed by %.1f %%", 100*(1-b.median/b.target))
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (s spread) bar(id, chart, what string, pairs int, target, stretch float64) bar {
	return bar{id: id, chart: chart, what: what, median: s.Median, min: s.Min, max: s.Max, pairs: pairs, target: target, stretch: stretch}
}

func (r results) bars() ([]bar, error) {
	var out []bar
	for _, f := range []func() ([]bar, error){r.encoder, r.tokenizer, r.http, r.hnsw, r.scan, r.lookalike} {
		b, err := f()
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

type encoderResult struct {
	Comparisons map[string]struct {
		Ratios []struct {
			Ours, Theirs string
			spread
			Pairs int
		} `json:"ratios"`
		Best map[string]float64 `json:"best_seconds"`
	} `json:"comparisons"`
	Cosine  map[string]float64 `json:"minimum_cosine_to_onnxruntime_fp32"`
	Ceiling map[string]struct {
		Max float64 `json:"max"`
	} `json:"ceiling_products_per_second"`
	Tokens map[string]int `json:"tokens"`
}

// goals of the encoder by comparison, our precision and the rival. C4's are the
// reciprocals of its 0.55 and 0.35 of the rival's time.
var goals = map[[3]string][2]float64{
	{"C1", "fp32", "ort fp32"}:    {1.3, 1.45},
	{"C2", "int16", "ort fp32"}:   {1.9, 2.2},
	{"C2", "int16", "ort int8"}:   {1.15, 1.3},
	{"C3", "fp32", "ort in 32s"}:  {2.5, 3.5},
	{"C3", "int16", "ort in 32s"}: {2.5, 3.5},
	{"C3", "fp32", "ort sorted"}:  {1.8, 0},
	{"C3", "int16", "ort sorted"}: {1.8, 0},
	{"C4", "fp32", "ort fp32"}:    {1 / 0.55, 1 / 0.35},
	{"C4", "int16", "ort fp32"}:   {1 / 0.55, 1 / 0.35},
}

var encoderTitles = map[string]string{"C1": "32 texts of 128 tokens", "C2": "32 texts of 128 tokens", "C3": "128 texts of 8 to 256 tokens", "C4": "one text of 16 tokens"}

// encoder reads the results of the encoder: on every core, on one, and on every
// core of a processor with tile registers, where another kernel is chosen.
func (r results) encoder() ([]bar, error) {
	var out []bar
	for _, file := range [][2]string{{"encoder", ""}, {"encoder-one-thread", ", 1 thread"}, {"encoder-amx", ", processor with AMX"}} {
		bars, err := r.encoderOf(file[0], file[1])
		if err != nil {
			return nil, err
		}
		out = append(out, bars...)
	}
	return out, nil
}

// encoderOf reads one of them; said tells its bars from the others'.
func (r results) encoderOf(file, said string) ([]bar, error) {
	var e encoderResult
	ok, err := r.into(file, &e)
	if !ok {
		return nil, err
	}
	var out []bar
	for _, name := range slices.Sorted(maps.Keys(e.Comparisons)) {
		for _, x := range e.Comparisons[name].Ratios {
			id := name[:2]
			if id == "C1" && x.Ours != "fp32" {
				id = "C2"
			}
			g := goals[[3]string{id, x.Ours, x.Theirs}]
			theirs := strings.Replace(x.Theirs, "ort", "ONNX Runtime", 1)
			what := fmt.Sprintf("%s: %s against %s%s", encoderTitles[id], x.Ours, theirs, said)
			out = append(out, x.bar(id, file, what, x.Pairs, g[0], g[1]))
		}
	}
	return out, nil
}

func (r results) tokenizer() ([]bar, error) {
	var t struct {
		Alternations int
		Runs         []struct {
			Corpus, Language string
			Threads          int
			Ratio            spread
			CPU              spread `json:"processor_time_ratio"`
		}
	}
	ok, err := r.into("tokenizer", &t)
	if !ok {
		return nil, err
	}
	var out []bar
	for _, x := range t.Runs {
		cores, target, stretch := "one core", 8.0, 20.0
		if x.Threads > 1 {
			cores, target, stretch = fmt.Sprintf("%d cores", x.Threads), 0, 0
		}
		b := x.Ratio.bar("C5", "tokenizer", fmt.Sprintf("%s (%s), %s", x.Corpus, x.Language, cores), 2*t.Alternations, target, stretch)
		b.note = fmt.Sprintf("by processor time %s", b.number(x.CPU.Median))
		out = append(out, b)
	}
	return out, nil
}

// http reads the service against its own engine, as a share, and the rival.
func (r results) http() ([]bar, error) {
	var h struct {
		Ratios []struct {
			Ours, Theirs string
			spread
			Pairs int
			CPU   float64 `json:"by_processor_time"`
		}
	}
	ok, err := r.into("http", &h)
	if !ok {
		return nil, err
	}
	var out []bar
	for _, x := range h.Ratios {
		what := "64 texts a request: " + strings.TrimPrefix(x.Ours, "http ")
		b := x.bar("C6", "http", what+" against FastAPI, ONNX Runtime fp32", x.Pairs, 0, 0)
		b.note = fmt.Sprintf("by processor time %.2fx", x.CPU)
		if strings.HasPrefix(x.Theirs, "engine") {
			b = x.bar("C6", "service", what+" of the engine's own rate", x.Pairs, 0.97, 0)
			b.share, b.note = true, fmt.Sprintf("by processor time %.0f %%", 100*x.CPU)
		}
		out = append(out, b)
	}
	return out, nil
}

func (r results) hnsw() ([]bar, error) {
	type timed struct {
		Wall         spread `json:"wall_ratio"`
		CPU          spread `json:"cpu_ratio"`
		Alternations int    `json:"alternations"`
	}
	var h struct {
		Alternations int
		Rows         int
		Build        *struct {
			timed
			Rows int
		} `json:"build_time"`
		Search []struct {
			Target  float64
			Against string
			Ours    struct{ Recall float64 }
			Other   struct{ Recall float64 }
			One     *timed `json:"threads_1"`
			Two     *timed `json:"threads_2"`
		}
	}
	ok, err := r.into("hnsw", &h)
	if !ok {
		return nil, err
	}
	var out []bar
	for _, s := range h.Search {
		for i, t := range []*timed{s.One, s.Two} {
			if t == nil {
				continue
			}
			var goal [2]float64
			if s.Against == "hnswlib" {
				goal = [2]float64{1.2, 1.6}
			}
			cores := []string{"1 thread", "2 threads"}[i]
			b := t.Wall.bar("C7", "hnsw", fmt.Sprintf("recall %.2f, %s: fp16 against %s", s.Target, cores, s.Against), t.Alternations, goal[0], goal[1])
			b.note = fmt.Sprintf("by processor time %s; recall %.3f and %.3f", b.number(t.CPU.Median), s.Ours.Recall, s.Other.Recall)
			out = append(out, b)
		}
	}
	if h.Build != nil {
		b := h.Build.Wall.bar("C7", "hnsw", fmt.Sprintf("build of %d rows: against hnswlib", h.Build.Rows), h.Alternations, 1.2, 0)
		b.note = "by processor time " + b.number(h.Build.CPU.Median)
		out = append(out, b)
	}
	return out, nil
}

type scanResult struct {
	Runs, Rows int
	ScanMS     spread             `json:"scan_ms"`
	SelectMS   spread             `json:"select_100000_ms"`
	CurveMS    spread             `json:"curve_200_ms"`
	Share      spread             `json:"scan_share_of_read_bandwidth"`
	Four       spread             `json:"four_sets_in_one_scan_over_four_scans"`
	RestartS   float64            `json:"restart_s"`
	Bound      float64            `json:"resident_bound_mb"`
	Resident   map[string]float64 `json:"resident_mb"`
}

func (r results) scan() ([]bar, error) {
	var s scanResult
	ok, err := r.into("scan", &s)
	if !ok {
		return nil, err
	}
	b := s.Share.bar("C8", "ceiling", "scan of 1 M x 384 int8: of the read bandwidth", s.Runs, 0.85, 0)
	b.share = true
	return []bar{b}, nil
}

type lookalikeResult struct {
	Members int
	Parts   map[string]struct {
		Rows      int
		Bandwidth spread  `json:"read_bandwidth_gb_s"`
		Share     spread  `json:"scan_share_of_read_bandwidth"`
		PeakMB    float64 `json:"ours_peak_mb"`
		Columns   spread  `json:"with_ten_columns_seconds"`
		Many      *struct {
			Audiences int
			Wall      spread `json:"over_one"`
			CPU       spread `json:"over_one_by_processor_time"`
			Seconds   spread
			One       spread  `json:"one_seconds"`
			PeakMB    float64 `json:"peak_mb"`
		} `json:"many_in_one_pass"`
		Against map[string]struct {
			Ratio   spread
			Seconds spread
			Ours    spread `json:"ours_seconds"`
			Pairs   int
		}
	}
}

func (r results) lookalike() ([]bar, error) {
	var l lookalikeResult
	ok, err := r.into("lookalike", &l)
	if !ok {
		return nil, err
	}
	var out []bar
	for _, part := range []string{"int8", "fp32"} {
		p := l.Parts[part]
		pairs := 0
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(p.Against))) { // NumPy first
			x := p.Against[name]
			var goal [2]float64
			if strings.HasPrefix(name, "numpy") {
				goal = [2]float64{3, 6}
			}
			b := x.Ratio.bar("C8", "lookalike", fmt.Sprintf("best %d of %d M: against %s", l.Members, p.Rows/1_000_000, name), x.Pairs, goal[0], goal[1])
			b.note = fmt.Sprintf("%.2f s against %.2f s", x.Ours.Median, x.Seconds.Median)
			out = append(out, b)
			pairs += x.Pairs
		}
		if pairs > 0 {
			b := p.Share.bar("C8", "ceiling", fmt.Sprintf("scan of %d M x 384 int8: of the read bandwidth", p.Rows/1_000_000), pairs, 0.85, 0)
			b.share = true
			out = append(out, b)
		}
	}
	return out, nil
}
