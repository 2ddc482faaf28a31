package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index/rows"
)

// Names of --device.
const (
	deviceAuto = "auto"
	deviceCPU  = "cpu"
	deviceCUDA = "cuda"
)

// device is the first CUDA device, for tables and for models. One that was lost is
// opened anew when it is asked for next.
type device struct {
	say func(format string, args ...any)

	mu   sync.Mutex
	open *cuda.Device
	// Lists and batches made by the device, and by the CPU after an error.
	lists, batches, turns atomic.Int64
}

// theDevice opens what --device names, once; nil is the CPU. auto takes a device where
// one can be used, and never the simulator; cuda fails where none can.
func (a *app) theDevice() (*device, error) {
	a.deviceOnce.Do(func() { a.device, a.deviceErr = a.findDevice() })
	return a.device, a.deviceErr
}

func (a *app) findDevice() (*device, error) {
	if a.cfg.Device != deviceAuto && a.cfg.Device != deviceCUDA {
		return nil, nil
	}
	status := cuda.Probe()
	if a.cfg.Device == deviceAuto && (len(status.Devices) == 0 || status.Devices[0].Simulated) {
		return nil, nil // doctor says why
	}
	d, err := cuda.Open(0)
	if err != nil && a.cfg.Device == deviceAuto {
		a.say("the CUDA device is not used: %v", err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--device cuda: %w (`kindred doctor` says more; --device auto goes on without)", err)
	}
	if d.Info().Simulated {
		a.say("%s computes on the CPU, slowly: it is for tests", d.Info().Name)
	}
	return &device{say: a.say, open: d}, nil
}

// tables is d as tables take it, and models as models do; a nil device is none.
func (d *device) tables() rows.Device {
	if d == nil {
		return nil
	}
	return d
}

func (d *device) models() embed.Device {
	if d == nil {
		return nil
	}
	return d
}

// current is the device, opened anew where it was lost.
func (d *device) current() (*cuda.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != nil && d.open.Err() != nil {
		if err := d.open.Close(); err != nil {
			d.say("the CUDA device was lost: %v", err)
		}
		d.open = nil
	}
	if d.open == nil {
		open, err := cuda.Open(0)
		if err != nil {
			return nil, err
		}
		d.open = open
	}
	return d.open, nil
}

// NewPopulation implements rows.Device.
func (d *device) NewPopulation(dim int) (rows.Population, error) {
	open, err := d.current()
	if err != nil {
		return nil, err
	}
	return scan.New(open, dim)
}

// NewModel implements embed.Device.
func (d *device) NewModel(ctx context.Context, cfg encoder.Config, get encoder.Tensors) (embed.DeviceModel, error) {
	open, err := d.current()
	if err != nil {
		return nil, err
	}
	return encoder.New(ctx, open, cfg, get)
}

// NoteModel implements embed.Device.
func (d *device) NoteModel(err error) {
	if err == nil {
		d.batches.Add(1)
		return
	}
	d.turns.Add(1)
	d.say("the CPU encodes texts that the CUDA device did not: %v", err)
}

// Note implements rows.Device.
func (d *device) Note(err error) {
	if err == nil {
		d.lists.Add(1)
		return
	}
	d.turns.Add(1)
	d.say("the CPU makes a list that the CUDA device did not: %v", err)
}

// Close gives the device back.
func (d *device) Close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		return nil
	}
	return d.open.Close()
}

// examineDevice says which devices there are, or why there are none.
func (a *app) examineDevice() []finding {
	status := cuda.Probe()
	f := finding{What: "CUDA", Found: "not built in: `make build-cuda` builds with it"}
	if status.Built {
		f.Found = "built in; "
		if status.Driver != "" {
			f.Found += "driver of CUDA " + status.Driver + "; "
		}
		if len(status.Devices) == 0 {
			f.Found += status.Problem
		} else {
			f.Found += fmt.Sprintf("%d devices; kernels for %s", len(status.Devices), strings.Join(cuda.Architectures(), ", "))
		}
	}
	f.Wrong = a.cfg.Device == deviceCUDA && len(status.Devices) == 0
	list := []finding{f}
	for _, d := range status.Devices {
		list = append(list, finding{What: fmt.Sprintf("CUDA device %d", d.Ordinal),
			Found: fmt.Sprintf("%s, compute capability %d.%d, %d processors, %s", d.Name, d.Major, d.Minor, d.Processors, gigabytes(uint64(d.Memory)))})
	}
	return list
}
