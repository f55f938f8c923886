package hub

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

func TestLimits(t *testing.T) {
	h := New(Config{MaxConnections: 2, MaxChannels: 2})
	defer closeHub(h)
	a := connect(t, h, options(), "a")
	if _, _, err := h.Connect(Subscriber{Channels: []string{"b", "c"}}, options()); err != ErrTooManyChannels {
		t.Errorf("three channels: %v", err)
	}
	connect(t, h, options(), "a", "b")
	if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); err != ErrTooManyConnections {
		t.Errorf("three connections: %v", err)
	}
	a.conn.Done()
	waitFor(t, func() bool { return h.Stats().Connections == 1 })
	connect(t, h, options(), "a")
}

// TestFullInbox: a full inbox refuses, and loses nothing that it took.
func TestFullInbox(t *testing.T) {
	h := New(Config{MaxInbox: 10_000})
	defer closeHub(h)
	connect(t, h, options(), "a", "b")
	connect(t, h, options(), "a")
	var ms []*Message
	for range 100 {
		ms = append(ms, &Message{Channel: "a", Data: make([]byte, 1000)})
	}
	for _, l := range h.loops {
		l.counts.deliveries.Store(0)
	}
	refused := 0
	for range 200 {
		if h.Publish(ms[0:1]...) != nil {
			refused++
		}
		ms[0] = &Message{Channel: "a", Data: make([]byte, 1000)}
	}
	waitFor(t, func() bool {
		var n uint64
		for _, l := range h.loops {
			n += l.counts.deliveries.Load()
		}
		return n == uint64(2*(200-refused))
	})
}

// TestChurn leaves nothing behind; goleak sees to the goroutines.
func TestChurn(t *testing.T) {
	h := New(Config{})
	stop := make(chan struct{})
	var publishing, wg sync.WaitGroup
	publishing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				h.Publish(&Message{Channel: fmt.Sprint("c", i%7), Data: []byte("x")})
			}
		}
	})
	for w := range 4 {
		wg.Go(func() {
			for i := range 2500 {
				c := connect(t, h, options(), fmt.Sprint("c", i%7), fmt.Sprint("own", w, i))
				switch i % 3 {
				case 0:
					c.conn.Close(ReasonClient, "")
				case 1:
					c.open(0)
				}
				c.conn.Done()
			}
		})
	}
	wg.Wait()
	close(stop)
	publishing.Wait()
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	s := h.Stats()
	if s.Channels != 0 || s.Backlog != 0 || len(h.channels) != 0 {
		t.Errorf("left behind: %+v", s)
	}
	for _, l := range h.loops {
		l.each(func(c *Conn) { t.Errorf("loop %d still has a connection in state %d", l.id, c.state) })
		if l.load != 0 {
			t.Errorf("loop %d counts %d connections", l.id, l.load)
		}
	}
	closeHub(h)
}

// TestSmallChannel: the few subscribers of a channel share a loop, so that a message to them wakes one. So do those of every
// channel, such as the admin API's streams.
func TestSmallChannel(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	h := New(Config{})
	defer closeHub(h)
	for _, s := range []Subscriber{{Channels: []string{"a"}}, {All: true}} {
		var first *loop
		for i := range smallChannel {
			c, _, err := h.Connect(s, options())
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = c.loop
			}
			if c.loop != first {
				t.Fatalf("%+v: connection %d is on another loop than the first", s, i)
			}
		}
	}
}
