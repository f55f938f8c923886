package hub

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Coalesce: 50 * time.Millisecond})
		c := connect(t, h, options(), "a")
		synctest.Wait()
		c.tries = 0
		for range 100 {
			publish(t, h, "a")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if got, _ := c.wait(0); len(got) != 100 || c.tries > 3 {
			t.Errorf("%d messages in %d writes", len(got), c.tries)
		}
		c.conn.Done()
		closeHub(h)
	})
}

func TestFullInboxRefusesAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Coalesce: time.Second, MaxInbox: 5 * messageOverhead}) // holds what comes in one second
		c := connect(t, h, options(), "a")
		synctest.Wait()
		for range 4 {
			publish(t, h, "a")
		}
		two := []*Message{{Channel: "a"}, {Channel: "a"}}
		if err := h.Publish(two...); err != ErrFull || two[0].Seq != 0 {
			t.Fatalf("six messages in an inbox for five: %v", err)
		}
		start := time.Now()
		if err := h.PublishWait(two...); err != nil || time.Since(start) != time.Second {
			t.Fatalf("waiting: %v after %v", err, time.Since(start))
		}
		time.Sleep(2 * time.Second)
		if got, _ := c.wait(0); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("got %v", got)
		}
		c.conn.Done()
		closeHub(h)
	})
}

// TestAllocations: a message costs itself, and its deliveries nothing.
func TestAllocations(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	const subscribers = 200
	for range subscribers {
		s := &sink{client: newClient()}
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options())
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(s, nil)
	}
	data := make([]byte, 128)
	sent := uint64(0)
	n := testing.AllocsPerRun(1000, func() {
		h.Publish(&Message{Channel: "a", Data: data})
		for sent += subscribers; delivered(h) < sent; {
			runtime.Gosched()
		}
	})
	if n > 4 {
		t.Errorf("%v allocations a message", n)
	}
}

// TestAllocationsAlone: without a broker, what brokers need costs a message nothing. The list of a call's messages was
// allocated once, because publishing to a log keeps it.
func TestAllocationsAlone(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	data := make([]byte, 128)
	if n := testing.AllocsPerRun(1000, func() { h.Publish(&Message{Channel: "a", Data: data}) }); n > 1 {
		t.Errorf("%v allocations a message, not that of the message alone", n)
	}
}
