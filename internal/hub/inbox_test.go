package hub

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestHandingOut: while one goroutine hands out, others publish without waiting for it, and everything arrives in order.
func TestHandingOut(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	c := connect(t, h, options(), "a")
	h.onLoops(func(*loop) {})
	in := &c.conn.loop.inbox
	in.mu.Lock() // which keeps whoever hands out
	first := make(chan struct{})
	go func() {
		publish(t, h, "a")
		close(first)
	}()
	waitFor(t, func() bool {
		h.outbox.mu.Lock()
		defer h.outbox.mu.Unlock()
		return h.outbox.busy && len(h.outbox.entries) == 0
	})
	const more = 3*outboxChunk + 1
	for range more {
		publish(t, h, "a")
	}
	if n := len(h.outbox.full); n != 3 {
		t.Errorf("%d full pieces", n)
	}
	in.mu.Unlock()
	<-first
	h.onLoops(func(*loop) {})
	if got, _ := c.wait(more + 1); len(got) != more+1 || !slices.IsSorted(got) {
		t.Errorf("%d messages of %d, in order: %v", len(got), more+1, slices.IsSorted(got))
	}
	waitFor(t, func() bool { // after the loops have counted out the last calls
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.queuedLocked() == 0
	})
}

// TestHandingOutEnds: who hands out does not go on with all that others publish.
func TestHandingOutEnds(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	h.Start()
	l, calls := h.loops[0], 0
	const n = 2 * maxRounds * outboxChunk
	h.mu.Lock()
	for range n {
		l.pushLocked(entry{op: opCall, arg: func() { calls++ }})
	}
	h.mu.Unlock()
	o := &h.outbox
	o.mu.Lock()
	o.busy = true
	o.handOutLocked(h.loops)
	if !o.busy || len(o.full) == 0 { // whoever goes on waits for the lock
		t.Errorf("busy %v, %d pieces", o.busy, len(o.full))
	}
	o.mu.Unlock()
	got := 0
	h.onLoop(l, func(*loop) { got = calls })
	if got != n {
		t.Errorf("%d of %d calls", got, n)
	}
}

// TestSpread: the audiences of a channel are in the order of their loops, and lists that entries may refer to do not change.
func TestSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	loops := make([]*loop, maxLoops)
	for i := range loops {
		loops[i] = &loop{id: i, bit: 1 << i}
	}
	ch := new(channel)
	var all []*audience
	for range 2000 {
		var lists, copies [][]*audience
		for s := range ch.spreads() {
			lists, copies = append(lists, s.audiences), append(copies, slices.Clone(s.audiences))
		}
		if len(all) > 0 && r.IntN(3) == 0 {
			i := r.IntN(len(all))
			a := all[i]
			all = slices.Delete(all, i, i+1)
			if a.size--; a.size == 0 {
				ch.removeLocked(a)
			}
		} else {
			all = append(all, ch.addLocked(loops[r.IntN(maxLoops)], time.Duration(r.IntN(3))))
		}
		for i := range lists {
			if !slices.Equal(lists[i], copies[i]) {
				t.Fatal("a list has changed")
			}
		}
		sizes := 0
		for s := range ch.spreads() {
			for _, a := range s.audiences {
				if s.audiences[s.index(a.loop)] != a || s.loops&a.loop.bit == 0 {
					t.Fatalf("the audience of loop %d is not found", a.loop.id)
				}
				sizes += a.size
			}
		}
		if sizes != len(all) {
			t.Fatalf("%d subscribers, and there should be %d", sizes, len(all))
		}
	}
}

// TestKeptFirst: the history has a message before it is in the outbox. From there on a loop may count it too, as others may hand it
// out while its publisher still holds Hub.mu.
func TestKeptFirst(t *testing.T) {
	blocked := func(t *testing.T, h *Hub, publish func()) {
		t.Helper()
		h.onLoops(func(*loop) {})
		done := make(chan struct{})
		func() {
			h.outbox.mu.Lock()
			defer h.outbox.mu.Unlock()
			go func() {
				publish()
				close(done)
			}()
			waitFor(t, func() bool { return h.history.bytes.Load() > 0 })
		}()
		<-done
	}
	t.Run("channel", func(t *testing.T) {
		h := New(Config{History: 10})
		defer closeHub(h)
		connect(t, h, options(), "a")
		blocked(t, h, func() { publish(t, h, "a") })
	})
	t.Run("name", func(t *testing.T) {
		h := New(Config{History: 10})
		defer closeHub(h)
		c := connect(t, h, options())
		if err := c.conn.Enter(Entrance{Name: "n", Keep: true, Frame: func(Welcome, []*Message) []byte { return nil }}); err != nil {
			t.Fatal(err)
		}
		blocked(t, h, func() { private(t, h, "n") })
	})
	t.Run("shared", func(t *testing.T) {
		_, hubs, logs := sharing(t, 1, Config{History: 10})
		resume(t, hubs[0], "", "a")
		logs[0].idle()
		blocked(t, hubs[0], func() { publish(t, hubs[0], "a") })
	})
	t.Run("late", func(t *testing.T) {
		_, hubs, logs := sharing(t, 1, Config{History: 10})
		f := logs[0]
		resume(t, hubs[0], "", "a")
		f.idle()
		f.do(func() { f.sink.Advance(5) })
		f.do(func() { f.sink.Broken(nil) })
		f.idle()
		blocked(t, hubs[0], func() {
			f.do(func() { f.sink.Entries([]broker.Entry{{Seq: 3, Channel: "a"}}) })
			f.idle()
		})
	})
}
