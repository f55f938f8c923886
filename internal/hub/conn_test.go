package hub

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// TestBacklogIsWhatItSays: a backlog refers to no arrays that are larger than what it counts, and counts what many
// small slices cost.
func TestBacklogIsWhatItSays(t *testing.T) {
	t.Run("closed when slow", func(t *testing.T) { testBacklogIsWhatItSays(t, false) })
	t.Run("the oldest dropped", func(t *testing.T) { testBacklogIsWhatItSays(t, true) })
}

func testBacklogIsWhatItSays(t *testing.T, drop bool) {
	h := New(Config{})
	o, bulky := options(), options()
	o.MaxBacklog, o.DropOldest = MinBacklog, drop
	bulky.Format = padded{}
	slow, quick := connect(t, h, o, "a"), connect(t, h, bulky, "b")
	slow.open(0)
	for i := range 2 * MinBacklog / pieceOverhead {
		publish(t, h, "b") // leaves large arrays behind
		m := publish(t, h, "a")
		for h.Stats().Deliveries < m.Seq && h.Subscribers("a") > 0 {
			runtime.Gosched()
		}
		if i%1000 == 0 {
			quick.mu.Lock()
			quick.got = nil
			quick.mu.Unlock()
		}
		if h.Subscribers("a") == 0 {
			break
		}
	}
	for closing := drop; !closing; runtime.Gosched() { // until its loop has dropped what it may
		slow.conn.mu.Lock()
		closing = slow.conn.closing || slow.conn.dead
		slow.conn.mu.Unlock()
	}
	slow.conn.mu.Lock()
	real := pieceSize * cap(slow.conn.backlog.queue)
	for _, p := range slow.conn.backlog.queue {
		real += cap(p.array.bytes) + int(unsafe.Sizeof(*p.array))
	}
	n := len(slow.conn.backlog.queue)
	slow.conn.mu.Unlock()
	if real > o.MaxBacklog {
		t.Errorf("%d slices take %d bytes", n, real)
	}
	if drop != (n > 500) || drop != (h.Subscribers("a") == 1) {
		t.Errorf("has %d slices", n)
	}
	closeHub(h)
}

// TestSlowInReplay: one that takes nothing of what is replayed, and gets more than it may have waiting, is closed
// between two messages.
func TestSlowInReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 100})
		for range 15 {
			if err := h.Publish(&Message{Channel: "a", Data: bytes.Repeat([]byte("x"), paddedSize)}); err != nil {
				t.Fatal(err)
			}
		}
		o := options()
		o.Format = padded{}
		o.MaxBacklog = 20 * paddedSize
		c := newClient()
		c.window = 8 + paddedSize + 100
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}, Replay: 100}, o)
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(c, make([]byte, 8))
		for h.Subscribers("a") > 0 {
			publish(t, h, "a")
			synctest.Wait()
		}
		if got := h.Stats().Deliveries; got != 1+20 && got != 2+20 {
			t.Errorf("%d deliveries", got)
		}
		c.open(1 << 30)
		synctest.Wait()
		got := c.got[8:]
		if !bytes.HasSuffix(got, seqs{}.Close(ReasonSlow, "")) {
			t.Fatal("no close frame")
		}
		if got = got[:len(got)-8]; len(got)%paddedSize != 0 || len(got) == 0 {
			t.Fatalf("%d bytes before the close frame", len(got))
		}
		for i := range len(got) / paddedSize {
			if seq := binary.BigEndian.Uint64(got[i*paddedSize:]); seq != uint64(i)+1 {
				t.Errorf("got %d at %d", seq, i)
			}
		}
		conn.Done()
		synctest.Wait()
		if s := h.Stats(); s.Backlog != 0 || s.Connections != 0 {
			t.Errorf("left: %+v", s)
		}
		closeHub(h)
	})
}

// TestSlowIsNotSilent: one that has a backlog is not pinged, and not taken for dead as long as it takes something.
func TestSlowIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.Format = pinging{}
		o.PingInterval = 5 * time.Second
		c := connect(t, h, o, "a")
		c.open(1)
		for range 100 {
			publish(t, h, "a")
		}
		for range 60 {
			time.Sleep(time.Second)
			c.open(1)
		}
		if h.Subscribers("a") != 1 {
			t.Fatal("taken for dead")
		}
		time.Sleep(time.Second / 2) // between two ticks
		c.open(1 << 20)
		synctest.Wait()
		c.mu.Lock()
		if bytes.Contains(c.got, []byte("ping")) {
			t.Error("pinged with a backlog")
		}
		c.mu.Unlock()
		time.Sleep(time.Minute)
		if h.Subscribers("a") != 0 {
			t.Error("not taken for dead when it was")
		}
		closeHub(h)
	})
}

// laborious is a format that takes long to encode, and notes how many are at it at once.
type laborious struct {
	seqs
	now, most atomic.Int32
}

func (s *laborious) Append(dst []byte, run []*Message) []byte {
	if n := s.now.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	time.Sleep(5 * watchInterval)
	s.now.Add(-1)
	return s.seqs.Append(dst, run)
}

// TestBusyFlushers: however many clients resume at once, no more flushers encode for them than each loop keeps.
func TestBusyFlushers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 10, HistoryAge: time.Hour})
		for range 3 {
			publish(t, h, "a")
		}
		format := new(laborious)
		o := options()
		o.Format = format
		var clients []*client
		for range 100 {
			c, _ := connectAs(t, h, o, Subscriber{Channels: []string{"a"}, Replay: 3})
			clients = append(clients, c)
		}
		for _, c := range clients {
			if got, _ := c.wait(3); !slices.Equal(got, []uint64{1, 2, 3}) {
				t.Fatalf("got %d", got)
			}
			c.conn.Done()
		}
		if n := int(format.most.Load()); n > maxFree*len(h.loops) {
			t.Errorf("%d flushers encoded at once", n)
		}
		closeHub(h)
	})
}

// TestStuckFlushers: peers that take nothing hold up, for a moment, those that have to be flushed after them.
func TestStuckFlushers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		var stuck []*client
		for range 300 {
			c := connect(t, h, o, "a")
			c.blocks, c.window = true, 0
			stuck = append(stuck, c)
		}
		good := connect(t, h, o, "a")
		good.blocks = true
		synctest.Wait()
		for n := range 3 {
			publish(t, h, "a")
			time.Sleep(15 * watchInterval) // 1 + 2 + 4 + … are started
			synctest.Wait()
			if got, _ := good.wait(0); len(got) != n+1 {
				t.Fatalf("got %d of %d", len(got), n+1)
			}
		}
		for _, c := range stuck {
			c.open(1 << 20)
		}
		time.Sleep(time.Second / 2)
		synctest.Wait()
		for _, c := range stuck {
			if got, _ := c.wait(0); len(got) != 3 {
				t.Fatalf("one that was stuck got %d", len(got))
			}
		}
		for _, l := range h.loops {
			l.flushers.mu.Lock()
			if l.flushers.free > maxFree || l.flushers.watching {
				t.Errorf("%d flushers are left, watching %v", l.flushers.free, l.flushers.watching)
			}
			l.flushers.mu.Unlock()
		}
		for _, c := range append(stuck, good) {
			c.conn.Done()
		}
		closeHub(h)
	})
}
