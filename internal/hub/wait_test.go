package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitersGoOn: who waits for room goes on when the limit is taken away or raised, and is told when the hub closes.
func TestWaitersGoOn(t *testing.T) {
	const limit = 1 << 20
	for _, c := range []struct {
		name string
		act  func(h *Hub)
		want error
	}{
		{"no limit", func(h *Hub) { h.Configure(Config{}) }, nil},
		{"a higher one", func(h *Hub) { h.Configure(Config{MaxMemory: 10 * limit}) }, nil},
		{"closed", func(h *Hub) { h.Close(ReasonRestart, "", 0, time.Minute) }, ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := New(Config{MaxMemory: limit})
				defer closeHub(h)
				h.held.Add(limit) // others hold it
				results := make(chan error)
				for range 3 {
					go func() { results <- h.PublishWait(&Message{Channel: "a"}) }()
				}
				synctest.Wait()
				if n := h.waiting.Load(); n != 3 {
					t.Fatalf("%d wait", n)
				}
				c.act(h)
				for range 3 {
					select {
					case err := <-results:
						if err != c.want {
							t.Errorf("got %v, want %v", err, c.want)
						}
					case <-time.After(time.Second):
						t.Fatal("it waits")
					}
				}
				h.held.Add(-limit)
			})
		})
	}
}

// TestJoinersGoOn is the same for those who join, and for who is cut off while it waits.
func TestJoinersGoOn(t *testing.T) {
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{MaxMemory: limit, History: 100})
		defer closeHub(h)
		for range 10 {
			if err := h.Publish(&Message{Channel: "h", Data: make([]byte, 10<<10), Kind: Binary}); err != nil {
				t.Fatal(err)
			}
		}
		results := make(chan error)
		clients := make([]*client, 5)
		for i := range clients {
			clients[i] = connect(t, h, options())
		}
		synctest.Wait()
		h.mu.Lock()
		h.promised += limit // somebody encodes much
		h.mu.Unlock()
		for _, c := range clients {
			go func() {
				results <- c.conn.Join("h", FormatID(h.epoch, 0), func(_ Welcome, ms []*Message) []byte { return make([]byte, 8*len(ms)) })
			}()
		}
		synctest.Wait()
		if int(h.waiting.Load()) != len(clients) {
			t.Fatalf("%d wait", h.waiting.Load())
		}
		clients[0].conn.Done() // it is told when there is room
		h.mu.Lock()
		h.promised -= limit
		h.hasSpace.Broadcast()
		h.mu.Unlock()
		closed := 0
		for range clients {
			switch err := <-results; err {
			case nil:
			case ErrClosed:
				closed++
			default:
				t.Error(err)
			}
		}
		if closed != 1 {
			t.Errorf("%d of %d were closed", closed, len(clients))
		}
		synctest.Wait()
		h.mu.Lock()
		if h.promised != 0 || h.queuedLocked() != 0 || h.waiting.Load() != 0 {
			t.Errorf("%d bytes are promised, %d queued, %d wait", h.promised, h.queuedLocked(), h.waiting.Load())
		}
		h.mu.Unlock()
		for _, c := range clients {
			c.conn.Done()
		}
	})
}
