package hub

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlowIsClosed(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	slow, quick := connect(t, h, options(), "a"), connect(t, h, options(), "a")
	slow.open(20) // takes two messages and a half
	n := MinBacklog/8 + 100
	for range n {
		publish(t, h, "a")
	}
	if got, _ := quick.wait(n); len(got) != n {
		t.Fatalf("the quick one got %d of %d", len(got), n)
	}
	waitFor(t, func() bool { return h.Subscribers("a") == 1 })
	if b := h.Stats().Backlog; b > MinBacklog {
		t.Errorf("a connection that was given up still has %d bytes", b)
	}
	slow.open(1 << 20)
	slow.mu.Lock()
	for !bytes.HasSuffix(slow.got, seqs{}.Close(ReasonSlow, "")) {
		slow.changed.Wait()
	}
	slow.mu.Unlock()
	got, _ := slow.wait(0)
	for i, seq := range got {
		if seq != uint64(i)+1 {
			t.Fatalf("the slow one got %d at %d", seq, i)
		}
	}
	slow.conn.Done()
	slow.mu.Lock()
	for !slow.closed {
		slow.changed.Wait()
	}
	slow.mu.Unlock()
}

func TestSlowDrops(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	o := options()
	o.DropOldest = true
	slow := connect(t, h, o, "a")
	slow.open(20)
	n := MinBacklog / 8 * 3
	for range n {
		publish(t, h, "a")
	}
	waitFor(t, func() bool { return h.Stats().Deliveries == uint64(n) })
	if b := h.Stats().Backlog; b > MinBacklog {
		t.Errorf("the backlog has %d bytes", b)
	}
	slow.open(1 << 30)
	waitFor(t, func() bool { return h.Stats().Backlog == 0 })
	got, why := slow.wait(0)
	if why != notClosed || !slices.IsSorted(got) || got[0] != 1 || got[len(got)-1] != uint64(n) || len(got) == n {
		t.Fatalf("got %d messages, from %d to %d, closed for %d", len(got), got[0], got[len(got)-1], why)
	}
	for i := range got[1:] {
		if got[i] == got[i+1] {
			t.Fatalf("%d came twice", got[i])
		}
	}
}

// TestStuck: a peer that takes nothing for the write timeout is closed with 1013, which it can still read if it wakes
// up within another one.
func TestStuck(t *testing.T) {
	t.Run("wakes up", func(t *testing.T) { testStuck(t, true) })
	t.Run("does not", func(t *testing.T) { testStuck(t, false) })
}

func testStuck(t *testing.T, wakes bool) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.WriteTimeout = 5 * time.Second
		c := connect(t, h, o, "a")
		c.open(4)
		publish(t, h, "a")
		publish(t, h, "a")
		time.Sleep(4 * time.Second)
		if h.Subscribers("a") != 1 {
			t.Fatal("closed too early")
		}
		time.Sleep(2 * time.Second)
		if h.Subscribers("a") != 0 || h.Stats().Connections != 1 {
			t.Fatal("not closed")
		}
		if wakes {
			c.open(100)
			synctest.Wait()
			got, why := c.wait(0)
			if !slices.Equal(got, []uint64{1}) && !slices.Equal(got, []uint64{1, 2}) || why != ReasonSlow {
				t.Fatalf("got %v, closed for %v", got, why)
			}
			c.conn.Done()
		} else {
			time.Sleep(8 * time.Second)
		}
		synctest.Wait()
		if !c.closed || h.Stats().Connections != 0 || h.Stats().Backlog != 0 {
			t.Fatalf("not ended: %+v", h.Stats())
		}
		closeHub(h)
	})
}

func TestLost(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	direct, flushed := connect(t, h, options(), "a", "b"), connect(t, h, options(), "a")
	flushed.open(0)
	publish(t, h, "a")
	direct.wait(1)
	direct.Close()
	flushed.Close() // its flusher is told
	waitFor(t, func() bool { return h.Subscribers("a") == 1 })
	publish(t, h, "b") // its loop finds out
	waitFor(t, func() bool { s := h.Stats(); return s.Connections == 0 && s.Channels == 0 && s.Backlog == 0 })
}
