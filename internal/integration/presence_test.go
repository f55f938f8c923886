package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// startPresence starts a server whose route /room has presence, and whose route /mute has the same channel and no presence.
func startPresence(t *testing.T) v1Test {
	return v1Test{caddytest.Start(t, "---\n"+`
		broadcast /room room {
			user {query.me}
			join side:*
			presence 0
			member `+"`"+`{"name": "{query.name}", "tags": [{"a": 1}]}`+"`"+`
		}
		broadcast /patient room {
			user {query.me}
			presence 1m
		}
		broadcast /away away {
			user {query.me}
			presence 1m
		}
		broadcast /header {query.room} {
			user {query.me}
			presence 0
			member {header.X-Member}
		}
		broadcast /socket.io/* room {
			user {query.me}
			presence 0
			socketio
		}
		broadcast /mute room`), make(map[string]int)}
}

// present returns the next frame with a presence.
func (s v1Test) present(c *websocket.Conn) string {
	s.T.Helper()
	for {
		if text := s.read(c); strings.HasPrefix(text, `[{"presence":`) {
			return strings.TrimSuffix(strings.TrimPrefix(text, `[{"presence":`), `}]`)
		}
	}
}

// until reads until all that a client was told amounts to a count, and returns the last of it. Changes may come together, or not.
func (s v1Test) until(c *websocket.Conn, count int) string {
	s.T.Helper()
	for {
		text := s.present(c)
		var p struct{ Count int }
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			s.T.Fatal(text, err)
		}
		if p.Count == count {
			return text
		}
	}
}

const annData = `{"name":"Ann","tags":[{"a":1}]}`

// TestPresence: members are told who is there, who comes, and who goes, in each protocol.
func TestPresence(t *testing.T) {
	s := startPresence(t)
	ann := s.dial("/room?me=ann&name=Ann")
	if got := s.present(ann); got != `{"channel":"room","count":1,"members":[{"user":"ann","data":`+annData+`}]}` {
		t.Fatal(got)
	}
	// What a client says of itself stays in the strings of the option.
	bob := s.dial("/patient?me=bob")
	if got := s.present(ann); got != `{"channel":"room","count":2,"joined":[{"user":"bob"}],"left":[]}` {
		t.Fatal(got)
	}
	if got := s.until(bob, 2); !strings.Contains(got, `{"user":"bob"}`) {
		t.Fatal(got)
	}
	_, next := s.Stream("http://"+s.Addr+"/room?me=eve&name=%22%2C%22admin%22%3A%22yes", "Accept", "text/event-stream")
	const eve = `{"user":"eve","data":{"name":"\",\"admin\":\"yes","tags":[{"a":1}]}}`
	if got := s.present(ann); got != `{"channel":"room","count":3,"joined":[`+eve+`],"left":[]}` {
		t.Fatal(got)
	}
	for event := ""; !strings.Contains(event, eve); event = next() {
		if strings.Contains(event, "event: presence") && !strings.Contains(event, "data: {") {
			t.Fatal(event)
		}
	}
	if _, body := s.Do("GET", s.Admin+"/broadcast/channels/room", ""); !strings.Contains(body, `"presence":{"channel":"room","count":3,"members":[{"user":"ann"`) {
		t.Error(body)
	}
	// Two connections are one member, and one without a user is only counted.
	s.dial("/room?me=ann&name=Ann")
	s.dial("/mute")
	s.Dial("/room", nil)
	if got := s.until(ann, 4); got != `{"channel":"room","count":4,"joined":[],"left":[]}` {
		t.Fatal(got)
	}
	// Dora's grace is as long as Bob's, but she is kicked.
	s.dial("/patient?me=dora")
	s.await(ann, `{"channel":"room","count":5,"joined":[{"user":"dora"}],"left":[]}`)
	s.Do("DELETE", s.Admin+"/broadcast/connections?user=dora", "")
	s.await(ann, `{"channel":"room","count":4,"joined":[],"left":[{"user":"dora"}]}`)
	// Bob never left.
	bob.CloseNow()
	s.dial("/patient?me=bob")
	s.dial("/room?me=dan&name=D")
	if got := s.present(ann); got != `{"channel":"room","count":5,"joined":[{"user":"dan","data":{"name":"D","tags":[{"a":1}]}}],"left":[]}` {
		t.Fatal(got)
	}
}

// await reads until the client was told something that begins like this.
func (s v1Test) await(c *websocket.Conn, want string) {
	s.T.Helper()
	for got := ""; !strings.HasPrefix(got, want); got = s.present(c) {
	}
}

// TestPresenceLeft: who goes is named, and channels that a client joins have their own members.
func TestPresenceLeft(t *testing.T) {
	s := startPresence(t)
	ann, bob := s.dial("/room?me=ann"), s.dial("/room?me=bob")
	s.await(ann, `{"channel":"room","count":2,`)
	s.Send(bob, `{"join":{"channel":"side:1"},"ref":1}`)
	s.await(bob, `{"channel":"side:1","count":1,"members":[{"user":"bob"`)
	s.Send(ann, `{"join":{"channel":"side:1"},"ref":1}`)
	s.await(bob, `{"channel":"side:1","count":2,"joined":[{"user":"ann"`)
	s.Send(ann, `{"leave":{"channel":"side:1"},"ref":2}`)
	s.await(bob, `{"channel":"side:1","count":1,"joined":[],"left":[{"user":"ann"}]}`)
	ann.Close(websocket.StatusNormalClosure, "")
	s.await(bob, `{"channel":"room","count":1,"joined":[],"left":[{"user":"ann"}]}`)
}

// TestPresenceStream: an event stream of broadcast.v1 has the same objects as a WebSocket.
func TestPresenceStream(t *testing.T) {
	s := startPresence(t)
	_, next := s.Stream("http://"+s.Addr+"/room?me=eve&protocol=broadcast.v1", "Accept", "text/event-stream")
	for event := ""; !strings.Contains(event, `[{"presence":{"channel":"room","count":1,"members":[{"user":"eve"`); event = next() {
	}
}

// TestPresenceSocketIO: a page of Socket.IO gets an event.
func TestPresenceSocketIO(t *testing.T) {
	s := startPresence(t)
	c := s.Dial(socketIO+"&me=sue", nil)
	s.Send(c, "40")
	for text := ""; text != `42["presence",{"channel":"room","count":1,"members":[{"user":"sue"}]}]`; {
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text = string(p)
	}
}

// TestMember: what an authentication server sends in a header is an object or a text, and nothing else.
func TestMember(t *testing.T) {
	s := startPresence(t)
	rooms := 0
	for header, want := range map[string]string{
		`{"a": [1]}`:         `,"data":{"a":[1]}`,
		`{"a": [1]`:          `,"data":"{\"a\": [1]"`,
		`12`:                 `,"data":"12"`,
		"":                   "",
		`["a"]`:              `,"data":["a"]`,
		`"quoted"`:           `,"data":"\"quoted\""`,
		`{"a":"\ud800"}`:     `,"data":"{\"a\":\"\\ud800\"}"`, // half of a pair, which some parsers refuse
		" " + `{"a":"\t"}  `: `,"data":{"a":"\t"}`,
	} {
		rooms++
		room := fmt.Sprint("r", rooms) // of its own, because the one before may still be there
		c := s.Dial("/header?me=u&room="+room, &websocket.DialOptions{
			Subprotocols: []string{"broadcast.v1"}, HTTPHeader: map[string][]string{"X-Member": {header}},
		})
		if got := s.present(c); got != `{"channel":"`+room+`","count":1,"members":[{"user":"u"`+want+`}]}` {
			t.Errorf("%s: %s", header, got)
		}
	}
	if status, body := s.Do("GET", s.Addr+"/header?me=u&room=r", "", "X-Member", strings.Repeat("x", 600), "Accept", "text/event-stream"); status != 400 {
		t.Error(status, body)
	}
}
