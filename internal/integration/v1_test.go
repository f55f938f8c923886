package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// v1Test is a server with routes for broadcast.v1, and what its clients have read.
type v1Test struct {
	*caddytest.Server
	ids map[string]int // IDs, numbered as they appear: the first is id0
}

func startV1(t *testing.T) v1Test {
	return v1Test{caddytest.Start(t, `broadcast {
			history 100
			max_channels 5
		}
		---
		broadcast /ws news {
			join room:* {query.me}:*
			user {query.me}
			greeting "not for these"
			max_message 1000
		}
		broadcast /read news {
			publish off
		}
		broadcast /quiet news {
			echo off
			join *
		}`), make(map[string]int)}
}

func (s v1Test) dial(path string) *websocket.Conn {
	s.T.Helper()
	return s.Dial(path, &websocket.DialOptions{Subprotocols: []string{"x", "broadcast.v1"}})
}

// read reads a frame, with IDs and the connection's number made alike.
func (s v1Test) read(c *websocket.Conn) string {
	s.T.Helper()
	_, p, err := c.Read(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	text := regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllStringFunc(string(p), func(id string) string {
		if _, ok := s.ids[id]; !ok {
			s.ids[id] = len(s.ids)
		}
		return fmt.Sprint("id", s.ids[id])
	})
	return regexp.MustCompile(`"connection":"c\d+"`).ReplaceAllString(text, `"connection":"c"`)
}

// talk sends a frame, unless it is empty, and reads frames, which must be these.
func (s v1Test) talk(c *websocket.Conn, send string, want ...string) {
	s.T.Helper()
	if send != "" {
		s.Send(c, send)
	}
	for _, w := range want {
		if got := s.read(c); got != w {
			s.T.Fatalf("after %s: got %s, not %s", send, got, w)
		}
	}
}

// ann opens a connection and reads the hello.
func (s v1Test) ann() *websocket.Conn {
	s.T.Helper()
	c := s.dial("/ws?me=ann")
	s.talk(c, "", v1Hello("id0", false))
	return c
}

// idOf is the ID with a number.
func (s v1Test) idOf(n int) string {
	for id, i := range s.ids {
		if i == n {
			return id
		}
	}
	return ""
}

func v1Hello(id string, resumed bool) string {
	return fmt.Sprintf(`[{"hello":{"connection":"c","channels":["news"],"id":"%s","resumed":%v,"heartbeat":25}}]`, id, resumed)
}

// TestV1 speaks broadcast.v1.
func TestV1(t *testing.T) {
	for _, sub := range []struct {
		name string
		test func(v1Test)
	}{
		{"publish", v1Test.testPublish},
		{"publish with a key", v1Test.testKey},
		{"join and leave", v1Test.testJoin},
		{"too many channels", v1Test.testChannelLimit},
		{"resume", v1Test.testResume},
		{"no echo", v1Test.testNoEcho},
		{"binary", v1Test.testBinary},
		{"raw client of the same route", v1Test.testRaw},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(startV1(t)) })
	}
}

func (s v1Test) testPublish() {
	c := s.ann()
	s.talk(c, `{"publish":{"data":{"a":[1,null]},"event":"e"},"ref":1}`,
		`[{"id":"id1","channel":"news","event":"e","data":{"a":[1,null]}}]`, `[{"ack":{"ref":1,"id":"id1"}}]`)
	s.talk(c, `{"publish":{"data":"text\n\"","channel":"news"}}`, `[{"id":"id2","channel":"news","data":"text\n\""}]`)
	s.talk(c, `{"publish":{"data":"AP8=","encoding":"base64"},"ref":"x"}`,
		`[{"id":"id3","channel":"news","data":"AP8=","encoding":"base64"}]`, `[{"ack":{"ref":"x","id":"id3"}}]`)
}

// testKey: three requests in a frame, of which the second repeats the first, and the third is another with its key.
func (s v1Test) testKey() {
	c := s.ann()
	s.talk(c, `{"join":{"channel":"room:7"},"ref":2}`, `[{"ack":{"ref":2,"channel":"room:7","id":"id0","resumed":false}}]`)
	s.talk(c, `[{"publish":{"channel":"room:7","data":1,"key":"k"},"ref":3}, {"publish":{"channel":"room:7","data":1,"key":"k"},"ref":4}, {"publish":{"channel":"room:7","data":2,"key":"k"},"ref":5}]`,
		`[{"id":"id1","channel":"room:7","data":1}]`,
		`[{"ack":{"ref":3,"id":"id1"}},{"ack":{"ref":4,"id":"id1"}},{"error":{"ref":5,"code":"conflict","message":"the idempotency key was used for another message"}}]`)
}

// testJoin: after a leave, nothing of the channel is delivered until the client joins again, from where it left.
func (s v1Test) testJoin() {
	c := s.ann()
	s.talk(c, `{"join":{"channel":"room:7"},"ref":2}`, `[{"ack":{"ref":2,"channel":"room:7","id":"id0","resumed":false}}]`)
	s.talk(c, `{"publish":{"channel":"room:7","data":1},"ref":3}`, `[{"id":"id1","channel":"room:7","data":1}]`, `[{"ack":{"ref":3,"id":"id1"}}]`)
	s.talk(c, `{"leave":{"channel":"room:7"},"ref":6}`, `[{"ack":{"ref":6}}]`)
	s.Publish("channel=room:7", "not for c")
	s.talk(c, `{"join":{"channel":"ann:x"}}`, `[{"ack":{"channel":"ann:x","id":"id2","resumed":false}}]`)
	s.Publish("channel=room:7", "nor this")
	s.talk(c, fmt.Sprintf(`{"join":{"channel":"room:7","last_id":"%s"}}`, s.idOf(1)),
		`[{"ack":{"channel":"room:7","id":"id1","resumed":true}},{"id":"id2","channel":"room:7","data":"not for c"},{"id":"id3","channel":"room:7","data":"nor this"}]`)
	s.talk(c, `{"leave":{"channel":"room:7"},"ref":7}`, `[{"ack":{"ref":7}}]`)
	s.talk(c, `{"join":{"channel":"room:7","last_id":"x"}}`,
		`[{"ack":{"channel":"room:7","id":"id3","resumed":false}},{"gap":{"channels":["room:7"],"id":"id3"}}]`)
}

// testChannelLimit: five channels, of which news is one.
func (s v1Test) testChannelLimit() {
	c := s.ann()
	for _, channel := range []string{"ann:x", "room:7", "room:8", "room:9"} {
		s.talk(c, `{"join":{"channel":"`+channel+`"}}`, `[{"ack":{"channel":"`+channel+`","id":"id0","resumed":false}}]`)
	}
	s.talk(c, `{"join":{"channel":"room:10"},"ref":8}`, `[{"error":{"ref":8,"code":"limit","message":"too many channels"}}]`)
}

// testResume: a reader that says what it had last gets the rest of its channels, or is told that there is a gap.
func (s v1Test) testResume() {
	c := s.ann()
	s.talk(c, `{"publish":{"data":"text"}}`, `[{"id":"id1","channel":"news","data":"text"}]`)
	s.talk(c, `{"publish":{"data":"AP8=","encoding":"base64"}}`, `[{"id":"id2","channel":"news","data":"AP8=","encoding":"base64"}]`)
	s.Publish("channel=room:7", "not for readers")
	reader := s.dial("/read?last_id=" + s.idOf(1))
	s.talk(reader, "", v1Hello("id1", true), `[{"id":"id2","channel":"news","data":"AP8=","encoding":"base64"}]`)
	s.talk(reader, `{"publish":{"data":1}}`, `[{"error":{"code":"forbidden","message":"publishing is off on this route"}}]`)
	lost := s.dial("/read?last_id=x-1")
	s.talk(lost, "", strings.TrimSuffix(v1Hello("id3", false), "]")+`,{"gap":{"channels":["news"],"id":"id3"}}]`)
	s.Publish("channel=news", "to all")
	for _, c := range []*websocket.Conn{c, reader, lost} {
		s.talk(c, "", `[{"id":"id4","channel":"news","data":"to all"}]`)
	}
}

// testNoEcho: who publishes where echo is off gets the ack only; all others get the message.
func (s v1Test) testNoEcho() {
	c := s.ann()
	reader := s.dial("/read")
	s.talk(reader, "", v1Hello("id0", false))
	quiet := s.dial("/quiet")
	s.talk(quiet, "", v1Hello("id0", false))
	s.talk(quiet, `{"publish":{"data":"mine"},"ref":1}`, `[{"ack":{"ref":1,"id":"id1"}}]`)
	for _, c := range []*websocket.Conn{c, reader} {
		s.talk(c, "", `[{"id":"id1","channel":"news","data":"mine"}]`)
	}
	s.Publish("channel=news", "to all")
	s.talk(quiet, "", `[{"id":"id2","channel":"news","data":"to all"}]`)
}

func (s v1Test) testBinary() {
	c := s.ann()
	if err := c.Write(s.T.Context(), websocket.MessageBinary, []byte("{}")); err != nil {
		s.T.Fatal(err)
	}
	s.ExpectClose(c, websocket.StatusUnsupportedData)
}

// testRaw: a raw client hears the same, and is not resumed: it could not be told of a gap.
func (s v1Test) testRaw() {
	c := s.ann()
	s.talk(c, `{"publish":{"data":"first"}}`, `[{"id":"id1","channel":"news","data":"first"}]`)
	s.talk(c, `{"publish":{"data":"second"}}`, `[{"id":"id2","channel":"news","data":"second"}]`)
	raw := s.Dial("/read?last_id="+s.idOf(1), nil)
	s.Publish("channel=news", "to all")
	s.Expect(raw, "to all")
	s.talk(c, "", `[{"id":"id3","channel":"news","data":"to all"}]`)
}

// TestV1Errors: what is wrong is answered with an error, and the connection stays.
func TestV1Errors(t *testing.T) {
	s := startV1(t)
	c := s.ann()
	for _, bad := range []struct{ name, send, code, message string }{
		{"not JSON", `{`, "invalid", ""},
		{"not JSON in a list", `[{]`, "invalid", ""},
		{"nothing", `{}`, "invalid", "a request must have exactly one of publish, join and leave"},
		{"two at once", `{"publish":{"data":1},"join":{"channel":"room:8"}}`, "invalid", "a request must have exactly one of publish, join and leave"},
		{"unknown field", `{"publish":{"data":1},"more":1}`, "invalid", `json: unknown field "more"`},
		{"no data", `{"publish":{}}`, "invalid", "the message has no data"},
		{"two values", `{"publish":{"data":1}} {}`, "invalid", "the request has more than one JSON value"},
		{"wrong ref", `{"publish":{"data":1},"ref":[]}`, "invalid", "ref must be a number or a string of at most 64 bytes"},
		{"control character", `{"publish":{"data":1,"event":"a\u0000"}}`, "invalid", "the event has a control character"},
		{"publish to a channel it is not on", `{"publish":{"data":1,"channel":"room:8"}}`, "forbidden", `the client is not on the channel "room:8"`},
		{"too big", `{"publish":{"data":"` + strings.Repeat("x", 1001) + `"}}`, "too_big", "the data has 1001 bytes, more than 1000"},
		{"join an empty channel", `{"join":{"channel":""}}`, "invalid", "the channel is empty"},
		{"join a forbidden channel", `{"join":{"channel":"other"}}`, "forbidden", `the channel "other" may not be joined on this route`},
		{"leave a channel it is not on", `{"leave":{"channel":"other"}}`, "invalid", `the channel "other": the connection is not on the channel`},
		{"too many requests in a frame", `[` + strings.Repeat(`{},`, 256) + `{}]`, "invalid", "the frame has more than 256 requests"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			s := v1Test{s.Server.In(t), s.ids}
			s.Send(c, bad.send)
			got := s.read(c)
			var v []struct {
				Error struct{ Code, Message string }
			}
			if err := json.Unmarshal([]byte(got), &v); err != nil || len(v) != 1 || v[0].Error.Code != bad.code || bad.message != "" && v[0].Error.Message != bad.message {
				t.Errorf("%.60s: %s", bad.send, got)
			}
		})
	}
	s.talk(c, `{"join":{"channel":"room:8"}}`, `[{"ack":{"channel":"room:8","id":"id0","resumed":false}}]`)
}

// v1Posts is a server for clients without a WebSocket, and the query of one of them, on which it names its channels.
type v1Posts struct {
	*caddytest.Server
	query string
}

func startV1Posts(t *testing.T) v1Posts {
	return v1Posts{caddytest.Start(t, `broadcast {
			history 10
		}
		---
		broadcast /ws news {
			join room:* user:{query.user}
			user {query.user}
			max_message 100
			rate 100/h 6
		}
		broadcast /read news {
			publish off
		}`), "?protocol=broadcast.v1&join=room:1&join=user:ann&join=news&join=secret&join=%00&user=ann"}
}

// expect: got is want, in which ID stands for any.
func (s v1Posts) expect(got, want string) {
	s.T.Helper()
	if !regexp.MustCompile("^(?:" + strings.ReplaceAll(regexp.QuoteMeta(want), "ID", `"[A-Z2-7]{8}-\d+"`) + ")$").MatchString(got) {
		s.T.Errorf("got %s, not %s", got, want)
	}
}

// stream opens an event stream and returns what reads its frames.
func (s v1Posts) stream() (frame func() string) {
	s.T.Helper()
	_, next := s.Stream("http://" + s.Addr + "/ws" + s.query)
	next()
	return func() string {
		_, frame, _ := strings.Cut(strings.TrimSpace(next()), "data: ")
		return frame
	}
}

// socket opens a WebSocket and returns what reads its frames.
func (s v1Posts) socket() (c *websocket.Conn, frame func() string) {
	s.T.Helper()
	c = s.Dial("/ws"+s.query, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	return c, func() string {
		_, p, err := c.Read(s.T.Context())
		if err != nil {
			s.T.Fatal(err)
		}
		return string(p)
	}
}

// post posts a frame and returns the answer.
func (s v1Posts) post(path, body string) string {
	s.T.Helper()
	status, answer := s.Post(s.Addr+path, "text/plain;charset=UTF-8", body)
	if status != 200 {
		s.T.Errorf("%s: %d %s", body, status, answer)
	}
	return answer
}

// TestV1WithoutWebSocket: broadcast.v1 as an event stream, and what its clients post; and channels that are joined with
// the handshake.
func TestV1WithoutWebSocket(t *testing.T) {
	t.Run("channels in the address", func(t *testing.T) {
		s := startV1Posts(t)
		hello := `[{"hello":{"connection":"c1","channels":["news","room:1","user:ann"],"id":ID,"resumed":false,"heartbeat":25}},` +
			`{"error":{"code":"forbidden","message":"the channel \"secret\" may not be joined on this route"}},` +
			`{"error":{"code":"invalid","message":"the channel has a control character"}}]`
		s.expect(s.stream()(), hello)
		_, frame := s.socket()
		s.expect(frame(), strings.Replace(hello, "c1", "c2", 1))
	})
	t.Run("publish", func(t *testing.T) { startV1Posts(t).testPublish() })
	t.Run("rate", func(t *testing.T) { startV1Posts(t).testRate() })
	t.Run("errors", testV1PostErrors)
}

func (s v1Posts) testPublish() {
	stream := s.stream()
	stream() // hello
	c, socket := s.socket()
	socket()
	s.expect(s.post("/ws"+s.query, `[{"publish":{"data":{"a": 1},"event":"e"},"ref":1},{"publish":{"channel":"room:7","data":"x","key":"k"},"ref":"r"}]`),
		`[{"ack":{"ref":1,"id":ID}},{"ack":{"ref":"r","id":ID}}]`)
	s.expect(stream(), `[{"id":ID,"channel":"news","event":"e","data":{"a": 1}}]`)
	s.Send(c, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":2}`)
	for _, read := range []func() string{stream, socket} {
		for all := ""; !strings.Contains(all, `"y"`); {
			all += read()
		}
	}
	s.expect(s.post("/ws"+s.query, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":3}`), `[{"ack":{"ref":3,"id":ID}}]`) // by the same user
	s.expect(s.post("/ws"+s.query, `{"publish":{"channel":"room:1","data":"z","key":"k"},"ref":3}`),
		`[{"error":{"ref":3,"code":"conflict","message":"the idempotency key was used for another message"}}]`)
	if v := s.Totals(); v.Messages != 3 {
		s.T.Errorf("%d messages were published, not 3", v.Messages)
	}
}

// testRate: each request counts, also one that is refused, and the seventh is too many. Those on a WebSocket count apart.
func (s v1Posts) testRate() {
	c, socket := s.socket()
	s.Send(c, `{"publish":{"channel":"room:1","data":"y"}}`)
	for all := ""; !strings.Contains(all, `"y"`); {
		all += socket()
	}
	for _, body := range []string{
		`[{"publish":{"data":1}},{"publish":{"channel":"room:7","data":"x","key":"k"}}]`,
		`{"publish":{"channel":"room:7","data":"x","key":"k"}}`,
		`{"publish":{"channel":"room:7","data":"z","key":"k"}}`,
		`{"join":{"channel":"room:1"}}`,
		`{"publish":{"channel":"secret","data":"z"}}`,
	} {
		if answer := s.post("/ws"+s.query, body); strings.Contains(answer, `"code":"rate"`) {
			s.T.Errorf("%s: %s", body, answer)
		}
	}
	s.expect(s.post("/ws"+s.query, `{"publish":{"data":"z"},"ref":6}`), `[{"error":{"ref":6,"code":"rate","message":"too many requests"}}]`)
	if v := s.Totals(); v.Messages != 3 {
		s.T.Errorf("%d messages were published, not 3", v.Messages)
	}
}

func testV1PostErrors(t *testing.T) {
	s := startV1Posts(t)
	for _, c := range []struct{ name, path, body, want string }{
		{"join", "/ws" + s.query, `{"join":{"channel":"room:1"},"ref":4}`,
			`[{"error":{"ref":4,"code":"invalid","message":"only a WebSocket can join and leave; name the channels with ?join= in the stream's address"}}]`},
		{"channel it is not on", "/ws" + s.query, `{"publish":{"channel":"secret","data":"z"},"ref":5}`,
			`[{"error":{"ref":5,"code":"forbidden","message":"the client is not on the channel \"secret\""}}]`},
		{"publishing off", "/read" + s.query, `{"publish":{"data":"z"},"ref":7}`,
			`[{"error":{"ref":7,"code":"forbidden","message":"publishing is off on this route"}}]`},
		{"too big", "/ws?protocol=broadcast.v1&user=ben", `{"publish":{"data":"` + strings.Repeat("x", 101) + `"},"ref":8}`,
			`[{"error":{"ref":8,"code":"too_big","message":"the data has 101 bytes, more than 100"}}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := v1Posts{s.Server.In(t), s.query}
			s.expect(s.post(c.path, c.body), c.want)
		})
	}
	t.Run("long body", func(t *testing.T) {
		if status, _ := s.Server.In(t).Post(s.Addr+"/ws"+s.query, "text/plain", strings.Repeat(" ", 5000)); status != 413 {
			t.Errorf("%d", status)
		}
	})
	t.Run("another site", func(t *testing.T) {
		if status, _ := s.Server.In(t).Do("POST", s.Addr+"/ws"+s.query, "{}", "Origin", "https://evil.example"); status != 403 {
			t.Errorf("%d", status)
		}
	})
	if v := s.Totals(); v.Messages != 0 {
		t.Errorf("%d messages were published", v.Messages)
	}
}
