package hub

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// fullMemory is the limit of a hub that fillMemory fills.
const fullMemory = 64 * paddedSize

// filled is a hub whose memory was full.
type filled struct {
	h                   *Hub
	o                   *ConnOptions
	small, large, quick *client // by their backlogs; quick takes all at once
	published           int
}

// fillMemory starts a hub, and publishes until the client with the largest backlog is closed.
func fillMemory(t *testing.T) *filled {
	h := New(Config{MaxMemory: fullMemory, History: 1000})
	o := options()
	o.Format = padded{}
	o.MaxBacklog = 1 << 30
	f := &filled{h: h, o: o, small: connect(t, h, o, "small"), large: connect(t, h, o, "large"), quick: connect(t, h, o, "small", "large")}
	f.small.open(0)
	f.large.open(0)
	for range 8 {
		publish(t, h, "small")
		synctest.Wait()
	}
	f.published = 8
	for h.Subscribers("large") == 2 {
		publish(t, h, "large")
		f.published++
		synctest.Wait()
		f.checkLimit(t)
	}
	f.large.open(1 << 40)
	if _, why := f.large.wait(1); why != ReasonMemory {
		t.Errorf("the largest was closed for %v", why)
	}
	f.large.conn.Done()
	synctest.Wait()
	return f
}

// keep publishes what only the history wants: more than it has room for.
func (f *filled) keep(t *testing.T) {
	data := make([]byte, paddedSize)
	for range 100 {
		if err := f.h.Publish(&Message{Channel: "kept", Data: data}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
}

func (f *filled) checkLimit(t *testing.T) {
	t.Helper()
	if f.h.Memory() > fullMemory {
		t.Fatalf("%d bytes, more than %d", f.h.Memory(), fullMemory)
	}
}

// TestMemoryClosesTheLargest: where there is no more room for all, the largest backlog goes.
func TestMemoryClosesTheLargest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fillMemory(t)
		s := f.h.Stats()
		if s.Closed["memory"] != 1 || f.h.Subscribers("small") != 2 || f.published < 36 {
			t.Errorf("after %d messages: %+v", f.published, s)
		}
		if s.Kept != f.published {
			t.Errorf("%d messages are kept of %d", s.Kept, f.published)
		}
		closeHub(f.h)
		synctest.Wait()
	})
}

// TestMemoryOfHistory: history, which has half of the memory at most, cuts nobody off.
func TestMemoryOfHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fillMemory(t)
		f.keep(t)
		if s := f.h.Stats(); f.h.Subscribers("small") != 2 || f.h.Memory() > fullMemory || s.Kept < 20 || s.Kept > 32 {
			t.Errorf("%+v", s)
		}
		f.quick.mu.Lock()
		n := len(f.quick.got) / paddedSize
		f.quick.mu.Unlock()
		if n != f.published {
			t.Errorf("who takes all got %d of %d", n, f.published)
		}
		closeHub(f.h)
		synctest.Wait()
	})
}

// TestMemoryOrder: a large backlog goes before the history does, which goes before small ones.
func TestMemoryOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fillMemory(t)
		f.keep(t)
		f.o.MaxBacklog = MinBacklog
		var many []*client
		for i := range 40 {
			c := connect(t, f.h, f.o, fmt.Sprint(i))
			c.open(0)
			many = append(many, c)
			publish(t, f.h, fmt.Sprint(i))
			synctest.Wait()
			f.checkLimit(t)
		}
		if s := f.h.Stats(); f.h.Subscribers("small") != 1 || s.KeptBytes > 31*paddedSize || s.Connections != 42 || s.Closed["memory"] != 1 {
			t.Errorf("%+v", s)
		}
		for _, c := range many {
			c.conn.Done()
		}
		synctest.Wait()
		closeHub(f.h)
		synctest.Wait()
	})
}

// TestMemoryRefuses: nobody comes in while the memory is full, and somebody does afterwards.
func TestMemoryRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fillMemory(t)
		f.keep(t)
		f.h.held.Add(fullMemory)
		if _, _, err := f.h.Connect(Subscriber{Channels: []string{"a"}}, f.o); err != ErrMemory {
			t.Errorf("while the memory is full: %v", err)
		}
		f.h.held.Add(-fullMemory)
		connect(t, f.h, f.o, "a")
		if s := f.h.Stats(); s.Rejected["memory"] != 1 {
			t.Errorf("%+v", s.Rejected)
		}
		closeHub(f.h)
		synctest.Wait()
	})
}

// TestLessMemory: a bound that is lowered holds at once; and where nothing can be done nothing is tried all the time.
func TestLessMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 1000})
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
		h.Configure(Config{History: 1000, MaxMemory: limit})
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
