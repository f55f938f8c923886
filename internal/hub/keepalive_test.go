package hub

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

type pinging struct{ seqs }

func (pinging) Ping() []byte { return []byte("pingping") }

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.Format = pinging{}
		o.PingInterval = 10 * time.Second
		quiet, lively := connect(t, h, o, "a"), connect(t, h, o, "a")
		for range 35 {
			time.Sleep(time.Second)
			lively.conn.Alive()
		}
		synctest.Wait()
		if !quiet.closed || lively.closed {
			t.Fatalf("after 35 s: quiet closed %v, lively closed %v", quiet.closed, lively.closed)
		}
		if n := bytes.Count(lively.got, []byte("pingping")); n != 3 && n != 4 {
			t.Errorf("%d pings in 35 s", n)
		}
		if n := h.Subscribers("a"); n != 1 {
			t.Errorf("%d subscribers are left", n)
		}
		lively.conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}

// TestPingsAreSpread: connections that come together are pinged at different times.
func TestPingsAreSpread(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	o := options()
	o.PingInterval = 25 * time.Second
	const each = 40 // connections in a slot of a loop
	for range 25 * each * len(h.loops) {
		connect(t, h, o, "a")
	}
	h.onLoops(func(l *loop) {
		for i, slot := range l.rings[25].slots {
			if len(slot) > 3*each { // all that came in one second are in half of the slots
				t.Errorf("loop %d pings %d connections at second %d, and %d in all", l.id, len(slot), i, l.conns)
			}
		}
	})
}

type paced struct{ pinging }

func (paced) PingsBusy() bool { return true }

// TestPaced: a connection that messages wait for is pinged too, if its format wants that, but only one ping waits.
func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.Format = paced{}
		o.PingInterval, o.WriteTimeout = 10*time.Second, time.Hour
		c := newClient()
		c.window = 0
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o)
		if err != nil {
			t.Fatal(err)
		}
		c.conn = conn
		conn.Start(c, nil)
		for range 35 {
			publish(t, h, "a")
			time.Sleep(time.Second)
		}
		c.open(1 << 20)
		synctest.Wait()
		if n := bytes.Count(c.got, []byte("pingping")); n != 1 || len(c.got) != 36*8 {
			t.Errorf("%d pings, %d bytes", n, len(c.got))
		}
		conn.Alive()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := bytes.Count(c.got, []byte("pingping")); n != 2 {
			t.Errorf("%d pings", n)
		}
		conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}
