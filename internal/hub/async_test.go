package hub

import (
	"errors"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// slowLog is a log that answers publishers when it is told to.
type slowLog struct {
	*fakeLog
	asked chan func([]broker.Place, error)
}

func (l *slowLog) Publish(_ []broker.Entry, done func([]broker.Place, error)) { l.asked <- done }

// slowly makes a hub use a slowLog.
func slowly(t *testing.T, config Config) (*Hub, *slowLog) {
	t.Helper()
	h := New(config)
	l := &slowLog{newFakeCluster().join(t, h), make(chan func([]broker.Place, error), 1000)}
	h.mu.Lock()
	h.log.log = l
	h.mu.Unlock()
	return h, l
}

// TestPipelined: a connection's messages are published without waiting for the answers, but only so many.
func TestPipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := slowly(t, Config{})
		c := connect(t, h, options(), "a")
		synctest.Wait()
		before := h.Memory()
		var failed, done atomic.Int32
		go func() {
			for range 2 * maxInFlight {
				h.PublishAsync(&Message{Channel: "a", From: c.conn}, func(err error) {
					if done.Add(1); errors.Is(err, ErrUnknown) {
						failed.Add(1)
					}
				})
			}
		}()
		synctest.Wait()
		if n := len(l.asked); n != maxInFlight {
			t.Fatalf("%d are in flight", n)
		}
		if h.Memory() < before+maxInFlight*messageOverhead {
			t.Error("what is in flight does not count as memory")
		}
		(<-l.asked)([]broker.Place{{Seq: 1}}, nil)
		synctest.Wait()
		if n := len(l.asked); n != maxInFlight {
			t.Fatalf("%d are in flight", n)
		}
		for range 2*maxInFlight - 1 {
			(<-l.asked)(nil, broker.ErrUnknown)
			synctest.Wait()
		}
		if done.Load() != 2*maxInFlight || failed.Load() != 2*maxInFlight-1 {
			t.Errorf("%d are done, %d have failed", done.Load(), failed.Load())
		}
		if n := h.Memory(); n != before {
			t.Errorf("%d bytes are held, %d were", n, before)
		}
		_, s, _ := h.Log()
		if s.InFlight != 0 || s.Published["ok"] != 1 || s.Published["unknown"] != 2*maxInFlight-1 || s.Publish.Count != 2*maxInFlight {
			t.Errorf("%+v", s)
		}
		closeHub(h)
	})
}

// TestWaitsWhileBroken: what a connection publishes while the log is broken waits for it, but not for long. Others are told
// at once what the log says.
func TestWaitsWhileBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		cluster := newFakeCluster()
		f := cluster.join(t, h)
		c := connect(t, h, options(), "a")
		f.do(func() { f.sink.Broken(nil) })
		f.idle()
		cluster.err = broker.ErrDown
		if err := h.Publish(&Message{Channel: "a"}); !errors.Is(err, ErrDown) {
			t.Error(err)
		}
		begun := time.Now()
		if err := h.PublishWait(&Message{Channel: "a", From: c.conn}); !errors.Is(err, ErrDown) || time.Since(begun) != downTime {
			t.Error(err, time.Since(begun))
		}
		f.do(func() { f.sink.Repaired() })
		brokenForASecond := func() {
			cluster.err = broker.ErrDown
			f.do(func() { f.sink.Broken(nil) })
			f.idle()
			time.AfterFunc(time.Second, func() {
				cluster.err = nil
				f.do(func() { f.sink.Repaired() })
			})
			begun = time.Now()
		}
		brokenForASecond()
		if err := h.PublishWait(&Message{Channel: "a", From: c.conn}); err != nil || time.Since(begun) != time.Second {
			t.Error(err, time.Since(begun))
		}
		// A backend at the Redis port cannot be told to come back, so it waits as a connection does.
		brokenForASecond()
		answer := make(chan error, 1)
		h.PublishAllAsync([]*Message{{Channel: "a"}}, func(err error) { answer <- err })
		if err := <-answer; err != nil || time.Since(begun) != time.Second {
			t.Error(err, time.Since(begun))
		}
		closeHub(h)
	})
}

// TestPublishResults: whatever keeps a message from the broker is counted, also when the log was not asked. How long the
// broker takes is not said by what it has not seen.
func TestPublishResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := slowly(t, Config{})
		answer := func(err error) {
			h.PublishAsync(&Message{Channel: "a"}, func(error) {})
			(<-l.asked)(nil, err)
		}
		for _, err := range []error{broker.ErrDown, broker.ErrClosed, broker.ErrTooBig, broker.ErrUnknown, broker.ErrConflict} {
			answer(err)
		}
		h.mu.Lock()
		h.log.started = false
		h.mu.Unlock()
		if err := h.Publish(&Message{Channel: "a"}, &Message{Channel: "a"}); !errors.Is(err, ErrDown) {
			t.Errorf("before the log has begun: %v", err)
		}
		_, s, _ := h.Log()
		want := map[string]uint64{"ok": 0, "repeated": 0, "down": 4, "unknown": 1, "conflict": 1, "too_big": 1, "other": 0}
		if !maps.Equal(s.Published, want) || s.Publish.Count != 2 {
			t.Errorf("%v, %d of them by the broker", s.Published, s.Publish.Count)
		}
		closeHub(h)
	})
}

// TestEntriesWait: what is in the log is never refused. It waits until the inboxes have room, and does not keep the hub from
// closing.
func TestEntriesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{MaxInbox: 2 * messageOverhead})
		newFakeCluster().join(t, h)
		c := connect(t, h, options(), "a")
		free := make(chan struct{})
		stop := func() {
			h.enqueue(c.conn.loop, entry{op: opCall, arg: func() { <-free }})
			synctest.Wait()
		}
		stop()
		for range 10 {
			publish(t, h, "a")
		}
		synctest.Wait()
		if n := h.lastSeq(); n == 0 || n > 3 {
			t.Errorf("the watermark is at %d", n)
		}
		close(free)
		expect(t, c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		free = make(chan struct{})
		stop()
		for range 10 {
			publish(t, h, "a")
		}
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(free) })
		closeHub(h)
	})
}

// TestBackendWaitsForRoom: what a publisher without a connection pipelines waits for room, and none of it fails.
func TestBackendWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := slowly(t, Config{MaxMemory: 1 << 20})
		synctest.Wait()
		before := h.Memory()
		const messages = 100
		var done, failed atomic.Int32
		go func() {
			for range messages {
				h.PublishAllAsync([]*Message{{Channel: "a", Data: make([]byte, 8<<10), Kind: Binary}}, func(err error) {
					if done.Add(1); err != nil {
						failed.Add(1)
					}
				})
			}
		}()
		synctest.Wait()
		if n := len(l.asked); n == 0 || n > 16 {
			t.Fatalf("%d messages of 8 KiB are in flight, with room for 128 KiB", n)
		}
		for seq := range uint64(messages) {
			(<-l.asked)([]broker.Place{{Seq: seq + 1}}, nil)
		}
		synctest.Wait()
		if done.Load() != messages || failed.Load() != 0 {
			t.Errorf("%d are done, %d have failed", done.Load(), failed.Load())
		}
		if n := h.Memory(); n != before {
			t.Errorf("%d bytes are held, %d were", n, before)
		}
		// A publisher that waits when the hub is closed is told.
		for range 2 {
			go h.PublishAllAsync([]*Message{{Channel: "a", Data: make([]byte, 100<<10), Kind: Binary}}, func(err error) {
				if errors.Is(err, ErrClosed) {
					done.Add(1)
				}
			})
		}
		synctest.Wait()
		go closeHub(h)
		synctest.Wait()
		if done.Load() != messages+1 {
			t.Error("who waits is not told that the hub is closed")
		}
		(<-l.asked)(nil, broker.ErrClosed)
	})
}
