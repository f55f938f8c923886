//go:build unix

package hub

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The benchmarks in this file show how the hub's costs grow with its loops: -cpu sets how many there are. The command
// bench/cores runs them and prints a table.

// cpuTime returns the CPU time of the process. Unlike elapsed time it does not count what other processes take of the machine.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU has the benchmark report the CPU time of an operation.
func reportCPU(b *testing.B, before time.Duration) {
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// connectNull connects n subscribers that accept everything.
func connectNull(b *testing.B, h *Hub, n int, channels ...string) (conns []*Conn) {
	b.Helper()
	return connectTo(b, h, null{}, n, channels...)
}

// connectTo connects n subscribers with the same sink.
func connectTo(b *testing.B, h *Hub, s Sink, n int, channels ...string) (conns []*Conn) {
	b.Helper()
	o := options()
	for range n {
		c, _, err := h.Connect(Subscriber{Channels: channels}, o)
		if err != nil {
			b.Fatal(err)
		}
		c.Start(s, nil)
		conns = append(conns, c)
	}
	h.onLoops(func(*loop) {})
	return conns
}

// BenchmarkCoresHold is how long one publish holds Hub.mu: "alone" is a message at a time, "burst" as fast as it can.
func BenchmarkCoresHold(b *testing.B) {
	for _, subscribers := range []int{0, 1, 1000} {
		for _, burst := range []bool{false, true} {
			name := map[bool]string{false: "alone", true: "burst"}[burst]
			b.Run(fmt.Sprintf("%s/subscribers=%d", name, subscribers), func(b *testing.B) {
				h := New(Config{})
				defer closeHub(h)
				connectNull(b, h, subscribers, "a")
				data := make([]byte, 128)
				held := make([]time.Duration, 0, b.N)
				b.ReportAllocs()
				for range b.N {
					m := &Message{Channel: "a", Data: data, Kind: Binary}
					h.mu.Lock()
					begin := time.Now()
					_, err := h.admitLocked([]*Message{m}, true)
					wake, _ := h.appendLocked([]*Message{m}, nil, begin)
					held = append(held, time.Since(begin))
					h.mu.Unlock()
					if err != nil {
						b.Fatal(err)
					}
					h.wake(wake)
					if !burst && len(held)%16 == 0 {
						h.onLoops(func(*loop) {})
					}
				}
				slices.Sort(held)
				var sum time.Duration
				for _, d := range held[:len(held)*99/100] { // of the rest the most are threads that the system has stopped
					sum += d
				}
				b.ReportMetric(float64(sum.Nanoseconds())/float64(len(held)), "held-mean-ns")
				b.ReportMetric(float64(held[len(held)/2].Nanoseconds()), "held-ns")
				b.ReportMetric(float64(held[len(held)*99/100].Nanoseconds()), "held-p99-ns")
			})
		}
	}
}

// BenchmarkCoresPublish is the throughput of publishers, each on a channel of its own that has so many subscribers.
func BenchmarkCoresPublish(b *testing.B) {
	for _, subscribers := range []int{0, 1, 1000} {
		for _, publishers := range []int{1, 2} {
			b.Run(fmt.Sprintf("subscribers=%d/publishers=%d", subscribers, publishers), func(b *testing.B) {
				h := New(Config{})
				defer closeHub(h)
				for p := range publishers {
					connectNull(b, h, subscribers, fmt.Sprint("channel ", p))
				}
				data := make([]byte, 128)
				var running sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				before := cpuTime()
				for p := range publishers {
					channel := fmt.Sprint("channel ", p)
					running.Go(func() {
						for range b.N / publishers {
							if err := h.PublishWait(&Message{Channel: channel, Data: data, Kind: Binary}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				running.Wait()
				b.StopTimer()
				reportCPU(b, before)
			})
		}
	}
}

// flushed is a sink that only flushers can write to, such as an HTTP/2 stream.
type flushed struct {
	null
	writes *atomic.Int64
}

func (flushed) TryWrite([]byte) (int, error) { return 0, nil }

func (f flushed) Write(p []byte, _ time.Duration) (int, error) {
	f.writes.Add(1)
	return len(p), nil
}

// BenchmarkCoresFlush is a message to 1,000 connections that need flushers, until the last of them is written.
func BenchmarkCoresFlush(b *testing.B) {
	const subscribers = 1000
	h := New(Config{})
	defer closeHub(h)
	var writes atomic.Int64
	connectTo(b, h, flushed{writes: &writes}, subscribers, "a")
	data := make([]byte, 128)
	b.ResetTimer()
	before := cpuTime()
	for range b.N {
		due := writes.Load() + subscribers
		if err := h.PublishWait(&Message{Channel: "a", Data: data, Kind: Binary}); err != nil {
			b.Fatal(err)
		}
		for writes.Load() < due {
			runtime.Gosched()
		}
	}
	b.StopTimer()
	reportCPU(b, before)
}

// BenchmarkCoresConnect is connect, subscribe and disconnect.
func BenchmarkCoresConnect(b *testing.B) {
	h := New(Config{})
	defer closeHub(h)
	connectNull(b, h, 1000, "a")
	o := options()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for range b.N {
		c, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o)
		if err != nil {
			b.Fatal(err)
		}
		c.Start(null{}, nil)
		c.Done()
	}
	h.onLoops(func(*loop) {})
	b.StopTimer()
	reportCPU(b, before)
}
