package hub

import (
	"testing"
	"time"
)

// TestReplayIsCountedOut: what a connection was replayed counts no more when it has been sent, however many messages
// there were. Else clients that resume again and again would use up Config.MaxMemory.
func TestReplayIsCountedOut(t *testing.T) {
	h := New(Config{History: 1000})
	defer closeHub(h)
	for range 700 {
		publish(t, h, "a")
	}
	before := h.held.Load()
	for i := range 10 {
		for _, s := range []Subscriber{
			{Channels: []string{"a"}, Replay: 5 + i},
			{Channels: []string{"a"}, LastID: FormatID(h.epoch, uint64(50*i))},
		} {
			c := newClient()
			conn, _, err := h.Connect(s, options())
			if err != nil {
				t.Fatal(err)
			}
			conn.Start(c, []byte("hello"))
			waitFor(t, func() bool { return !conn.flushing.Load() })
			if got := h.held.Load(); got != before {
				t.Errorf("%+v: %d bytes are held, before %d", s, got, before)
			}
			before = h.held.Load()
			conn.Done()
		}
	}
}

// TestWaitersAreWoken: whoever waits for room goes on when there is some, at whatever moment it came: between the look
// that found none and the waiting, too.
func TestWaitersAreWoken(t *testing.T) {
	const limit = 1 << 20
	h := New(Config{MaxMemory: limit})
	defer closeHub(h)
	published := make(chan struct{})
	go func() {
		defer close(published)
		for until := time.Now().Add(time.Second); time.Now().Before(until); {
			h.PublishWait(&Message{Channel: "none"})
		}
	}()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		select {
		case <-published:
			return
		default: // others take room and give it back
			h.held.Add(limit)
			h.held.Add(-limit)
		}
	}
	select {
	case <-published:
	case <-time.After(10 * time.Second):
		t.Fatalf("a publisher waits, though only %d bytes are held", h.held.Load())
	}
}
