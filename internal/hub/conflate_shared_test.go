package hub

import (
	"slices"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// updates publishes messages with conflate keys, "" for none.
func updates(t *testing.T, h *Hub, channel string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := h.Publish(&Message{Channel: channel, Data: []byte("x"), Conflate: NewConflateKey(key)}); err != nil {
			t.Fatal(err)
		}
	}
}

// checkKept returns the positions in a channel's history, and checks that the list of all messages and the newest of each conflate
// key agree with it.
func (h *Hub) checkKept(t *testing.T, name string) (seqs []uint64) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.channels[name] == nil {
		return nil
	}
	newest := make(map[ConflateKey]*stored)
	for s := h.channels[name].history.oldest; s != nil; s = s.newer() {
		seqs = append(seqs, s.message.Seq)
		if key := s.message.Conflate; key.IsSet() {
			if newest[key] != nil {
				t.Errorf("%q is kept at %d and at %d", key, newest[key].message.Seq, s.message.Seq)
			}
			newest[key] = s
		}
	}
	for key, s := range newest {
		if h.channels[name].conflated[key] != s {
			t.Errorf("the newest of %q is not the one at %d", key, s.message.Seq)
		}
	}
	if len(h.channels[name].conflated) != len(newest) {
		t.Errorf("%d conflate keys, and %d in the history", len(h.channels[name].conflated), len(newest))
	}
	all := 0
	for s := h.history.oldest; s != nil; s = s.in[inAll].after {
		all++
	}
	if all != h.history.count || !slices.IsSorted(seqs) {
		t.Errorf("%d messages in the list, %d counted, %v", all, h.history.count, seqs)
	}
	return seqs
}

// TestConflateRead: what a node reads from the log is older than what it has, so it is not the newest of its conflate key if there
// is one, and is not kept beside it.
func TestConflateRead(t *testing.T) {
	_, hubs, _ := sharing(t, 3, Config{History: 100, HistoryAge: time.Hour})
	updates(t, hubs[0], "a", "row:1", "row:2", "", "row:1")
	live, _ := resume(t, hubs[1], "", "a")
	updates(t, hubs[0], "a", "row:1", "row:3")
	expect(t, live, 5, 6)
	back, w := resume(t, hubs[1], "one-0", "a")
	if !w.Resumed {
		t.Errorf("%+v", w)
	}
	expect(t, back, 2, 3, 5, 6)
	if got := hubs[1].checkKept(t, "a"); !slices.Equal(got, []uint64{2, 3, 5, 6}) {
		t.Errorf("the history has %v", got)
	}
	updates(t, hubs[0], "a", "row:1", "row:2")
	expect(t, live, 5, 6, 7, 8)
	if got := hubs[1].checkKept(t, "a"); !slices.Equal(got, []uint64{3, 6, 7, 8}) {
		t.Errorf("the history has %v", got)
	}
	for _, h := range hubs {
		last, _ := connectAs(t, h, gapOptions(), Subscriber{Channels: []string{"a"}, Replay: 10})
		expect(t, last, 3, 6, 7, 8)
		back, _ := resume(t, h, "one-0", "a")
		expect(t, back, 3, 6, 7, 8)
	}
}

// TestConflateReadCount: a shared log counts all messages, also those that are replaced. What it does not keep any more is a gap,
// and not a client that misses a row.
func TestConflateReadCount(t *testing.T) {
	_, hubs, _ := sharing(t, 2, Config{History: 5})
	updates(t, hubs[0], "a", "", "row:1", "row:1", "row:1", "row:2", "")
	if _, w := resume(t, hubs[1], "one-0", "a"); w.Gaps == nil {
		t.Errorf("%+v", w)
	}
	back, w := resume(t, hubs[1], "one-1", "a")
	if !w.Resumed {
		t.Fatalf("%+v", w)
	}
	expect(t, back, 4, 5, 6)
}

// TestConflateLate: a message that comes late, and in order for its channel, is the newest of its conflate key.
func TestConflateLate(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	alone, _ := resume(t, h, "", "a")
	updates(t, h, "a", "row:1")
	expect(t, alone, 1)
	m := &Message{Channel: "a", Data: []byte("x"), Conflate: NewConflateKey("row:1")}
	e := entriesOf([]*Message{m}, 0)[0]
	e.Seq = 2
	c.mu.Lock()
	c.entries = append(c.entries, e, broker.Entry{Seq: 3, Channel: "b"})
	c.mu.Unlock()
	f.do(func() { f.sink.Advance(3) })
	f.do(func() { f.sink.Broken(nil) })
	f.do(func() { f.sink.Entries([]broker.Entry{e}) })
	f.do(func() { f.sink.Repaired() })
	f.idle()
	expect(t, alone, 1, 2)
	if got := h.checkKept(t, "a"); !slices.Equal(got, []uint64{2}) {
		t.Errorf("the history has %v", got)
	}
}

// TestDelayedEpoch: what waits for the next delivery comes before the notice that the log has begun again, and nothing of the log
// before comes after it.
func TestDelayedEpoch(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	o := gapOptions()
	o.DeliverEvery = time.Hour
	waiting := connect(t, h, o, "a")
	updates(t, h, "a", "row:1", "", "row:1")
	f.idle()
	f.do(func() { f.sink.Broken(nil) })
	c.mu.Lock()
	c.epoch, c.entries = "two", nil
	c.mu.Unlock()
	f.do(func() { f.sink.Epoch("two", 0) })
	f.do(func() { f.sink.Repaired() })
	f.idle()
	expect(t, waiting, 2, 3, gapMark|1)
	updates(t, h, "a", "row:1", "row:1")
	f.idle()
	waiting.conn.Close(ReasonClient, "")
	expect(t, waiting, 2, 3, gapMark|1, 2)
}
