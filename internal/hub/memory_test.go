package hub

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemory: where there is no more room for all, the largest backlog goes, then the oldest of the history, which has
// half of it at most, and meanwhile nobody new comes in.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 64 * paddedSize
		h := New(Options{MaxMemory: limit, History: 1000})
		o := options()
		o.Format = padded{}
		o.MaxBacklog = 1 << 30
		small, large, quick := connect(t, h, o, "small"), connect(t, h, o, "large"), connect(t, h, o, "small", "large")
		small.open(0)
		large.open(0)
		for range 8 {
			publish(t, h, "small")
			synctest.Wait()
		}
		published := 8
		for h.Subscribers("large") == 2 {
			publish(t, h, "large")
			published++
			synctest.Wait()
			if h.Memory() > limit {
				t.Fatalf("%d bytes, more than %d", h.Memory(), limit)
			}
		}
		large.open(1 << 40)
		if _, why := large.wait(1); why != ReasonMemory {
			t.Errorf("the largest was closed for %v", why)
		}
		large.conn.Done()
		synctest.Wait()
		s := h.Stats()
		if s.Closed["memory"] != 1 || h.Subscribers("small") != 2 || published < 36 {
			t.Errorf("after %d messages: %+v", published, s)
		}
		if s.Kept != published {
			t.Errorf("%d messages are kept of %d", s.Kept, published)
		}

		// History alone cuts nobody off.
		data := make([]byte, paddedSize)
		keep := func() {
			for range 100 {
				if err := h.Publish(&Message{Channel: "kept", Data: data}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		keep()
		if s = h.Stats(); h.Subscribers("small") != 2 || h.Memory() > limit || s.Kept < 20 || s.Kept > 32 {
			t.Errorf("%+v", s)
		}
		quick.mu.Lock()
		n := len(quick.got) / paddedSize
		quick.mu.Unlock()
		if n != published {
			t.Errorf("who takes all got %d of %d", n, published)
		}

		// A large backlog goes before the history does, which goes before small ones.
		o.MaxBacklog = MinBacklog
		var many []*client
		for i := range 40 {
			c := connect(t, h, o, fmt.Sprint(i))
			c.open(0)
			many = append(many, c)
			publish(t, h, fmt.Sprint(i))
			synctest.Wait()
			if h.Memory() > limit {
				t.Fatalf("%d bytes, more than %d", h.Memory(), limit)
			}
		}
		if s = h.Stats(); h.Subscribers("small") != 1 || s.KeptBytes > 31*paddedSize || s.Connections != 42 || s.Closed["memory"] != 1 {
			t.Errorf("%+v", s)
		}
		for _, c := range many {
			c.conn.Done()
		}
		synctest.Wait()

		// Nobody comes in while it is full.
		h.held.Add(limit)
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o); err != ErrMemory {
			t.Errorf("while the memory is full: %v", err)
		}
		h.held.Add(-limit)
		connect(t, h, o, "a")
		if s := h.Stats(); s.Rejected["memory"] != 1 {
			t.Errorf("%+v", s.Rejected)
		}
		closeHub(h)
		synctest.Wait()
	})
}

// TestLessMemory: a bound that is lowered holds at once; and where nothing can be done nothing is tried all the time.
func TestLessMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{History: 1000})
		o := options()
		o.Format = padded{}
		o.MaxBacklog = 1 << 30
		c := connect(t, h, o, "a")
		c.open(0)
		for range 64 {
			publish(t, h, "a")
		}
		synctest.Wait()
		const limit = 16 * paddedSize
		h.Configure(Options{History: 1000, MaxMemory: limit})
		synctest.Wait()
		if h.Subscribers("a") != 0 || h.Memory() > limit {
			t.Errorf("%d bytes, more than %d", h.Memory(), limit)
		}

		h.held.Add(limit + 1)
		if err := h.Publish(&Message{Channel: "b"}); err != ErrFull || h.Stats().Rejected["memory"] != 1 {
			t.Errorf("a message while the memory is full: %v", err)
		}
		synctest.Wait()
		if !h.evicting.Load() {
			t.Error("without success it is tried again at once")
		}
		h.held.Add(-limit - 1)
		time.Sleep(evictPause)
		synctest.Wait()
		if h.evicting.Load() {
			t.Error("it is not tried again")
		}
		closeHub(h)
		synctest.Wait()
	})
}
