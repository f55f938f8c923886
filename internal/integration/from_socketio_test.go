package integration

import (
	"encoding/json"
	"strings"
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

// TestFromSocketIOHandlers: the old server of docs/from-socketio.md has its handlers called under another path. What they emit
// reaches the clients of both servers.
func TestFromSocketIOHandlers(t *testing.T) {
	python := caddytest.Python(t, "python3-flask-socketio python3-redis", "flask_socketio", "redis")
	port, queue := caddytest.FreePort(t), caddytest.FreeAddr(t)
	config := ""
	for _, block := range blocksOf(t, "from-socketio.md", "caddyfile", 6) {
		if strings.Contains(block, "handle_path /handlers/*") {
			config = block
		}
	}
	_, site, _ := strings.Cut(config, "example.com {\n")
	site = strings.TrimSuffix(strings.ReplaceAll(site, "localhost:5000", "127.0.0.1:"+port), "}\n")
	s := caddytest.Start(t, "broadcast {\n\tredis listen "+queue+"\n}\n---\n"+site)
	caddytest.StartApp(t, python, "testdata/queue/handlers.py", port, "QUEUE=redis://"+queue)

	c, _ := connectTo(s, "")
	do := func(method, path, body string) (int, string) {
		return s.Do(method, s.Addr+"/handlers"+path, body, "Content-Type", "text/plain;charset=UTF-8")
	}
	_, body := do("GET", polling, "")
	_, rest, _ := strings.Cut(body, `0{"sid":"`)
	id, _, _ := strings.Cut(rest, `"`)
	sid := "&sid=" + id
	do("POST", polling+sid, "40")
	if _, body := do("GET", polling+sid, ""); !strings.HasPrefix(body, `40{"sid":"`) {
		t.Fatal(body)
	}
	answers := ""
	// The old server subscribes when it gets its first client, and does not say when it has done that.
	for !strings.Contains(answers, `42["orders",{"item":"tea"}]`) {
		if status, body := do("POST", polling+sid, `421["order",{"item":"tea"}]`); status != 200 {
			t.Fatal(status, body)
		}
		s.Expect(c, `42["orders",{"item":"tea"}]`) // and not what is for a socket of the other server
		status, body := do("GET", polling+sid, "")
		if status != 200 {
			t.Fatal(status, body)
		}
		answers += body
	}
}
