package hub

import (
	"testing"
)

// TestReplayIsCountedOut: what a connection was replayed counts no more when it has been sent, however many messages
// there were. Else clients that resume again and again would use up Options.MaxMemory.
func TestReplayIsCountedOut(t *testing.T) {
	h := New(Options{History: 1000})
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
