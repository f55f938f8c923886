package hub

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
)

// TestSwitchLogs: while a hub gets another log, the same one again, and none, whatever is under way comes to an end, and nothing
// is held for it afterwards.
func TestSwitchLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 5, MaxMemory: 64 << 20, PartitionTimeout: 3 * time.Second})
		memories := []*brokertest.Memory{
			brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond}),
			brokertest.NewMemory(brokertest.MemoryConfig{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond}),
		}
		stop := make(chan struct{})
		var running sync.WaitGroup
		again := func(f func(i int)) {
			running.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						f(i)
						time.Sleep(7 * time.Millisecond)
					}
				}
			})
		}
		for k := range 8 {
			again(visitor(t, h, k))
			again(func(int) { h.Publish(&Message{Channel: fmt.Sprint(k % 5)}) })
		}
		switchLogs(t, h, memories)
		closed := make(chan struct{})
		go func() { h.UseLog(nil); close(closed) }() // at the same time as
		closeHub(h)
		<-closed
		close(stop)
		running.Wait()
		synctest.Wait()
		if n := h.Memory(); n > 1<<20 {
			t.Errorf("%d bytes are held by nobody", n)
		}
		h.mu.Lock()
		if len(h.awaiting) > 0 || len(h.echoes) > 0 || h.posted.Load() != 0 {
			t.Errorf("%d wait, %d echoes, %d bytes posted", len(h.awaiting), len(h.echoes), h.posted.Load())
		}
		h.mu.Unlock()
		for _, m := range memories {
			m.Close()
		}
	})
}

// visitor returns a function that connects, goes on where it was, joins another channel, publishes, and goes.
func visitor(t *testing.T, h *Hub, k int) func(i int) {
	last := ""
	return func(i int) {
		name := fmt.Sprint((i + k) % 5)
		c, w, err := h.Connect(Subscriber{Channels: []string{name}, LastID: last, Replay: i % 3}, gapOptions())
		if err != nil {
			if !errors.Is(err, ErrNotReady) && !errors.Is(err, ErrMemory) && !errors.Is(err, ErrClosed) {
				t.Errorf("connecting: %v", err)
			}
			return
		}
		last = w.ID
		c.Start(newClient(), nil)
		c.Join("more", last, func(Welcome, []*Message) []byte { return nil })
		for range 3 {
			h.PublishAsync(&Message{Channel: name, From: c, NoEcho: i%2 == 0}, func(err error) {
				if err != nil && !errors.Is(err, ErrDown) && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrClosed) {
					t.Errorf("publishing: %v", err)
				}
			})
		}
		c.Done()
	}
}

// switchLogs gives a hub one log after the other, and faults meanwhile.
func switchLogs(t *testing.T, h *Hub, memories []*brokertest.Memory) {
	for i := range 60 {
		m := memories[i/2%2]
		dial := func(s broker.Sink) (broker.Log, error) {
			return m.Broker().Dial(s, broker.Options{Node: h.Node(), Retention: h.Retention()})
		}
		if i%5 == 4 {
			dial = nil
		}
		if err := h.UseLog(dial); err != nil {
			t.Error(err)
		}
		switch i % 7 {
		case 3:
			m.Freeze()
			time.Sleep(6 * time.Second)
			m.Thaw()
		case 5:
			m.Stop()
			time.AfterFunc(time.Second, m.Start)
		}
		time.Sleep(time.Duration(i%4) * 50 * time.Millisecond)
	}
}
