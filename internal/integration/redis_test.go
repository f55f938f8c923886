package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// redisClient is a client of the Redis protocol that shows every byte.
type redisClient struct {
	t  testing.TB
	nc net.Conn
	in *bufio.Reader
}

func dialRedis(t testing.TB, address string) *redisClient {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	var nc net.Conn
	err := caddytest.UntilAnswered(func() (err error) {
		nc, err = net.Dial(network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &redisClient{t, nc, bufio.NewReader(nc)}
}

// array returns a command as clients send it.
func array(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// do sends a command and reads its answer, which is one line.
func (c *redisClient) do(args ...string) (line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, array(args...)); err != nil {
		c.t.Fatal(err)
	}
	return c.line()
}

func (c *redisClient) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// expect sends a command and checks its answer.
func (c *redisClient) expect(want string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got != want {
		c.t.Fatalf("%.200q: %q, want %q", args, got, want)
	}
}

// emit publishes what python-socketio does since 5.15.1. more is other fields of the JSON.
func (c *redisClient) emit(want, event, args, more string) {
	c.t.Helper()
	c.expect(want, "PUBLISH", "flask-socketio", fmt.Sprintf(
		`{"method": "emit", "event": "%s", "data": [%s], "binary": false, "skip_sid": null, "callback": null%s}`, event, args, more))
}

// dialNamespace opens a session of Socket.IO in a namespace, and returns the ID of its socket.
func dialNamespace(s *caddytest.Server, namespace string) (c *websocket.Conn, sid string) {
	s.T.Helper()
	c = s.Dial(socketIO, nil)
	if _, p, err := c.Read(s.T.Context()); err != nil || !strings.HasPrefix(string(p), "0{") {
		s.T.Fatal(string(p), err)
	}
	return c, enterNamespace(s, c, namespace)
}

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

// TestRedisListen: Flask's emit meets the page with the one-line Caddyfile, and the clients of all other protocols.
func TestRedisListen(t *testing.T) {
	address := caddytest.FreeAddr(t)
	s := caddytest.Start(t, `
		broadcast {
			redis listen `+address+`
		}
		---
		broadcast /socket.io/* {
			socketio
		}`)
	page, _ := dialNamespace(s, "/")
	raw := s.Dial("/socket.io/", nil)
	v1 := s.Dial("/socket.io/", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	v1.Read(t.Context())
	b := dialRedis(t, address)
	b.emit(":3", "update", `{"a":1}`, "")
	s.Expect(page, `42["update",{"a":1}]`)
	s.Expect(raw, `{"a":1}`)
	_, p, err := v1.Read(t.Context())
	if err != nil || !strings.Contains(string(p), `"event":"update","data":{"a":1}`) {
		t.Error(string(p), err)
	}
}
