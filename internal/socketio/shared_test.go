package socketio_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/protocoltest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// peer is a client with a WebSocket, in virtual time.
type peer struct{ protocoltest.Peer }

func newPeer(s protocol.Session) *peer { return &peer{protocoltest.Peer{Session: s}} }

// send has the session receive a text frame, if there is one, and gives the log time to answer. It returns all that has come.
func (p *peer) send(text string) string {
	if text != "" {
		p.SendText(text)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	return p.Got()
}

// TestShared: with a broker, acks come when it has answered. A client that has missed something is closed, so that it comes back
// and is told by not being recovered.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := brokertest.NewMemory(brokertest.MemoryConfig{MaxData: 50})
		h := hub.New(hub.Config{History: 10})
		err := h.UseLog(func(s broker.Sink) (broker.Log, error) {
			return log.Broker().Dial(s, broker.Options{Node: h.Node()})
		})
		if err != nil {
			t.Fatal(err)
		}
		table := socketio.NewTable()
		defer table.Close()
		e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
		p := socketio.Protocol{Endpoint: &socketio.Endpoint{Endpoint: e, Table: table, Recovery: time.Minute}}
		r := &protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"a"}}, Publish: []string{"a"}}
		c := newPeer(p.Open(e, r))
		o := &hub.ConnOptions{
			Format: p.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
		}
		conn, w, err := h.Connect(r.Subscriber, o)
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(c, c.Greeting(conn, o, w))
		for _, s := range []struct{ send, want string }{
			{"40", `40{"sid":"`},
			{`421["x",1]`, `431[{"id":"`},
			{`422["x","` + strings.Repeat("x", 60) + `"]`, `432[{"error":{"code":"too_big"`},
		} {
			if got := c.send(s.send); !strings.Contains(got, s.want) {
				t.Errorf("%s: %q", s.send, got)
			}
		}
		log.Rollback(1)
		if got := c.send(""); !strings.Contains(got, "\x03\xf5messages are missing") {
			t.Errorf("%q", got)
		}
		conn.Done()
		h.Close(hub.ReasonRestart, "", 0, time.Second)
		log.Close()
	})
}

// TestLeftBehind: a connection that another one has taken the place of cannot end the client's session any more, whatever comes
// by it late.
func TestLeftBehind(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		b.connect("")
		c := a.connect("")
		offset := a.emit("one", "a")
		d := a.recovered(c, offset)
		c.next("41")
		if got := d.next(""); got != "" || a.Named(d.sid) != d.conn {
			t.Errorf("%q", got)
		}
		a.emit("two", "a")
		b.recovered(d, offset, `"two"`)
	})
}
