package socketio_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/protocoltest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// cut is a client whose connection ends after some bytes, which may be in the middle of a frame.
type cut struct {
	protocoltest.Peer
	left int
}

var errCut = errors.New("cut")

func (c *cut) TryWrite(b []byte) (int, error) {
	n := min(c.left, len(b))
	c.left -= n
	c.Peer.TryWrite(b[:n])
	if n < len(b) {
		return n, errCut
	}
	return n, nil
}

func (c *cut) Write(b []byte, _ time.Duration) (int, error) { return c.TryWrite(b) }

// came returns the packets that came whole.
func (c *cut) came() []string {
	if payload, _ := packet.AppendPayload(nil, []byte(c.Got()), 1<<20); len(payload) > 0 {
		return strings.Split(string(payload), "\x1e")
	}
	return nil
}

// cutRoute is a hub and what its clients speak.
type cutRoute struct {
	protocol.Protocol
	e *protocol.Endpoint
	o *hub.ConnOptions
}

func newCutRoute(t *testing.T) *cutRoute {
	h := hub.New(hub.Config{History: 100})
	table := socketio.NewTable()
	t.Cleanup(func() {
		h.Close(hub.ReasonRestart, "", 0, time.Millisecond)
		table.Close()
	})
	e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
	p := socketio.Protocol{Endpoint: &socketio.Endpoint{Endpoint: e, Table: table, Route: "r", Recovery: time.Minute}}
	return &cutRoute{p, e, &hub.ConnOptions{
		Format: p.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
	}}
}

// wait waits until n packets have come.
func (r *cutRoute) wait(c *cut, n int) (came []string) {
	for range 1_000_000 {
		r.settle()
		if came = c.came(); len(came) >= n {
			break
		}
	}
	return came
}

// join connects a client that is cut off after some bytes, and has it ask for the main namespace. Left is -1 for a client that never is.
func (r *cutRoute) join(t *testing.T, left int, connect string) (*cut, *hub.Conn) {
	if left < 0 {
		left = 1 << 30
	}
	q := &protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"main"}}, Publish: []string{"main"}}
	c := &cut{Peer: protocoltest.Peer{Session: r.Open(r.e, q)}, left: left}
	conn, w, err := r.e.Hub.Connect(q.Subscriber, r.o)
	if err != nil {
		t.Fatal(err)
	}
	if !conn.Start(c, c.Greeting(conn, r.o, w)) {
		t.Fatal("ended")
	}
	reader := frame.NewReader(1000, false)
	if _, err := reader.Feed(frametest.Mask(0x81, connect), c); err != nil {
		t.Fatal(err)
	}
	return c, conn
}

// settle waits until the loops have done what was asked of them.
func (r *cutRoute) settle() {
	r.e.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "")
}

// TestCut: wherever a connection is cut, the client that comes back gets each event once, whether its end was noticed or not.
func TestCut(t *testing.T) {
	r := newCutRoute(t)
	h := r.e.Hub
	const all = 5
	for left := 0; ; left++ {
		first, conn := r.join(t, -1, "40")
		begun := r.wait(first, 2) // the handshake, and the answer
		_, pid := ids(t, begun[1])
		first.left = left // no lock: the loop has written what wait has seen, and looks again after Publish
		for i := range all {
			h.Publish(&hub.Message{Channel: "main", Event: "e", Data: fmt.Append(nil, i), Kind: hub.JSON})
			r.settle()
		}
		events := first.came()[2:]
		payload := fmt.Sprintf(`40{"pid":%q}`, pid)
		if len(events) > 0 {
			payload = fmt.Sprintf(`40{"pid":%q,"offset":%q}`, pid, offset(events[len(events)-1]))
		}
		again, second := r.join(t, -1, payload)
		h.Publish(&hub.Message{Channel: "main", Event: "e", Data: []byte("5"), Kind: hub.JSON})
		rest := r.wait(again, 2+all+1-len(events))
		if _, same := ids(t, rest[1]); same != pid {
			t.Fatalf("cut after %d: not recovered", left)
		}
		events = append(events, rest[2:]...)
		for i, event := range events {
			if !strings.HasPrefix(event, fmt.Sprintf(`42["e",%d,"`, i)) || len(events) != all+1 {
				t.Fatalf("cut after %d: %q", left, events)
			}
		}
		whole := len(first.came()) == 2+all
		conn.Done()
		second.Done()
		if whole {
			break
		}
	}
}

// TestClosing: a client that comes back while its connection is being closed, which takes a while if it does not answer, goes on
// where it was.
func TestClosing(t *testing.T) {
	r := newCutRoute(t)
	first, conn := r.join(t, -1, "40")
	sid, pid := ids(t, r.wait(first, 2)[1])
	conn.Close(hub.ReasonSlow, "")
	r.settle()
	r.e.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("1")})
	again, _ := r.join(t, -1, fmt.Sprintf(`40{"pid":%q}`, pid))
	r.e.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("2")})
	came := r.wait(again, 4)
	if same, _ := ids(t, came[1]); same != sid || !strings.HasPrefix(came[2], `42["message","1"`) || !strings.HasPrefix(came[3], `42["message","2"`) {
		t.Errorf("%q", came)
	}
}

// TestKickedForGood: who was kicked cannot go on where it was, even if it does not wait until its connection has ended.
func TestKickedForGood(t *testing.T) {
	r := newCutRoute(t)
	first, conn := r.join(t, -1, "40")
	sid, pid := ids(t, r.wait(first, 2)[1])
	conn.Close(hub.ReasonPolicy, "")
	r.settle()
	again, _ := r.join(t, -1, fmt.Sprintf(`40{"pid":%q}`, pid))
	if other, _ := ids(t, r.wait(again, 2)[1]); other == sid {
		t.Error("it has gone on")
	}
}
