package presence_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// sink counts what a client gets. Its loop alone writes to it.
type sink struct{ frames, bytes, messages int }

func (s *sink) TryWrite(p []byte) (int, error) {
	if bytes.Contains(p[:min(len(p), 40)], []byte(`[{"presence"`)) {
		s.frames++
		s.bytes += len(p)
	} else {
		s.messages++
	}
	return len(p), nil
}
func (s *sink) Write(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }
func (s *sink) Close()                                       {}

// nobody is an observer that does nothing.
type nobody struct{}

func (nobody) Subscribed(*hub.Conn, string)   {}
func (nobody) Unsubscribed(*hub.Conn, string) {}
func (nobody) Ended(*hub.Conn, hub.Reason)    {}

func options(t *presence.Table) *hub.ConnOptions {
	o := &hub.ConnOptions{Format: v1.Format{}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: 1 << 20, OneWay: true, Observer: nobody{}}
	if t != nil {
		o.Observer = t.Observe(nobody{}, 5*time.Second)
	}
	return o
}

func join(t testing.TB, h *hub.Hub, o *hub.ConnOptions, user string) (*hub.Conn, *sink) {
	c, _, err := h.Connect(hub.Subscriber{Channels: []string{"room"}, User: user}, o)
	if err != nil {
		t.Fatal(err)
	}
	s := new(sink)
	c.Start(s, nil)
	return c, s
}

// TestBurst: 10,000 members who join within five seconds cost each of them at most ten frames, and as many who reload their page
// within the grace period cost only the list that each of these is sent.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		o := options(presence.NewTable(h))
		const members = 10_000
		var sinks []*sink
		var conns []*hub.Conn
		for i := range members {
			c, s := join(t, h, o, fmt.Sprint("user", i))
			sinks, conns = append(sinks, s), append(conns, c)
			if i%20 == 19 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		most := slices.MaxFunc(sinks, func(a, b *sink) int { return a.frames - b.frames })
		t.Logf("at most %d frames, %d bytes", most.frames, most.bytes)
		if most.frames > 10 {
			t.Errorf("a member got %d frames", most.frames)
		}
		before := sinks[0].frames
		for i := range 1000 {
			conns[i+1].Done()
			time.Sleep(time.Millisecond)
			join(t, h, o, fmt.Sprint("user", i+1))
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := sinks[0].frames - before; n > 0 {
			t.Errorf("%d frames though nobody has left", n)
		}
		h.Close(hub.ReasonRestart, "", 0, time.Second)
	})
}

// TestListenOrder: a member gets the list first, and then each change that is not in it, while others come at the same moment
// on all loops.
func TestListenOrder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		defer h.Close(hub.ReasonRestart, "", 0, time.Second)
		o := options(presence.NewTable(h))
		for round := range 20 { // fewer members than are listed
			var all []*order
			for i := range 40 {
				c, _, err := h.Connect(hub.Subscriber{Channels: []string{"room"}, User: fmt.Sprint("u", round, "-", i)}, o)
				if err != nil {
					t.Fatal(err)
				}
				x := new(order)
				c.Start(x, nil)
				all = append(all, x)
			}
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			for _, x := range all {
				if x.lists != 1 || x.early > 0 {
					t.Fatalf("%d lists, %d changes before the first", x.lists, x.early)
				}
			}
		}
	})
}

// order is a client that counts lists, and changes that come before them.
type order struct {
	sink
	lists, early int
}

func (x *order) TryWrite(p []byte) (int, error) {
	switch {
	case bytes.Contains(p, []byte(`"members":`)):
		x.lists++
	case bytes.Contains(p, []byte(`"joined":`)) && x.lists == 0:
		x.early++
	}
	return len(p), nil
}
func (x *order) Write(p []byte, _ time.Duration) (int, error) { return x.TryWrite(p) }
