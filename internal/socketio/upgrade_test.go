package socketio

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// sink is a WebSocket's sending half.
type sink struct {
	slow   time.Duration // how long a write takes
	closed atomic.Bool
}

func (*sink) TryWrite(p []byte) (int, error) { return len(p), nil }
func (s *sink) Write(p []byte, _ time.Duration) (int, error) {
	time.Sleep(s.slow)
	return len(p), nil
}
func (s *sink) Close() { s.closed.Store(true) }

// testPoller runs a test with a client that polls, in a bubble.
func testPoller(t *testing.T, test func(t *testing.T, p *poller)) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		table := NewTable()
		e := &Endpoint{Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: table}
		o := &hub.ConnOptions{
			Format: Format{}, PingInterval: 20 * time.Second, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
		}
		conn, _, err := h.Connect(hub.Subscriber{}, o)
		if err != nil {
			t.Fatal(err)
		}
		p := newPoller(e.open(&protocol.Request{}), o)
		p.begin(conn, o)
		p.early.Stop() // it need not be in a namespace
		conn.Start(&p.transport, nil)
		test(t, p)
		conn.Done()
		h.Close(hub.ReasonRestart, "", 0, time.Second)
	})
}

// nobody is an observer that notices nothing.
type nobody struct{}

func (nobody) Subscribed(*hub.Conn, string)   {}
func (nobody) Unsubscribed(*hub.Conn, string) {}
func (nobody) Ended(*hub.Conn, hub.Reason)    {}

// try has the client try a WebSocket.
func (p *poller) try(s hub.Sink) *upgrade {
	u := &upgrade{poller: p}
	p.upgrading.Store(u)
	u.Start(s)
	return u
}

// wantPolls: the session goes on by polling, its GETs wait, and it can try another WebSocket.
func wantPolls(t *testing.T, p *poller) {
	t.Helper()
	if p.upgrading.Load() != nil || !p.transport.polls() {
		t.Error("it does not poll")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got, what := p.transport.poll(ctx); what != pollGone {
		t.Errorf("a GET does not wait: %q %v", got, what)
	}
}

// TestUpgradeTimeout: a WebSocket to which the client does not move in time ends, whether the client has tried it or not.
func TestUpgradeTimeout(t *testing.T) {
	for _, probed := range []bool{false, true} {
		testPoller(t, func(t *testing.T, p *poller) {
			s := new(sink)
			u := p.try(s)
			if probed {
				u.probe(s)
				if got, what := p.transport.poll(t.Context()); string(got) != noopPacket || what != pollAnswer {
					t.Errorf("%q %v", got, what)
				}
			}
			time.Sleep(upgradeTimeout - time.Nanosecond)
			synctest.Wait()
			if s.closed.Load() {
				t.Error("closed too early")
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if !s.closed.Load() || u.move(s) == nil {
				t.Error("not closed")
			}
			wantPolls(t, p)
		})
	}
}

// TestUpgradeTimeoutInProbe: the time is up while the answer to the probe is written.
func TestUpgradeTimeoutInProbe(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		s := &sink{slow: upgradeTimeout + time.Second}
		u := p.try(s)
		if u.probe(s) == nil || u.move(s) == nil || !s.closed.Load() {
			t.Error("it goes on")
		}
		wantPolls(t, p)
	})
}

// TestUpgradeHalf: a WebSocket that ends in the middle of a message is no reason to take the session for one that stalls.
func TestUpgradeHalf(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		u := p.try(new(sink))
		if !u.Unfinished(3, 8) { // of a probe
			t.Error("closed")
		}
		u.Done()
		u = p.try(new(sink))
		if u.Unfinished(600, 2000) { // of nothing that makes sense
			t.Error("not closed")
		}
		for range 5 {
			p.conn.Alive()
			time.Sleep(p.options.PingInterval)
			p.transport.poll(t.Context()) // a ping
		}
		wantPolls(t, p)
		if held := p.endpoint.Hub.Stats().Memory; held != sessionCost {
			t.Errorf("%d bytes are held", held)
		}
	})
}

// TestUpgradeAtEnd: a client whose last GET has taken all but the end of its session, which comes alone, gets the end by the
// WebSocket that it moves to. Otherwise it would wait there for events, for as long as the hub waits for it.
func TestUpgradeAtEnd(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		s := new(sink)
		u := p.try(s)
		u.probe(s)
		p.send([]byte("42[]"))
		p.conn.Close(hub.ReasonClient, "")
		synctest.Wait()
		if got, _ := p.transport.poll(t.Context()); string(got) != "42[]" {
			t.Errorf("%q", got)
		}
		if u.move(s) == nil {
			t.Error("it goes on")
		}
		synctest.Wait()
		if !s.closed.Load() || !p.conn.Gone() {
			t.Error("it waits")
		}
	})
}

// TestUpgradeEnds: the WebSocket ends with the session.
func TestUpgradeEnds(t *testing.T) {
	for _, probed := range []bool{false, true} {
		testPoller(t, func(t *testing.T, p *poller) {
			s := new(sink)
			u := p.try(s)
			if probed {
				u.probe(s)
			}
			p.leave()
			synctest.Wait()
			if !s.closed.Load() || u.move(s) == nil {
				t.Error("it stays")
			}
			late := &upgrade{poller: p}
			if p.tries(late) {
				t.Error("another one begins")
			}
		})
	}
}
