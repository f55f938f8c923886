package hub

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// distantLog is a log whose broker is far away, and which counts what it is asked.
type distantLog struct {
	*fakeLog
	latency               time.Duration
	opens, reads, barrier atomic.Int64
	reading, most         atomic.Int64 // reads at a time
}

func (d *distantLog) Open(channels []string, opened func(uint64, error)) {
	for _, name := range channels {
		if !strings.HasPrefix(name, "\x01") { // those are the hub's own
			d.opens.Add(1)
		}
	}
	d.fakeLog.Open(channels, opened)
}

func (d *distantLog) Barrier(done func(uint64, error)) {
	d.barrier.Add(1)
	d.fakeLog.Barrier(done)
}

func (d *distantLog) Read(ctx context.Context, channel string, after uint64, n, bytes int) ([]broker.Entry, bool, error) {
	if !strings.HasPrefix(channel, "\x01") {
		d.reads.Add(1)
	}
	now := d.reading.Add(1)
	defer d.reading.Add(-1)
	for most := d.most.Load(); now > most && !d.most.CompareAndSwap(most, now); most = d.most.Load() {
	}
	select {
	case <-time.After(d.latency):
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	es, complete, err := d.fakeLog.Read(ctx, channel, after, n, bytes)
	size := 0
	for i := range es {
		// As brokers do: the first one comes whatever its size.
		if size += len(es[i].Data); i > 0 && size > bytes {
			return es[:i], false, err
		}
	}
	return es, complete, err
}

// joinDistant makes a hub share a log that is far away.
func (c *fakeCluster) joinDistant(t *testing.T, h *Hub, latency time.Duration) *distantLog {
	d := &distantLog{fakeLog: c.newLog(), latency: latency}
	err := h.UseLog(func(sink broker.Sink) (broker.Log, error) {
		d.sink = sink
		c.mu.Lock()
		c.nodes = append(c.nodes, d.fakeLog)
		c.mu.Unlock()
		return d, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.do(func() { d.sink.Epoch(c.epoch, c.last()) })
	d.do(func() { d.sink.Repaired() })
	d.idle()
	return d
}

// TestHerd: the connections of a node that was killed, each on a channel of its own, come to two others at the same moment.
// Though an answer of the broker takes a while, all get theirs in time, and have what they missed. Each channel is opened and
// read once, and never too many at a time.
func TestHerd(t *testing.T) {
	const latency, n = 250 * time.Millisecond, 3000 // at 64 reads at a time, 1500 of them would take longer than a handshake may
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster()
		hubs := []*Hub{New(Config{History: 10}), New(Config{History: 10})}
		var logs []*distantLog
		for _, h := range hubs {
			defer closeHub(h)
			logs = append(logs, c.joinDistant(t, h, latency))
		}
		for i := range n { // what was published meanwhile: two messages on each second channel
			c.mu.Lock()
			c.entries = append(c.entries, broker.Entry{Seq: c.lastLocked() + 1, Channel: fmt.Sprint(i / 2 * 2)})
			c.mu.Unlock()
		}
		for _, l := range logs {
			l.do(func() { l.sink.Advance(n) })
			l.idle()
		}
		o := gapOptions()
		o.MaxBacklog = 1 << 20
		begun := time.Now()
		var all sync.WaitGroup
		var refused, wrong atomic.Int64
		for i := range n {
			all.Go(func() {
				conn, w, err := hubs[i/2%2].Connect(Subscriber{Channels: []string{fmt.Sprint(i)}, LastID: "one-0"}, o)
				if err != nil {
					refused.Add(1)
					return
				}
				defer conn.Done()
				conn.Start(newClient(), nil)
				if w.Gaps != nil || w.Resumed != (w.Gaps == nil) {
					wrong.Add(1)
				}
			})
		}
		all.Wait()
		t.Logf("%d are back after %v", n-refused.Load(), time.Since(begun))
		if refused.Load() > 0 || wrong.Load() > 0 {
			t.Errorf("%d were refused, %d have a gap", refused.Load(), wrong.Load())
		}
		for _, l := range logs {
			if l.opens.Load() != n/2 || l.reads.Load() != n/2 || l.barrier.Load() != 0 || l.most.Load() > maxShortReads {
				t.Errorf("%d channels opened, %d reads, %d barriers, %d reads at a time", l.opens.Load(), l.reads.Load(), l.barrier.Load(), l.most.Load())
			}
		}
	})
}

// TestLongRead: what does not fit a short read is read again, as a whole.
func TestLongRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster()
		h := New(Config{History: 10})
		defer closeHub(h)
		l := c.joinDistant(t, h, 0)
		for i := range uint64(5) {
			c.entries = append(c.entries, broker.Entry{Seq: i + 1, Channel: "a", Data: make([]byte, shortRead/3)})
		}
		l.do(func() { l.sink.Advance(5) })
		l.idle()
		o := gapOptions()
		o.MaxBacklog = 1 << 20
		a := newClient()
		conn, w, err := h.Connect(Subscriber{Channels: []string{"a"}, LastID: "one-1"}, o)
		if err != nil || !w.Resumed {
			t.Fatalf("%+v, %v", w, err)
		}
		defer conn.Done()
		conn.Start(a, nil)
		expect(t, a, 2, 3, 4, 5)
		if l.reads.Load() != 2 {
			t.Errorf("%d reads", l.reads.Load())
		}
	})
}

// missing returns a hub with n clients, each on a channel of its own, "0" and so on. Each channel has a message that was not sent
// to the hub: that of channel "0" is at position 1.
func missing(t *testing.T, n int) (*fakeCluster, *Hub, []*client) {
	c := newFakeCluster()
	h := New(Config{History: 10})
	c.join(t, h)
	clients := make([]*client, n)
	for i := range n {
		clients[i], _ = resume(t, h, "", fmt.Sprint(i))
	}
	for i := range n {
		c.store(fmt.Sprint(i))
	}
	return c, h, clients
}

// TestHerdOfChannels: a log that takes the place of another one, after a reload, reads what its channels have missed meanwhile.
// They are many, and the broker is far away, but nobody waits for a position longer than a handshake may.
func TestHerdOfChannels(t *testing.T) {
	const latency, n = 250 * time.Millisecond, 500 // one after the other they would take two minutes
	synctest.Test(t, func(t *testing.T) {
		c, h, clients := missing(t, n)
		defer closeHub(h)
		c.mu.Lock()
		for range 3 { // and one has missed more than is read at first
			c.entries = append(c.entries, broker.Entry{Seq: c.lastLocked() + 1, Channel: "0", Data: make([]byte, shortRead/2)})
		}
		c.mu.Unlock()
		begun := time.Now()
		l := c.joinDistant(t, h, latency)
		for i, a := range clients[1:] {
			expect(t, a, uint64(i)+2)
		}
		expect(t, clients[0], 1, n+1, n+2, n+3)
		if took := time.Since(begun); took > positionTime {
			t.Errorf("it took %v", took)
		}
		if l.reads.Load() != n+1 || l.most.Load() > maxReads {
			t.Errorf("%d reads, %d at a time", l.reads.Load(), l.most.Load())
		}
	})
}
