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
		if n := bytes.Count(lively.got, []byte("pingping")); n != 3 {
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
