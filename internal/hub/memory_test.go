package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMemory: where there is no more room for all, the largest backlog goes, then the oldest of the history, and
// meanwhile nobody new comes in.
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
			if h.memory() > limit+paddedSize {
				t.Fatalf("%d bytes, more than %d", h.memory(), limit)
			}
		}
		large.open(1 << 40)
		if _, code := large.wait(1); code != codeTryLater {
			t.Errorf("the largest was closed with %d", code)
		}
		large.conn.Done()
		synctest.Wait()
		s := h.Stats()
		if s.Closed["memory"] != 1 || h.Subscribers("small") != 2 || published < 50 {
			t.Errorf("after %d messages: %+v", published, s)
		}
		if s.Kept != published {
			t.Errorf("%d messages are kept of %d", s.Kept, published)
		}

		// Another large one goes before the history does, which then goes, the oldest first.
		data := make([]byte, paddedSize)
		for range 100 {
			if err := h.Publish(&Message{Channel: "kept", Data: data}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		s = h.Stats()
		if h.Subscribers("small") != 1 || h.memory() > limit+paddedSize || s.Kept < 20 || s.Kept > 64 {
			t.Errorf("%+v", s)
		}
		quick.mu.Lock()
		n := len(quick.got) / paddedSize
		quick.mu.Unlock()
		if n != published {
			t.Errorf("who takes all got %d of %d", n, published)
		}

		// Nobody comes in while it is full.
		h.backlog.Add(limit)
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o); err != ErrMemory {
			t.Errorf("while the memory is full: %v", err)
		}
		h.backlog.Add(-limit)
		connect(t, h, o, "a")
		if s := h.Stats(); s.Refused["memory"] != 1 {
			t.Errorf("%+v", s.Refused)
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
		if h.Subscribers("a") != 0 || h.memory() > limit {
			t.Errorf("%d bytes, more than %d", h.memory(), limit)
		}

		h.backlog.Add(limit + 1)
		publish(t, h, "b")
		synctest.Wait()
		if !h.relieving.Load() {
			t.Error("without success it is tried again at once")
		}
		h.backlog.Add(-limit - 1)
		time.Sleep(relievePause)
		synctest.Wait()
		if h.relieving.Load() {
			t.Error("it is not tried again")
		}
		closeHub(h)
		synctest.Wait()
	})
}
