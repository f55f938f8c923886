package integration

import (
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

const (
	engine   = "/socket.io/?EIO=4&transport="
	polling  = engine + "polling"
	socketIO = engine + "websocket"
)

// beginSession begins a session of Engine.IO with the GET that is given, and returns what later queries have besides.
func beginSession(t testing.TB, get func() (int, string)) (sid string) {
	t.Helper()
	status, body := get()
	_, rest, ok := strings.Cut(body, `0{"sid":"`)
	if status != 200 || !ok {
		t.Fatal(status, body)
	}
	sid, _, _ = strings.Cut(rest, `"`)
	return "&sid=" + sid
}

// openSession begins a session by polling, and takes it into the main namespace. It returns the rest of the query.
func openSession(t testing.TB, do func(method, path, body string) (int, string)) (sid string) {
	t.Helper()
	sid = beginSession(t, func() (int, string) { return do("GET", polling, "") })
	if status, body := do("POST", polling+sid, "40"); status != 200 || !strings.EqualFold(body, "ok") { // python-engineio has capitals
		t.Fatal(status, body)
	}
	if status, body := do("GET", polling+sid, ""); status != 200 || !strings.HasPrefix(body, `40{"sid":"`) {
		t.Fatal(status, body)
	}
	return sid
}

// openSocket begins a session by WebSocket.
func openSocket(s *caddytest.Server, o *websocket.DialOptions) *websocket.Conn {
	s.T.Helper()
	c := s.Dial(socketIO, o)
	if _, p, err := c.Read(s.T.Context()); err != nil || !strings.HasPrefix(string(p), `0{"sid":"`) {
		s.T.Fatal(string(p), err)
	}
	return c
}

// dialNamespace begins a session by WebSocket in a namespace, and returns the ID of its socket.
func dialNamespace(s *caddytest.Server, namespace string) (c *websocket.Conn, sid string) {
	s.T.Helper()
	c = openSocket(s, nil)
	return c, enterNamespace(s, c, namespace)
}

// enterNamespace takes a client into a namespace, and returns the ID of its socket there.
func enterNamespace(s *caddytest.Server, c *websocket.Conn, namespace string) (sid string) {
	s.T.Helper()
	prefix := namespace + ","
	if namespace == "/" {
		prefix = ""
	}
	s.Send(c, "40"+prefix)
	_, p, err := c.Read(s.T.Context())
	rest, ok := strings.CutPrefix(string(p), "40"+prefix+`{"sid":"`)
	if err != nil || !ok {
		s.T.Fatal(string(p), err)
	}
	sid, _, _ = strings.Cut(rest, `"`)
	return sid
}

// joinRoom takes a client of Socket.IO into a room.
func joinRoom(s *caddytest.Server, c *websocket.Conn, room string) {
	s.T.Helper()
	s.Send(c, `421["join","`+room+`"]`)
	if _, p, err := c.Read(s.T.Context()); err != nil || !strings.HasPrefix(string(p), `431[{"id":`) {
		s.T.Fatal(string(p), err)
	}
}
