package nats

import (
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// The node that makes the stream and one that finds it know the clock of the server, which here is their own.
func TestClock(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, "")
	for range 2 {
		n := dialTest(t, testConfig(t, s.URL(), 1))
		n.Await(t, "the log", func() bool { return !n.Down })
		if off := time.Until(n.Status().Clock).Abs(); off > time.Minute {
			t.Errorf("the clock is %v off", off)
		}
	}
}

// What was told goes on, whatever the clock of this node shows.
func TestClockNow(t *testing.T) {
	shown := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &log{}
	if now := l.clock.Now(); !now.IsZero() {
		t.Error(now)
	}
	l.setClock(shown, time.Now())
	l.setClock(time.Time{}, time.Now()) // not told
	if now := l.clock.Now(); now.Before(shown) || now.After(shown.Add(time.Minute)) {
		t.Error(now)
	}
}
