//go:build cuda

package scan

import "github.com/kindred-search/kindred/cuda"

// NewShardsOf is [NewShards] with runs and segments of so many rows, multiples of 64, so
// that few rows are many of both.
func NewShardsOf(devices []*cuda.Device, dim, run, perSegment int) (*Shards, error) {
	s, err := NewShards(devices, dim)
	if err != nil {
		return nil, err
	}
	s.run = run
	for _, p := range s.parts {
		p.perSegment, p.tileBytes = perSegment, 4096
	}
	return s, nil
}

// Shares are how many of the first n rows each device has.
func (s *Shards) Shares(n int) ([]int, error) {
	dealt, err := s.dealt(n)
	var out []int
	for d := range dealt {
		out = append(out, dealt[d].rows)
	}
	return out, err
}
