package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// page is a client of Socket.IO with a WebSocket.
type page struct {
	t        *testing.T
	ws       *websocket.Conn
	sid, pid string
}

// openPage connects a page, as the one that it was before if there is one, after the last event that it has got.
func openPage(t *testing.T, n *node, before *page, offset string) *page {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), "ws://"+n.Addr+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	p := &page{t: t, ws: ws}
	p.read()
	auth := ""
	if before != nil {
		auth = fmt.Sprintf(`{"pid":%q,"offset":%q}`, before.pid, offset)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("40"+auth)); err != nil {
		t.Fatal(err)
	}
	answer := p.read()
	var v struct{ SID, PID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answer, "40")), &v); err != nil || v.SID == "" || v.PID == "" {
		t.Fatal(answer, err)
	}
	p.sid, p.pid = v.SID, v.PID
	return p
}

func (p *page) read() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		_, text, err := p.ws.Read(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		if string(text) != "2" {
			return string(text)
		}
	}
}

// expect fails the test unless this is the next event. It returns the event's position.
func (p *page) expect(data string) (offset string) {
	p.t.Helper()
	var args []string
	text := p.read()
	if err := json.Unmarshal([]byte(strings.TrimPrefix(text, "42")), &args); err != nil || len(args) != 3 || args[1] != data {
		p.t.Fatalf("%q instead of %q", text, data)
	}
	return args[2]
}

// testSocketIO: a page whose node is killed goes on at another one, and then at the one that is back, which knows nothing but what
// the log has.
func testSocketIO(t *testing.T, s *single) {
	b := s.nodes[0]
	victim := newNode(t, "victim", s.options("", s.server.Addr()))
	victim.run(t)
	victim.waitUp()
	p := openPage(t, victim, nil, "")
	send(t, b, "page", "one", "")
	offset := p.expect("one")
	victim.kill()
	send(t, b, "page", "two", "")
	q := openPage(t, b, p, offset)
	if q.sid != p.sid || q.pid != p.pid {
		t.Fatal("not recovered at another node")
	}
	offset = q.expect("two")
	victim.run(t)
	victim.waitUp()
	send(t, b, "page", "three", "")
	r := openPage(t, victim, q, offset)
	if r.sid != p.sid || r.pid != p.pid {
		t.Fatal("not recovered at the node that is back")
	}
	r.expect("three")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for { // it may have got the event before the node noticed that it has gone
		if _, _, err := q.ws.Read(ctx); err != nil {
			if websocket.CloseStatus(err) < 0 {
				t.Error("its old connection stays:", err)
			}
			break
		}
	}
	victim.kill()
}
