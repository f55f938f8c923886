package nats

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// A publisher is told in time although the keeper is busy: it waits up to 30 seconds for a server that does not answer.
func TestPublishTimeoutWhileCatchingUp(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	c := testConfig(t, proxy.URL(), 1)
	c.PublishTimeout = 500 * time.Millisecond
	n := dialTest(t, c)
	proxy.Hold()
	n.Await(t, "the loss of ticks", func() bool { return n.Down })
	for range 2 { // the timer is used again
		begun := time.Now()
		if _, err := n.Try(entry("a", "1")); !errors.Is(err, broker.ErrUnknown) || time.Since(begun) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	}
	proxy.Pass()
}
