package integration

import (
	"encoding/json"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestFromSocketIOCaddyfiles: Caddy takes each Caddyfile of docs/from-socketio.md.
func TestFromSocketIOCaddyfiles(t *testing.T) {
	t.Setenv("QUEUE_PASSWORD", "secret")
	validateCaddyfiles(t, blocksOf(t, "from-socketio.md", "caddyfile", 6))
}

// TestFromSocketIOView: the view of docs/from-socketio.md answers the page that has asked, and tells all others.
func TestFromSocketIOView(t *testing.T) {
	view, err := json.Marshal(blocksOf(t, "from-socketio.md", "python", 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	queue := caddytest.FreeAddr(t)
	s := caddytest.Start(t, `broadcast {
		redis listen `+queue+`
	}
	---
	broadcast /socket.io/* {
		socketio
	}`)
	a, sid := connectTo(s, "")
	b, _ := connectTo(s, "")
	backend := startBackend(t, "redis://"+queue, "SID="+sid)
	if value := backend.do("exec(" + string(view) + ", globals())"); value != "null" {
		t.Fatal(value)
	}
	if value := backend.do(`app.test_client().post("/order", headers={"X-Socket-Id": SID}, data={"item": "tea"}).json`); value != `{"ok": true}` {
		t.Fatal(value)
	}
	s.Expect(a, `42["ordered",{"item":"tea"}]`)
	s.Expect(b, `42["orders",{"count":1}]`)
	backend.do(`socketio.emit("last")`)
	s.Expect(a, `42["last"]`)
	s.Expect(b, `42["last"]`)
}
