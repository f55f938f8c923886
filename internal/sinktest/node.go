// Package sinktest is a node for the tests of a broker's log: a Sink that remembers what it is given, and calls of the log that
// wait for their answers.
package sinktest

import (
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// Node is a Sink that remembers, and the log that calls it. It judges nothing: the recorder of package brokertest does, in the
// rules for all brokers.
type Node struct {
	Log    broker.Log
	Number uint64 // of the node

	// Guards what follows.
	Mu      sync.Mutex
	changed sync.Cond

	Epochs   []string
	Came     []broker.Entry
	Down     bool // from Broken to Repaired
	W        uint64
	Missing  []string // channels that Lost has named
	Repairs  int
	Messages map[string]uint64 // from which node
	Gate     chan struct{}     // what messages wait for, or nil
}

// New returns a node without a log. It is down, because a Log begins as Broken and need not say so.
func New(number uint64) *Node {
	n := &Node{Number: number, Down: true, Messages: map[string]uint64{}}
	n.changed.L = &n.Mu
	return n
}

// Dial connects a log that ends with the test, and returns it. sink is the node, or something around it.
func (n *Node) Dial(t testing.TB, b broker.Broker, sink broker.Sink, keep broker.Retention) broker.Log {
	t.Helper()
	l, err := b.Dial(sink, broker.Options{Node: n.Number, Retention: keep, Message: n.message})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	n.Log = l
	return l
}

// Change does something under the lock, and has Await look again.
func (n *Node) Change(do func()) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	do()
	n.changed.Broadcast()
}

func (n *Node) message(from uint64, message []byte) {
	var gate chan struct{}
	n.Change(func() { n.Messages[string(message)], gate = from, n.Gate })
	if gate != nil {
		<-gate
	}
}

// Epoch implements broker.Sink.
func (n *Node) Epoch(epoch string, at uint64) {
	n.Change(func() { n.Epochs, n.W = append(n.Epochs, epoch), at })
}

// Entries implements broker.Sink.
func (n *Node) Entries(run []broker.Entry) {
	n.Change(func() { n.Came, n.W = append(n.Came, run...), max(n.W, run[len(run)-1].Seq) })
}

// Advance implements broker.Sink.
func (n *Node) Advance(seq uint64) { n.Change(func() { n.W = max(n.W, seq) }) }

// Broken implements broker.Sink.
func (n *Node) Broken(error) { n.Change(func() { n.Down = true }) }

// Lost implements broker.Sink.
func (n *Node) Lost(channels []string) {
	n.Change(func() { n.Missing = append(n.Missing, channels...) })
}

// Repaired implements broker.Sink.
func (n *Node) Repaired() { n.Change(func() { n.Down = false; n.Repairs++ }) }

// Await waits until something is so. It is asked under the lock.
func (n *Node) Await(t testing.TB, what string, so func() bool) {
	t.Helper()
	timer := time.AfterFunc(servertest.Patience, func() { n.Change(func() {}) })
	defer timer.Stop()
	deadline := time.Now().Add(servertest.Patience)
	n.Mu.Lock()
	defer n.Mu.Unlock()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s; at %d, broken %v, %d entries, %s", servertest.Patience, what, n.W, n.Down, len(n.Came), n.Log.Status().Problem)
		}
		n.changed.Wait()
	}
}

// AwaitUp waits until the log has caught up for the first time.
func (n *Node) AwaitUp(t testing.TB) {
	t.Helper()
	n.Await(t, "the first epoch", func() bool { return len(n.Epochs) > 0 && !n.Down })
}

// Entry returns an entry to publish.
func Entry(channel, data string) broker.Entry {
	return broker.Entry{Channel: channel, Data: []byte(data)}
}

// Try publishes, and waits for the answer.
func (n *Node) Try(es ...broker.Entry) ([]broker.Place, error) {
	type result struct {
		places []broker.Place
		err    error
	}
	ch := make(chan result, 1)
	n.Log.Publish(es, func(places []broker.Place, err error) { ch <- result{places, err} })
	r := <-ch
	return r.places, r.err
}

// MustPublish publishes, and fails the test if that fails.
func (n *Node) MustPublish(t testing.TB, es ...broker.Entry) []broker.Place {
	t.Helper()
	places, err := n.Try(es...)
	if err != nil {
		t.Fatal(err)
	}
	return places
}

// MustOpen opens channels, and returns the position.
func (n *Node) MustOpen(t testing.TB, channels ...string) uint64 {
	t.Helper()
	type result struct {
		at  uint64
		err error
	}
	ch := make(chan result, 1)
	n.Log.Open(channels, func(at uint64, err error) { ch <- result{at, err} })
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.at
}
