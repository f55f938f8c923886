package hub

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// TestRetire: no connection outlives its options, however Connect and Retire meet.
func TestRetire(t *testing.T) {
	h := New(Config{})
	defer h.Close(ReasonRestart, "", 0, time.Second)
	options := func() *ConnOptions {
		return &ConnOptions{Format: seqs{}, PingInterval: time.Minute, WriteTimeout: time.Second, MaxBacklog: MinBacklog, OneWay: true}
	}
	for range 200 {
		old, other := options(), options()
		stays, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, other)
		if err != nil {
			t.Fatal(err)
		}
		stays.Start(newClient(), nil)

		var clients sync.Map
		var connecting sync.WaitGroup
		for i := range 8 {
			connecting.Go(func() {
				conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, old)
				switch {
				case errors.Is(err, ErrRetired):
				case err != nil:
					t.Error(err)
				default:
					c := newClient()
					clients.Store(i, c)
					if !conn.Start(c, nil) {
						c.Close()
					}
				}
			})
		}
		h.Retire([]*ConnOptions{old}, ReasonRestart, "")
		connecting.Wait()
		clients.Range(func(_, c any) bool {
			c.(*client).wait(1 << 20) // until it is closed
			return true
		})
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, old); !errors.Is(err, ErrRetired) {
			t.Fatalf("afterwards: %v, not %v", err, ErrRetired)
		}
		h.Retire(nil, ReasonRestart, "")
		if got := h.Connections(Filter{ID: stays.id}, 1); len(got) != 1 {
			t.Fatal("a connection with other options was closed")
		}
		stays.Done()
	}
}
