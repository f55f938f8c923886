package protocol_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// peer is a client with a WebSocket: a frame.Receiver that gives the session what it sends, and a hub.Sink.
type peer struct {
	protocol.Session
	mu  sync.Mutex
	got []byte
}

func (p *peer) Message(m frame.Message) *frame.CloseError {
	var closing *frame.CloseError
	errors.As(p.Receive(m), &closing)
	return closing
}
func (p *peer) Control(frame.Opcode, []byte) *frame.CloseError { return nil }
func (p *peer) Closed(frame.Code)                              {}

func (p *peer) TryWrite(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, b...)
	return len(b), nil
}
func (p *peer) Write(b []byte, _ time.Duration) (int, error) { return p.TryWrite(b) }
func (p *peer) Close()                                       {}

// send has the session receive a text frame.
func (p *peer) send(text string) {
	r := frame.NewReader(1000, false)
	r.Feed(append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...), p)
	synctest.Wait()
	time.Sleep(time.Second) // for the log's answer
	synctest.Wait()
}

// has reports whether the client got a text.
func (p *peer) has(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.got, []byte(text))
}

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
		c := &peer{Session: p.Open(e, r)}
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
			t.Errorf("%q", c.got)
		}
		c.send(`{"ref":2,"publish":{"data":"` + strings.Repeat("x", 60) + `"}}`)
		if !c.has(`{"error":{"ref":2,"code":"too_big"`) {
			t.Errorf("%q", c.got)
		}
		log.Freeze()
		c.send(`{"ref":3,"publish":{"data":"x"}}`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !c.has(`{"error":{"ref":3,"code":"unknown"`) {
			t.Errorf("%q", c.got)
		}
		log.Thaw()
		log.Stop()
		c.send(`{"ref":4,"publish":{"data":"x"}}`)
		if !c.has(`{"error":{"ref":4,"code":"unavailable"`) {
			t.Errorf("%q", c.got)
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
		_, rest, _ := strings.Cut(string(c.got), `{"gap":{"channels":["a"],"id":"`)
		id, _, found := strings.Cut(rest, `"`)
		if !found {
			t.Fatalf("%q", c.got)
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
			t.Errorf("%q", c.got)
		}
		log.Stop()
		c.send("lost")
		if !c.has("\x03\xf5") { // 1013
			t.Errorf("%q", c.got)
		}
	})
}
