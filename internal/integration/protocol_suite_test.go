package integration

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// suite is a server with the settings that the official test suites of the protocols expect, as far as there are such: a second
// is the shortest ping interval here, and a server that has no handlers sends an event back by its own name.
type suite struct {
	*caddytest.Server
	path string
}

func newSuite(t *testing.T) suite {
	// The cases that are not about pings would fail on a machine that is too slow for quick ones.
	const route = `socketio {
			namespaces /custom
			greeting_event auth
		}
		greeting "{}"
		max_message 497952 # so that maxPayload is 1000000
	`
	return suite{caddytest.Start(t, "broadcast /socket.io/* {\n"+route+"}\nbroadcast /quick/* {\n"+route+"ping_interval 1s\n}"), "/socket.io/"}
}

// quick is the same with quick pings.
func (s suite) quick() suite { return suite{s.Server, "/quick/"} }

func (s suite) in(t *testing.T) suite { return suite{s.In(t), s.path} }

func (s suite) request(method, query, body string) (int, string) {
	s.T.Helper()
	return s.Do(method, s.Addr+s.path+"?"+query, body)
}

// open begins a session by polling.
func (s suite) open() (query string) {
	s.T.Helper()
	_, body := s.request("GET", "EIO=4&transport=polling", "")
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(body[1:]), &open); err != nil {
		s.T.Fatal(body, err)
	}
	return "EIO=4&transport=polling&sid=" + open.SID
}

// enter begins a session in the main namespace.
func (s suite) enter() (query string) {
	s.T.Helper()
	query = s.open()
	s.expect(200, "ok")(s.request("POST", query, "40"))
	s.request("GET", query, "")
	return query
}

// expect compares an answer. A body of "" is any.
func (s suite) expect(status int, body string) func(int, string) {
	return func(gotStatus int, got string) {
		s.T.Helper()
		if gotStatus != status || body != "" && got != body {
			s.T.Errorf("got %d %q, want %d %q", gotStatus, got, status, body)
		}
	}
}

// socket begins a session by WebSocket, and sends packets.
func (s suite) socket(packets ...string) *websocket.Conn {
	s.T.Helper()
	c := s.Dial(s.path+"?EIO=4&transport=websocket", nil)
	s.next(c)
	for _, p := range packets {
		s.Send(c, p)
	}
	return c
}

// next returns the next packet that is no ping.
func (s suite) next(c *websocket.Conn) string {
	s.T.Helper()
	for {
		_, p, err := c.Read(s.T.Context())
		if err != nil {
			s.T.Fatal(err)
		}
		if string(p) != "2" {
			return string(p)
		}
	}
}

// closed waits until a connection is closed.
func (s suite) closed(c *websocket.Conn) {
	s.T.Helper()
	for {
		if _, _, err := c.Read(s.T.Context()); err != nil {
			return
		}
	}
}

// connected is socket, in the main namespace and greeted.
func (s suite) connected() *websocket.Conn {
	s.T.Helper()
	c := s.socket("40")
	s.next(c)
	s.next(c)
	return c
}

// upgrade moves a session to a WebSocket.
func (s suite) upgrade(query string) *websocket.Conn {
	s.T.Helper()
	c := s.Dial(s.path+"?"+strings.Replace(query, "polling", "websocket", 1), nil)
	s.Send(c, "2probe")
	s.Expect(c, "3probe")
	s.Send(c, "5")
	return c
}

// TestEngineSuite follows the cases of the test suite of Engine.IO v4, in their order (socketio/socket.io,
// docs/engine.io-protocol/v4-test-suite). The messages are events, because nothing here echoes other ones.
func TestEngineSuite(t *testing.T) {
	s := newSuite(t)
	t.Run("handshake", func(t *testing.T) { s.in(t).handshake() })
	t.Run("message", func(t *testing.T) { s.in(t).message() })
	t.Run("heartbeat", func(t *testing.T) { s.in(t).quick().heartbeat() })
	t.Run("close", func(t *testing.T) {
		s := s.in(t)
		query, got := s.open(), make(chan string)
		go func() {
			_, body := s.request("GET", query, "")
			got <- body
		}()
		s.expect(200, "ok")(s.request("POST", query, "1"))
		// Whichever comes first.
		if body := <-got; body != "6" && !strings.Contains(body, `"code":1`) {
			t.Error(body)
		}
		s.expect(400, "")(s.request("GET", query, ""))
		s.closed(s.socket("1"))
	})
	t.Run("upgrade", func(t *testing.T) {
		s := s.in(t)
		query := s.enter()
		c := s.upgrade(query)
		s.Send(c, `42["hello"]`)
		if got := s.next(c); got != `42["hello"]` {
			t.Error(got)
		}
		s.expect(400, "")(s.request("GET", query, ""))
		if _, _, err := s.TryDial(s.path+"?"+strings.Replace(query, "polling", "websocket", 1), nil); err == nil {
			t.Error("it has moved twice")
		}
		s.Send(c, `42["still here"]`)
		if got := s.next(c); got != `42["still here"]` {
			t.Error(got)
		}
	})
}

func (s suite) handshake() {
	check := func(open, upgrades string) {
		s.T.Helper()
		var keys map[string]json.RawMessage
		if err := json.Unmarshal([]byte(open[1:]), &keys); err != nil || open[0] != '0' {
			s.T.Fatal(open, err)
		}
		if got := slices.Sorted(maps.Keys(keys)); !slices.Equal(got, []string{"maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"}) {
			s.T.Error(got)
		}
		if string(keys["upgrades"]) != upgrades || string(keys["maxPayload"]) != "1000000" || string(keys["pingInterval"]) != "25000" {
			s.T.Error(open)
		}
	}
	_, open := s.request("GET", "EIO=4&transport=polling", "")
	check(open, `["websocket"]`)
	_, p, _ := s.Dial(s.path+"?EIO=4&transport=websocket", nil).Read(s.T.Context())
	check(string(p), "[]")
	for _, query := range []string{"transport=polling", "EIO=abc&transport=polling", "EIO=4", "EIO=4&transport=abc"} {
		s.expect(400, "")(s.request("GET", query, ""))
		if _, _, err := s.TryDial(s.path+"?"+strings.Replace(query, "polling", "websocket", 1), nil); err == nil {
			s.T.Error(query, "has opened a WebSocket")
		}
	}
	for _, method := range []string{"POST", "PUT"} {
		s.expect(400, "")(s.request(method, "EIO=4&transport=polling", ""))
	}
}

func (s suite) message() {
	query := s.enter()
	for _, payload := range []string{
		`42["hello"]`, "42[\"1\"]\x1e42[\"2\"]\x1e42[\"3\"]", "42[\"x\"]\x1e451-[\"y\",{\"_placeholder\":true,\"num\":0}]\x1ebAQIDBA==",
	} {
		s.expect(200, "ok")(s.request("POST", query, payload))
		s.expect(200, payload)(s.request("GET", query, ""))
	}
	s.expect(400, "")(s.request("POST", query, "abc"))
	s.expect(400, "")(s.request("GET", query, ""))

	query = s.enter()
	type answer struct {
		status int
		body   string
	}
	answers := make(chan answer)
	for range 2 {
		go func() {
			status, body := s.request("GET", query, "")
			answers <- answer{status, body}
		}()
	}
	// Which of them comes second is told by its answer.
	a, b := <-answers, <-answers
	if a.status != 200 {
		a, b = b, a
	}
	if a.status != 200 || a.body != "1" || b.status != 400 {
		s.T.Error(a, b)
	}

	// That a GET which is given up ends the session is TestGetBreaks of package socketio.

	c := s.connected()
	s.Send(c, `42["hello"]`)
	if got := s.next(c); got != `42["hello"]` {
		s.T.Error(got)
	}
	s.Send(c, "abc")
	s.closed(c)
}

func (s suite) heartbeat() {
	query, silent := s.open(), s.open()
	mute := s.socket()
	c := s.socket()
	for range 3 {
		s.expect(200, "2")(s.request("GET", query, ""))
		s.expect(200, "ok")(s.request("POST", query, "3"))
		s.Expect(c, "2")
		s.Send(c, "3")
	}
	s.closed(mute)
	for {
		if status, _ := s.request("GET", silent, ""); status == 400 {
			return
		}
	}
}

// TestSocketIOSuite follows the cases of the test suite of Socket.IO v5, in their order (socketio/socket.io,
// docs/socket.io-protocol/v5-test-suite), after those of Engine.IO, which it has too.
func TestSocketIOSuite(t *testing.T) {
	s := newSuite(t)
	t.Run("connect", func(t *testing.T) {
		s := s.in(t)
		for packet, prefix := range map[string]string{"40": "", `40{"token":"123"}`: "", "40/custom,": "/custom,", `40/custom,{"token":"abc"}`: "/custom,"} {
			c := s.socket(packet)
			var keys map[string]string
			data, ok := strings.CutPrefix(s.next(c), "40"+prefix)
			if err := json.Unmarshal([]byte(data), &keys); !ok || err != nil || len(keys) != 1 || keys["sid"] == "" {
				t.Error(packet, data, err)
			}
			// The suite's server sends back what the client authenticates with. Nothing here looks at it.
			if got := s.next(c); got != "42"+prefix+`["auth",{}]` {
				t.Error(got)
			}
		}
		if got := s.next(s.socket("40/random")); got != `44/random,{"message":"Invalid namespace"}` {
			t.Error(got)
		}
		s.closed(s.socket("4abc"))
		// That a client which connects to no namespace is closed is the one that is mute in heartbeat.
	})
	t.Run("disconnect", func(t *testing.T) {
		s := s.in(t)
		c := s.quick().connected()
		s.Send(c, "41")
		s.Expect(c, "2") // it stays
		c = s.connected()
		s.Send(c, "40/custom")
		s.next(c)
		s.next(c)
		s.Send(c, "41/custom")
		s.Send(c, `42["message","to the main namespace"]`)
		if got := s.next(c); got != `42["message","to the main namespace"]` {
			t.Error(got)
		}
	})
	t.Run("message", func(t *testing.T) {
		s := s.in(t)
		c := s.connected()
		s.Send(c, `42["message",1,"2",{"3":[true]}]`)
		if got := s.next(c); got != `42["message",1,"2",{"3":[true]}]` {
			t.Error(got)
		}
		for _, id := range []string{"", "789"} {
			s.Send(c, `452-`+id+`["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
			c.Write(t.Context(), websocket.MessageBinary, []byte{1, 2, 3})
			c.Write(t.Context(), websocket.MessageBinary, []byte{4, 5, 6})
			for _, want := range []string{`452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "\x01\x02\x03", "\x04\x05\x06"} {
				if got := s.next(c); got != want {
					t.Errorf("%q", got)
				}
			}
		}
		// An ack has the message's ID, and not the arguments, which the suite's server sends back.
		if got := s.next(c); !strings.HasPrefix(got, `43789[{"id":"`) {
			t.Error(got)
		}
		s.Send(c, `42456["message",1,"2",{"3":[false]}]`)
		if got := s.next(c); got != `42["message",1,"2",{"3":[false]}]` {
			t.Error(got)
		}
		if got := s.next(c); !strings.HasPrefix(got, `43456[{"id":"`) {
			t.Error(got)
		}
		for _, wrong := range []string{"4abc", "42{}", `42abc["message",1,"2",{"3":[false]}]`} {
			c := s.connected()
			s.Send(c, wrong)
			s.closed(c)
		}
	})
}
