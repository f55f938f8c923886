package hub

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestHistoryOffAndOn: when a reload has switched history off and another one on again, what is lacking is read again.
func TestHistoryOffAndOn(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	for range 3 {
		publish(t, hubs[0], "a")
	}
	h := hubs[1]
	logs[1].idle()
	replayed := func() int {
		c := newClient()
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}, Replay: 10}, options())
		if err != nil {
			t.Fatal(err)
		}
		c.conn = conn
		n := 0
		if conn.backlog.replay != nil {
			n = len(conn.backlog.replay.messages)
		}
		conn.Start(c, nil)
		return n
	}
	if n := replayed(); n != 3 {
		t.Fatalf("%d are replayed", n)
	}
	h.Configure(Config{})
	h.Configure(Config{History: 10})
	if n := replayed(); n != 3 {
		t.Errorf("%d are replayed after history was switched on again", n)
	}
}

// TestPostersDoNotEvict: publishers without a connection, which wait for a broker that does not answer, are refused before
// they take so much memory that subscribers would be closed.
func TestPostersDoNotEvict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := slowly(t, Config{MaxMemory: 8 << 20, History: 10})
		c := connect(t, h, options(), "a")
		synctest.Wait()
		full := 0
		for range 100 {
			h.PublishAsync(&Message{Channel: "b", Data: make([]byte, 100_000)}, func(err error) {
				if errors.Is(err, ErrFull) {
					full++
				}
			})
			synctest.Wait()
		}
		h.checkMemory() // as anything else that happens
		if n := h.Memory(); n > evictAt(8<<20) {
			t.Errorf("%d bytes are held for publishers, which evicts others", n)
		}
		if full == 0 || len(l.asked) == 0 {
			t.Errorf("%d are refused, %d are in flight", full, len(l.asked))
		}
		for len(l.asked) > 0 {
			(<-l.asked)(nil, broker.ErrUnknown)
		}
		_ = c
		closeHub(h)
	})
}

// TestPartOfAClosedLog: publishers are told what was stored, however the rest has failed.
func TestPartOfAClosedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := slowly(t, Config{})
		answer := make(chan error, 1)
		h.publishAsync([]*Message{{Channel: "a"}, {Channel: "a"}}, false, func(err error) { answer <- err })
		(<-l.asked)(nil, &broker.PartialError{Places: []broker.Place{{Seq: 1}}, Err: broker.ErrClosed})
		if _, ok := errors.AsType[*broker.PartialError](<-answer); !ok {
			t.Error("the publisher is told that nothing was published")
		}
		closeHub(h)
	})
}

// TestWaitWhileLogCloses: who waits for a log that is being closed does not spin.
func TestWaitWhileLogCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		cluster := newFakeCluster()
		f := cluster.join(t, h)
		l := &closingLog{&lateLog{f, make(chan func(uint64, error), 10)}}
		h.mu.Lock()
		h.log.log = l
		h.mu.Unlock()
		connected := make(chan bool)
		go func() { connect(t, h, options(), "a"); connected <- true }()
		synctest.Wait()
		if err := h.UseLog(nil); err != nil { // takes a second, which passes only if nobody spins
			t.Fatal(err)
		}
		<-connected
		closeHub(h)
	})
}

// closingLog takes a second to close.
type closingLog struct{ *lateLog }

func (l *closingLog) Close() { time.Sleep(time.Second); l.lateLog.Close() }

// BenchmarkManyInFlight has many connections publish as much as they may, to a log that answers one after the other.
func BenchmarkManyInFlight(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := New(Config{})
			l := &slowLog{newFakeCluster().join(b, h), make(chan func([]broker.Place, error), 100_000)}
			h.mu.Lock()
			h.log.log = l
			h.mu.Unlock()
			var left atomic.Int64
			left.Store(int64(b.N))
			var done sync.WaitGroup
			for range n {
				c := connect(b, h, options(), "a")
				done.Go(func() {
					for left.Add(-1) >= 0 {
						h.PublishAsync(&Message{Channel: "b", From: c.conn}, func(error) {})
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				(<-l.asked)([]broker.Place{{Seq: uint64(i + 1)}}, nil)
			}
			b.StopTimer()
			done.Wait()
			closeHub(h)
			runtime.KeepAlive(l)
		})
	}
}
