package nats

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

const patience = 30 * time.Second

// node is a log and a Sink that remembers.
type node struct {
	*log
	mu       sync.Mutex
	changed  *sync.Cond
	epochs   []string
	entries  []broker.Entry
	broken   bool
	at       uint64
	lost     []string
	repaired int
	number   uint64
	messages map[string]uint64 // from which node
	gate     chan struct{}     // what messages wait for, or nil
}

func (n *node) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
	n.changed.Broadcast()
}

func (n *node) Epoch(epoch string, at uint64) {
	n.change(func() { n.epochs, n.at = append(n.epochs, epoch), at })
}
func (n *node) Entries(run []broker.Entry) {
	n.change(func() { n.entries, n.at = append(n.entries, run...), max(n.at, run[len(run)-1].Seq) })
}
func (n *node) Advance(seq uint64) { n.change(func() { n.at = max(n.at, seq) }) }
func (n *node) Broken(error)       { n.change(func() { n.broken = true }) }
func (n *node) Lost(channels []string) {
	n.change(func() { n.lost = append(n.lost, channels...) })
}
func (n *node) Repaired() { n.change(func() { n.broken = false; n.repaired++ }) }

func dialTest(t testing.TB, c Config) *node {
	t.Helper()
	return dialWith(t, c, keepAll)
}

var keepAll = broker.Retention{Messages: 100_000}

func dialWith(t testing.TB, c Config, keep broker.Retention) *node {
	t.Helper()
	n := dialBroken(t, c, keep)
	n.await(t, "the first epoch", func() bool { return len(n.epochs) > 0 && !n.broken })
	return n
}

func dialBroken(t testing.TB, c Config, keep broker.Retention) *node {
	t.Helper()
	return dialSink(t, c, keep, func(n *node) broker.Sink { return n })
}

// dialSink dials with a Sink that is around the node's.
func dialSink(t testing.TB, c Config, keep broker.Retention, sink func(*node) broker.Sink) *node {
	t.Helper()
	n := &node{broken: true, number: rand.Uint64(), messages: map[string]uint64{}}
	n.changed = sync.NewCond(&n.mu)
	l, err := Dial(c, sink(n), broker.Options{Node: n.number, Retention: keep, Message: func(from uint64, message []byte) {
		var gate chan struct{}
		n.change(func() { n.messages[string(message)], gate = from, n.gate })
		if gate != nil {
			<-gate
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	n.log = l.(*log)
	t.Cleanup(l.Close)
	return n
}

// await waits until something is so.
func (n *node) await(t testing.TB, what string, so func() bool) {
	t.Helper()
	timer := time.AfterFunc(patience, func() { n.change(func() {}) })
	defer timer.Stop()
	deadline := time.Now().Add(patience)
	n.mu.Lock()
	defer n.mu.Unlock()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s; at %d, broken %v, %d entries, %s", patience, what, n.at, n.broken, len(n.entries), n.Status().Problem)
		}
		n.changed.Wait()
	}
}

func entry(channel, data string) broker.Entry {
	return broker.Entry{Channel: channel, Data: []byte(data)}
}

func (n *node) try(es ...broker.Entry) ([]broker.Place, error) {
	type result struct {
		places []broker.Place
		err    error
	}
	ch := make(chan result, 1)
	n.Publish(es, func(places []broker.Place, err error) { ch <- result{places, err} })
	r := <-ch
	return r.places, r.err
}

func (n *node) publish(t testing.TB, es ...broker.Entry) []broker.Place {
	t.Helper()
	places, err := n.try(es...)
	if err != nil {
		t.Fatal(err)
	}
	return places
}

func (n *node) open(t testing.TB, channels ...string) uint64 {
	t.Helper()
	type result struct {
		at  uint64
		err error
	}
	ch := make(chan result, 1)
	n.Open(channels, func(at uint64, err error) { ch <- result{at, err} })
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.at
}
