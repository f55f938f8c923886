package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWrongClock: what a node keeps has the same age whatever its clock shows, that of what came live and of what it has read.
func TestWrongClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"right": 0, "log ahead": 5 * time.Hour, "log behind": -5 * time.Hour} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testWrongClock(t, ahead) }) })
	}
}

func testWrongClock(t *testing.T, ahead time.Duration) {
	const age = 10 * time.Minute
	c, hubs, _ := sharing(t, 2, Config{History: 10, HistoryAge: age})
	c.ahead = ahead
	live := hubs[0]
	connect(t, live, options(), "a")
	publish(t, live, "a")
	time.Sleep(6 * time.Minute)
	publish(t, live, "a")
	// Both have both messages, the one as they came and the other one as it read them.
	for i, h := range hubs {
		got, w := resume(t, h, "one-0", "a")
		if w.Gaps != nil {
			t.Fatalf("hub %d: %+v", i, w)
		}
		expect(t, got, 1, 2)
	}
	// The first message is eleven minutes old then, and the second one five.
	time.Sleep(5 * time.Minute)
	for i, h := range hubs {
		if _, w := resume(t, h, "one-0", "a"); w.Gaps == nil || kept(h) != 1 {
			t.Errorf("hub %d keeps %d messages: %+v", i, kept(h), w)
		}
	}
	time.Sleep(6 * time.Minute)
	for i, h := range hubs {
		if n := kept(h); n != 0 {
			t.Errorf("hub %d keeps %d messages", i, n)
		}
	}
}

func kept(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.history.count
}
