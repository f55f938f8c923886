package redis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// Acked messages a second, with so many under way.
func BenchmarkPublish(b *testing.B) {
	s := redistest.Start(b)
	for _, flying := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(flying), func(b *testing.B) {
			n := dialTest(b, testConfig(b, s.Addr()))
			room := make(chan struct{}, flying)
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
		})
	}
}

// stamps is a Sink that notes how long each entry took.
type stamps struct {
	*node
	mu    sync.Mutex
	began []time.Time
	took  []time.Duration
	all   chan struct{}
}

func (s *stamps) Entries(run []broker.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range run {
		i := len(s.took)
		if s.took = append(s.took, time.Since(s.began[i])); len(s.took) == cap(s.took) {
			close(s.all)
		}
	}
}

// From Publish to the Sink, 2000 a second.
func BenchmarkDeliver(b *testing.B) {
	c := testConfig(b, redistest.Start(b).Addr())
	const messages = 4000
	for b.Loop() {
		st := &stamps{began: make([]time.Time, 0, messages), took: make([]time.Duration, 0, messages), all: make(chan struct{})}
		n := dialSink(b, c, keepAll, func(n *node) broker.Sink { st.node = n; return st })
		name := fmt.Sprint(rand.Uint64())
		n.await(b, "the first epoch", func() bool { return len(n.epochs) > 0 && !n.broken })
		n.open(b, name)
		pace := time.NewTicker(500 * time.Microsecond)
		for range messages {
			<-pace.C
			st.mu.Lock()
			st.began = append(st.began, time.Now())
			st.mu.Unlock()
			n.Publish([]broker.Entry{entry(name, "x")}, func([]broker.Place, error) {})
		}
		<-st.all
		pace.Stop()
		slices.Sort(st.took)
		b.ReportMetric(float64(st.took[messages/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(st.took[messages*99/100].Microseconds()), "p99-µs")
	}
}

// Channels opened one call each, 1000 at once.
func BenchmarkOpen(b *testing.B) {
	n := dialTest(b, testConfig(b, redistest.Start(b).Addr()))
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "opens/s")
}
