package socketio_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// TestTimers: a client that connects to no namespace is closed, but not before its third ping, and so is one whose attachments do
// not come. One that does what it should is not.
func TestTimers(t *testing.T) {
	for _, c := range []struct {
		name         string
		sends        []string
		ping, closed time.Duration // the interval, and when it is closed: 0 is never
	}{
		{"no namespace", nil, time.Hour, 3*time.Hour + time.Second},
		{"no namespace, short pings", nil, time.Second, 45 * time.Second},
		{"a namespace", []string{"40"}, time.Second, 0},
		{"a namespace that does not exist", []string{"40/none,"}, time.Second, 45 * time.Second},
		{"no attachments", []string{"40", `451-["x",{"_placeholder":true,"num":0}]`}, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hub.New(hub.Config{})
				table := socketio.NewTable()
				e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
				p := socketio.Protocol{Endpoint: &socketio.Endpoint{Endpoint: e, Table: table}}
				q := &protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"a"}}, Publish: []string{"a"}}
				o := &hub.ConnOptions{
					Format: p.Format(0), PingInterval: c.ping, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
				}
				client := newPeer(p.Open(e, q))
				conn, w, err := h.Connect(q.Subscriber, o)
				if err != nil {
					t.Fatal(err)
				}
				conn.Start(client, client.Greeting(conn, o, w))
				begun := time.Now()
				for _, text := range c.sends {
					client.send(text)
				}
				closed := func() bool { return strings.Contains(client.send(""), "\x88") } // it takes a second
				for !closed() && time.Since(begun) < 4*c.ping+2*time.Minute {
					conn.Alive() // it answers pings
				}
				took := time.Since(begun) - time.Duration(len(c.sends))*time.Second
				if c.closed == 0 {
					if closed() {
						t.Errorf("closed after %s", took)
					}
				} else if took < c.closed-2*time.Second || took > c.closed+2*time.Second {
					t.Errorf("closed after %s, not %s", took, c.closed)
				}
				conn.Done()
				h.Close(hub.ReasonRestart, "", 0, time.Second)
			})
		})
	}
}
