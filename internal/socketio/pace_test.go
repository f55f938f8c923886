package socketio

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// enter takes the client into the main namespace, and takes the answer.
func (p *poller) enter(t *testing.T) {
	t.Helper()
	p.channels = []string{"main"}
	if err := p.receive(packet.EnginePacket{Type: packet.EngineMessage, Data: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	if got, _ := p.transport.poll(t.Context()); !bytes.HasPrefix(got, []byte("40")) {
		t.Fatalf("%s", got)
	}
}

// flood publishes n messages of a kilobyte.
func (p *poller) flood(n int) {
	for range n {
		p.endpoint.Hub.Publish(&hub.Message{Channel: "main", Data: bytes.Repeat([]byte("x"), 1000)})
	}
	synctest.Wait()
}

// TestPingBehindMessages: a client that polls gets its ping though more messages wait for it than the next GET has room for.
func TestPingBehindMessages(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		p.options.MaxBacklog, p.options.WriteTimeout = 1<<20, time.Hour
		p.enter(t)
		p.flood(200)
		time.Sleep(p.options.PingInterval)
		synctest.Wait()
		messages, pings := 0, 0
		for messages < 200 || pings == 0 {
			got, _ := p.transport.poll(t.Context())
			for text := range strings.SplitSeq(string(got), "\x1e") {
				if text == "2" {
					pings++
				} else {
					messages++
				}
			}
			synctest.Wait()
		}
		if messages != 200 || pings != 1 {
			t.Errorf("%d messages, %d pings", messages, pings)
		}
	})
}

// TestNeverPolls: a session whose client does not come for what there is ends, and what was kept for it is gone. That it sends
// something is no reason to keep more.
func TestNeverPolls(t *testing.T) {
	for name, c := range map[string]struct {
		messages int
		posts    bool
		ends     time.Duration // at the latest; 0 is never
	}{
		"no life":          {0, false, 61 * time.Second},
		"nothing to come":  {0, true, 0},
		"it takes nothing": {150, true, 5 * time.Second},
		"too much":         {300, true, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			testPoller(t, func(t *testing.T, p *poller) {
				p.enter(t)
				p.flood(c.messages)
				if n := p.endpoint.Hub.Stats().Memory; n > 4*bufferSize { // what is kept, a batch, the backlog, and the last messages
					t.Errorf("%d bytes were kept", n)
				}
				ended := time.Duration(0)
				for took := time.Second; took < 100*time.Second && ended == 0; took += time.Second {
					if c.posts {
						p.conn.Alive()
					}
					time.Sleep(time.Second)
					synctest.Wait()
					if p.transport.over() {
						ended = took
					}
				}
				if (ended > 0) != (c.ends > 0) || ended > c.ends {
					t.Errorf("it has ended after %s", ended)
				}
				if n := p.endpoint.Hub.Stats().Memory; ended > 0 && n != 0 {
					t.Errorf("%d bytes are kept", n)
				}
			})
		})
	}
}

// TestLinger: what tells a client that it must stay away is kept for half a minute, for one that does not poll just then.
func TestLinger(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		p.enter(t)
		table := p.endpoint.Table
		table.add(p)
		p.conn.Close(hub.ReasonPolicy, "")
		time.Sleep(p.options.WriteTimeout + 3*time.Second)
		synctest.Wait()
		if !p.transport.over() || table.find(p.sid, p.route) != p {
			t.Error("it is not known any more")
		}
		if got, _ := p.transport.poll(t.Context()); string(got) != "41" {
			t.Errorf("%q", got)
		}
		time.Sleep(lingerTime)
		synctest.Wait()
		if table.find(p.sid, p.route) != nil || p.endpoint.Hub.Stats().Memory != 0 {
			t.Error("it is kept for ever")
		}
	})
}

// TestFaultDoesNotLinger: nothing is kept of a client that made no sense, as its session is not known any more. Clients that come
// and go could pile up such.
func TestFaultDoesNotLinger(t *testing.T) {
	testPoller(t, func(t *testing.T, p *poller) {
		p.enter(t)
		p.endpoint.Table.add(p)
		p.fail(&frame.CloseError{Code: frame.ProtocolError})
		time.Sleep(p.options.WriteTimeout + 3*time.Second)
		synctest.Wait()
		if !p.transport.over() {
			t.Error("it has not ended")
		}
		if p.lingers != nil {
			t.Error("it is kept")
		}
	})
}

// TestMovedCostsNothing: what goes to a client that has moved to a WebSocket is handed on as it is.
func TestMovedCostsNothing(t *testing.T) {
	p := &transport{moved: new(sink), hold: func(int) {}}
	frames := textFrame([]byte(`42["x"]`))
	if n := testing.AllocsPerRun(100, func() { p.TryWrite(frames) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
