//go:build cuda

package cuda

import (
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

/*
#include <cuda.h>
#include <stdlib.h>

extern const char *kindred_cuda_problem(void);
extern int kindred_cuda_opened(void), kindred_cuda_init_code(void);

static CUresult kindred_host_alloc(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
static CUresult kindred_host_free(void *p) { return cuMemFreeHost(p); }
*/
import "C"

// images are the compiled kernels, one file a source, and their manifest: `make kernels`
// makes them.
//
//go:embed build/kernels/*.fatbin build/kernels/manifest.json
var images embed.FS

const simulator = "Kindred simulator"

func name(code int) string {
	var p *C.char
	if C.cuGetErrorName(C.CUresult(code), &p) != 0 || p == nil {
		return "CUDA_ERROR"
	}
	return C.GoString(p)
}

// callError turns an error of gorgonia.org/cu into ours.
func callError(device int, call string, err error) error {
	if err == nil {
		return nil
	}
	code := codeUnknown
	// Its errors are the driver's numbers under a type that is not exported.
	for e := err; e != nil; e = errors.Unwrap(e) {
		if v := reflect.ValueOf(e); v.CanInt() {
			code = int(v.Int())
			break
		}
	}
	return &CallError{Device: device, Call: call, Code: code, Name: name(code), kind: kindOf(code)}
}

// version writes the driver's number of a version.
func version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

func probe() Status {
	s := Status{Built: true}
	if C.kindred_cuda_opened() == 0 {
		s.Problem = "no driver: " + C.GoString(C.kindred_cuda_problem())
		return s
	}
	if v := cu.Version(); v > 0 {
		s.Driver = version(v)
	}
	if code := int(C.kindred_cuda_init_code()); code != 0 {
		s.Problem = fmt.Sprintf("the driver does not start: %s (%d)", name(code), code)
		return s
	}
	n, err := cu.NumDevices()
	if err != nil {
		s.Problem = callError(-1, "cuDeviceGetCount", err).Error()
		return s
	}
	if n == 0 {
		s.Problem = "the driver has no device"
	}
	for i := range n {
		info, err := describe(i)
		if err != nil {
			s.Problem = err.Error()
			continue
		}
		s.Devices = append(s.Devices, info)
	}
	return s
}

func describe(ordinal int) (Info, error) {
	info := Info{Ordinal: ordinal}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return info, callError(ordinal, "cuDeviceGet", err)
	}
	if info.Name, err = dev.Name(); err != nil {
		return info, callError(ordinal, "cuDeviceGetName", err)
	}
	info.Simulated = strings.HasPrefix(info.Name, simulator)
	if info.Memory, err = dev.TotalMem(); err != nil {
		return info, callError(ordinal, "cuDeviceTotalMem", err)
	}
	for _, a := range []struct {
		to *int
		of cu.DeviceAttribute
	}{
		{&info.Major, cu.ComputeCapabilityMajor}, {&info.Minor, cu.ComputeCapabilityMinor},
		{&info.Processors, cu.MultiprocessorCount},
	} {
		if *a.to, err = dev.Attribute(a.of); err != nil {
			return info, callError(ordinal, "cuDeviceGetAttribute", err)
		}
	}
	var shared C.int
	if code := C.cuDeviceGetAttribute(&shared, C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, C.CUdevice(ordinal)); code != 0 {
		return info, (&driver{ordinal: ordinal}).code("cuDeviceGetAttribute", code)
	}
	info.SharedPerBlock = int(shared)
	return info, nil
}

// driver is a device through gorgonia.org/cu.
type driver struct {
	ordinal int
	ctx     cu.CUContext
	stream  cu.Stream
	events  [events]cu.Event
	modules []cu.Module
	kernels map[string]cu.Function
	most    int            // bytes of dynamic shared memory
	granted map[string]int // of them, to each kernel that asked for many
}

func open(ordinal int) (backend, Info, error) {
	s := probe()
	at := slices.IndexFunc(s.Devices, func(i Info) bool { return i.Ordinal == ordinal })
	if at < 0 {
		if s.Problem == "" {
			s.Problem = fmt.Sprintf("there are %d", len(s.Devices))
		}
		return nil, Info{}, fmt.Errorf("%w %d: %s", ErrNoDevice, ordinal, s.Problem)
	}
	info := s.Devices[at]
	if info.Major < 8 {
		return nil, info, fmt.Errorf("CUDA device %d (%s) has compute capability %d.%d, and the kernels need 8.0: %w", ordinal, info.Name, info.Major, info.Minor, ErrNoDevice)
	}
	// The kernels' code is of the compiler's major version, which older drivers do not know.
	if have := cu.Version(); have < C.CUDA_VERSION/1000*1000 {
		return nil, info, fmt.Errorf("CUDA device %d: the driver is too old: it is of CUDA %s, and this program, built with CUDA %s, needs one of %d.0 or later: update the driver, or build with CUDA_HOME=folder of a CUDA that the driver knows: %w",
			ordinal, version(have), version(C.CUDA_VERSION), C.CUDA_VERSION/1000, ErrNoDevice)
	}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return nil, info, callError(ordinal, "cuDeviceGet", err)
	}
	d := &driver{ordinal: ordinal, kernels: map[string]cu.Function{}, most: info.SharedPerBlock, granted: map[string]int{}}
	// A blocking wait leaves the processor to others.
	if d.ctx, err = dev.MakeContext(cu.SchedBlockingSync); err != nil {
		return nil, info, callError(ordinal, "cuCtxCreate", err)
	}
	fail := func(call string, err error) (backend, Info, error) {
		_ = d.close()
		return nil, info, callError(ordinal, call, err)
	}
	if d.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return fail("cuStreamCreate", err)
	}
	for i := range d.events {
		if d.events[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
			return fail("cuEventCreate", err)
		}
	}
	return d, info, nil
}

// built is the manifest of the images, nil where they have none.
func built() []byte {
	raw, err := images.ReadFile("build/kernels/manifest.json")
	if err != nil {
		return nil
	}
	return raw
}

// loadAll loads every image.
func loadAll(b backend) error {
	folder, err := fs.Sub(images, "build/kernels")
	if err != nil {
		return err
	}
	all, err := readImages(folder, manifest)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := b.load(name, all[name]); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) err(call string, err error) error { return callError(d.ordinal, call, err) }

func (d *driver) alloc(n int64) (uint64, error) {
	p, err := cu.MemAlloc(n)
	return uint64(p), d.err("cuMemAlloc", err)
}

func (d *driver) free(at uint64) error {
	return d.err("cuMemFree", cu.MemFree(cu.DevicePtr(at)))
}

func (d *driver) memory() (free, total int64, err error) {
	free, total, err = cu.MemInfo()
	return free, total, d.err("cuMemGetInfo", err)
}

// code is an error of a call that gorgonia.org/cu lacks.
func (d *driver) code(call string, code C.CUresult) error {
	if code == 0 {
		return nil
	}
	return &CallError{Device: d.ordinal, Call: call, Code: int(code), Name: name(int(code)), kind: kindOf(int(code))}
}

func (d *driver) pin(n int) ([]byte, error) {
	var p unsafe.Pointer
	if err := d.code("cuMemHostAlloc", C.kindred_host_alloc(&p, C.size_t(n))); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

func (d *driver) unpin(p []byte) error {
	return d.code("cuMemFreeHost", C.kindred_host_free(unsafe.Pointer(&p[0])))
}

// upload returns when the source was read: memory that is not pinned is staged by
// the driver. The copy is in the default stream, and may arrive after it returns. Neither
// stream waits for the other by itself: what was ordered before is waited for first, and what
// is ordered behind waits for the copy, on the device.
func (d *driver) upload(dst uint64, src []byte) error {
	if err := d.wait(); err != nil {
		return err
	}
	if err := d.err("cuMemcpyHtoD", cu.MemcpyHtoD(cu.DevicePtr(dst), unsafe.Pointer(&src[0]), int64(len(src)))); err != nil {
		return err
	}
	if err := d.err("cuEventRecord", d.events[eventArrived].Record(cu.NoStream)); err != nil {
		return err
	}
	return d.err("cuStreamWaitEvent", d.stream.Wait(d.events[eventArrived], 0))
}

// download is made in the default stream, which doesn't wait for ours, and returns when it
// is done.
func (d *driver) download(dst []byte, src uint64) error {
	if err := d.wait(); err != nil {
		return err
	}
	return d.err("cuMemcpyDtoH", cu.MemcpyDtoH(unsafe.Pointer(&dst[0]), cu.DevicePtr(src), int64(len(dst))))
}

func (d *driver) uploadPinned(dst uint64, src []byte) error {
	return d.err("cuMemcpyHtoDAsync", cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&src[0]), int64(len(src)), d.stream))
}

func (d *driver) downloadPinned(dst []byte, src uint64) error {
	return d.err("cuMemcpyDtoHAsync", cu.MemcpyDtoHAsync(unsafe.Pointer(&dst[0]), cu.DevicePtr(src), int64(len(dst)), d.stream))
}

func (d *driver) zero(dst uint64, n int64) error {
	return d.err("cuMemsetD8Async", cu.MemsetD8Async(cu.DevicePtr(dst), 0, n, d.stream))
}

func (d *driver) copy(dst, src uint64, n int64) error {
	return d.err("cuMemcpyDtoDAsync", cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), n, d.stream))
}

// Header of a fatbin: magic, version, length of the header, length of what follows.
const fatbinMagic = 0xBA55ED50

func (d *driver) load(name string, image []byte) error {
	if len(image) < 16 || binary.LittleEndian.Uint32(image) != fatbinMagic ||
		uint64(binary.LittleEndian.Uint16(image[6:]))+binary.LittleEndian.Uint64(image[8:]) != uint64(len(image)) {
		return fmt.Errorf("%w: %s.fatbin is damaged: run `make kernels` and build again", ErrImage, name)
	}
	m, err := cu.LoadData(string(image))
	if err != nil {
		err = fmt.Errorf("kernels of %s: %w", name, d.err("cuModuleLoadData", err))
		if v := cu.Version(); v < C.CUDA_VERSION {
			err = fmt.Errorf("%w (the driver is of CUDA %s, this program of %s: a later driver may load them)", err, version(v), version(C.CUDA_VERSION))
		}
		return err
	}
	d.modules = append(d.modules, m)
	return nil
}

func (d *driver) function(kernel string) (cu.Function, error) {
	if f, ok := d.kernels[kernel]; ok {
		return f, nil
	}
	var last error
	for _, m := range d.modules {
		f, err := m.Function(kernel)
		if err == nil {
			d.kernels[kernel] = f
			return f, nil
		}
		last = err
	}
	if last == nil {
		return cu.Function{}, fmt.Errorf("%w: no kernels are loaded, and %s is wanted", ErrImage, kernel)
	}
	return cu.Function{}, d.err("kernel "+kernel, last)
}

func (d *driver) launch(kernel string, l Launch, args []uint64) error {
	f, err := d.function(kernel)
	if err != nil {
		return err
	}
	if l.Shared > max(48<<10, d.granted[kernel]) {
		if l.Shared > d.most {
			return fmt.Errorf("%w: %s wants %d bytes of shared memory a block, and the device has %d", ErrLaunch, kernel, l.Shared, d.most)
		}
		if err := d.code("cuFuncSetAttribute", C.cuFuncSetAttribute(handle(f), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(l.Shared))); err != nil {
			return err
		}
		d.granted[kernel] = l.Shared
	}
	params := make([]unsafe.Pointer, len(args))
	for i := range args {
		params[i] = unsafe.Pointer(&args[i])
	}
	return d.err("launch of "+kernel, f.Launch(l.Grid[0], l.Grid[1], l.Grid[2], l.Block[0], l.Block[1], l.Block[2], l.Shared, d.stream, params))
}

// handle is the driver's handle in a cu.Function, whose only field it is.
func handle(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }

func (d *driver) mark(i int) error {
	return d.err("cuEventRecord", d.events[i].Record(d.stream))
}

func (d *driver) reached(i int) error {
	return d.err("cuEventSynchronize", d.events[i].Synchronize())
}

func (d *driver) between(i, j int) (float64, error) {
	ms, err := d.events[i].Elapsed(d.events[j])
	return ms / 1e3, d.err("cuEventElapsedTime", err)
}

func (d *driver) wait() error { return d.err("cuStreamSynchronize", d.stream.Synchronize()) }

// close gives back the context, and with it all that it holds.
func (d *driver) close() error {
	err := d.ctx.Destroy()
	return d.err("cuCtxDestroy", err)
}
