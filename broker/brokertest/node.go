package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// node is one node of a suite: a log, and what it has given. The recorder is its Sink. Methods that fail the rule are called
// by the rule's own goroutine only; startOpen and startPublish may be called by others.
type node struct {
	*suite
	*recorder
	mail   *mailbox
	number int
	log    broker.Log
	// A rule may close a node, and finish closes all.
	ended sync.Once
}

// The recorder is told after Close has returned, because until then calls are allowed.
func (n *node) close() {
	n.ended.Do(func() {
		n.log.Close()
		n.recorder.mu.Lock()
		n.recorder.closed = true
		n.recorder.mu.Unlock()
		n.mail.close()
	})
}

// await waits until something is true of the recorder, whose lock is held while it is asked. It does not poll: each call of
// the Sink closes changed. So a rule passes as soon as the log has done its work.
func (n *node) await(what string, is func() bool) {
	n.Helper()
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	for {
		n.recorder.mu.Lock()
		ok, changed := is(), n.changed
		n.recorder.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			n.Fatalf("node %d: after %v: no %s", n.number, waitAtMost, what)
		}
	}
}

// startOpen opens channels. The channel is closed when that is done, and then at or err is set.
func (n *node) startOpen(channels ...string) (done chan struct{}, at *uint64, err *error) {
	c := n.callback("Open")
	done, at, err = make(chan struct{}), new(uint64), new(error)
	n.log.Open(channels, func(a uint64, e error) {
		// Before the count: the recorder then also judges a second call, which finish reports.
		n.opened(a, e)
		if c.count.Add(1) == 1 {
			*at, *err = a, e
			close(done)
		}
	})
	return done, at, err
}

// open opens channels, and returns the position that every later entry of them comes after.
func (n *node) open(channels ...string) uint64 {
	n.Helper()
	done, at, err := n.startOpen(channels...)
	n.wait(done, "answer to Open(%q)", channels)
	if *err != nil {
		n.Fatalf("Open(%q): %v", channels, *err)
	}
	return *at
}

// startPublish publishes. The channel is closed when that is done, and then places and err are set.
func (n *node) startPublish(es ...broker.Entry) *publishing {
	c := n.callback("Publish")
	p := &publishing{entries: es, done: make(chan struct{})}
	// A copy, since the entries belong to the log from then on and the rule compares with them later.
	n.log.Publish(slices.Clone(es), func(places []broker.Place, err error) {
		if c.count.Add(1) == 1 {
			p.places, p.err = places, err
			close(p.done)
		}
	})
	return p
}

// publishing is a call of Publish. Its places and err may be read once done is closed.
type publishing struct {
	entries []broker.Entry
	done    chan struct{}
	places  []broker.Place
	err     error
}

// try publishes and waits for the answer, which may be an error: for rules that expect one.
func (n *node) try(es ...broker.Entry) ([]broker.Place, error) {
	n.Helper()
	p := n.startPublish(es...)
	n.wait(p.done, "answer to Publish")
	return p.places, p.err
}

// publish publishes, and returns the entries with their positions.
func (n *node) publish(es ...broker.Entry) []broker.Entry {
	n.Helper()
	places, err := n.try(es...)
	if err != nil {
		n.Fatalf("Publish: %v", err)
	}
	return n.placed(es, places)
}

// placed returns the entries with the positions and times that the log has given them. It fails if some have none.
func (n *node) placed(es []broker.Entry, places []broker.Place) []broker.Entry {
	n.Helper()
	if len(places) != len(es) {
		n.Fatalf("Publish of %d entries returned %d places", len(es), len(places))
	}
	es = slices.Clone(es)
	for i := range es {
		es[i].Seq, es[i].Time = places[i].Seq, places[i].Time
	}
	return es
}

// barrier waits until the node has everything that is stored, so that a rule can say that something has not come.
func (n *node) barrier() uint64 {
	n.Helper()
	at, err := n.tryBarrier()
	if err != nil {
		n.Fatalf("Barrier: %v", err)
	}
	return at
}

// tryBarrier is barrier for rules during which the broker may be down.
func (n *node) tryBarrier() (at uint64, err error) {
	n.Helper()
	c := n.callback("Barrier")
	done := make(chan struct{})
	n.log.Barrier(func(a uint64, e error) {
		if c.count.Add(1) == 1 {
			at, err = a, e
			close(done)
		}
	})
	n.wait(done, "answer to Barrier")
	return at, err
}

// read is Log.Read. It has a limit of its own, because Read blocks and a log that never answers would stop the whole test.
func (n *node) read(channel string, after uint64, count, bytes int) ([]broker.Entry, bool) {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	defer cancel()
	es, complete, err := n.log.Read(ctx, channel, after, count, bytes)
	if err != nil {
		n.Fatalf("Read(%q, %d): %v", channel, after, err)
	}
	return es, complete
}

// newest is Log.Last, with the same limit.
func (n *node) newest(channel string, count, bytes int) []broker.Entry {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	defer cancel()
	es, err := n.log.Last(ctx, channel, count, bytes)
	if err != nil {
		n.Fatalf("Last(%q): %v", channel, err)
	}
	return es
}

// release ends a subscription, and returns when what is published does not come any more.
func (n *node) release(from *node, channel string) {
	n.Helper()
	n.log.Release([]string{channel})
	if channel == "" {
		channel = "any" // "" is no channel that can be published to
	}
	// The contract lets some entries come after Release, and does not say how many, so it is tried until one does not
	// come.
	for range 1000 {
		e := from.publish(n.entry(channel))[0]
		n.barrier()
		if !n.has(e) {
			return
		}
	}
	n.Fatalf("node %d: entries of %q still come after Release, 1000 barriers later", n.number, channel)
}

// has reports whether an entry came. Its position is enough, because the recorder forgets those of other epochs.
func (n *node) has(e broker.Entry) bool {
	n.recorder.mu.Lock()
	defer n.recorder.mu.Unlock()
	return n.had[e.Seq]
}

// expect waits for the last of some entries, and checks that exactly these came of their channels after a position.
func (n *node) expect(after uint64, want []broker.Entry) {
	n.Helper()
	want = sortedBySeq(slices.Clone(want))
	last := want[len(want)-1]
	// Not while broken: a repair may still have to give older ones.
	n.await("entry "+string(last.Data), func() bool { return n.had[last.Seq] && !n.broken })
	n.barrier()
	var channels []string
	for _, e := range want {
		channels = append(channels, e.Channel)
	}
	n.recorder.mu.Lock()
	defer n.recorder.mu.Unlock()
	got := slices.DeleteFunc(n.of(channels...), func(e broker.Entry) bool { return e.Seq <= after })
	n.same(got, want)
}

// same checks that entries are equal: position and content.
func (n *node) same(got, want []broker.Entry) {
	n.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			n.Fatalf("node %d lacks %d (%.100q of %.100q), and %d more", n.number, want[i].Seq, want[i].Data, want[i].Channel, len(want)-i-1)
		case i >= len(want):
			n.Fatalf("node %d has %d (%.100q of %.100q), which it should not", n.number, got[i].Seq, got[i].Data, got[i].Channel)
		case !equal(got[i], want[i]):
			n.Fatalf("node %d has %s, not %s", n.number, show(got[i]), show(want[i]))
		}
	}
}
