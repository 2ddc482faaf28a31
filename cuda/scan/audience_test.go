//go:build cuda

package scan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
	"github.com/kindred-search/kindred/index/rows"
	"github.com/kindred-search/kindred/profile"
)

// shared lets the tables of an engine use several devices.
type shared struct {
	tables
	devices []*cuda.Device
}

func (s *shared) NewPopulation(dim int) (rows.Population, error) {
	return scan.NewShards(s.devices, dim)
}

// customers are rows of which every fifth is of a kind that leans one way, in text and in
// columns.
func customers() (spec index.Spec, schema profile.Schema, all []index.Row, kind []audience.SeedRef) {
	schema.Fields = []profile.Field{{Name: "age", Type: profile.TypeNumber}, {Name: "region", Type: profile.TypeCategory}}
	spec = index.Spec{Name: "w", Dim: 12, Columns: schema.Columns()}
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range 1500 {
		row := index.Row{ID: fmt.Sprintf("c%05d", i), Vector: make([]float32, spec.Dim)}
		for j := range row.Vector {
			row.Vector[j] = float32(rng.NormFloat64())
		}
		age, region := 20+rng.Float64()*40, []string{"north", "south", "east"}[rng.IntN(3)]
		if i%5 == 0 {
			kind = append(kind, audience.SeedRef{ID: row.ID})
			row.Vector[i/5%3] += 2
			age += 15
		}
		row.Values = map[string]index.Value{"age": {Kind: index.Number, Num: age}, "region": {Kind: index.Category, Str: region}}
		all = append(all, row)
	}
	return spec, schema, all, kind
}

// TestAudience: an audience that is built on devices is the CPU's, byte for byte: members,
// scores, reasons, quality and all.
func TestAudience(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long; one schedule runs it")
	}
	spec, schema, all, kind := customers()
	build := func(device rows.Device, method string) []byte {
		store := memory.OpenWith(rows.Options{Device: device, DeviceRows: 1})
		engine, err := store.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := engine.Upsert(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		snap, err := engine.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 200
		res, err := audience.Build(t.Context(), audience.Population{Snap: snap, Spec: engine.Spec(), Schema: schema},
			audience.Request{Seeds: audience.Seeds{IDs: kind[:70]}, Size: audience.Size{Count: &n}, Method: method}, nil)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if err := errors.Join(snap.Close(), store.Close()); err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(res)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if cuda.Probe().Problem == "" && cuda.Probe().Devices[0].Simulated {
		t.Setenv("KINDRED_SIM_DEVICES", "2")
	}
	var devices []*cuda.Device
	for i := range cuda.Probe().Devices {
		d, err := cuda.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}()
		devices = append(devices, d)
	}
	if len(devices) == 0 {
		t.Skip("TestBest says why")
	}
	for _, method := range []string{audience.Auto, audience.Centroid, audience.Clusters, audience.Trees, audience.Neighbours} {
		want := build(nil, method)
		for _, on := range [][]*cuda.Device{devices[:1], devices} {
			s := &shared{tables{t: t}, on}
			if got := build(s, method); !bytes.Equal(got, want) {
				t.Errorf("%s: on %d devices the audience is another", method, len(on))
			}
			if s.lists.Load() == 0 {
				t.Errorf("%s: %d devices were never asked", method, len(on))
			}
		}
	}
}
