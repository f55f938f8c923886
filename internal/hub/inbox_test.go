package hub

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
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
