package hub

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// latchedLog is a log whose calls of Release take until they are let go.
type latchedLog struct {
	*fakeLog
	latch chan struct{}
}

func (l *latchedLog) Release(channels []string) {
	<-l.latch
	l.fakeLog.Release(channels)
}

// TestConnectWhileReleased: a channel that is just being released is opened again for who comes then, and not before: the
// log would take the release for the end of what was opened.
func TestConnectWhileReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		cluster := newFakeCluster()
		f := cluster.join(t, h)
		l := &latchedLog{f, make(chan struct{})}
		h.mu.Lock()
		h.log.log = l
		h.mu.Unlock()
		connect(t, h, options(), "a").conn.Done()
		time.Sleep(idleTime + time.Second) // Release is being called
		connected := make(chan *client)
		go func() { connected <- connect(t, h, options(), "a") }()
		synctest.Wait()
		close(l.latch)
		synctest.Wait()
		c := <-connected
		publish(t, h, "a")
		synctest.Wait()
		if n := delivered(h); n != 1 {
			t.Errorf("%d messages were delivered", n)
		}
		expect(t, c, 1)
		closeHub(h)
	})
}

// TestManyIdle: clients that come for one channel after the other do not make the node receive them all.
func TestManyIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		newFakeCluster().join(t, h)
		o := options()
		for i := range maxIdle + 3*atOnce {
			connect(t, h, o, fmt.Sprint(i)).conn.Done()
		}
		synctest.Wait()
		if _, s, _ := h.Log(); s.OpenChannels > maxIdle {
			t.Errorf("%d channels are open", s.OpenChannels)
		}
		time.Sleep(2 * idleTime)
		if _, s, _ := h.Log(); s.OpenChannels > 0 {
			t.Errorf("%d channels are open after a while", s.OpenChannels)
		}
		closeHub(h)
	})
}

// lateLog is a log that answers Open when it is told to.
type lateLog struct {
	*fakeLog
	answers chan func(uint64, error)
}

func (l *lateLog) Open(channels []string, opened func(uint64, error)) {
	l.fakeLog.Open(channels, func(uint64, error) {})
	l.answers <- opened
}

// TestReleasedWhileOpening: the answer for a channel that was released before it was open is not one for who opens it
// again.
func TestReleasedWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		cluster := newFakeCluster()
		f := cluster.join(t, h)
		l := &lateLog{f, make(chan func(uint64, error), 10)}
		h.mu.Lock()
		h.log.log = l
		h.mu.Unlock()
		if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); !errors.Is(err, ErrNotReady) {
			t.Fatal(err)
		}
		first := <-l.answers
		time.Sleep(idleTime + time.Second) // it is released
		connected := make(chan *client)
		go func() { connected <- connect(t, h, options(), "a") }()
		synctest.Wait()
		second := <-l.answers
		f.do(func() { first(0, broker.ErrClosed) })
		synctest.Wait()
		select {
		case <-l.answers:
			t.Error("the channel was opened three times")
		default:
		}
		f.do(func() { second(0, nil) })
		<-connected
		closeHub(h)
	})
}
