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
	h := New(Options{History: 100, MaxMemory: 2 << 20})
	var drops, closes ConnOptions = *options(), *options()
	drops.DropOldest, drops.Format = true, padded{}
	for _, o := range []*ConnOptions{&drops, &closes} {
		o.WriteTimeout = 50 * time.Millisecond
		o.MaxBacklog = 4 * MinBacklog
	}
	until := time.Now().Add(3 * time.Second)
	var all sync.WaitGroup
	var connected, refused, waited, joined atomic.Int64
	name := func() string { return fmt.Sprint(rand.IntN(400)) }
	for range 8 {
		all.Go(func() { // clients, one after the other
			for time.Now().Before(until) {
				s := Subscriber{Route: "r", Network: fmt.Sprint(rand.IntN(3)), MaxPerRemote: 1000, Replay: rand.IntN(50)}
				n := 1
				if rand.IntN(2) == 0 {
					n = rand.IntN(3 * atOnce)
				}
				for _, i := range rand.Perm(400)[:n] {
					s.Channels = append(s.Channels, fmt.Sprint(i))
				}
				if rand.IntN(3) == 0 {
					s.LastID = FormatID(h.epoch, uint64(rand.IntN(5000)))
				}
				c := newClient()
				c.window, c.blocks = rand.IntN(1<<20), rand.IntN(2) == 0
				o := &closes
				if rand.IntN(2) == 0 {
					o = &drops
				}
				conn, _, err := h.Connect(s, o)
				if err != nil {
					refused.Add(1)
					time.Sleep(time.Millisecond)
					continue
				}
				connected.Add(1)
				if rand.IntN(10) > 0 {
					conn.Start(c, []byte("hello"))
				}
				var own sync.WaitGroup
				if rand.IntN(2) == 0 {
					own.Go(func() { time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond); conn.Close(1000, "bye") })
				}
				for range rand.IntN(40) {
					switch rand.IntN(6) {
					case 0:
						have := rand.IntN(30 << 10)
						conn.Unfinished(have, 2*have)
					case 1:
						conn.Unfinished(0, 0)
					case 2:
						if h.PublishWait(&Message{Channel: name(), Data: make([]byte, rand.IntN(4<<10)), Kind: Binary, From: conn, NoEcho: true}) == nil {
							waited.Add(1)
						}
					case 3:
						if conn.Join(name(), s.LastID, func(_ Welcome, ms []*Message) []byte { return make([]byte, 100*len(ms)) }) == nil {
							joined.Add(1)
						}
					case 4:
						conn.Leave(name(), []byte("left"))
					case 5:
						conn.Reply([]byte("pong"))
						conn.Send([]byte("answer"))
					}
				}
				own.Wait()
				conn.Done()
			}
		})
	}
	all.Go(func() { // publishers with keys
		for i := 0; time.Now().Before(until); i++ {
			h.Publish(&Message{Channel: name(), Data: make([]byte, rand.IntN(1<<10)), Kind: Binary, Key: fmt.Sprint(i % 3000), Publisher: fmt.Sprint(i % 7)})
		}
	})
	all.Go(func() { // and who reconfigures, looks, and kicks
		for time.Now().Before(until) {
			h.Configure(Options{History: rand.IntN(200), MaxMemory: int64(rand.IntN(3)) << 20, MaxChannels: rand.IntN(2) * 300})
			h.Channels("", "", 1000)
			h.Kick(Filter{Channel: name()}, 1008, "")
			time.Sleep(5 * time.Millisecond)
		}
	})
	all.Wait()
	t.Logf("%d connected, %d refused, %d published, %d joined", connected.Load(), refused.Load(), waited.Load(), joined.Load())
	h.Configure(Options{})
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	h.mu.Lock()
	h.forgetKeys()
	h.mu.Unlock()
	free := func() bool {
		h.flushers.mu.Lock()
		defer h.flushers.mu.Unlock()
		return h.flushers.running <= maxFree
	}
	waitFor(t, free)
	waitFor(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.queued() == 0
	})
	h.mu.Lock()
	if held := h.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
	if h.backlog.Load() != 0 || h.history.bytes.Load() != 0 || h.history.count != 0 || h.subscribed != 0 || len(h.quotas) != 0 || h.waiting != 0 {
		t.Errorf("backlog %d, history %d, %d subscribed, quotas %v", h.backlog.Load(), h.history.bytes.Load(), h.subscribed, h.quotas)
	}
	if len(h.channels) != 0 || h.index.leaves != nil {
		t.Errorf("%d channels", len(h.channels))
	}
	h.mu.Unlock()
	closeHub(h)
}
