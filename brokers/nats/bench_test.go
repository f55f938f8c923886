package nats

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// Acked messages a second, with 512 under way.
func BenchmarkPublish(b *testing.B) {
	n := dialTest(b, testConfig(b, natstest.Start(b, "").URL(), 1))
	room := make(chan struct{}, 512)
	data := make([]byte, 128)
	for b.Loop() {
		room <- struct{}{}
		n.Publish([]broker.Entry{{Channel: "a", Data: data}}, func(_ []broker.Place, err error) {
			if err != nil {
				b.Error(err)
			}
			<-room
		})
	}
	for range cap(room) {
		room <- struct{}{}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acked/s")
}

// From Publish to the Sink, one at a time.
func BenchmarkDeliver(b *testing.B) {
	n := dialTest(b, testConfig(b, natstest.Start(b, "").URL(), 1))
	n.open(b, "a")
	i := 0
	for b.Loop() {
		i++
		n.Publish([]broker.Entry{entry("a", "x")}, func([]broker.Place, error) {})
		n.await(b, "the entry", func() bool { return len(n.entries) == i })
	}
}

// Channels opened one call each, 1000 at once, and the memory of one.
func BenchmarkOpen(b *testing.B) {
	n := dialTest(b, testConfig(b, natstest.Start(b, "").URL(), 1))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wait sync.WaitGroup
	room := make(chan struct{}, 1000)
	i := 0
	for b.Loop() {
		i++
		room <- struct{}{}
		wait.Add(1)
		n.Open([]string{fmt.Sprint("channel ", i)}, func(uint64, error) { <-room; wait.Done() })
	}
	wait.Wait()
	elapsed := b.Elapsed()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "opens/s")
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(b.N), "B/channel")
}
