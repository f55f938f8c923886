package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestSlowConflate: a client that does not read while far more comes than its backlog may have stays connected, and gets the
// newest message of each conflate key, and every message without one, in order.
func TestSlowConflate(t *testing.T) {
	const route = `broadcast /ws table {
		slow conflate
		max_backlog 1MiB
	}`
	s, port := startSecure(t, route, route)
	secure, _, err := websocket.Dial(t.Context(), "wss://localhost:"+port+"/ws", &websocket.DialOptions{HTTPClient: insecure()})
	if err != nil {
		t.Fatal(err)
	}
	secure.SetReadLimit(-1)
	defer secure.CloseNow()
	plain := s.Dial("/ws", nil)
	const n = 120 // times 256 KiB is more than sockets and a backlog take
	filler := strings.Repeat("x", 256<<10)
	for i := range n {
		if i%40 == 0 {
			s.Publish("channel=table", fmt.Sprint("plain ", i))
		}
		s.Publish(fmt.Sprint("channel=table&conflate=row:", i%2), fmt.Sprint(i, " ", filler))
	}
	s.Publish("channel=table", "end")
	for name, c := range map[string]*websocket.Conn{"plain": plain, "secure": secure} {
		last, messages, others := -1, 0, ""
		for {
			_, p, err := c.Read(t.Context())
			if err != nil {
				t.Fatal(name, err)
			}
			text, _, long := strings.Cut(string(p), " x")
			if !long {
				others += text + ";"
				if text == "end" {
					break
				}
				continue
			}
			var i int
			fmt.Sscan(text, &i)
			if i <= last {
				t.Errorf("%s: %d comes after %d", name, i, last)
			}
			last = i
			if messages++; i == n-2 {
				others += "newest of row:0;"
			}
		}
		if want := "plain 0;plain 40;plain 80;newest of row:0;end;"; last != n-1 || others != want || messages == n {
			t.Errorf("%s: %d messages, the last is %d; and %q", name, messages, last, others)
		}
	}
}

// TestDeliverEveryEnds: what waits for the next delivery comes before whatever ends it: a backend unsubscribes the client or closes its
// connection, its access expires, or the server stops. After it nothing comes.
func TestDeliverEveryEnds(t *testing.T) {
	s := v1Test{caddytest.Start(t, `broadcast /ws table {
		deliver_every 10s
		user {query.me}
	}
	broadcast /expires table {
		deliver_every 10s
		expires {query.until}
	}`), make(map[string]int)}
	end := func(path string, how func()) *websocket.Conn {
		t.Helper()
		c := s.dial(path)
		s.read(c) // hello
		for i := range 4 {
			s.Publish("channel=table&conflate=row:1", fmt.Sprint("price ", i))
		}
		s.Publish("channel=table", "plain")
		how()
		if got := s.read(c); strings.Count(got, `"data"`) != 2 || !strings.Contains(got, `"price 3"`) || !strings.Contains(got, `"plain"`) {
			t.Errorf("%s", got)
		}
		return c
	}
	do := func(method, path, body string) func() {
		return func() {
			if status, answer := s.Do(method, s.Admin+path, body); status != 200 {
				t.Errorf("%s %s: %d %s", method, path, status, answer)
			}
		}
	}
	closed := func(c *websocket.Conn, code websocket.StatusCode) {
		t.Helper()
		if _, p, err := c.Read(t.Context()); websocket.CloseStatus(err) != code {
			t.Errorf("%s, %v", p, err)
		}
	}
	c := end("/ws?me=ann", do("DELETE", "/broadcast/subscriptions", `{"user":"ann","channel":"table"}`))
	if got := s.read(c); got != `[{"unsubscribed":{"channel":"table"}}]` {
		t.Error(got)
	}
	s.Publish("channel=table", "too late")
	do("DELETE", "/broadcast/connections?user=ann&code=4403", "")()
	closed(c, 4403)
	c = end("/ws?me=ann", do("DELETE", "/broadcast/connections?user=ann&code=4404", ""))
	closed(c, 4404)
	c = end(fmt.Sprint("/expires?until=", time.Now().Unix()+2), func() {})
	closed(c, 4401)
	stopped := make(chan error)
	c = end("/ws?me=ann", func() { go func() { stopped <- caddy.Stop() }() })
	closed(c, 1012)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestDeliverEverySocketIO: clients of Socket.IO get what waits as one answer to a poll, or as packets one after the other, with the
// newest message of each conflate key, and an emit to some of them comes after what was published before it.
func TestDeliverEverySocketIO(t *testing.T) {
	s := caddytest.Start(t, `broadcast /socket.io/* page {
		socketio
		deliver_every 300ms
	}`)
	sid := openSession(t, func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) })
	c, _ := dialNamespace(s, "/")
	var lines strings.Builder
	for i := range 100 {
		fmt.Fprintf(&lines, `{"channel":"page","event":"e","conflate":"row:%d","data":%d}`+"\n", i%2, i)
	}
	lines.WriteString(`{"channel":"page","event":"e","data":"plain"}`)
	if status, body := s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", lines.String()); status != 200 {
		t.Fatal(status, body)
	}
	want := []string{`42["e",98]`, `42["e",99]`, `42["e","plain"]`}
	if status, body := s.Do("GET", s.Addr+polling+sid, ""); status != 200 || body != strings.Join(want, "\x1e") {
		t.Errorf("%d %q", status, body)
	}
	s.Expect(c, want...)
}

// TestConflatedHistory: the history has the newest message of each conflate key, and so a client that comes or resumes gets it once,
// with no gap.
func TestConflatedHistory(t *testing.T) {
	s := v1Test{caddytest.Start(t, "broadcast {\nhistory 3\n}\n---\nbroadcast /ws table\nbroadcast /replay table {\nreplay 10\n}"), make(map[string]int)}
	first := s.Publish("channel=table", "first")
	for i := range 100 {
		s.Publish(fmt.Sprint("channel=table&conflate=row:", i%2), fmt.Sprint(i))
	}
	s.Expect(s.Dial("/replay", nil), "first", "98", "99")
	c := s.dial("/ws?last_id=" + first)
	_, p, err := c.Read(t.Context())
	if err != nil || !strings.Contains(string(p), `"resumed":true`) {
		t.Fatalf("%s, %v", p, err)
	}
	got := string(p)
	for !strings.Contains(got, `"99"`) {
		if _, p, err = c.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		got += string(p)
	}
	if strings.Count(got, `"data"`) != 2 || !strings.Contains(got, `"98"`) || strings.Contains(got, "gap") {
		t.Error(got)
	}
}

// TestDeliverEvery: what is published meanwhile is one frame, with the newest message of each conflate key. An answer does not wait.
func TestDeliverEvery(t *testing.T) {
	s := v1Test{caddytest.Start(t, "broadcast /ws table {\ndeliver_every 300ms\n}"), make(map[string]int)}
	c := s.dial("/ws")
	s.read(c) // hello
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, `{"channel":"table","conflate":"row:%d","data":%d}`+"\n", i%2, i)
	}
	if status, body := s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", lines.String()); status != 200 {
		t.Fatal(status, body)
	}
	_, p, err := c.Read(t.Context())
	if err != nil || strings.Count(string(p), `"data"`) != 2 || !strings.Contains(string(p), `"data":998}`) || !strings.Contains(string(p), `"data":999}`) {
		t.Errorf("%s, %v", p, err)
	}
	s.Send(c, `{"publish":{"data":"mine","conflate":"row:0"},"ref":1}`)
	if got := s.read(c); !strings.Contains(got, "ack") {
		t.Error("the answer waited: ", got)
	}
	if got := s.read(c); !strings.Contains(got, "mine") {
		t.Error(got)
	}
	s.Send(c, `{"publish":{"data":"mine","conflate":"bad\u0000key"},"ref":1}`)
	if got := s.read(c); !strings.Contains(got, `"code":"invalid"`) || !strings.Contains(got, "conflate key") {
		t.Error(got)
	}
}
