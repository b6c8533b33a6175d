package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Report is what a run prints.
type Report struct {
	Seconds  float64 `json:"seconds"`  // how long was measured
	Messages int     `json:"messages"` // answered (receive: received by all subscribers together) in that time
	PerS     float64 `json:"per_s"`    // a second (receive: to each subscriber)
	Failures int     `json:"failures"` // calls or messages that failed, in the whole run
	Failure  string  `json:"failure"`  // the first of them
	Lost     int     `json:"lost"`     // messages that a subscriber did not get
	P50Ms    float64 `json:"p50_ms"`   // from when a message was due until its answer, or its arrival
	P99Ms    float64 `json:"p99_ms"`
	Total    int     `json:"total"` // messages sent in the whole run, the warm-up included
	CPUS     float64 `json:"cpu_s"` // CPU seconds of this program in the whole run
	LoadBusy float64 `json:"busy"`  // the part of one core that it took in the measured time
}

// Timing is the flags that say how long to measure.
type Timing struct {
	warmUp  time.Duration
	seconds time.Duration
}

// Meter counts what is answered in the measured time, which begins after the warm-up.
type Meter struct {
	begin, end time.Time
	timing     Timing
	over       atomic.Bool
	busy       atomic.Uint64 // CPU nanoseconds in the measured time

	mutex   sync.Mutex
	counts  []*Counts
	failure string
}

// Counts is what one goroutine counts for itself.
type Counts struct {
	meter     *Meter
	messages  int
	total     int
	failures  int
	latencies []time.Duration
}

// newMeter starts the clock.
func newMeter(timing Timing) *Meter {
	meter := &Meter{timing: timing, begin: time.Now().Add(timing.warmUp)}
	meter.end = meter.begin.Add(timing.seconds)
	time.AfterFunc(timing.warmUp, func() {
		before := cpuTime()
		time.AfterFunc(timing.seconds, func() {
			meter.busy.Store(uint64(cpuTime() - before))
			meter.over.Store(true)
		})
	})
	return meter
}

// isOver says that nothing more is to be sent.
func (m *Meter) isOver() bool { return m.over.Load() }

// newCounts returns counts for one goroutine.
func (m *Meter) newCounts() *Counts {
	counts := &Counts{meter: m}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.counts = append(m.counts, counts)
	return counts
}

// answered takes note of messages that were answered with success, now.
func (c *Counts) answered(messages int, now time.Time) {
	c.total += messages
	if !now.Before(c.meter.begin) && now.Before(c.meter.end) {
		c.messages += messages
	}
}

// took takes note of how long something took that was due then. What is answered after the end counts, if it was
// due before: the slowest must not be left out.
func (c *Counts) took(due, now time.Time) {
	if !due.Before(c.meter.begin) && due.Before(c.meter.end) {
		c.latencies = append(c.latencies, now.Sub(due))
	}
}

// failed takes note of a failure.
func (c *Counts) failed(why string) {
	c.failures++
	c.total++
	c.meter.mutex.Lock()
	defer c.meter.mutex.Unlock()
	if c.meter.failure == "" {
		c.meter.failure = why
	}
}

// report puts together what all goroutines counted. They must have ended.
func (m *Meter) report() Report {
	seconds := m.timing.seconds.Seconds()
	report := Report{Seconds: seconds, Failure: m.failure, CPUS: cpuTime().Seconds()}
	report.LoadBusy = time.Duration(m.busy.Load()).Seconds() / seconds
	var latencies []time.Duration
	for _, counts := range m.counts {
		report.Messages += counts.messages
		report.Total += counts.total
		report.Failures += counts.failures
		latencies = append(latencies, counts.latencies...)
	}
	report.PerS = float64(report.Messages) / seconds
	report.P50Ms, report.P99Ms = percentiles(latencies)
	return report
}

func percentiles(latencies []time.Duration) (p50, p99 float64) {
	if len(latencies) == 0 {
		return 0, 0
	}
	slices.Sort(latencies)
	at := func(part float64) float64 {
		return float64(latencies[int(part*float64(len(latencies)))].Nanoseconds()) / 1e6
	}
	return at(0.50), at(0.99)
}

// cpuTime returns what this program has used, all threads, user and system.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
