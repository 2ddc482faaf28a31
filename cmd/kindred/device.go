package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kindred-search/kindred/cuda"
	"github.com/kindred-search/kindred/cuda/encoder"
	"github.com/kindred-search/kindred/cuda/scan"
	"github.com/kindred-search/kindred/cuda/selftest"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index/rows"
)

// Names of --device.
const (
	deviceAuto = "auto"
	deviceCPU  = "cpu"
	deviceCUDA = "cuda"
)

// device is the CUDA devices that --device names: all of them share every population, and
// the first has the models. One that was lost is opened anew when a population or a model is made next.
type device struct {
	say func(format string, args ...any)
	// auto is that none was asked for: whatever a device does not do, the CPU does. none is why
	// there is none; models of devices are then run by the CPU.
	auto     bool
	none     error
	saidNone sync.Once

	mu    sync.Mutex
	slots []slot
	// Populations that are alive, for the metrics.
	populations map[*sharded]struct{}
	// Lists and batches made by the devices, and by the CPU after an error.
	lists, batches, turns atomic.Int64
}

// slot is one device: open, or nil where it could not be opened again.
type slot struct {
	ordinal int
	open    *cuda.Device
	opened  int64
	past    cuda.Metrics // of what was open here before
}

// deviceNumbers are those that --device names after cuda: as in cuda:0,2; nil for all.
func deviceNumbers(name string) (numbers []int, isCUDA bool, err error) {
	list, some := strings.CutPrefix(name, deviceCUDA+":")
	if !some {
		return nil, name == deviceCUDA, nil
	}
	for _, x := range strings.Split(list, ",") {
		n, err := strconv.Atoi(x)
		if err != nil || n < 0 || slices.Contains(numbers, n) {
			return nil, true, fmt.Errorf("device %q: want numbers of devices, each once, as in cuda:0,1", name)
		}
		numbers = append(numbers, n)
	}
	return numbers, true, nil
}

// theDevice opens what --device names, once; nil is the CPU. auto takes the devices that
// can be used, and never the simulator; cuda fails where one cannot.
func (a *app) theDevice() (*device, error) {
	a.deviceOnce.Do(func() { a.device, a.deviceErr = a.findDevice() })
	return a.device, a.deviceErr
}

func (a *app) findDevice() (*device, error) {
	numbers, asked, err := deviceNumbers(a.cfg.Device)
	if err != nil {
		return nil, err
	}
	if a.cfg.Device != deviceAuto && !asked {
		return nil, nil
	}
	status := cuda.Probe()
	d := &device{say: a.say, auto: !asked, populations: map[*sharded]struct{}{}}
	if !asked && (len(status.Devices) == 0 || strings.HasSuffix(status.Devices[0].Name, "(not a GPU)")) {
		if !status.Built {
			return nil, nil
		}
		d.none = fmt.Errorf("%w: %s", cuda.ErrNoDevice, cmp.Or(status.Problem, "the simulator is for tests"))
		return d, nil // doctor says why
	}
	if numbers == nil {
		for _, d := range status.Devices {
			numbers = append(numbers, d.Ordinal)
		}
		if len(numbers) == 0 {
			numbers = []int{0} // its error says why
		}
	}
	for _, n := range numbers {
		open, err := openTested(n)
		if err != nil && !asked {
			a.say("CUDA device %d is not used: %v", n, err)
			d.none = fmt.Errorf("%w: none can be used", cuda.ErrNoDevice)
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--device %s: %w (`kindred doctor` says more; --device auto goes on without)", a.cfg.Device, err), d.Close())
		}
		if len(d.slots) == 0 && open.Info().Simulated {
			a.say("%s computes on the CPU, slowly: it is for tests", open.Info().Name)
		}
		d.slots = append(d.slots, slot{ordinal: n, open: open, opened: 1})
	}
	if len(d.slots) > 0 {
		d.none = nil
	}
	return d, nil
}

// openTested opens a device and has it answer what is known: one that gives wrong answers, or
// has no memory for it, is not used.
func openTested(ordinal int) (*cuda.Device, error) {
	d, err := cuda.Open(ordinal)
	if err != nil {
		return nil, err
	}
	if err := selftest.Run(context.Background(), d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// tables is d as tables take it, and models as models do; a nil device is none.
func (d *device) tables() rows.Device {
	if d == nil || d.none != nil {
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

// current are the devices, those that were lost opened anew; one that cannot be is left
// out while another is there.
func (d *device) current() ([]*cuda.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*cuda.Device
	var errs []error
	for i := range d.slots {
		s := &d.slots[i]
		if s.open != nil && s.open.Err() != nil {
			lost := s.open.Err()
			s.past = s.metrics()
			s.past.Allocated, s.past.Held = 0, nil
			if err := s.open.Close(); err != nil {
				lost = err
			}
			d.say("CUDA device %d was lost: %v", s.ordinal, lost)
			s.open = nil
		}
		if s.open == nil {
			open, err := openTested(s.ordinal)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.open = open
			s.opened++
		}
		out = append(out, s.open)
	}
	if len(out) == 0 {
		return nil, errors.Join(errs...)
	}
	for _, err := range errs {
		d.say("a CUDA device is left out: %v", err)
	}
	return out, nil
}

// metrics are the counts of all that was open here.
func (s *slot) metrics() cuda.Metrics {
	m := s.past
	if s.open == nil {
		return m
	}
	now := s.open.Metrics()
	for kernel, t := range m.Each {
		all := now.Each[kernel]
		now.Each[kernel] = cuda.Traced{Launches: t.Launches + all.Launches, Time: t.Time + all.Time}
	}
	return cuda.Metrics{
		Each:      now.Each,
		Allocated: now.Allocated, Held: now.Held, Peak: max(m.Peak, now.Peak), Uploaded: m.Uploaded + now.Uploaded,
		Downloaded: m.Downloaded + now.Downloaded, Launches: m.Launches + now.Launches, Kernels: m.Kernels + now.Kernels,
	}
}

// sharded is a population on the devices, known to the metrics while it lives.
type sharded struct {
	*scan.Shards
	d *device
}

// Close implements rows.Population.
func (p *sharded) Close() error {
	p.d.mu.Lock()
	delete(p.d.populations, p)
	p.d.mu.Unlock()
	return p.Shards.Close()
}

// NewPopulation implements rows.Device.
func (d *device) NewPopulation(dim int) (rows.Population, error) {
	open, err := d.current()
	if err != nil {
		return nil, err
	}
	shards, err := scan.NewShards(open, dim)
	if err != nil {
		return nil, err
	}
	p := &sharded{Shards: shards, d: d}
	d.mu.Lock()
	d.populations[p] = struct{}{}
	d.mu.Unlock()
	return p, nil
}

// NewModel implements embed.Device.
func (d *device) NewModel(ctx context.Context, cfg encoder.Config, get encoder.Tensors) (embed.DeviceModel, error) {
	if d.none != nil {
		return nil, d.none
	}
	open, err := d.current()
	if err == nil {
		var m *encoder.Model
		if m, err = encoder.New(ctx, open[0], cfg, get); err == nil {
			return m, nil
		}
		if !errors.Is(err, cuda.ErrOutOfMemory) && open[0].Err() == nil {
			return nil, err // of the model, not of the device
		}
	}
	if d.auto && !errors.Is(err, cuda.ErrNoDevice) {
		err = fmt.Errorf("%w for this model: %w", cuda.ErrNoDevice, err)
	}
	return nil, err
}

// NoteModel implements embed.Device.
func (d *device) NoteModel(err error) {
	if err == nil {
		d.batches.Add(1)
		return
	}
	d.turns.Add(1)
	if d.none == nil {
		d.say("the CPU encodes texts that the CUDA device did not: %v", err)
		return
	}
	d.saidNone.Do(func() { d.say("texts for a CUDA device are encoded by the CPU, in fp32: %v", err) })
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

// Close gives the devices back.
func (d *device) Close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []error
	for i := range d.slots {
		if d.slots[i].open != nil {
			all = append(all, d.slots[i].open.Close())
		}
	}
	return errors.Join(all...)
}

// foundCUDA is what doctor found of CUDA, in JSON.
type foundCUDA struct {
	Built         bool          `json:"built"`
	Driver        string        `json:"driver,omitempty"` // version of CUDA
	Architectures []string      `json:"architectures,omitempty"`
	Problem       string        `json:"problem,omitempty"` // why there are no devices
	Devices       []foundDevice `json:"devices"`
}

type foundDevice struct {
	Ordinal    int    `json:"ordinal"`
	Name       string `json:"name"`
	Capability string `json:"capability"`
	Processors int    `json:"processors"`
	Memory     int64  `json:"memory"` // bytes
	Simulated  bool   `json:"simulated,omitempty"`
	Problem    string `json:"problem,omitempty"` // why it cannot be used
}

// examineDevice says which devices there are, or why there are none. Each is opened, its
// kernels loaded, and closed again: nothing else says whether it can be used.
func (a *app) examineDevice() []finding {
	status := cuda.Probe()
	found := &foundCUDA{Built: status.Built, Driver: status.Driver, Problem: status.Problem, Devices: []foundDevice{}}
	f := finding{What: "CUDA", Found: "not built in: `make build-cuda` builds with it", CUDA: found}
	if status.Built {
		found.Architectures = cuda.Architectures()
		f.Found = "built in; "
		if status.Driver != "" {
			f.Found += "driver of CUDA " + status.Driver + "; "
		}
		if len(status.Devices) == 0 {
			f.Found += status.Problem
		} else {
			f.Found += fmt.Sprintf("devices: %d", len(status.Devices))
		}
		f.Found += "; kernels for " + strings.Join(found.Architectures, ", ")
	}
	numbers, asked, _ := deviceNumbers(a.cfg.Device)
	f.Wrong = asked && len(status.Devices) == 0
	for _, n := range numbers {
		if !slices.ContainsFunc(status.Devices, func(d cuda.Info) bool { return d.Ordinal == n }) {
			f.Wrong = true
			f.Found += fmt.Sprintf("; --device %s names device %d, which there is not", a.cfg.Device, n)
		}
	}
	list := []finding{f}
	for _, d := range status.Devices {
		about := foundDevice{Ordinal: d.Ordinal, Name: d.Name, Capability: fmt.Sprintf("%d.%d", d.Major, d.Minor), Processors: d.Processors, Memory: d.Memory, Simulated: d.Simulated}
		f := finding{What: fmt.Sprintf("CUDA device %d", d.Ordinal),
			Found: fmt.Sprintf("%s, compute capability %s, %d processors, %s", d.Name, about.Capability, d.Processors, gigabytes(uint64(d.Memory)))}
		open, err := openTested(d.Ordinal)
		if err == nil {
			err = open.Close()
		}
		switch {
		case err != nil:
			about.Problem = err.Error()
			f.Found += "; it cannot be used: " + about.Problem
			// Wrong answers are a fault of the machine; that it is in use is none, unless it is wanted.
			named := asked && (numbers == nil || slices.Contains(numbers, d.Ordinal))
			f.Wrong = named || errors.Is(err, cuda.ErrWrong)
		case d.Simulated:
			f.Found += "; kernels loaded; self-test: passed; used with --device cuda alone"
		default:
			f.Found += "; kernels loaded; self-test: passed"
		}
		found.Devices = append(found.Devices, about)
		list = append(list, f)
	}
	return list
}
