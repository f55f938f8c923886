package integration

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

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
	a, sid := dialNamespace(s, "/")
	b, _ := dialNamespace(s, "/")
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

// fromSocketIO returns the site of the Caddyfile of docs/from-socketio.md that has a line, with an app at this address.
func fromSocketIO(t *testing.T, line, app string) string {
	t.Helper()
	for _, block := range blocksOf(t, "from-socketio.md", "caddyfile", 6) {
		if _, site, _ := strings.Cut(block, "example.com {\n"); strings.Contains(block, line) {
			return strings.TrimSuffix(strings.ReplaceAll(site, "localhost:5000", app), "}\n")
		}
	}
	t.Fatalf("no Caddyfile has %q", line)
	return ""
}

// TestFromSocketIOHandlers: the old server of docs/from-socketio.md has its handlers called under another path. What they emit
// reaches the clients of both servers.
func TestFromSocketIOHandlers(t *testing.T) {
	python := caddytest.Python(t, "python3-flask-socketio python3-redis", "flask_socketio", "redis")
	port, queue := caddytest.FreePort(t), caddytest.FreeAddr(t)
	site := fromSocketIO(t, "handle_path /handlers/*", "127.0.0.1:"+port)
	s := caddytest.Start(t, "broadcast {\n\tredis listen "+queue+"\n}\n---\n"+site)
	caddytest.StartApp(t, python, "testdata/queue/handlers.py", port, "QUEUE=redis://"+queue)

	c, _ := dialNamespace(s, "/")
	do := func(method, path, body string) (int, string) {
		return s.Do(method, s.Addr+"/handlers"+path, body, "Content-Type", "text/plain;charset=UTF-8")
	}
	sid := openSession(t, do)
	answers := ""
	// The old server subscribes when it gets its first client, and does not say when it has done that.
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(answers, `42["orders",{"item":"tea"}]`); {
		if time.Now().After(deadline) {
			t.Fatal("it does not get what it has published")
		}
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

// TestFromSocketIOAuth: the app decides who connects, and who the user is, whatever the client says. Each user has a channel.
func TestFromSocketIOAuth(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := r.Cookie("user")
		if r.URL.Path != "/may-connect" || err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User", user.Value)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer app.Close()
	s := caddytest.Start(t, fromSocketIO(t, "forward_auth", app.Listener.Addr().String()))
	header := http.Header{"Cookie": {"user=ann"}, "X-User": {"ben"}}
	ann := openSocket(s, &websocket.DialOptions{HTTPHeader: header})
	enterNamespace(s, ann, "/")
	s.Publish("channel=user:ben&event=update", "1")
	s.Publish("channel=user:ann&event=update", "2")
	s.Expect(ann, `42["update","2"]`)
	s.Send(ann, `421["join","user:ben:mail"]`)
	s.Expect(ann, `431[{"error":{"code":"forbidden","message":"a room may not be joined on this route"}}]`)
	header.Del("Cookie")
	if _, resp, err := s.TryDial(socketIO, &websocket.DialOptions{HTTPHeader: header}); err == nil || resp == nil || resp.StatusCode != 401 {
		t.Error(resp, err)
	}
	if status, _ := s.Do("GET", s.Addr+polling, "", "X-User", "ann"); status != 401 {
		t.Error(status)
	}
}
