package hub

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestExpires: a connection is closed within a second after its access has ended, and not before. It gets what was published until
// then. Others stay, and one that ends before is forgotten.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		start := time.Now()
		from := func(d time.Duration) Subscriber {
			return Subscriber{Channels: []string{"a"}, Expires: start.Add(d)}
		}
		c, _ := connectAs(t, h, options(), from(90*time.Second))
		past, _ := connectAs(t, h, options(), from(-time.Hour))
		early, _ := connectAs(t, h, options(), from(time.Hour))
		stays := connect(t, h, options(), "a")
		time.Sleep(89*time.Second + 999*time.Millisecond)
		if _, why := past.wait(0); why != ReasonExpired {
			t.Errorf("one that had expired before was closed because of %v", why)
		}
		m := publish(t, h, "a")
		synctest.Wait()
		if _, why := c.wait(0); why != notClosed {
			t.Errorf("closed before, because of %v", why)
		}
		time.Sleep(1001 * time.Millisecond)
		publish(t, h, "a")
		synctest.Wait()
		if got, why := c.wait(0); why != ReasonExpired || len(got) != 1 || got[0] != m.Seq {
			t.Errorf("got %v, closed because of %v", got, why)
		}
		early.conn.Done()
		synctest.Wait()
		for _, l := range h.loops {
			if n, of := len(l.expiries.heap), len(l.expiries.of); n+of != 0 {
				t.Errorf("%d, %d are left", n, of)
			}
		}
		if got, why := stays.wait(0); why != notClosed || len(got) != 2 {
			t.Errorf("another one got %v, and was closed because of %v", got, why)
		}
		for _, c := range []*client{c, past, stays} {
			c.conn.Done()
		}
		synctest.Wait()
		if n := h.Stats().Closed[ReasonExpired.String()]; n != 2 {
			t.Errorf("%d count as expired", n)
		}
		closeHub(h)
	})
}

// onWrite is a client that calls f whenever it is written to.
type onWrite struct {
	*client
	f func()
}

func (c onWrite) TryWrite(p []byte) (int, error) {
	c.f()
	return c.client.TryWrite(p)
}

// TestExpireMany: when the access of many connections ends in the same moment, a message does not wait for all of them to be closed.
func TestExpireMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		end := time.Now().Add(time.Minute)
		start := func(s Subscriber, f func(*loop)) *client {
			c := newClient()
			conn, _, err := h.Connect(s, options())
			if err != nil {
				t.Fatal(err)
			}
			c.conn = conn
			conn.Start(onWrite{c, func() { f(conn.loop) }}, nil)
			return c
		}
		closed, before := 0, 0 // in the loop of the witness, which alone counts them
		witness := start(Subscriber{Channels: []string{"b"}}, func(*loop) { before = closed })
		var expiring []*client
		for range 4 * maxExpired * len(h.loops) {
			expiring = append(expiring, start(Subscriber{Channels: []string{"a"}, Expires: end}, func(l *loop) {
				if l != witness.conn.loop {
					return
				}
				if closed++; closed == 1 {
					publish(t, h, "b")
				}
			}))
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if before == 0 || before > maxExpired {
			t.Errorf("%d connections were closed before the message was written", before)
		}
		for _, c := range expiring {
			if _, why := c.wait(0); why != ReasonExpired {
				t.Fatalf("one was closed because of %v", why)
			}
			c.conn.Done()
		}
		witness.conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}

// TestExpiriesModel: whatever ends in whatever order, those that are due come, the earliest first, and no others.
func TestExpiriesModel(t *testing.T) {
	for range 200 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			var x expiries
			model := make(map[*Conn]time.Time)
			now := time.Now().Round(0)
			for range 300 {
				switch r.IntN(4) {
				case 0, 1:
					c := new(Conn)
					model[c] = now.Add(time.Duration(r.IntN(100)-10) * time.Second)
					x.add(c, model[c])
				case 2:
					for c := range model {
						delete(model, c)
						x.remove(c)
						x.remove(c) // twice is once
						break
					}
				case 3:
					now = now.Add(time.Duration(r.IntN(10)) * time.Second)
					last := time.Time{}
					for c := x.next(now); c != nil; c = x.next(now) {
						at, ok := model[c]
						if !ok || at.After(now) || at.Before(last) {
							t.Fatalf("%v at %v, after %v: %v", at, now, last, ok)
						}
						last = at
						delete(model, c)
					}
					for _, at := range model {
						if !at.After(now) {
							t.Fatalf("%v has not come at %v", at, now)
						}
					}
				}
				if len(x.heap) != len(model) || len(x.of) != len(model) {
					t.Fatalf("%d and %d, not %d", len(x.heap), len(x.of), len(model))
				}
			}
		})
	}
}
