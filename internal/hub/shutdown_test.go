package hub

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestClose(t *testing.T) {
	h := New(Config{})
	var clients []*client
	for range 20 {
		c := connect(t, h, options(), "a")
		clients = append(clients, c)
		go func() {
			c.mu.Lock()
			for !bytes.HasSuffix(c.got, seqs{}.Close(ReasonRestart, "")) {
				c.changed.Wait()
			}
			c.mu.Unlock()
			c.conn.Done()
		}()
	}
	never, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()) // is never started
	if err != nil {
		t.Fatal(err)
	}
	publish(t, h, "a")
	h.Close(ReasonRestart, "", 0, time.Second)
	for _, c := range clients {
		if got, why := c.wait(0); why != ReasonRestart || !slices.Equal(got, []uint64{1}) || !c.closed {
			t.Errorf("got %v, closed for %v, closed %v", got, why, c.closed)
		}
	}
	if never.Start(newClient(), nil) {
		t.Error("a connection starts after the end")
	}
	if err := h.Publish(&Message{Channel: "a"}); err != ErrClosed {
		t.Errorf("publish after the end: %v", err)
	}
	if _, _, err := h.Connect(Subscriber{}, options()); err != ErrClosed {
		t.Errorf("connect after the end: %v", err)
	}
}

// TestSpreadClose: the closes are spread over the delay, and who is not closed yet gets what is published.
func TestSpreadClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		var clients []*client
		for range 40 {
			clients = append(clients, connect(t, h, options(), "a"))
		}
		begin := time.Now()
		var took time.Duration
		go func() {
			h.Close(ReasonRestart, "", 2*time.Second, time.Second)
			took = time.Since(begin)
		}()
		closed := func() (n int) {
			for _, c := range clients {
				if _, why := c.wait(0); why == ReasonRestart {
					n++
				}
			}
			return n
		}
		time.Sleep(time.Second + spreadStep/2)
		synctest.Wait()
		if n := closed(); n < 18 || n > 24 {
			t.Errorf("%d of 40 are closed halfway", n)
		}
		if _, _, err := h.Connect(Subscriber{}, options()); err != ErrClosed {
			t.Errorf("a new one meanwhile: %v", err)
		}
		m := publish(t, h, "a")
		if m.Subscribers == 0 || m.Subscribers > 22 {
			t.Errorf("published to %d", m.Subscribers)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := closed(); n != 40 {
			t.Errorf("%d of 40 are closed after the delay", n)
		}
		for _, c := range clients {
			c.conn.Done()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if took < 2*time.Second || took > 2*time.Second+2*spreadStep {
			t.Errorf("it took %v", took)
		}
	})
}
