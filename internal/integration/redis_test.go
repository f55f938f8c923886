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

const redisSite = `broadcast /socket.io/* {
		socketio {
			namespaces /chat
		}
		join *
	}`

// startRedis runs Caddy with redis listen and these options of it.
func startRedis(t *testing.T, options string) (s *caddytest.Server, b *redisClient) {
	t.Helper()
	address := caddytest.FreeAddr(t)
	s = caddytest.Start(t, "broadcast {\nredis listen "+address+" {\n"+options+"\n}\n}\n---\n"+redisSite)
	return s, dialRedis(t, address)
}

// TestRedisEmit: an emit reaches whom it is for, once, with its arguments and attachments.
func TestRedisEmit(t *testing.T) {
	s, b := startRedis(t, "main default")
	one, first := dialNamespace(s, "/")
	two, second := dialNamespace(s, "/")
	chat, third := dialNamespace(s, "/chat")
	joinRoom(s, one, "a")
	joinRoom(s, one, "b")
	joinRoom(s, two, "b")
	everybody := []*websocket.Conn{one, two, chat}
	for _, row := range []struct {
		name, event, args, more string
		answer                  string
		want                    [3]string // what each gets, or empty
	}{
		{"all", "x", `1`, "", ":2", [3]string{`42["x",1]`, `42["x",1]`}},
		{"a room", "x", `"text"`, `, "room": "a"`, ":1", [3]string{`42["x","text"]`}},
		{"several rooms", "x", `1, [2], null`, `, "room": ["a", "b"]`, ":3", [3]string{`42["x",1, [2], null]`, `42["x",1, [2], null]`}},
		{"a client", "x", `null`, `, "room": "` + second + `"`, ":1", [3]string{"", `42["x"]`}},
		{"a client and a room", "x", `{}`, `, "room": ["` + first + `", "b"]`, ":3", [3]string{`42["x",{}]`, `42["x",{}]`}},
		{"except one", "x", `1`, `, "skip_sid": "` + first + `"`, ":2", [3]string{"", `42["x",1]`}},
		{"except all of them", "x", `1`, `, "room": "b", "skip_sid": ["` + first + `", "` + second + `"]`, ":2", [3]string{}},
		{"a namespace", "x", `1`, `, "namespace": "/chat"`, ":1", [3]string{"", "", `42/chat,["x",1]`}},
		{"a client there", "message", `1`, `, "namespace": "/chat", "room": "` + third + `"`, ":1", [3]string{"", "", `42/chat,["message",1]`}},
		{"an ack", "x", `1`, `, "callback": ["room", "/", 1]`, ":2", [3]string{`42["x",1]`, `42["x",1]`}},
		{"no such namespace", "x", `1`, `, "namespace": "/other"`, ":0", [3]string{}},
		{"no such room", "x", `1`, `, "room": "c"`, ":0", [3]string{}},
		{"a room of another namespace", "x", `1`, `, "room": "/chat"`, ":0", [3]string{}},
		{"a reserved event", "disconnect", `1`, "", ":0", [3]string{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, b := s.In(t), &redisClient{t, b.nc, b.in}
			b.emit(row.answer, row.event, row.args, row.more)
			b.emit(":2", "last", "0", "")
			b.emit(":1", "last", "0", `, "namespace": "/chat"`)
			for i, c := range everybody {
				if row.want[i] != "" {
					s.Expect(c, row.want[i])
				}
				s.Expect(c, []string{`42["last",0]`, `42["last",0]`, `42/chat,["last",0]`}[i])
			}
		})
	}
	s.ExpectMetrics(`redis_messages_total{result="namespace"} 1`)
	s.ExpectMetrics(`redis_messages_total{result="invalid"} 2`)
	s.ExpectMetrics("redis_connections 1")
}

// TestRedisForms: all forms of the queue come through one server, attachments too.
func TestRedisForms(t *testing.T) {
	s, b := startRedis(t, "channels socketio\nkey other")
	c, sid := dialNamespace(s, "/")
	raw := s.Dial("/socket.io/", nil)
	// pickle.dumps({'method': 'emit', 'event': 'p', 'data': (1, b'x'), 'namespace': '/', 'room': None}, protocol=4), by hand
	const pickle = "\x80\x04(\x8c\x06method\x8c\x04emit\x8c\x05event\x8c\x01p\x8c\x04dataK\x01C\x01x\x86\x8c\x09namespace\x8c\x01/\x8c\x04roomNd."
	b.expect(":2", "PUBLISH", "socketio", strings.Replace(strings.Replace(pickle, "\x80\x04(", "\x80\x04}(", 1), "Nd.", "Nu.", 1))
	s.Expect(c, `451-["p",1,{"_placeholder":true,"num":0}]`, "x")
	s.Expect(raw, `[1,"eA=="]`)
	b.expect(":2", "publish", "socketio", `{"method": "emit", "event": "b", "binary": true, "data": [[{"_placeholder": true, "num": 0}], "AAE="], "room": null, "namespace": "/"}`)
	s.Expect(c, `451-["b",{"_placeholder":true,"num":0}]`, "\x00\x01")
	if kind, p, err := raw.Read(t.Context()); kind != websocket.MessageBinary || string(p) != "\x00\x01" {
		t.Error(kind, p, err)
	}
	const msgpack = "\x93\xa7emitter\x83\xa4type\x02\xa4data\x92\xa1m\x01\xa3nsp\xa1/\x83\xa5rooms\x90\xa5flags\x80\xa6except\x91\xb4"
	b.expect(":2", "PUBLISH", "other#/#", msgpack+sid)
	s.Expect(raw, "1")
	b.expect(":0", "PUBLISH", "socket.io#/#", msgpack+sid) // the key is another one
	b.expect(":0", "PUBLISH", "flask-socketio", "{}")
	b.expect(":2", "PUBLISH", "/0.socketio", `{"body": "eyJtZXRob2QiOiJlbWl0IiwiZXZlbnQiOiJrIiwiZGF0YSI6MX0=", "content-encoding": "utf-8", "content-type": "text/plain", "properties": {"body_encoding": "base64"}}`)
	s.Expect(c, `42["k",1]`)
	s.Expect(raw, "1")
	s.ExpectMetrics(`redis_messages_total{result="channel"} 2`)
}

// TestRedisNoPickle: without pickle, what python-socketio before 5.14 sends is dropped, and people are told what to do.
func TestRedisNoPickle(t *testing.T) {
	s, b := startRedis(t, "pickle off")
	b.expect(":0", "PUBLISH", "socketio", "\x80\x04}.")
	s.ExpectMetrics(`redis_messages_total{result="invalid"} 1`)
	s.WaitLog("use python-socketio 5.14 or later")
}

// TestRedisRooms: backends have clients join and leave rooms, and disconnect them.
func TestRedisRooms(t *testing.T) {
	s, b := startRedis(t, "")
	c, sid := dialNamespace(s, "/")
	chat := enterNamespace(s, c, "/chat")
	other, _ := dialNamespace(s, "/")
	do := func(method, more string) {
		t.Helper()
		b.expect(":0", "PUBLISH", "socketio", `{"method": "`+method+`", "namespace": "/"`+more+`}`)
	}
	request := func(namespace, text string) {
		t.Helper()
		b.expect(":0", "PUBLISH", "socket.io-request#"+namespace+"#", text)
	}
	members := func(room, want string) {
		t.Helper()
		b.emit(want, "x", `1`, `, "room": "`+room+`"`)
	}
	do("enter_room", `, "sid": "`+sid+`", "room": "r"`)
	members("r", ":1")
	s.Expect(c, `42["x",1]`)
	do("leave_room", `, "sid": "`+sid+`", "room": "r"`)
	members("r", ":0")
	request("/", `{"uid": "u", "type": 2, "opts": {"rooms": [], "except": ["`+sid+`"]}, "rooms": ["r", 5]}`)
	members("r", ":1")
	members("5", ":1")
	s.Expect(other, `42["x",1]`, `42["x",1]`)
	request("/", `{"uid": "u", "type": 2, "opts": {"rooms": ["`+sid+`", "none"], "except": []}, "rooms": ["r"]}`)
	members("r", ":2")
	s.Expect(c, `42["x",1]`)
	s.Expect(other, `42["x",1]`)
	request("/", `{"uid": "u", "type": 3, "opts": {"rooms": ["5"], "except": []}, "rooms": ["r"]}`)
	members("r", ":1")
	s.Expect(c, `42["x",1]`)
	do("close_room", `, "room": "r"`)
	members("r", ":0")
	do("disconnect", `, "sid": "`+sid+`"`)
	s.Expect(c, "41")
	b.emit(":1", "y", `1`, `, "namespace": "/chat", "room": "`+chat+`"`)
	s.Expect(c, `42/chat,["y",1]`)
	request("/chat", `{"uid": "u", "type": 4, "opts": {"rooms": ["`+chat+`"], "except": []}, "close": true}`)
	s.Expect(c, "41", "41/chat,") // the first in case it is in / too
	s.ExpectClose(c, websocket.StatusPolicyViolation)
	do("callback", `, "id": 1, "args": []`)
	s.ExpectMetrics(`redis_messages_total{result="ignored"} 1`)
	var many strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&many, `"%d",`, i)
	}
	request("/", `{"uid": "u", "type": 2, "opts": {"rooms": [], "except": []}, "rooms": [`+strings.TrimSuffix(many.String(), ",")+`]}`)
	s.ExpectMetrics(`redis_messages_total{result="invalid"} 1`)
}

// TestRedisOtherNamespace: an ID is one of a namespace. In another one it is nobody's, and what a backend does with it is done to
// nobody.
func TestRedisOtherNamespace(t *testing.T) {
	s, b := startRedis(t, "")
	c, chat := dialNamespace(s, "/chat") // and not yet in the other one
	do := func(method, namespace, more string) {
		t.Helper()
		b.expect(":0", "PUBLISH", "socketio", `{"method": "`+method+`", "namespace": "`+namespace+`", "sid": "`+chat+`"`+more+`}`)
	}
	b.emit(":0", "x", "1", `, "room": "`+chat+`"`)
	b.emit(":0", "x", "1", `, "room": ["`+chat+`", "none"]`)
	main := enterNamespace(s, c, "/")
	b.emit(":0", "x", "1", `, "namespace": "/chat", "room": "`+main+`"`)
	b.emit(":1", "x", "2", `, "namespace": "/", "skip_sid": "`+chat+`"`)
	b.emit(":1", "x", "3", `, "namespace": "/chat", "skip_sid": "`+main+`"`)
	s.Expect(c, `42["x",2]`, `42/chat,["x",3]`)
	do("enter_room", "/", `, "room": "r"`)
	b.emit(":0", "x", "1", `, "room": "r"`)
	do("enter_room", "/chat", `, "room": "r"`)
	do("leave_room", "/", `, "room": "r"`)
	b.emit(":0", "x", "1", `, "room": "r"`)
	b.emit(":1", "x", "4", `, "namespace": "/chat", "room": "r"`)
	do("disconnect", "/", "")
	b.emit(":1", "x", "5", `, "namespace": "/chat", "room": "`+chat+`"`)
	s.Expect(c, `42/chat,["x",4]`, `42/chat,["x",5]`)
	do("disconnect", "/chat", "")
	b.emit(":1", "x", "6", `, "room": "`+main+`"`)
	s.Expect(c, "41/chat,", `42["x",6]`)
}

// TestRedisRefusals: people are told of what is dropped, also if the connection ends with it.
func TestRedisRefusals(t *testing.T) {
	s, b := startRedis(t, "")
	b.expect(":0", "PUBLISH", "one", "x")
	s.WaitLog(`"channel":"one"`)
	io.WriteString(b.nc, "*3\r\n$7\r\nPUBLISH\r\n$8\r\nsocketio\r\n$3000000\r\n{")
	if got := b.line(); got != "-ERR Protocol error: invalid bulk length" {
		t.Error(got)
	}
	s.WaitLog("it has 3000000 bytes, more than 2097152, and its connection was closed")
	s.ExpectMetrics(`redis_messages_total{result="invalid"} 1`)
}

// TestRedisPublish: any client of Redis publishes to the channels that the option allows, at any speed and in its order, and a
// wrong message does not take those with it that come at once.
func TestRedisPublish(t *testing.T) {
	s, b := startRedis(t, "publish room:* news")
	c, _ := dialNamespace(s, "/")
	joinRoom(s, c, "room:1")
	joinRoom(s, c, "news")
	b.expect(":1", "PUBLISH", "room:1", `{"a":1}`)
	b.expect(":1", "SPUBLISH", "news", "\xff")
	b.expect(":0", "PUBLISH", "default", "x")
	b.expect(":0", "PUBLISH", "room:2", "")
	s.Expect(c, `42["message","{\"a\":1}"]`, `451-["message",{"_placeholder":true,"num":0}]`, "\xff")
	const n = 2000
	var send strings.Builder
	for i := range n {
		send.WriteString(array("PUBLISH", "room:1", fmt.Sprint(i)))
		if i%10 == 0 {
			send.WriteString(array("PUBLISH", "room:"+strings.Repeat("x", 255), "too long a name"))
		}
	}
	go io.WriteString(b.nc, send.String())
	for i := range n {
		if got := b.line(); got != ":1" {
			t.Fatal(i, got)
		}
		if i%10 == 0 {
			if got := b.line(); got != ":0" {
				t.Fatal(i, got)
			}
		}
		s.Expect(c, fmt.Sprintf(`42["message","%d"]`, i))
	}
	s.ExpectMetrics(fmt.Sprintf(`redis_messages_total{result="invalid"} %d`, n/10))
	s.ExpectMetrics(`redis_messages_total{result="channel"} 1`)
	s.ExpectMetrics(fmt.Sprintf(`published_total{source="redis"} %d`, n+3))
}
