package hub

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// hoardedLog is a log whose channels all have one large message that is not all of it. Reads with much room get no answer.
type hoardedLog struct {
	*fakeLog
	mu   sync.Mutex
	read []weak.Pointer[byte] // what short reads were given
}

func (l *hoardedLog) Read(ctx context.Context, channel string, _ uint64, _, bytes int) ([]broker.Entry, bool, error) {
	if bytes > shortRead {
		<-ctx.Done()
		return nil, false, ctx.Err()
	}
	data := make([]byte, 1<<20)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = append(l.read, weak.Make(&data[0]))
	return []broker.Entry{{Seq: 1, Channel: channel, Data: data}}, false, nil
}

// TestShortReadsAreDropped: what was read at first is not kept while a channel waits for a place to be read as a whole. Thousands
// may wait, and each would have a message of any size.
func TestShortReadsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster()
		h := New(Config{History: 10})
		defer closeHub(h)
		l := &hoardedLog{fakeLog: c.newLog()}
		if err := h.UseLog(func(sink broker.Sink) (broker.Log, error) { l.sink = sink; return l, nil }); err != nil {
			t.Fatal(err)
		}
		l.do(func() { l.sink.Epoch(c.epoch, 9) })
		l.do(func() { l.sink.Repaired() })
		l.idle()
		o := gapOptions()
		o.MaxBacklog = 1 << 20
		const n = maxReads + 36
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				if conn, _, err := h.Connect(Subscriber{Channels: []string{fmt.Sprint(i)}, LastID: "one-0"}, o); err == nil {
					conn.Done()
				}
			})
		}
		synctest.Wait()
		runtime.GC()
		runtime.GC()
		kept := 0
		for _, p := range l.read {
			if p.Value() != nil {
				kept++
			}
		}
		if len(l.read) != n || kept > 0 {
			t.Errorf("of %d messages that were read %d are kept", len(l.read), kept)
		}
		all.Wait()
	})
}

// TestCatchUpWithLost: a log that takes the place of another one does not have what came after the channels' positions any more,
// as of quiet channels whose history was removed. To ask each of them again, with more room, would take two minutes.
func TestCatchUpWithLost(t *testing.T) {
	const latency, n = 250 * time.Millisecond, 500
	synctest.Test(t, func(t *testing.T) {
		c, h, clients := missing(t, n)
		defer closeHub(h)
		for i := range n {
			c.lost[uint64(i)+1] = true
		}
		begun := time.Now()
		l := c.joinDistant(t, h, latency)
		for _, a := range clients {
			expect(t, a, gapMark|1)
		}
		if took := time.Since(begun); took > positionTime {
			t.Errorf("it took %v, and %d reads", took, l.reads.Load())
		}
	})
}
