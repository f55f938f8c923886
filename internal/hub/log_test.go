package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// gaps is seqs with a notice of gaps.
type gaps struct{ seqs }

// gapMark is what a client gets for a gap.
const gapMark = 1 << 62

func (gaps) Gap(channels []string) []byte {
	return binary.BigEndian.AppendUint64(nil, gapMark|uint64(len(channels)))
}

func gapOptions() *ConnOptions {
	o := options()
	o.Format = gaps{}
	return o
}

// sharing makes hubs that share a log.
func sharing(t *testing.T, n int, config Config) (c *fakeCluster, hubs []*Hub, logs []*fakeLog) {
	t.Helper()
	c = newFakeCluster()
	for range n {
		h := New(config)
		hubs = append(hubs, h)
		t.Cleanup(func() { closeHub(h) })
		logs = append(logs, c.join(t, h))
	}
	return c, hubs, logs
}

// resume connects a client that comes back.
func resume(t *testing.T, h *Hub, id string, channels ...string) (*client, Welcome) {
	t.Helper()
	return connectAs(t, h, gapOptions(), Subscriber{Channels: channels, LastID: id})
}

func expect(t *testing.T, c *client, want ...uint64) {
	t.Helper()
	if got, _ := c.wait(len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestSharedLog: what is published on one node is delivered on all, with the same positions, and once to each client.
func TestSharedLog(t *testing.T) {
	_, hubs, _ := sharing(t, 2, Config{History: 10})
	a, b := connect(t, hubs[0], options(), "a"), connect(t, hubs[1], options(), "a", "b")
	for i := range 4 {
		m := publish(t, hubs[i%2], "a")
		if m.Seq != uint64(i+1) || m.ID() != fmt.Sprintf("one-%d", i+1) || m.Subscribers != 1 {
			t.Errorf("%d: %s, %d subscribers", i, m.ID(), m.Subscribers)
		}
	}
	expect(t, a, 1, 2, 3, 4)
	expect(t, b, 1, 2, 3, 4)
}

// TestWatermark: every entry moves the watermark, that of an open channel or not (I1), and no position that is handed out is
// beyond it (I2).
func TestWatermark(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	h := hubs[1]
	connect(t, h, options(), "a")
	publish(t, hubs[0], "a")
	publish(t, hubs[0], "other")
	logs[1].idle()
	if _, w := resume(t, h, "", "a"); w.ID != "one-2" {
		t.Errorf("position %s", w.ID)
	}
	logs[1].hold(true)
	publish(t, hubs[0], "a")
	if _, w := resume(t, h, "", "a"); w.ID != "one-2" {
		t.Errorf("position %s is beyond what came", w.ID)
	}
	logs[1].hold(false)
}

// TestBarrier: a client that comes from a node that is ahead is answered when this one has reached its position (I3).
func TestBarrier(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	h := hubs[1]
	connect(t, h, options(), "a")
	logs[1].hold(true)
	first := publish(t, hubs[0], "a")
	answered := make(chan Welcome)
	go func() {
		_, w := resume(t, h, first.ID(), "a")
		answered <- w
	}()
	waitFor(t, func() bool { _, s, _ := h.Log(); return s.Barriers == 1 })
	select {
	case w := <-answered:
		t.Fatalf("answered %+v", w)
	default:
	}
	logs[1].hold(false)
	if w := <-answered; !w.Resumed || w.ID != "one-1" {
		t.Errorf("%+v", w)
	}
	if _, w := resume(t, h, "one-99", "a"); w.Gaps == nil {
		t.Error("resumed from the future")
	}
	if _, w := resume(t, h, "other-1", "a"); w.Gaps == nil {
		t.Error("resumed from another epoch")
	}
}

// TestColdChannel: a client that comes back to a node that does not have its channel gets all that it missed, in order, or
// is told of a gap.
func TestColdChannel(t *testing.T) {
	for _, test := range []struct {
		name    string
		history int
		lost    uint64
		want    []uint64
		gap     bool
	}{
		{"all is stored", 10, 0, []uint64{3, 5, 6}, false},
		{"some is lost", 10, 3, []uint64{6}, true},
		{"no history", 0, 0, []uint64{6}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, hubs, _ := sharing(t, 2, Config{History: test.history})
			for _, name := range strings.Fields("a b a b a") {
				publish(t, hubs[0], name)
			}
			c.lost[test.lost] = true
			got, w := resume(t, hubs[1], "one-1", "a")
			if (w.Gaps != nil) != test.gap {
				t.Errorf("%+v", w)
			}
			publish(t, hubs[0], "a")
			expect(t, got, test.want...)
			// Who missed nothing is told so, whatever is kept.
			if _, w := resume(t, hubs[1], "one-4", "b"); w.Gaps != nil {
				t.Errorf("%+v", w)
			}
		})
	}
}

// TestReadOnce: many that come back to a cold channel at once read it once.
func TestReadOnce(t *testing.T) {
	c, hubs, _ := sharing(t, 2, Config{History: 100})
	for range 20 {
		publish(t, hubs[0], "a")
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got, w := resume(t, hubs[1], "one-0", "a"); w.Gaps != nil {
				t.Errorf("%+v", w)
			} else {
				expect(t, got, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
			}
		})
	}
	all.Wait()
	if c.reads != 1 {
		t.Errorf("%d reads", c.reads)
	}
}

// TestReplayCold: the last messages of a channel that this node does not have are read.
func TestReplayCold(t *testing.T) {
	_, hubs, _ := sharing(t, 2, Config{History: 100})
	for range 5 {
		publish(t, hubs[0], "a")
	}
	for _, n := range []int{2, 4, 9, 3} {
		c := newClient()
		conn, w, err := hubs[1].Connect(Subscriber{Channels: []string{"a"}, Replay: n}, options())
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(c, nil)
		n = min(n, 5)
		if want := fmt.Sprintf("one-%d", 5-n); w.ID != want {
			t.Errorf("position %s, want %s", w.ID, want)
		}
		expect(t, c, []uint64{1, 2, 3, 4, 5}[5-n:]...)
	}
}

// TestLate: an entry that comes late is delivered to those that have certainly not gone past it, and others are told (I4).
func TestLate(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	alone, _ := resume(t, h, "", "a")
	two, _ := resume(t, h, "", "a", "b")
	moved, _ := resume(t, h, "", "a")
	moved.conn.Join("b", "", func(Welcome, []*Message) []byte { return nil })
	moved.conn.Leave("b", nil)
	left, _ := resume(t, h, "", "a", "b")
	left.conn.Leave("b", nil)
	f.idle()
	c.mu.Lock()
	for seq, name := range strings.Fields("b a a b b") {
		c.entries = append(c.entries, broker.Entry{Seq: uint64(seq + 1), Channel: name})
	}
	c.mu.Unlock()
	f.do(func() { f.sink.Advance(5) })
	f.idle()
	after, _ := resume(t, h, "", "a")

	late := func(seq uint64) {
		f.do(func() { f.sink.Broken(nil) })
		f.do(func() { f.sink.Entries([]broker.Entry{{Seq: seq, Channel: "a"}}) })
		f.do(func() { f.sink.Repaired() })
		f.idle()
	}
	late(3)
	expect(t, alone, 3)
	for _, c := range []*client{two, moved, left, after} {
		expect(t, c, gapMark|1)
	}
	late(2) // something newer was delivered
	expect(t, alone, 3, gapMark|1)
	if _, w := resume(t, h, "one-2", "a"); w.Gaps != nil || c.reads > 0 {
		t.Errorf("what came late and in order is not in the history: %+v", w)
	}
	back, w := resume(t, h, "one-1", "a")
	if w.Gaps != nil || c.reads != 1 {
		t.Errorf("what came late and out of order was not read: %+v", w)
	}
	expect(t, back, 2, 3)
}

// TestLostEntries: subscribers of a channel that has lost something are told, and nobody resumes before it.
func TestLostEntries(t *testing.T) {
	_, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	a, _ := resume(t, h, "", "a")
	publish(t, h, "a")
	expect(t, a, 1)
	f.do(func() { f.sink.Broken(errors.New("something was lost")) })
	f.do(func() { f.sink.Lost([]string{"a"}) })
	expect(t, a, 1, gapMark|1)
}

// TestLostAll: "" stands for all channels, whoever is on them, and whether they have subscribers or not. Once a channel is
// read and nothing is missing, nobody is told of a gap any more, and it is not read again.
func TestLostAll(t *testing.T) {
	_, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	two, _ := resume(t, h, "", "a", "b")
	all, _ := connectAs(t, h, gapOptions(), Subscriber{All: true})
	left, _ := resume(t, h, "", "c")
	left.conn.Leave("c", nil)
	publish(t, h, "a")
	expect(t, two, 1)
	expect(t, all, 1)
	f.do(func() { f.sink.Broken(errors.New("something was lost")) })
	f.do(func() { f.sink.Lost([]string{""}) })
	f.do(func() { f.sink.Advance(5) })
	f.do(f.sink.Repaired)
	f.idle()
	for _, c := range []*client{two, all} {
		got, _ := c.wait(2)
		if len(got) != 2 || got[1]&gapMark == 0 {
			t.Errorf("got %v, want a gap", got)
		}
	}
	// The log still has everything, so who returns reads it there and not in the history.
	reads := f.c.reads
	for _, name := range []string{"a", "c"} {
		if _, w := resume(t, h, "one-1", name); w.Gaps != nil {
			t.Errorf("%s: %+v", name, w)
		}
	}
	if f.c.reads != reads+2 {
		t.Errorf("%d reads", f.c.reads-reads)
	}
	for _, name := range []string{"a", "c"} { // what was read is known now
		if _, w := resume(t, h, "one-1", name); w.Gaps != nil || f.c.reads != reads+2 {
			t.Errorf("%s again: %+v, %d reads", name, w, f.c.reads-reads)
		}
	}
	if _, w := resume(t, h, "one-5", "a"); w.Gaps != nil || f.c.reads != reads+2 {
		t.Errorf("after it: %+v, %d reads", w, f.c.reads-reads)
	}
}

// TestEpoch: when the log begins another epoch everybody is told of a gap on all channels, and what was before is gone.
func TestEpoch(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	a, _ := resume(t, h, "", "a", "b", "c")
	m := publish(t, h, "a")
	expect(t, a, 1)
	c.mu.Lock()
	c.entries = nil
	c.mu.Unlock()
	f.do(func() { f.sink.Epoch("two", 0) })
	f.idle()
	expect(t, a, 1, gapMark|3)
	if m.ID() != "one-1" || publish(t, h, "a").ID() != "two-1" {
		t.Error("a message has the ID of another epoch")
	}
	expect(t, a, 1, gapMark|3, 1)
	if _, w := resume(t, h, "one-1", "a"); w.Gaps == nil {
		t.Error("resumed from another epoch")
	}
	if _, w := resume(t, h, "two-0", "a"); w.Gaps != nil {
		t.Errorf("%+v", w)
	}
}

// TestNoEchoShared: a client does not get its own message back from the log.
func TestNoEchoShared(t *testing.T) {
	_, hubs, _ := sharing(t, 2, Config{})
	a, b := connect(t, hubs[0], options(), "a"), connect(t, hubs[1], options(), "a")
	for _, noEcho := range []bool{true, false} {
		m := &Message{Channel: "a", From: a.conn, NoEcho: noEcho}
		if err := hubs[0].Publish(m); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, a, 2)
	expect(t, b, 1, 2)
}

// TestKeysShared: a key has one position on all nodes.
func TestKeysShared(t *testing.T) {
	_, hubs, _ := sharing(t, 2, Config{})
	for i, data := range []string{"x", "x", "y"} {
		m := &Message{Channel: "a", Key: "k", Data: []byte(data)}
		err := hubs[i%2].Publish(m)
		if data == "x" && (err != nil || m.Seq != 1) || data == "y" && !errors.Is(err, ErrKeyReused) {
			t.Errorf("%s: %d, %v", data, m.Seq, err)
		}
	}
}

// TestUnstarted: before the log has begun nothing can be published, and nobody connects.
func TestUnstarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{PartitionTimeout: time.Minute})
		c := newFakeCluster()
		f := c.dial(t, h)
		if err := h.Publish(&Message{Channel: "a"}); !errors.Is(err, ErrDown) {
			t.Error(err)
		}
		begun := time.Now()
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); !errors.Is(err, ErrNotReady) || time.Since(begun) != positionTime {
			t.Error(err, time.Since(begun))
		}
		time.AfterFunc(time.Second, func() {
			f.do(func() { f.sink.Epoch("one", 0) })
			f.do(func() { f.sink.Repaired() })
		})
		a := connect(t, h, options(), "a")
		publish(t, h, "a")
		expect(t, a, 1)

		f.do(func() { f.sink.Broken(nil) })
		time.Sleep(time.Minute - 1)
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); err != nil {
			t.Errorf("an open channel: %v", err)
		}
		time.Sleep(time.Second)
		if _, why := a.wait(2); why != ReasonUnavailable {
			t.Errorf("closed for %v", why)
		}
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); !errors.Is(err, ErrNotReady) {
			t.Error(err)
		}
		f.do(func() { f.sink.Repaired() })
		f.idle()
		connect(t, h, options(), "a").conn.Done()
		closeHub(h)
	})
}

// TestRelease: a channel is released when it had no subscriber for a while, and then nothing of it is kept.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 300})
		f := newFakeCluster().join(t, h)
		a, b := connect(t, h, options(), "a"), connect(t, h, options(), "b")
		for range 300 {
			publish(t, h, "a")
		}
		a.conn.Done()
		time.Sleep(idleTime - time.Second)
		a = connect(t, h, options(), "a")
		a.conn.Done()
		b.conn.Done()
		time.Sleep(idleTime - time.Second)
		released := func() []string {
			f.c.mu.Lock()
			defer f.c.mu.Unlock()
			return slices.Sorted(slices.Values(f.released))
		}
		if got := released(); len(got) > 0 {
			t.Errorf("%q are released", got)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := released(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%q are released", got)
		}
		if n := h.Stats().Kept; n != 0 {
			t.Errorf("%d are kept", n)
		}
		closeHub(h)
	})
}

// TestSwap: with another log of the same epoch clients go on and get what was published between, in order. With another
// epoch, or without a log, they are told of a gap.
func TestSwap(t *testing.T) {
	c, hubs, logs := sharing(t, 2, Config{History: 10})
	h := hubs[1]
	a, _ := resume(t, h, "", "a", "b")
	publish(t, hubs[0], "a")
	expect(t, a, 1)
	logs[1].hold(true) // what comes from now on is lost with it
	publish(t, hubs[0], "b")
	publish(t, hubs[0], "a")
	c.join(t, h)
	publish(t, hubs[0], "b")
	expect(t, a, 1, 2, 3, 4)
	waitFor(t, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.log.settled })
	if _, w := resume(t, h, "one-1", "a"); w.Gaps != nil {
		t.Errorf("%+v", w)
	}
	if err := h.UseLog(nil); err != nil {
		t.Fatal(err)
	}
	publish(t, h, "a")
	expect(t, a, 1, 2, 3, 4, gapMark|2, 5)
}
