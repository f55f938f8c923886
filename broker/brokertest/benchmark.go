package brokertest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// deliverRate is the messages per second of deliver: enough for a warm cache, and few enough for no queue.
const deliverRate = 2000

// Benchmark measures a broker, with the same load for each, so that brokers can be compared.
//
//   - publish: how many messages of 128 B are acked per second, with so many under way.
//   - deliver: how long a message needs from Publish to the Sink, at 2000 messages per second.
//   - open: how many channels are opened per second, one a call and 1000 at a time, and the memory of each.
//
// start gives a broker, which may be the same each time.
func Benchmark(b *testing.B, start func(testing.TB) broker.Broker) {
	for _, flying := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint("publish/", flying), func(b *testing.B) { benchPublish(b, start(b), flying) })
	}
	b.Run("deliver", func(b *testing.B) { benchDeliver(b, start(b)) })
	b.Run("open", func(b *testing.B) { benchOpen(b, start(b)) })
}

func benchPublish(b *testing.B, br broker.Broker, flying int) {
	log, _ := dialMeter(b, br)
	room := make(chan struct{}, flying)
	data := make([]byte, 128)
	begin := time.Now() // b.Elapsed ends before the last acks
	for b.Loop() {
		room <- struct{}{}
		log.Publish([]broker.Entry{{Channel: "a", Data: data}}, func(_ []broker.Place, err error) {
			if err != nil {
				b.Error(err)
			}
			<-room
		})
	}
	for range flying {
		room <- struct{}{}
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "acked/s")
}

func benchDeliver(b *testing.B, br broker.Broker) {
	log, m := dialMeter(b, br)
	name := fmt.Sprint(rand.Uint64()) // a new channel, as the log may have entries of the run before
	opened := make(chan error, 1)
	log.Open([]string{name}, func(_ uint64, err error) { opened <- err })
	if err := <-opened; err != nil {
		b.Fatal(err)
	}
	pace := time.NewTicker(time.Second / deliverRate)
	defer pace.Stop()
	for b.Loop() {
		<-pace.C
		m.begin()
		log.Publish([]broker.Entry{{Channel: name, Data: []byte("x")}}, func([]broker.Place, error) {})
	}
	took := m.all()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func benchOpen(b *testing.B, br broker.Broker) {
	log, _ := dialMeter(b, br)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wait sync.WaitGroup
	room := make(chan struct{}, 1000)
	prefix := fmt.Sprint(rand.Uint64(), " ")
	begin := time.Now()
	for i := 0; b.Loop(); i++ {
		room <- struct{}{}
		wait.Add(1)
		log.Open([]string{fmt.Sprint(prefix, i)}, func(_ uint64, err error) {
			if err != nil {
				b.Error(err)
			}
			<-room
			wait.Done()
		})
	}
	wait.Wait()
	elapsed := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "opens/s")
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(b.N), "B/channel")
}

// meter is a Sink that notes how long each entry took. There is one channel and one publisher, so entries come in the order in
// which they were published.
type meter struct {
	up chan struct{} // gets a value when the log is there

	mu      sync.Mutex
	changed sync.Cond
	began   []time.Time
	took    []time.Duration
}

// dialMeter connects, and waits until the log can be used.
func dialMeter(b *testing.B, br broker.Broker) (broker.Log, *meter) {
	m := &meter{up: make(chan struct{}, 1)}
	m.changed.L = &m.mu
	log, err := br.Dial(m, broker.Options{Node: rand.Uint64(), Retention: broker.Retention{Messages: 100}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(log.Close)
	select {
	case <-m.up:
	case <-time.After(waitAtMost):
		b.Fatal("the log does not come up: ", log.Status().Problem)
	}
	return log, m
}

// begin notes that the next entry is published.
func (m *meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began = append(m.began, time.Now())
}

// all waits until all entries have come, and returns how long they took.
func (m *meter) all() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.took) < len(m.began) {
		m.changed.Wait()
	}
	return m.took
}

// Entries notes the time.
func (m *meter) Entries(run []broker.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range run {
		if i := len(m.took); i < len(m.began) {
			m.took = append(m.took, time.Since(m.began[i]))
		}
	}
	m.changed.Broadcast()
}

func (m *meter) Repaired() {
	select {
	case m.up <- struct{}{}:
	default:
	}
}

func (*meter) Epoch(string, uint64) {}
func (*meter) Advance(uint64)       {}
func (*meter) Lost([]string)        {}
func (*meter) Broken(error)         {}
