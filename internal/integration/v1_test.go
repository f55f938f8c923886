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

// TestV1 speaks broadcast.v1.
func TestV1(t *testing.T) {
	s := caddytest.Start(t, `broadcast {
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
		}`)
	dial := func(path string) *websocket.Conn {
		return s.Dial(path, &websocket.DialOptions{Subprotocols: []string{"x", "broadcast.v1"}})
	}
	// read reads a frame, with IDs and the connection's number made alike.
	ids := make(map[string]int)
	read := func(c *websocket.Conn) string {
		t.Helper()
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllStringFunc(string(p), func(id string) string {
			if _, ok := ids[id]; !ok {
				ids[id] = len(ids)
			}
			return fmt.Sprint("id", ids[id])
		})
		return regexp.MustCompile(`"connection":"c\d+"`).ReplaceAllString(text, `"connection":"c"`)
	}
	talk := func(c *websocket.Conn, send string, want ...string) {
		t.Helper()
		if send != "" {
			s.Send(c, send)
		}
		for _, w := range want {
			if got := read(c); got != w {
				t.Fatalf("after %s: got %s, not %s", send, got, w)
			}
		}
	}
	hello := func(id string, resumed bool) string {
		return fmt.Sprintf(`[{"hello":{"connection":"c","channels":["news"],"id":"%s","resumed":%v,"heartbeat":25}}]`, id, resumed)
	}
	c := dial("/ws?me=ann")
	talk(c, "", hello("id0", false))
	talk(c, `{"publish":{"data":{"a":[1,null]},"event":"e"},"ref":1}`,
		`[{"id":"id1","channel":"news","event":"e","data":{"a":[1,null]}}]`, `[{"ack":{"ref":1,"id":"id1"}}]`)
	talk(c, `{"publish":{"data":"text\n\"","channel":"news"}}`, `[{"id":"id2","channel":"news","data":"text\n\""}]`)
	talk(c, `{"publish":{"data":"AP8=","encoding":"base64"},"ref":"x"}`,
		`[{"id":"id3","channel":"news","data":"AP8=","encoding":"base64"}]`, `[{"ack":{"ref":"x","id":"id3"}}]`)
	talk(c, `{"join":{"channel":"room:7"},"ref":2}`, `[{"ack":{"ref":2,"channel":"room:7","id":"id3","resumed":false}}]`)
	talk(c, `[{"publish":{"channel":"room:7","data":1,"key":"k"},"ref":3}, {"publish":{"channel":"room:7","data":1,"key":"k"},"ref":4}, {"publish":{"channel":"room:7","data":2,"key":"k"},"ref":5}]`,
		`[{"id":"id4","channel":"room:7","data":1}]`,
		`[{"ack":{"ref":3,"id":"id4"}},{"ack":{"ref":4,"id":"id4"}},{"error":{"ref":5,"code":"conflict","message":"the idempotency key is that of another message"}}]`)
	talk(c, `{"leave":{"channel":"room:7"},"ref":6}`, `[{"ack":{"ref":6}}]`)
	s.Publish("channel=room:7", "not for c")
	talk(c, `{"join":{"channel":"ann:x"}}`, `[{"ack":{"channel":"ann:x","id":"id5","resumed":false}}]`)
	s.Publish("channel=room:7", "nor this")
	talk(c, fmt.Sprintf(`{"join":{"channel":"room:7","last_id":"%s"}}`, idOf(ids, 4)),
		`[{"ack":{"channel":"room:7","id":"id4","resumed":true}},{"id":"id5","channel":"room:7","data":"not for c"},{"id":"id6","channel":"room:7","data":"nor this"}]`)
	talk(c, `{"leave":{"channel":"room:7"},"ref":7}`, `[{"ack":{"ref":7}}]`)
	talk(c, `{"join":{"channel":"room:7","last_id":"x"}}`,
		`[{"ack":{"channel":"room:7","id":"id6","resumed":false}},{"gap":{"channels":["room:7"],"id":"id6"}}]`)

	for _, bad := range []struct{ send, code, message string }{
		{`{`, "invalid", ""},
		{`[{]`, "invalid", ""},
		{`{}`, "invalid", "a request is one of publish, join and leave"},
		{`{"publish":{"data":1},"join":{"channel":"room:8"}}`, "invalid", "a request is one of publish, join and leave"},
		{`{"publish":{"data":1},"more":1}`, "invalid", `json: unknown field "more"`},
		{`{"publish":{}}`, "invalid", "has no data"},
		{`{"publish":{"data":1}} {}`, "invalid", "more than one JSON value"},
		{`{"publish":{"data":1},"ref":[]}`, "invalid", "the ref is not a number or a string of 64 bytes at most"},
		{`{"publish":{"data":1,"event":"a\u0000"}}`, "invalid", "the event has a control character"},
		{`{"publish":{"data":1,"channel":"room:8"}}`, "forbidden", `the client is not on the channel "room:8"`},
		{`{"publish":{"data":"` + strings.Repeat("x", 1001) + `"}}`, "too_big", "the data has 1001 bytes, more than 1000"},
		{`{"join":{"channel":""}}`, "invalid", "the channel is empty"},
		{`{"join":{"channel":"other"}}`, "forbidden", `the channel "other" may not be joined on this route`},
		{`{"leave":{"channel":"other"}}`, "invalid", `the channel "other": the connection is not on the channel`},
		{`[` + strings.Repeat(`{},`, 256) + `{}]`, "invalid", "a frame of more than 256 requests"},
	} {
		s.Send(c, bad.send)
		got := read(c)
		var v []struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(got), &v); err != nil || len(v) != 1 || v[0].Error.Code != bad.code || bad.message != "" && v[0].Error.Message != bad.message {
			t.Errorf("%.60s: %s", bad.send, got)
		}
	}
	talk(c, `{"join":{"channel":"room:8"}}`, `[{"ack":{"channel":"room:8","id":"id6","resumed":false}}]`)
	talk(c, `{"join":{"channel":"room:9"}}`, `[{"ack":{"channel":"room:9","id":"id6","resumed":false}}]`)
	talk(c, `{"join":{"channel":"room:10"},"ref":8}`, `[{"error":{"ref":8,"code":"limit","message":"too many channels"}}]`)

	reader := dial("/read?last_id=" + idOf(ids, 2))
	talk(reader, "", hello("id2", true), `[{"id":"id3","channel":"news","data":"AP8=","encoding":"base64"}]`)
	talk(reader, `{"publish":{"data":1}}`, `[{"error":{"code":"forbidden","message":"publishing is off on this route"}}]`)
	lost := dial("/read?last_id=x-1")
	talk(lost, "", strings.TrimSuffix(hello("id6", false), "]")+`,{"gap":{"channels":["news"],"id":"id6"}}]`)

	quiet := dial("/quiet")
	talk(quiet, "", hello("id6", false))
	talk(quiet, `{"publish":{"data":"mine"},"ref":1}`, `[{"ack":{"ref":1,"id":"id7"}}]`)
	for _, c := range []*websocket.Conn{c, reader, lost} {
		talk(c, "", `[{"id":"id7","channel":"news","data":"mine"}]`)
	}
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.ExpectClose(c, websocket.StatusUnsupportedData)

	// A raw client of the same route hears the same, and is not resumed: it could not be told of a gap.
	raw := s.Dial("/read?last_id="+idOf(ids, 2), nil)
	s.Publish("channel=news", "to all")
	s.Expect(raw, "to all")
	talk(reader, "", `[{"id":"id8","channel":"news","data":"to all"}]`)
}

func idOf(ids map[string]int, n int) string {
	for id, i := range ids {
		if i == n {
			return id
		}
	}
	return ""
}

// TestV1WithoutWebSocket: broadcast.v1 as an event stream, and what its clients post; and channels that are joined with
// the handshake.
func TestV1WithoutWebSocket(t *testing.T) {
	s := caddytest.Start(t, `broadcast {
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
		}`)
	query := "?protocol=broadcast.v1&join=room:1&join=user:ann&join=news&join=secret&join=%00&user=ann"
	_, next := s.Stream("http://" + s.Addr + "/ws" + query)
	next()
	id := `"[A-Z2-7]{8}-\d+"`
	expect := func(got, want string) {
		t.Helper()
		if !regexp.MustCompile("^(?:" + strings.ReplaceAll(regexp.QuoteMeta(want), "ID", id) + ")$").MatchString(got) {
			t.Errorf("got %s, not %s", got, want)
		}
	}
	data := func() string {
		_, frame, _ := strings.Cut(strings.TrimSpace(next()), "data: ")
		return frame
	}
	hello := `[{"hello":{"connection":"c1","channels":["news","room:1","user:ann"],"id":ID,"resumed":false,"heartbeat":25}},` +
		`{"error":{"code":"forbidden","message":"the channel \"secret\" may not be joined on this route"}},` +
		`{"error":{"code":"invalid","message":"the channel has a control character"}}]`
	expect(data(), hello)
	c := s.Dial("/ws"+query, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, frame, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expect(string(frame), strings.Replace(hello, "c1", "c2", 1))

	post := func(path, body, want string) {
		t.Helper()
		status, answer := s.Post(s.Addr+path, "text/plain;charset=UTF-8", body)
		if status != 200 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
		expect(answer, want)
	}
	post("/ws"+query, `[{"publish":{"data":{"a": 1},"event":"e"},"ref":1},{"publish":{"channel":"room:7","data":"x","key":"k"},"ref":"r"}]`,
		`[{"ack":{"ref":1,"id":ID}},{"ack":{"ref":"r","id":ID}}]`)
	expect(data(), `[{"id":ID,"channel":"news","event":"e","data":{"a": 1}}]`)
	s.Send(c, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":2}`)
	for _, read := range []func() string{data, func() string { _, p, _ := c.Read(t.Context()); return string(p) }} {
		for all := ""; !strings.Contains(all, `"y"`); {
			all += read()
		}
	}
	post("/ws"+query, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":3}`, `[{"ack":{"ref":3,"id":ID}}]`) // by the same user
	post("/ws"+query, `{"publish":{"channel":"room:1","data":"z","key":"k"},"ref":3}`,
		`[{"error":{"ref":3,"code":"conflict","message":"the idempotency key is that of another message"}}]`)
	post("/ws"+query, `{"join":{"channel":"room:1"},"ref":4}`,
		`[{"error":{"ref":4,"code":"invalid","message":"only a WebSocket can join and leave; name the channels with ?join= in the stream's address"}}]`)
	post("/ws"+query, `{"publish":{"channel":"secret","data":"z"},"ref":5}`,
		`[{"error":{"ref":5,"code":"forbidden","message":"the client is not on the channel \"secret\""}}]`)
	post("/ws"+query, `{"publish":{"data":"z"},"ref":6}`, `[{"error":{"ref":6,"code":"rate","message":"too many requests"}}]`)
	post("/read"+query, `{"publish":{"data":"z"},"ref":7}`, `[{"error":{"ref":7,"code":"forbidden","message":"publishing is off on this route"}}]`)
	post("/ws?protocol=broadcast.v1&user=ben", `{"publish":{"data":"`+strings.Repeat("x", 101)+`"},"ref":8}`,
		`[{"error":{"ref":8,"code":"too_big","message":"the data has 101 bytes, more than 100"}}]`)
	if status, _ := s.Post(s.Addr+"/ws"+query, "text/plain", strings.Repeat(" ", 5000)); status != 413 {
		t.Errorf("a long body: %d", status)
	}
	if status, _ := s.Do("POST", s.Addr+"/ws"+query, "{}", "Origin", "https://evil.example"); status != 403 {
		t.Errorf("from another page: %d", status)
	}
	if v := s.Totals(); v.Messages != 3 {
		t.Errorf("%d messages were published, not 3", v.Messages)
	}
}
