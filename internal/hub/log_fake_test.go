package hub

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// fakeCluster is a log in memory that several hubs share. Package brokertest has one with faults; this one does what a test
// of one rule tells it to.
type fakeCluster struct {
	mu      sync.Mutex
	epoch   string
	entries []broker.Entry
	keys    map[[16]byte]broker.Entry
	nodes   []*fakeLog
	reads   int
	lost    map[uint64]bool // entries that are not stored any more
	err     error           // of publishes
	reading func()          // called by Read
	ahead   time.Duration   // of its clock
}

// fakeLog is a node's half.
type fakeLog struct {
	c    *fakeCluster
	sink broker.Sink

	open map[string]bool // guarded by c.mu

	mu      sync.Mutex
	changed *sync.Cond
	queue   []func()
	held    bool // nothing comes from the queue
	busy    bool
	closed  bool
	ended   chan struct{}

	released []string
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{epoch: "one", keys: make(map[[16]byte]broker.Entry), lost: make(map[uint64]bool)}
}

// join makes a hub share the log, and waits until it does.
func (c *fakeCluster) join(t testing.TB, h *Hub) *fakeLog {
	t.Helper()
	f := c.dial(t, h)
	f.do(func() { f.sink.Epoch(c.epoch, c.last()) })
	f.do(func() { f.sink.Repaired() })
	f.idle()
	return f
}

// dial makes a hub share the log, which stays broken.
func (c *fakeCluster) dial(t testing.TB, h *Hub) *fakeLog {
	t.Helper()
	f := c.newLog()
	err := h.UseLog(func(sink broker.Sink) (broker.Log, error) {
		f.sink = sink
		c.mu.Lock()
		c.nodes = append(c.nodes, f)
		c.mu.Unlock()
		return f, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (c *fakeCluster) newLog() *fakeLog {
	f := &fakeLog{c: c, open: make(map[string]bool), ended: make(chan struct{})}
	f.changed = sync.NewCond(&f.mu)
	go f.run()
	return f
}

func (c *fakeCluster) last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastLocked()
}

func (c *fakeCluster) lastLocked() uint64 { return uint64(len(c.entries)) }

func (f *fakeLog) run() {
	defer close(f.ended)
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for !f.closed && (f.held || len(f.queue) == 0) {
			f.changed.Wait()
		}
		if f.closed {
			return
		}
		next := f.queue[0]
		f.queue = f.queue[1:]
		f.busy = true
		f.mu.Unlock()
		next()
		f.mu.Lock()
		f.busy = false
		f.changed.Broadcast()
	}
}

func (f *fakeLog) do(call func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, call)
	f.changed.Broadcast()
}

// hold stops what comes from the log, or lets it go on.
func (f *fakeLog) hold(held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = held
	f.changed.Broadcast()
}

// idle waits until all has come.
func (f *fakeLog) idle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.busy || len(f.queue) > 0 {
		f.changed.Wait()
	}
}

func (f *fakeLog) Publish(es []broker.Entry, done func([]broker.Place, error)) {
	c := f.c
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		done(nil, err)
		return
	}
	places := make([]broker.Place, len(es))
	for i := range es {
		e := &es[i]
		if first, known := c.keys[e.Key]; known && e.Key != [16]byte{} {
			if first.Digest != e.Digest {
				c.mu.Unlock()
				done(nil, broker.ErrConflict)
				return
			}
			places[i] = broker.Place{Seq: first.Seq, Time: first.Time, Repeated: true}
			continue
		}
		e.Seq, e.Time = c.lastLocked()+1, time.Now().Add(c.ahead).UnixMilli()
		if e.Key != [16]byte{} {
			c.keys[e.Key] = *e
		}
		c.entries = append(c.entries, *e)
		places[i] = broker.Place{Seq: e.Seq, Time: e.Time}
		for _, n := range c.nodes {
			n.sendLocked(*e)
		}
	}
	c.mu.Unlock()
	done(places, nil)
}

// sendLocked has an entry come to a node.
func (f *fakeLog) sendLocked(e broker.Entry) {
	if f.open[e.Channel] || f.open[""] {
		f.do(func() { f.sink.Entries([]broker.Entry{e}) })
	} else {
		f.do(func() { f.sink.Advance(e.Seq) })
	}
}

func (f *fakeLog) Open(channels []string, opened func(uint64, error)) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for _, name := range channels {
		f.open[name] = true
	}
	at := f.c.lastLocked()
	f.do(func() { opened(at, nil) })
}

func (f *fakeLog) Release(channels []string) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.released = append(f.released, channels...)
	for _, name := range channels {
		delete(f.open, name)
	}
}

func (f *fakeLog) Barrier(done func(uint64, error)) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	at := f.c.lastLocked()
	f.do(func() { f.sink.Advance(at); done(at, nil) })
}

func (f *fakeLog) Read(_ context.Context, channel string, after uint64, n, _ int) (es []broker.Entry, complete bool, err error) {
	c := f.c
	if c.reading != nil {
		c.reading()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	for _, e := range c.entries {
		if e.Channel != channel || e.Seq <= after {
			continue
		}
		if c.lost[e.Seq] || len(es) == n {
			return es, false, nil
		}
		es = append(es, e)
	}
	return es, true, nil
}

func (f *fakeLog) Last(ctx context.Context, channel string, n, _ int) ([]broker.Entry, error) {
	es, _, _ := f.Read(ctx, channel, 0, 1<<30, 0)
	return slices.Clone(es[max(0, len(es)-n):]), nil
}

func (f *fakeLog) Retain(broker.Retention) {}
func (f *fakeLog) Status() broker.Status {
	return broker.Status{Up: true, Clock: time.Now().Add(f.c.ahead)}
}

func (f *fakeLog) Close() {
	f.c.mu.Lock()
	f.c.nodes = slices.DeleteFunc(f.c.nodes, func(n *fakeLog) bool { return n == f })
	f.c.mu.Unlock()
	f.mu.Lock()
	f.closed = true
	f.changed.Broadcast()
	f.mu.Unlock()
	<-f.ended
}
