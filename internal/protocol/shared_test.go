package protocol_test

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
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// peer is a client of a hub that shares a log.
type peer struct{ protocoltest.Peer }

// send has the session receive a text frame.
func (p *peer) send(text string) {
	p.SendText(text)
	synctest.Wait()
	time.Sleep(time.Second) // for the log's answer
	synctest.Wait()
}

// has reports whether the client got a text.
func (p *peer) has(text string) bool { return strings.Contains(p.Got(), text) }

// connectTo connects a client that speaks a protocol, to a hub that shares a log.
func connectTo(t *testing.T, p protocol.Protocol, test func(c *peer, h *hub.Hub, log *brokertest.Memory)) {
	synctest.Test(t, func(t *testing.T) {
		log := brokertest.NewMemory(brokertest.MemoryConfig{MaxData: 50})
		h := hub.New(hub.Config{})
		err := h.UseLog(func(s broker.Sink) (broker.Log, error) {
			return log.Broker().Dial(s, broker.Options{Node: h.Node()})
		})
		if err != nil {
			t.Fatal(err)
		}
		e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
		r := &protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"a"}}, Publish: []string{"a"}}
		c := &peer{protocoltest.Peer{Session: p.Open(e, r)}}
		o := &hub.ConnOptions{Format: p.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog}
		conn, w, err := h.Connect(r.Subscriber, o)
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(c, c.Greeting(conn, o, w))
		test(c, h, log)
		conn.Done()
		h.Close(hub.ReasonRestart, "", 0, time.Second)
		log.Close()
	})
}

// TestV1Shared: a client of broadcast.v1 is told what became of each message when the log has answered.
func TestV1Shared(t *testing.T) {
	connectTo(t, v1.Protocol{}, func(c *peer, _ *hub.Hub, log *brokertest.Memory) {
		c.send(`{"ref":1,"publish":{"data":"x"}}`)
		if !c.has(`{"ack":{"ref":1,"id":"`) || !c.has(`"data":"x"}`) {
			t.Errorf("%q", c.Got())
		}
		c.send(`{"ref":2,"publish":{"data":"` + strings.Repeat("x", 60) + `"}}`)
		if !c.has(`{"error":{"ref":2,"code":"too_big"`) {
			t.Errorf("%q", c.Got())
		}
		log.Freeze()
		c.send(`{"ref":3,"publish":{"data":"x"}}`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !c.has(`{"error":{"ref":3,"code":"unknown"`) {
			t.Errorf("%q", c.Got())
		}
		log.Thaw()
		log.Stop()
		c.send(`{"ref":4,"publish":{"data":"x"}}`)
		if !c.has(`{"error":{"ref":4,"code":"unavailable"`) {
			t.Errorf("%q", c.Got())
		}
	})
}

// TestGapOfEpoch: the gap when the log begins again has the position there, from which the client resumes without being told of
// it again.
func TestGapOfEpoch(t *testing.T) {
	connectTo(t, v1.Protocol{}, func(c *peer, h *hub.Hub, log *brokertest.Memory) {
		c.send(`{"ref":1,"publish":{"data":"x"}}`)
		log.Rollback(1)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		_, rest, _ := strings.Cut(c.Got(), `{"gap":{"channels":["a"],"id":"`)
		id, _, found := strings.Cut(rest, `"`)
		if !found {
			t.Fatalf("%q", c.Got())
		}
		time.Sleep(time.Second)
		o := &hub.ConnOptions{Format: v1.Protocol{}.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog}
		conn, w, err := h.Connect(hub.Subscriber{Channels: []string{"a"}, LastID: id}, o)
		if err != nil || !w.Resumed {
			t.Fatalf("after %s: %+v, %v", id, w, err)
		}
		conn.Done()
	})
}

// TestRawShared: a raw client is closed when a message of it could not be published.
func TestRawShared(t *testing.T) {
	connectTo(t, raw.Protocol{}, func(c *peer, _ *hub.Hub, log *brokertest.Memory) {
		c.send("hello")
		if !c.has("hello") {
			t.Errorf("%q", c.Got())
		}
		log.Stop()
		c.send("lost")
		if !c.has("\x03\xf5") { // 1013
			t.Errorf("%q", c.Got())
		}
	})
}
