package socketio_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// void is a sink that takes everything.
type void struct{}

func (void) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (void) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (void) Close()                                       {}

// receiver gives a session what a client sends.
type receiver struct{ protocol.Session }

func (r receiver) Message(m frame.Message) *frame.CloseError {
	r.Receive(m)
	return nil
}
func (receiver) Control(frame.Opcode, []byte) *frame.CloseError { return nil }
func (receiver) Closed(frame.Code)                              {}

// TestResident logs what an idle client takes besides its socket.
func TestResident(t *testing.T) {
	const clients = 10_000
	measure := func(name string, p protocol.Protocol, e *protocol.Endpoint, o *hub.ConnOptions, sends string) {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		sessions := make([]protocol.Session, clients)
		for i := range sessions {
			r := &protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"main"}}, Publish: []string{"main"}}
			s := p.Open(e, r)
			c, w, err := e.Hub.Connect(r.Subscriber, o)
			if err != nil {
				t.Fatal(err)
			}
			c.Start(void{}, s.Greeting(c, o, w))
			if sends != "" {
				reader := frame.NewReader(1000, false)
				reader.Feed(append([]byte{0x81, 0x80 | byte(len(sends)), 0, 0, 0, 0}, sends...), receiver{s})
			}
			sessions[i] = s
		}
		e.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "") // waits for the loops
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%s: %d bytes", name, (after.HeapAlloc-before.HeapAlloc)/clients)
		runtime.KeepAlive(sessions)
	}
	newHub := func() *protocol.Endpoint {
		h := hub.New(hub.Config{History: 100})
		t.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, time.Millisecond) })
		return &protocol.Endpoint{Hub: h, MaxMessage: 1000}
	}
	options := func(f hub.Format, o hub.Observer) *hub.ConnOptions {
		return &hub.ConnOptions{Transport: "websocket", Format: f, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: o}
	}
	e := newHub()
	measure("broadcast.v1", v1.Protocol{}, e, options(v1.Format{}, nil), "")
	for _, recovery := range []time.Duration{0, time.Minute} {
		e = newHub()
		table := socketio.NewTable()
		p := socketio.Protocol{Endpoint: &socketio.Endpoint{Endpoint: e, Table: table, Recovery: recovery}}
		measure("Socket.IO, recovery "+recovery.String(), p, e, options(p.Format(0), table.Observe(nobody{})), "40")
	}
}
