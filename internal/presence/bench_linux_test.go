package presence_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
)

// nowhere is a client that takes everything and keeps nothing.
type nowhere struct{}

func (nowhere) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (nowhere) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (nowhere) Close()                                       {}

// cpuTime is what the process has used. The time on the clock would say more about what else the machine does.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkJoin has 100,000 clients with a user join rooms of different sizes, with presence and without it, and reports what
// presence adds to the CPU time of a join, with all that the members are told of it, and to the memory of a member.
func BenchmarkJoin(b *testing.B) {
	for _, size := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint("rooms of ", size), func(b *testing.B) {
			for b.Loop() {
				cpu, heap := joinAll(b, size, false)
				cpuWith, heapWith := joinAll(b, size, true)
				b.ReportMetric(cpu, "ns/join-without")
				b.ReportMetric(cpuWith, "ns/join-with")
				b.ReportMetric(heapWith-heap, "B/member")
			}
		})
	}
}

// joinAll returns the CPU time of a join, and the memory of a client.
func joinAll(b *testing.B, size int, with bool) (cpu, heap float64) {
	const clients = 100_000
	h := hub.New(hub.Config{})
	var table *presence.Table
	if with {
		table = presence.NewTable(h)
	}
	o := options(nil)
	if with {
		o.Observer = table.Observe(nobody{}, 0) // nothing of it is left afterwards
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // pools are emptied by the second one
	runtime.ReadMemStats(&before)
	began := cpuTime()
	var last *hub.Conn
	for i := range clients {
		c, _, err := h.Connect(hub.Subscriber{
			Channels: []string{fmt.Sprint("room", i/size)}, User: fmt.Sprintf("user-%06d", i), Member: `{"name":"x"}`,
		}, o)
		if err != nil {
			b.Fatal(err)
		}
		c.Start(nowhere{}, nil)
		last = c
	}
	last.Settle()
	for range 2 {
		h.Connections(hub.Filter{}, 1) // the loops are done, and with what Listen gave them too
	}
	cpu = float64(cpuTime()-began) / clients
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap = float64(after.HeapAlloc-before.HeapAlloc) / clients
	runtime.KeepAlive(table)
	h.Close(hub.ReasonRestart, "", 0, 5*time.Second)
	return cpu, heap
}
