package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kindred-search/kindred/cuda"
)

func deviceDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kindred_cuda_"+name, help, labels, nil)
}

var (
	deviceHeld    = deviceDesc("held_bytes", "Bytes of a device's memory that are held, by purpose.", "device", "purpose")
	deviceMadeBy  = deviceDesc("lists_total", "Lists and passes of scores that devices made.")
	deviceBatches = deviceDesc("batches_total", "Batches of texts that devices encoded.")
	deviceTurns   = deviceDesc("failed_total", "Lists and batches that the CPU made because a device failed.")
	deviceRows    = deviceDesc("rows", "Rows of all populations on the devices, by where they lie: on a device, or streamed from the host by every pass.", "where")
)

var (
	kernelLaunches = deviceDesc("kernel_launches_total", "Launches of a kernel.", "device", "kernel")
	kernelSeconds  = deviceDesc("kernel_seconds_total", "How long a kernel took, by the device's events around about one launch in 16, which stands for those before it.", "device", "kernel")
)

// deviceCounts are those of one device.
var deviceCounts = []struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(m cuda.Metrics, opened int64) float64
}{
	{deviceDesc("peak_bytes", "The most bytes of a device's memory that were held.", "device"), prometheus.GaugeValue, func(m cuda.Metrics, _ int64) float64 { return float64(m.Peak) }},
	{deviceDesc("uploaded_bytes_total", "Bytes copied to a device.", "device"), prometheus.CounterValue, func(m cuda.Metrics, _ int64) float64 { return float64(m.Uploaded) }},
	{deviceDesc("downloaded_bytes_total", "Bytes copied from a device.", "device"), prometheus.CounterValue, func(m cuda.Metrics, _ int64) float64 { return float64(m.Downloaded) }},
	{deviceDesc("launches_total", "Kernels launched.", "device"), prometheus.CounterValue, func(m cuda.Metrics, _ int64) float64 { return float64(m.Launches) }},
	{deviceDesc("seconds_total", "How long a device worked, copies between kernels included, by its own events.", "device"), prometheus.CounterValue, func(m cuda.Metrics, _ int64) float64 { return m.Kernels.Seconds() }},
	{deviceDesc("opened_total", "How often a device was opened: more than once where it was lost.", "device"), prometheus.CounterValue, func(_ cuda.Metrics, opened int64) float64 { return float64(opened) }},
}

// Describe implements prometheus.Collector.
func (d *device) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{deviceHeld, deviceMadeBy, deviceBatches, deviceTurns, deviceRows, kernelLaunches, kernelSeconds} {
		ch <- desc
	}
	for _, c := range deviceCounts {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (d *device) Collect(ch chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, x float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, x, labels...)
	}
	counter(deviceMadeBy, float64(d.lists.Load()))
	counter(deviceBatches, float64(d.batches.Load()))
	counter(deviceTurns, float64(d.turns.Load()))
	d.mu.Lock()
	defer d.mu.Unlock()
	here, streamed := 0, 0
	for p := range d.populations {
		device, host := p.Lie()
		here, streamed = here+device, streamed+host
	}
	ch <- prometheus.MustNewConstMetric(deviceRows, prometheus.GaugeValue, float64(here), "device")
	ch <- prometheus.MustNewConstMetric(deviceRows, prometheus.GaugeValue, float64(streamed), "host")
	for i := range d.slots {
		s := &d.slots[i]
		m, label := s.metrics(), fmt.Sprint(s.ordinal)
		for purpose, n := range m.Held {
			ch <- prometheus.MustNewConstMetric(deviceHeld, prometheus.GaugeValue, float64(n), label, purpose)
		}
		for kernel, t := range m.Each {
			counter(kernelLaunches, float64(t.Launches), label, kernel)
			counter(kernelSeconds, t.Time.Seconds(), label, kernel)
		}
		for _, c := range deviceCounts {
			ch <- prometheus.MustNewConstMetric(c.desc, c.kind, c.of(m, s.opened), label)
		}
	}
}
