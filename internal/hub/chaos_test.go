package hub

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNothingIsLeft has connections of every kind do everything at once, in a hub that has little memory and is
// reconfigured all the time. When they are gone nothing counts any more.
func TestNothingIsLeft(t *testing.T) {
	h := New(Config{History: 100, MaxMemory: 2 << 20})
	c := &chaos{h: h, drops: options(), closes: options(), until: time.Now().Add(3 * time.Second)}
	c.drops.DropOldest, c.drops.Format = true, padded{}
	for _, o := range []*ConnOptions{c.drops, c.closes} {
		o.WriteTimeout = 50 * time.Millisecond
		o.MaxBacklog = 4 * MinBacklog
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { // clients, one after the other
			for time.Now().Before(c.until) {
				c.visit()
			}
		})
	}
	all.Go(c.publishWithKeys)
	all.Go(c.operate)
	all.Wait()
	t.Logf("%d connected, %d refused, %d published, %d joined", c.connected.Load(), c.refused.Load(), c.waited.Load(), c.joined.Load())
	h.Configure(Config{})
	checkNothingIsLeft(t, h)
	closeHub(h)
}

// chaos is what those who do everything at once share.
type chaos struct {
	h                                  *Hub
	drops, closes                      *ConnOptions // what a slow client leads to
	until                              time.Time
	connected, refused, waited, joined atomic.Int64
}

func (*chaos) channel() string { return fmt.Sprint(rand.IntN(400)) }

// visit connects, does some things, and goes.
func (c *chaos) visit() {
	s := c.subscriber()
	transport := newClient()
	transport.window, transport.blocks = rand.IntN(1<<20), rand.IntN(2) == 0
	o := c.closes
	if rand.IntN(2) == 0 {
		o = c.drops
	}
	conn, _, err := c.h.Connect(s, o)
	if err != nil {
		c.refused.Add(1)
		time.Sleep(time.Millisecond)
		return
	}
	c.connected.Add(1)
	if rand.IntN(10) > 0 {
		conn.Start(transport, []byte("hello"))
	}
	var own sync.WaitGroup
	if rand.IntN(2) == 0 {
		own.Go(func() { time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond); conn.Close(ReasonClient, "bye") })
	}
	for range rand.IntN(40) {
		c.act(conn, s.LastID)
	}
	own.Wait()
	conn.Done()
}

// subscriber is one that wants few channels or many, and may resume.
func (c *chaos) subscriber() Subscriber {
	s := Subscriber{Route: "r", Network: fmt.Sprint(rand.IntN(3)), MaxPerRemote: 1000, Replay: rand.IntN(50)}
	n := 1
	if rand.IntN(2) == 0 {
		n = rand.IntN(3 * atOnce)
	}
	for _, i := range rand.Perm(400)[:n] {
		s.Channels = append(s.Channels, fmt.Sprint(i))
	}
	if rand.IntN(3) == 0 {
		s.LastID = FormatID(c.h.epoch, uint64(rand.IntN(5000)))
	}
	return s
}

// act does one of the things that a client can do.
func (c *chaos) act(conn *Conn, lastID string) {
	switch rand.IntN(6) {
	case 0:
		have := rand.IntN(30 << 10)
		conn.Unfinished(have, 2*have)
	case 1:
		conn.Unfinished(0, 0)
	case 2:
		if c.h.PublishWait(&Message{Channel: c.channel(), Data: make([]byte, rand.IntN(4<<10)), Kind: Binary, From: conn, NoEcho: true}) == nil {
			c.waited.Add(1)
		}
	case 3:
		if conn.Join(c.channel(), lastID, func(_ Welcome, ms []*Message) []byte { return make([]byte, 100*len(ms)) }) == nil {
			c.joined.Add(1)
		}
	case 4:
		conn.Leave(c.channel(), []byte("left"))
	case 5:
		conn.Reply([]byte("pong"))
		conn.Send([]byte("answer"))
	}
}

func (c *chaos) publishWithKeys() {
	for i := 0; time.Now().Before(c.until); i++ {
		c.h.Publish(&Message{Channel: c.channel(), Data: make([]byte, rand.IntN(1<<10)), Kind: Binary, Key: fmt.Sprint(i % 3000), Publisher: fmt.Sprint(i % 7)})
	}
}

// operate reconfigures, looks, and kicks.
func (c *chaos) operate() {
	for time.Now().Before(c.until) {
		c.h.Configure(Config{History: rand.IntN(200), MaxMemory: int64(rand.IntN(3)) << 20, MaxChannels: rand.IntN(2) * 300})
		c.h.Channels("", "", 1000)
		c.h.Kick(Filter{Channel: c.channel()}, ReasonPolicy, "")
		time.Sleep(5 * time.Millisecond)
	}
}

// checkNothingIsLeft waits for the connections' end, forgets the keys, and checks that nothing counts any more.
func checkNothingIsLeft(t *testing.T, h *Hub) {
	t.Helper()
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	h.mu.Lock()
	h.forgetKeysLocked()
	h.mu.Unlock()
	free := func() bool {
		for _, l := range h.loops {
			l.flushers.mu.Lock()
			running := l.flushers.running
			l.flushers.mu.Unlock()
			if running > maxFree {
				return false
			}
		}
		return true
	}
	waitFor(t, free)
	waitFor(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.queuedLocked() == 0
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
	if h.backlog.Load() != 0 || h.history.bytes.Load() != 0 || h.history.count != 0 || h.subscribed != 0 || len(h.quotas) != 0 || h.waiting.Load() != 0 {
		t.Errorf("backlog %d, history %d, %d subscribed, quotas %v", h.backlog.Load(), h.history.bytes.Load(), h.subscribed, h.quotas)
	}
	if len(h.channels) != 0 || h.index.leaves != nil {
		t.Errorf("%d channels", len(h.channels))
	}
}
