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

// TestTransientIsNoLoss: with a shared log and without history, a client that comes back from before the channel was opened here is
// told of a gap for a message that it misses, and not for a transient one.
func TestTransientIsNoLoss(t *testing.T) {
	for _, transient := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			_, hubs, _ := sharing(t, 2, Config{})
			publish(t, hubs[0], "b")
			publish(t, hubs[0], "b")
			c := connect(t, hubs[0], options(), "a")
			if err := hubs[1].Publish(&Message{Channel: "a", Transient: transient}); err != nil {
				t.Fatal(err)
			}
			expect(t, c, 3)
			if _, w := resume(t, hubs[0], "one-1", "a"); w.Resumed != transient {
				t.Errorf("transient %v: %+v", transient, w)
			}
			synctest.Wait()
		})
	}
}
