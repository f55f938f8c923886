package hub

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// scripted is a log whose Open is answered when the test says so.
type scripted struct {
	*fakeLog
	mu    sync.Mutex
	opens []func(at uint64, err error)
}

func (l *scripted) Open(_ []string, opened func(uint64, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens = append(l.opens, opened)
}

func (l *scripted) Close() {
	for _, opened := range l.opens {
		opened(0, broker.ErrClosed)
	}
	l.opens = nil
	l.fakeLog.Close()
}

// opened answers all calls of Open.
func (l *scripted) opened(at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, opened := range l.opens {
		l.do(func() { opened(at, nil) })
	}
	l.opens = nil
}

func (c *fakeCluster) dialScripted(t *testing.T, h *Hub) *scripted {
	t.Helper()
	l := &scripted{fakeLog: c.newLog()}
	err := h.UseLog(func(sink broker.Sink) (broker.Log, error) {
		l.sink = sink
		return l, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// store stores entries that no node is sent.
func (c *fakeCluster) store(channels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range channels {
		c.entries = append(c.entries, broker.Entry{Seq: c.lastLocked() + 1, Channel: name})
	}
}

// TestSwapAfterLoss: what the log before has lost, and has not missed yet, is read by the one that follows, although the
// watermark is beyond it.
func TestSwapAfterLoss(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h := hubs[0]
	alone, _ := resume(t, h, "", "a")
	two, _ := resume(t, h, "", "a", "b")
	publish(t, h, "a")
	c.store("a")
	publish(t, h, "b")
	expect(t, alone, 1)
	expect(t, two, 1, 3)
	logs[0].idle()
	c.join(t, h)
	expect(t, alone, 1, 2)
	expect(t, two, 1, 3, gapMark|1)
}

// TestSwapTwice: a log that is replaced before it has opened the channels leaves them where they were.
func TestSwapTwice(t *testing.T) {
	c, hubs, _ := sharing(t, 1, Config{History: 10})
	h := hubs[0]
	a, _ := resume(t, h, "", "a")
	publish(t, h, "a")
	expect(t, a, 1)
	l := c.dialScripted(t, h)
	l.do(func() { l.sink.Epoch("one", c.last()) })
	l.do(l.sink.Repaired)
	c.store("a", "b", "a")
	l.do(func() { l.sink.Advance(c.last()) })
	l.idle()
	f := c.join(t, h)
	publish(t, h, "a")
	expect(t, a, 1, 2, 4, 5)
	f.idle()
	if _, w := resume(t, h, "one-1", "a"); w.Gaps != nil {
		t.Errorf("%+v", w)
	}
}

// TestSwapLosesSome: a log that follows another one and cannot read everything tells of a gap before what it has, and nobody
// resumes from before that.
func TestSwapLosesSome(t *testing.T) {
	c, hubs, _ := sharing(t, 1, Config{History: 10})
	h := hubs[0]
	a, _ := resume(t, h, "", "a")
	publish(t, h, "a")
	expect(t, a, 1)
	c.store("a")
	c.lost[2] = true
	l := c.dialScripted(t, h)
	l.do(func() { l.sink.Epoch("one", 2) })
	l.do(l.sink.Repaired)
	l.opened(2)
	c.store("a")
	l.do(func() { l.sink.Entries([]broker.Entry{{Seq: 3, Channel: "a"}}) })
	expect(t, a, 1, gapMark|1, 3)
	if _, w := resume(t, h, "one-1", "a"); w.Gaps == nil {
		t.Errorf("%+v", w)
	}
}

// TestSwapEpoch: what another epoch has stored before the channels are open is missed by their subscribers, who were told of
// a gap when it began: they are told again.
func TestSwapEpoch(t *testing.T) {
	_, hubs, _ := sharing(t, 1, Config{History: 10})
	h := hubs[0]
	a, _ := resume(t, h, "", "a")
	publish(t, h, "a")
	expect(t, a, 1)
	c := newFakeCluster()
	c.store("b", "b")
	l := c.dialScripted(t, h)
	l.do(func() { l.sink.Epoch("two", 2) })
	l.do(l.sink.Repaired)
	expect(t, a, 1, gapMark|1)
	c.store("a", "a")
	l.do(func() { l.sink.Advance(4) })
	l.opened(4)
	expect(t, a, 1, gapMark|1, gapMark|1)
	c.lost[3] = true
	if _, w := resume(t, h, "two-2", "a"); w.Gaps == nil {
		t.Error("resumed from before where the channel was opened")
	}
	if _, w := resume(t, h, "two-4", "a"); w.Gaps != nil {
		t.Errorf("%+v", w)
	}
}

// TestEpochOfIdleChannel: a channel that only had a history begins where the epoch does, not where its last message was.
func TestEpochOfIdleChannel(t *testing.T) {
	for _, at := range []uint64{2, 9} { // below and beyond what the channel has had
		c, hubs, logs := sharing(t, 1, Config{History: 10})
		h, f := hubs[0], logs[0]
		a, _ := resume(t, h, "", "a")
		for range 5 {
			publish(t, h, "a")
		}
		expect(t, a, 1, 2, 3, 4, 5)
		a.conn.Done()
		f.do(func() { f.sink.Epoch("two", at) })
		f.idle()
		if _, w := resume(t, h, "two-"+string(rune('0'+at)), "a"); w.Gaps != nil || c.reads > 0 {
			t.Errorf("nothing is missing: %+v, %d reads", w, c.reads)
		}
		if resume(t, h, "two-1", "a"); c.reads != 1 {
			t.Error("what was before the epoch began here is not known, and was not read")
		}
	}
}

// TestLostNames: between Lost and Repaired nobody is given a position, because it is not known yet where the loss ends.
func TestLostNames(t *testing.T) {
	for _, name := range []string{"a", ""} {
		c, hubs, logs := sharing(t, 1, Config{History: 10})
		h, f := hubs[0], logs[0]
		a, _ := resume(t, h, "", "a")
		publish(t, h, "a")
		expect(t, a, 1)
		idle, _ := resume(t, h, "", "c")
		idle.conn.Done()
		c.store("a", "a", "c")
		c.lost[2], c.lost[4] = true, true
		f.do(func() { f.sink.Broken(errors.New("cut off")) })
		f.do(func() { f.sink.Lost([]string{name}) })
		f.idle()
		answered := make(chan Welcome)
		go func() {
			_, w := resume(t, h, "", "a")
			answered <- w
		}()
		expect(t, a, 1, gapMark|1)
		f.do(func() {
			select {
			case w := <-answered:
				t.Errorf("was given %s", w.ID)
			default:
			}
			f.sink.Entries([]broker.Entry{{Seq: 3, Channel: "a"}})
			f.sink.Advance(4)
			f.sink.Repaired()
		})
		if w := <-answered; w.ID != "one-4" {
			t.Errorf("was given %s", w.ID)
		}
		expect(t, a, 1, gapMark|1, 3)
		if _, w := resume(t, h, "one-1", "a"); w.Gaps == nil {
			t.Error("resumed from before what is lost")
		}
		if _, w := resume(t, h, "one-1", "c"); (w.Gaps != nil) != (name == "") {
			t.Errorf("a channel without subscribers, when %q was lost: %+v", name, w)
		}
	}
}

// TestReadOfNextEpoch: what is read while another epoch begins is not taken for messages of the one before, nor of this one.
func TestReadOfNextEpoch(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{History: 10})
	h, f := hubs[0], logs[0]
	c.store("b", "a")
	f.do(func() { f.sink.Advance(2) })
	f.idle()
	c.reading = func() {
		c.reading = nil
		f.sink.Epoch("two", 2)
	}
	if _, w := resume(t, h, "one-1", "a"); w.Gaps == nil || w.ID != "two-2" {
		t.Errorf("%+v", w)
	}
	c.lost[2] = true
	if _, w := resume(t, h, "two-1", "a"); w.Gaps == nil {
		t.Errorf("what was read in one epoch is in the history of the next: %+v", w)
	}
	got, w := resume(t, h, "two-2", "a")
	if w.Gaps != nil {
		t.Errorf("%+v", w)
	}
	publish(t, h, "a")
	expect(t, got, 3)
}

// TestUseLogAtOnce: any number of calls of UseLog may be under way, and none waits for a broker.
func TestUseLogAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		c := newFakeCluster()
		f := c.join(t, h)
		a, _ := resume(t, h, "", "a")
		f.hold(true) // it does not answer
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { c.dial(t, h).hold(true) })
		}
		all.Wait()
		h.Configure(Config{})
		c.join(t, h)
		publish(t, h, "a")
		expect(t, a, 1)
		a.conn.Done()
		closeHub(h)
	})
}
