package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/index/rows"
)

// Names of --device.
const (
	deviceAuto = "auto"
	deviceCPU  = "cpu"
	deviceCUDA = "cuda"
)

// scorer lets tables make lists on the first CUDA device. A device that was lost is
// opened anew when a table asks next.
type scorer struct {
	say func(format string, args ...any)

	mu           sync.Mutex
	device       *cuda.Device
	lists, turns atomic.Int64 // made by the device; made by the CPU after an error
}

// openDevice opens what --device names: nil is the CPU. auto takes a device where
// one can be used, and never the simulator; cuda fails where none can.
func (a *app) openDevice() (*scorer, error) {
	if a.cfg.Device == deviceCPU {
		return nil, nil
	}
	status := cuda.Probe()
	if a.cfg.Device == deviceAuto {
		if len(status.Devices) == 0 || status.Devices[0].Simulated {
			return nil, nil // doctor says why
		}
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
	return &scorer{say: a.say, device: d}, nil
}

// tables is s as tables take it; a nil scorer is none.
func (s *scorer) tables() rows.Device {
	if s == nil {
		return nil
	}
	return s
}

// NewPopulation implements rows.Device.
func (s *scorer) NewPopulation(dim int) (rows.Population, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil || s.device.Err() != nil {
		if s.device != nil {
			if err := s.device.Close(); err != nil {
				s.say("the CUDA device was lost: %v", err)
			}
			s.device = nil
		}
		d, err := cuda.Open(0)
		if err != nil {
			return nil, err
		}
		s.device = d
	}
	return scan.New(s.device, dim)
}

// Note implements rows.Device.
func (s *scorer) Note(err error) {
	if err == nil {
		s.lists.Add(1)
		return
	}
	s.turns.Add(1)
	s.say("the CPU makes a list that the CUDA device did not: %v", err)
}

// Close gives the device back.
func (s *scorer) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil {
		return nil
	}
	return s.device.Close()
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
