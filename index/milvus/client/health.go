package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
)

// Report is what a server says of how it is.
type Report struct {
	Healthy bool
	Reasons []string // of not being healthy
	Quotas  []string // what it limits or refuses at the moment, in words
}

// quotas has the words for what a server limits; those of unknown states are Milvus's.
var quotas = map[milvuspb.QuotaState]string{
	milvuspb.QuotaState_ReadLimited:  "reads are slowed down",
	milvuspb.QuotaState_WriteLimited: "writes are slowed down",
	milvuspb.QuotaState_DenyToRead:   "reads are refused",
	milvuspb.QuotaState_DenyToWrite:  "writes are refused",
	milvuspb.QuotaState_DenyToDDL:    "changes of collections are refused",
}

// Report asks the server how it is. An error says that it cannot be asked.
func (c *Client) Report(ctx context.Context) (Report, error) {
	o := op{name: "health", timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.CheckHealth, &milvuspb.CheckHealthRequest{}, nil)
	if err != nil {
		return Report{}, err
	}
	out := Report{Healthy: ans.GetIsHealthy()}
	for _, r := range ans.GetReasons() {
		out.Reasons = append(out.Reasons, c.redact(shorten(r)))
	}
	for _, q := range ans.GetQuotaStates() {
		word, ok := quotas[q]
		if q == milvuspb.QuotaState_Unknown {
			continue
		}
		if !ok {
			word = q.String()
		}
		if !slices.Contains(out.Quotas, word) {
			out.Quotas = append(out.Quotas, word)
		}
	}
	slices.Sort(out.Quotas)
	return out, nil
}

// Unwell is a report of a server that is not healthy as an error of kind ErrNotReady.
func (c *Client) Unwell(r Report) error {
	return c.finish(op{name: "health"}, &Error{Kind: ErrNotReady, Detail: strings.Join(r.Reasons, "; ")})
}

// Node is one component of a server. Sizes are in bytes, 0 where it does not say.
type Node struct {
	Kind       string // querynode, datanode, proxy, ...
	Name       string
	Version    string
	Memory     int64
	MemoryUsed int64
	Disk       int64
	DiskUsed   int64
	Cores      int
	// Settings are the few that the server shows of itself, such as segment_max_size of
	// a datacoord, in MB.
	Settings map[string]string
	Err      string // why it could not be asked
}

// Nodes asks for the components of the server, in order of kind and name.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	o := op{name: "nodes", timeout: c.cfg.ReadTimeout, repeat: true}
	var out []Node
	_, err := ask(ctx, c, o, c.api.GetMetrics, &milvuspb.GetMetricsRequest{Request: `{"metric_type":"system_info"}`},
		func(a *milvuspb.GetMetricsResponse) (err error) {
			out, err = readNodes([]byte(a.GetResponse()))
			return err
		})
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Err = c.redact(shorten(out[i].Err))
	}
	return out, nil
}

func readNodes(raw []byte) ([]Node, error) {
	var doc struct {
		Nodes []struct {
			Infos struct {
				HasError bool   `json:"has_error"`
				Reason   string `json:"error_reason"`
				Name     string `json:"name"`
				Kind     string `json:"type"`
				Hardware struct {
					Cores      int   `json:"cpu_core_count"`
					Memory     int64 `json:"memory"`
					MemoryUsed int64 `json:"memory_usage"`
					Disk       int64 `json:"disk"`
					DiskUsed   int64 `json:"disk_usage"`
				} `json:"hardware_infos"`
				System struct {
					Version string `json:"build_version"`
				} `json:"system_info"`
				Settings map[string]any `json:"system_configurations"`
			} `json:"infos"`
		} `json:"nodes_info"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("the description of the components is no JSON as expected: %w", err)
	}
	out := make([]Node, 0, len(doc.Nodes))
	for _, n := range doc.Nodes {
		i := n.Infos
		node := Node{
			Kind: shorten(i.Kind), Name: shorten(i.Name), Version: shorten(i.System.Version), Cores: i.Hardware.Cores,
			Memory: max(i.Hardware.Memory, 0), MemoryUsed: max(i.Hardware.MemoryUsed, 0), Disk: max(i.Hardware.Disk, 0), DiskUsed: max(i.Hardware.DiskUsed, 0),
			Settings: map[string]string{},
		}
		if i.HasError {
			node.Err = i.Reason
			if node.Err == "" {
				node.Err = "it does not say why"
			}
		}
		for k, v := range i.Settings {
			switch v.(type) {
			case string, float64, bool:
				node.Settings[k] = shorten(fmt.Sprint(v))
			}
		}
		out = append(out, node)
	}
	slices.SortFunc(out, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return out, nil
}

// Databases returns the names of the server's databases, sorted.
func (c *Client) Databases(ctx context.Context) ([]string, error) {
	o := op{name: "list databases", timeout: c.cfg.ReadTimeout, repeat: true}
	ans, err := ask(ctx, c, o, c.api.ListDatabases, &milvuspb.ListDatabasesRequest{}, nil)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(ans.GetDbNames())
	slices.Sort(out)
	return out, nil
}

// Secured says how the connection is protected, without its secrets.
func (c *Client) Secured() string {
	how := "no TLS"
	if t := c.cfg.TLS; t != nil {
		how = "TLS, the server's certificate checked by "
		if t.CAFile == "" {
			how += "the system's authorities"
		} else {
			how += t.CAFile
		}
		if t.CertFile != "" {
			how += ", with our certificate " + t.CertFile
		}
	}
	switch {
	case c.cfg.APIKey != "":
		how += "; an API key"
	case c.cfg.Username != "":
		how += fmt.Sprintf("; user %q with a password", c.cfg.Username)
	default:
		how += "; no credentials"
	}
	return how
}
