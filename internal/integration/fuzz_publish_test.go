package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// entry is a way to publish. It reports whether the publisher was told that the message is published; where it is told
// nothing, or the bytes may say anything, known is false.
type entry struct {
	name    string
	publish func(t *testing.T, m said) (published, known bool)
	sees    func(m *said) // what of the message it takes; nil is all
}

const fuzzConfig = `events {
			on fuzz broadcast {event.data.channel}
		}
		---
		broadcast /ws c {
			ping_interval 1h
			compression on 1
		}
		broadcast /pub c other {
			subscribe off
			ping_interval 1h
			compression on
			max_message 1MiB
		}`

// FuzzPublish: whatever is published by whatever way, each kind of client can read what it gets, with parsers that are
// not ours, and it is what was published; or the publisher is told that it is wrong, and nobody gets anything.
func FuzzPublish(f *testing.F) {
	s := caddytest.Start(f, fuzzConfig)
	clients := subscribers(f, s)
	ways := entries(f, s)
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == len(clients)+3 })
	addSeeds(f, len(ways))
	hub := broadcast.From(caddy.ActiveContext())
	n := 0
	f.Fuzz(func(t *testing.T, way, kind uint8, channel, event string, data []byte) {
		if channel == "" {
			channel = fuzzChannel // what no name means is another test's
		}
		e := ways[int(way)%len(ways)]
		m := said{channel, event, []string{"text", "binary", "JSON"}[kind%3], string(data)}
		published, known := e.publish(t, m)
		if e.sees != nil {
			e.sees(&m)
		}
		n++
		sentinel := fmt.Sprintf("sentinel %d %p", n, t)
		if _, err := hub.Publish(broadcast.Message{Channel: fuzzChannel, Data: []byte(sentinel)}); err != nil {
			t.Fatal(err)
		}
		got := make([][]said, len(clients))
		for i, c := range clients { // all of them, so that after a failure they are at the same place
			got[i] = c.until(t, sentinel)
		}
		all := got[len(got)-1]
		if known && !published && len(all) > 0 {
			t.Fatalf("%s: %q was refused, and yet there is %q", e.name, m, all)
		}
		if known && published && (len(all) != 1 || !same(all[0], m)) {
			t.Fatalf("%s: %q was published, and there is %q", e.name, m, all)
		}
		for i, c := range clients {
			if want := c.ofAll(all); !slices.EqualFunc(got[i], want, same) {
				t.Fatalf("%s: %s got %q, not %q", e.name, c.name, got[i], want)
			}
		}
	})
}

// ofAll is what a client is told of messages.
func (s *subscriber) ofAll(all []said) (want []said) {
	for _, m := range all {
		if s.all || m.channel == fuzzChannel {
			want = append(want, s.sees(m))
		}
	}
	return want
}

// addSeeds has each seed published in each way.
func addSeeds(f *testing.F, ways int) {
	seed := func(kind uint8, event string, data ...string) {
		for _, d := range data {
			for way := range ways {
				f.Add(uint8(way), kind, fuzzChannel, event, []byte(d))
			}
		}
	}
	seed(0, "update", "hello", "", "one\r\ntwo\rthree\n", "\x00\u2028\ufeff\U0001f600", "a\xff", "\xed\xa0\x80", "data: x\n\nid: 1\n", `"\`)
	seed(1, "", "\x00\xff\r\n", "")
	seed(2, "", `{"a":"`+"\xff"+`"}`, `{"a":`+"\r\n"+`[1,"\ud83d\ude00",1e-999]}`, `"\ud800"`, "[1e999]", strings.Repeat("[", 61)+strings.Repeat("]", 61), `"text"`, " 1 ", "nope")
	seed(0, "a\nb", "x")
	seed(0, "\xff", "x")
	for way := range ways { // for those that take the bytes as they are
		f.Add(uint8(way), uint8(0), "other", "\ud7ff", []byte(`[{"publish":{"data":{"a":"`+"\xff"+`"}},"ref":1},{"publish":{"data":"x","event":"\ud800"},"ref":"\udfff"},{}]`))
		f.Add(uint8(way), uint8(0), "d", "", append(maskedFrame(ws.OpText, "x\xff"), maskedFrame(ws.OpPing, "")...))
		f.Add(uint8(way), uint8(0), "\x00", "", []byte(`{"channel":"c","data":{"a":1}}`+"\n"+`{"channel":"c","data":"\ud83d"}`))
	}
}

// same reports whether two messages are the same, JSON by what it says: what ends a line in it may be any white space,
// and a string may be told as what it stands for.
func same(a, b said) bool {
	if a.event != b.event || a.channel != b.channel {
		return false
	}
	if a.data == b.data && a.kind == b.kind {
		return true
	}
	if a.kind == "binary" || b.kind == "binary" {
		return false
	}
	return slices.ContainsFunc(readings(a.data), func(s string) bool { return slices.Contains(readings(b.data), s) })
}

// readings returns text, and what it is as JSON.
func readings(data string) []string {
	all := []string{data}
	var b bytes.Buffer
	if json.Compact(&b, []byte(data)) == nil {
		all = append(all, b.String())
	}
	var text string
	if json.Unmarshal([]byte(data), &text) == nil {
		all = append(all, text)
	}
	return all
}

// fuzzWays are the ways to publish, and what they need.
type fuzzWays struct {
	s                 *caddytest.Server
	raw, deflated, v1 *publisher
}

// entries returns all ways to publish. Seeds and corpora name them by their place.
func entries(f *testing.F, s *caddytest.Server) []entry {
	w := fuzzWays{
		s:   s,
		raw: &publisher{s: s},
		deflated: &publisher{s: s, o: websocket.DialOptions{
			CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1,
		}},
		v1: &publisher{s: s, o: websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}}},
	}
	for _, p := range []*publisher{w.raw, w.deflated, w.v1} {
		p.dial(f)
	}
	return slices.Concat(w.onSockets(), w.byV1(), w.byPost(), w.byAdmin(), w.inCaddy(), w.anyFrames(), w.anyBodies())
}

// ask posts a body, and returns the answer, which is JSON, or lines of it, if it is good.
func ask(t *testing.T, url, contentType, body string) (status int, answer string) {
	resp, err := http.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil || !json.Valid(p) && len(p) > 0 && resp.StatusCode == 200 && !bytes.Contains(p, []byte("\n{")) {
		t.Fatalf("%q, %v", p, err)
	}
	return resp.StatusCode, string(p)
}

// What the answer to a POST, or one of broadcast.v1, says about whether the message is published.
func byStatus(status int, _ string) (published, known bool) { return status == 200, true }
func unknown(int, string) (published, known bool)           { return false, false }
func byAnswer(_ int, answer string) (published, known bool) {
	return strings.HasPrefix(answer, `[{"ack":`), answer != ""
}

func queryOf(m said) string {
	return "?" + url.Values{"channel": {m.channel}, "event": {m.event}}.Encode()
}

var typeOf = map[string]string{"text": "text/plain", "binary": "application/octet-stream", "JSON": "application/json"}

func (w fuzzWays) onSockets() []entry {
	by := func(p *publisher) func(t *testing.T, m said) (bool, bool) {
		return func(t *testing.T, m said) (bool, bool) {
			kind := websocket.MessageText
			if m.kind == "binary" {
				kind = websocket.MessageBinary
			}
			_, open := p.send(t, kind, m.data)
			return open, true
		}
	}
	likeText := func(m *said) {
		m.channel, m.event = fuzzChannel, ""
		if m.kind == "JSON" {
			m.kind = "text"
		}
	}
	return []entry{
		{name: "raw WebSocket", publish: by(w.raw), sees: likeText},
		{name: "raw WebSocket, deflated", publish: by(w.deflated), sees: likeText},
	}
}

func (w fuzzWays) byV1() []entry {
	return []entry{
		{name: "broadcast.v1", publish: func(t *testing.T, m said) (bool, bool) {
			answer, open := w.v1.send(t, websocket.MessageText, v1Publish(m))
			if !open {
				return false, true
			}
			return byAnswer(0, answer)
		}},
		{name: "broadcast.v1 by POST", publish: func(t *testing.T, m said) (bool, bool) {
			return byAnswer(ask(t, "http://"+w.s.Addr+"/pub?protocol=broadcast.v1", "text/plain", v1Publish(m)))
		}},
	}
}

func (w fuzzWays) byPost() []entry {
	post := func(t *testing.T, m said) (bool, bool) {
		m.channel = fuzzChannel
		return byStatus(ask(t, "http://"+w.s.Addr+"/pub"+queryOf(m), typeOf[m.kind], m.data))
	}
	form := func(t *testing.T, m said) (bool, bool) {
		form := url.Values{"channel": {fuzzChannel}, "event": {m.event}, "data": {m.data}}
		return byStatus(ask(t, "http://"+w.s.Addr+"/pub", "application/x-www-form-urlencoded", form.Encode()))
	}
	return []entry{
		{name: "POST", publish: post, sees: func(m *said) { m.channel = fuzzChannel }},
		{name: "form", publish: form, sees: func(m *said) { m.channel, m.kind = fuzzChannel, "text" }},
	}
}

func (w fuzzWays) byAdmin() []entry {
	return []entry{
		{name: "admin API", publish: func(t *testing.T, m said) (bool, bool) {
			return byStatus(ask(t, "http://"+w.s.Admin+"/broadcast/publish"+queryOf(m), typeOf[m.kind], m.data))
		}},
		{name: "NDJSON", publish: func(t *testing.T, m said) (bool, bool) {
			return byStatus(ask(t, "http://"+w.s.Admin+"/broadcast/publish", "application/x-ndjson", line(m)))
		}},
	}
}

func (w fuzzWays) inCaddy() []entry {
	hub := broadcast.From(caddy.ActiveContext())
	return []entry{
		{name: "Go API", publish: func(t *testing.T, m said) (bool, bool) {
			_, err := hub.Publish(broadcast.Message{Channel: m.channel, Event: m.event, Data: []byte(m.data), JSON: m.kind == "JSON", Binary: m.kind == "binary"})
			return err == nil, true
		}},
		{name: "Caddy's events", publish: func(t *testing.T, m said) (bool, bool) {
			app, err := caddy.ActiveContext().AppIfConfigured("events")
			if err != nil {
				t.Fatal(err)
			}
			app.(*caddyevents.App).Emit(caddy.ActiveContext(), "fuzz", map[string]any{"channel": m.channel, m.event: m.data})
			return false, false
		}},
	}
}

func (w fuzzWays) anyFrames() []entry {
	return []entry{
		{name: "any bytes to a WebSocket", publish: func(t *testing.T, m said) (bool, bool) {
			anyBytes(t, w.s, m.data)
			return false, false
		}},
		{name: "any frame of broadcast.v1", publish: func(t *testing.T, m said) (bool, bool) {
			w.v1.send(t, websocket.MessageText, m.data)
			return false, false
		}},
	}
}

func (w fuzzWays) anyBodies() []entry {
	body := func(url, contentType string) func(*testing.T, said) (bool, bool) {
		return func(t *testing.T, m said) (bool, bool) { return unknown(ask(t, "http://"+url, contentType, m.data)) }
	}
	return []entry{
		{name: "any frame of broadcast.v1 by POST", publish: body(w.s.Addr+"/pub?protocol=broadcast.v1", "text/plain")},
		{name: "any lines", publish: body(w.s.Admin+"/broadcast/publish", "application/x-ndjson")},
		{name: "any JSON", publish: body(w.s.Admin+"/broadcast/publish", "application/json")},
		{name: "any form", publish: body(w.s.Addr+"/pub?channel=c", "application/x-www-form-urlencoded")},
	}
}

// v1Publish is a request of broadcast.v1 with what the message has, byte by byte, right or wrong. JSON that is none, or
// that would end the request, is put where it can only be wrong.
func v1Publish(m said) string {
	return fmt.Sprintf(`{"publish":{"channel":%s,"event":%s,%s},"ref":1}`, quote(m.channel), quote(m.event), dataOf(m))
}

func line(m said) string {
	return fmt.Sprintf(`{"channel":%s,"event":%s,%s}`, quote(m.channel), quote(m.event), strings.NewReplacer("\r", " ", "\n", " ").Replace(dataOf(m)))
}

func dataOf(m said) string {
	switch {
	case m.kind == "binary":
		return `"encoding":"base64","data":"` + base64.StdEncoding.EncodeToString([]byte(m.data)) + `"`
	case m.kind == "text":
		return `"data":` + quote(m.data)
	case json.Valid([]byte(m.data)):
		return `"data":` + m.data
	}
	return `"data":]`
}

// quote makes a JSON string of any bytes.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + `"`
}

// publisher is a WebSocket that publishes, and is opened again when it was closed.
type publisher struct {
	s    *caddytest.Server
	o    websocket.DialOptions
	conn *websocket.Conn
	got  chan string // what it was sent; closed at its end
}

func (p *publisher) dial(t testing.TB) {
	o := p.o
	c, _, err := websocket.Dial(context.Background(), "ws://"+p.s.Addr+"/pub", &o)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	p.conn, p.got = c, make(chan string, 1000)
	go func(got chan<- string) {
		defer close(got)
		for {
			_, data, err := c.Read(context.Background())
			if err != nil {
				c.CloseNow()
				return
			}
			got <- string(data)
		}
	}(p.got)
	if len(p.o.Subprotocols) > 0 {
		<-p.got // the hello
	}
}

// send sends a message, and returns when it was taken, with the first answer if there was one, and whether the connection
// is still open.
func (p *publisher) send(t *testing.T, kind websocket.MessageType, data string) (answer string, open bool) {
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	err := p.conn.Write(ctx, kind, []byte(data))
	if err == nil {
		err = p.conn.Ping(ctx) // what was before it has been done when it is answered
	}
	if ctx.Err() != nil {
		t.Fatal("no answer to a ping")
	}
	if err != nil {
		p.conn.CloseNow()
		p.dial(t)
		return "", false
	}
	for {
		select {
		case a := <-p.got:
			if answer == "" {
				answer = a
			}
			continue
		default:
		}
		return answer, true
	}
}

// anyBytes sends bytes after a handshake, and returns when the server has taken them all.
func anyBytes(t *testing.T, s *caddytest.Server, data string) {
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(fuzzPatience))
	u := url.URL{Scheme: "ws", Host: s.Addr, Path: "/pub"}
	if _, _, err := (ws.Dialer{Extensions: nil}).Upgrade(c, &u); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, data)
	c.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
}

func maskedFrame(op ws.OpCode, payload string) []byte {
	p, err := ws.CompileFrame(ws.MaskFrame(ws.NewFrame(op, true, []byte(payload))))
	if err != nil {
		panic(err)
	}
	return p
}
