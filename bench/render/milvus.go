package main

import "fmt"

// milvus is the engine in Milvus beside the client library, and its indexes beside ours.
func (r results) milvus(add func(string, string, ...any)) error {
	var m struct {
		Ratios []struct {
			What, Unit, Kind     string
			Ours, Theirs, Paired spread
			Best                 float64
			OursCPU              float64 `json:"ours_cpu_ms"`
			TheirsCPU            float64 `json:"theirs_cpu_ms"`
			Pairs                int
			Target               float64
		}
		Indexes struct {
			Server  string `json:"milvus"`
			Rows    int
			Dim     int
			K       int
			Results []struct {
				Way, Where, Problem string
				Build               float64 `json:"build_seconds"`
				Recall, QPS         float64
				P50                 float64 `json:"p50_ms"`
				P99                 float64 `json:"p99_ms"`
			}
		}
		Data string `json:"index_data"`
	}
	ok, err := r.into("milvus", &m)
	if !ok {
		return err
	}
	for _, c := range m.Ratios {
		p, goal := c.Paired, ""
		switch c.Kind {
		case "rate":
			if c.Target > 0 {
				goal = fmt.Sprintf("; at least %.2f wanted", c.Target)
			}
			add("Milvus, "+c.What, "**%.2f** of its rate (%.2f to %.2f, %d pairs; of the best %.2f)%s; %.1f k and %.1f k %s; %.3g and %.3g ms of the client's processors", p.Median, p.Min, p.Max, c.Pairs, c.Best, goal, c.Ours.Median/1e3, c.Theirs.Median/1e3, c.Unit, c.OursCPU, c.TheirsCPU)
		case "time":
			if c.Target > 0 {
				goal = fmt.Sprintf("; at most %.2g wanted", c.Target)
			}
			add("Milvus, "+c.What, "**%.2f** of its time (%.2f to %.2f, %d pairs; of the best %.2f)%s; %.0f and %.0f %s; %.3g and %.3g ms of the client's processors", p.Median, p.Min, p.Max, c.Pairs, c.Best, goal, c.Ours.Median, c.Theirs.Median, c.Unit, c.OursCPU, c.TheirsCPU)
		case "more_ms":
			if c.Target > 0 {
				goal = fmt.Sprintf("; at most %.2g wanted", c.Target)
			}
			add("Milvus, "+c.What, "**%+.2f ms** (%+.2f to %+.2f, %d pairs; of the best %+.2f)%s; medians %.2f and %.2f %s; %.3g and %.3g ms of the client's processors", p.Median, p.Min, p.Max, c.Pairs, c.Best, goal, c.Ours.Median, c.Theirs.Median, c.Unit, c.OursCPU, c.TheirsCPU)
		default:
			return fmt.Errorf("bench/results/milvus.json: %q is no kind of ratio", c.Kind)
		}
	}
	for _, x := range m.Indexes.Results {
		where := "in Milvus " + m.Indexes.Server
		if x.Where != "milvus" {
			where = "in this process"
		}
		name := fmt.Sprintf("nearest %d of %d x %d, %s, %s", m.Indexes.K, m.Indexes.Rows, m.Indexes.Dim, x.Way, where)
		if x.Problem != "" {
			add(name, "not built by this server")
			continue
		}
		add(name, "recall %.3f; %.0f a second; p50 %.2f ms, p99 %.2f ms; built in %.0f s", x.Recall, x.QPS, x.P50, x.P99, x.Build)
	}
	return nil
}
