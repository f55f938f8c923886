package hub

import (
	"testing"
	"testing/synctest"
)

// TestTransient: who is connected gets a transient message; who comes back does not, and misses nothing.
func TestTransient(t *testing.T) {
	for _, history := range []int{0, 2} {
		h := New(Config{History: history})
		c := connect(t, h, options(), "a")
		first := &Message{Channel: "a"}
		if err := h.Publish(first); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := h.Publish(&Message{Channel: "a", Transient: true}); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, c, 1, 2, 3, 4, 5, 6)
		if _, w := resume(t, h, first.ID(), "a"); w.Gaps != nil {
			t.Errorf("with history %d: %+v", history, w)
		}
		if s := h.Stats(); s.Kept > history || s.Kept != min(1, history) {
			t.Errorf("%d messages are kept", s.Kept)
		}
		closeHub(h)
	}
}

// TestTransientShared: the same with a log that two hubs share, on the hub that has it live, and on one that reads it.
func TestTransientShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hubs, _ := sharing(t, 2, Config{History: 10})
		c := connect(t, hubs[0], options(), "a")
		publish(t, hubs[0], "a")
		if err := hubs[1].Publish(&Message{Channel: "a", Transient: true}); err != nil {
			t.Fatal(err)
		}
		publish(t, hubs[0], "a")
		expect(t, c, 1, 2, 3)
		for i, h := range hubs {
			got, w := resume(t, h, "one-0", "a")
			if w.Gaps != nil {
				t.Errorf("hub %d: %+v", i, w)
			}
			expect(t, got, 1, 3)
		}
		synctest.Wait()
	})
}
