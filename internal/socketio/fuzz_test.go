package socketio

import (
	"bytes"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// input gives a session, or an upgrade, the frames that a client sends.
type input struct {
	receive func(frame.Message) error
	failed  bool
}

func (i *input) Message(m frame.Message) *frame.CloseError {
	i.failed = i.receive(m) != nil
	return nil
}
func (*input) Control(frame.Opcode, []byte) *frame.CloseError { return nil }
func (*input) Closed(frame.Code)                              {}

// FuzzSession: whatever a client sends, in the bodies of POSTs, by a WebSocket, or while it moves from one to the other, nothing
// of it is left when it has gone. The data are packets, as in a payload: the first byte says how they come.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"40\x1e42[\"x\",1]\x1e41", "40/chat,\x1e421[\"join\",[\"a\",\"b\"]]\x1e422[\"leave\",\"a\"]", "40\x1e451-[\"x\",{\"_placeholder\":true,\"num\":0}]\x1ebAAAA",
		"40\x1e40\x1e1", "2probe\x1e5\x1e40\x1e421[\"x\"]", "3\x1e6\x1e40{\"pid\":\"x\",\"offset\":\"y\"}", "40{\"pid\":\"PID\"}\x1e43[1]\x1e44{}", "\xff\x00", "",
	} {
		for how := range byte(3) {
			f.Add(append([]byte{how}, s...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		h := hub.New(hub.Config{History: 10})
		table := NewTable()
		e := &Endpoint{
			Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: table, Recovery: time.Minute, JoinEvent: "join", LeaveEvent: "leave",
			MayConnect: func(string) bool { return true },
		}
		o := &hub.ConnOptions{
			Format: Format{true}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
		}
		c, _, err := h.Connect(hub.Subscriber{}, o)
		if err != nil {
			t.Fatal(err)
		}
		s := e.open(&protocol.Request{
			Subscriber: hub.Subscriber{Channels: []string{"a"}}, Publish: []string{"a"}, MayJoin: func(string) bool { return true },
		})
		p := newPoller(s, o)
		s.begin(c, o)
		table.add(p)
		c.Start(&p.transport, nil)
		how, data := data[0], data[1:]
		in := &input{receive: s.Receive}
		switch how % 3 {
		case 0: // in one POST
			w := httptest.NewRecorder()
			if p.post(w, httptest.NewRequest("POST", "/", bytes.NewReader(data))); w.Code != 200 && w.Code != 400 && table.find(p.sid, "") != nil {
				t.Errorf("it lives after %d", w.Code)
			}
		case 1: // by a WebSocket that it is moved to
			u := p.try(new(sink))
			in.receive = u.Receive
			fallthrough
		case 2: // by a WebSocket
			r := frame.NewReader(2000, false)
			for packet := range bytes.SplitSeq(data, []byte{0x1e}) {
				first := byte(0x81)
				if len(packet) > 0 && packet[0] == 'b' {
					first, packet = 0x82, packet[1:]
				}
				if _, err := r.Feed(frametest.Mask(first, string(packet)), in); err != nil || in.failed {
					break
				}
			}
		}
		p.leave()
		for {
			polling, others := table.Sessions()
			if polling+others+h.Stats().Connections == 0 {
				break
			}
			runtime.Gosched()
		}
		if all, ended := table.Records(); all != ended {
			t.Errorf("%d records of sessions that have not ended", all-ended)
		}
		h.Close(hub.ReasonRestart, "", 0, time.Millisecond)
		table.Close()
	})
}
