package hub

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// delaying returns options with DeliverEvery.
func delaying(every time.Duration) *ConnOptions {
	o := options()
	o.DeliverEvery = every
	return o
}

// has checks what a client has by now, and how many writes brought it.
func (c *client) has(t *testing.T, tries int, want ...uint64) {
	t.Helper()
	synctest.Wait()
	got, _ := c.wait(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(got, want) || c.tries != tries {
		t.Errorf("got %v in %d writes, want %v in %d", got, c.tries, want, tries)
	}
}

// TestDeliverEvery: what is published within the time is one write, and later than that nothing is. Others do not wait.
func TestDeliverEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		at := connect(t, h, options(), "a")
		later := connect(t, h, delaying(time.Second), "a")
		several := connect(t, h, delaying(time.Second), "a", "b")
		rarely := connect(t, h, delaying(10*time.Second), "a")
		publish(t, h, "a")
		at.has(t, 1, 1)
		later.has(t, 0)
		time.Sleep(600 * time.Millisecond)
		publish(t, h, "b")
		publish(t, h, "a")
		time.Sleep(399 * time.Millisecond)
		later.has(t, 0)
		time.Sleep(time.Millisecond)
		later.has(t, 1, 1, 3)
		several.has(t, 1, 1, 2, 3)
		rarely.has(t, 0)
		time.Sleep(5 * time.Second)
		publish(t, h, "a") // the time begins with a message
		time.Sleep(time.Second)
		later.has(t, 2, 1, 3, 4)
		several.has(t, 2, 1, 2, 3, 4)
		time.Sleep(3 * time.Second)
		rarely.has(t, 1, 1, 3, 4)
		for _, c := range []*client{at, later, several, rarely} {
			c.conn.Done()
		}
	})
}

// TestDelayedInOrder: what happens to one connection while messages wait for it comes after them if it has a place in their
// order, and the others go on waiting. An answer does not wait.
func TestDelayedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		var clients []*client
		joining, leaving, closing, asking, waiting := connect(t, h, delaying(time.Second), "a"),
			connect(t, h, delaying(time.Second), "a", "b"), connect(t, h, delaying(time.Second), "a"),
			connect(t, h, delaying(time.Second), "a"), connect(t, h, delaying(time.Second), "a", "b")
		clients = append(clients, joining, leaving, closing, asking, waiting)
		publish(t, h, "a")
		publish(t, h, "b")
		answer := seqs{}.Append(nil, []*Message{{Seq: 1000}})
		none := func(Welcome, []*Message) []byte { return nil }
		if joining.conn.Join("b", "", none) != nil || leaving.conn.Leave("a", nil) != nil {
			t.Fatal("cannot join and leave")
		}
		closing.conn.Close(ReasonClient, "")
		asking.conn.Send(answer)
		fresh := connect(t, h, delaying(time.Second), "a", "b")
		clients = append(clients, fresh)
		joining.has(t, 1, 1)
		leaving.has(t, 1, 1, 2)
		asking.has(t, 1, 1000)
		waiting.has(t, 0)
		publish(t, h, "a")
		publish(t, h, "b")
		time.Sleep(time.Second)
		joining.has(t, 2, 1, 3, 4)
		leaving.has(t, 2, 1, 2, 4)
		asking.has(t, 2, 1000, 1, 3)
		waiting.has(t, 1, 1, 2, 3, 4)
		fresh.has(t, 1, 3, 4)
		if got, why := closing.wait(2); !slices.Equal(got, []uint64{1}) || why != ReasonClient {
			t.Errorf("got %v, closed for %v", got, why)
		}
		for _, c := range clients {
			c.conn.Done()
		}
	})
}

// TestDelayedConflates: of what waits, the newest of each conflate key is delivered, on each channel; and no more waits than is
// written at once.
func TestDelayedConflates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		c := connect(t, h, delaying(time.Second), "a", "b")
		update := func(channel, key string, size int) {
			m := &Message{Channel: channel, Conflate: NewConflateKey(key), Data: bytes.Repeat([]byte("x"), size)}
			if err := h.Publish(m); err != nil {
				t.Fatal(err)
			}
		}
		for range 3000 {
			update("a", "1", 100)
		}
		update("b", "1", 100)
		update("a", "2", 100)
		update("a", "", 100)
		update("a", "2", 100)
		c.has(t, 0)
		time.Sleep(time.Second)
		c.has(t, 1, 3000, 3001, 3003, 3004)
		update("a", "1", maxBatch/2)
		update("a", "", maxBatch/2)
		c.has(t, 2, 3000, 3001, 3003, 3004, 3005)
		time.Sleep(time.Second)
		c.has(t, 3, 3000, 3001, 3003, 3004, 3005, 3006)
		c.conn.Done()
	})
}

// TestDelayedEcho: NoEcho holds for what waits too.
func TestDelayedEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		c, other := connect(t, h, delaying(time.Second), "a"), connect(t, h, delaying(time.Second), "a")
		publish(t, h, "a")
		if err := h.Publish(&Message{Channel: "a", From: c.conn, NoEcho: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		c.has(t, 1, 1)
		other.has(t, 1, 1, 2)
		c.conn.Done()
		other.conn.Done()
	})
}

// TestDelayedAll: a subscriber of all channels gets the newest message of each conflate key on each of them, and what history keeps
// is not replaced by what it does not keep.
func TestDelayedAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		c, _ := connectAs(t, h, delaying(time.Second), Subscriber{All: true})
		for _, m := range []*Message{{Channel: "a"}, {Channel: "b"}, {Channel: "b"}, {Channel: "b", Transient: true}} {
			m.Conflate = NewConflateKey("row:1")
			if err := h.Publish(m); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		c.has(t, 1, 1, 3, 4)
		c.conn.Done()
	})
}
