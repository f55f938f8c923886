package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

const optionSite = `broadcast /read {
			publish off
		}
		broadcast /write {
			subscribe off
			greeting "you may write"
		}
		broadcast /quiet {
			echo off
			max_message 100B
			user {query.name}
			greeting "hello {query.greet} on {http.request.uri.path}"
		}
		broadcast /post {
			transports post
		}
		broadcast /socket {
			transports websocket
			origins https://app.example.com
		}
		broadcast /room/* news {path.1}
		broadcast /query {query.q}
		respond "next"`

// TestOptions: what a route's options do to WebSockets, to POSTs, and to handshakes.
func TestOptions(t *testing.T) {
	s := caddytest.Start(t, optionSite)
	t.Run("who may publish and who hears it", func(t *testing.T) { testPublishers(s.In(t)) })

	room := s.Dial("/room/7", nil)
	s.Send(room, "on the first channel")
	s.Expect(room, "on the first channel")
	for _, p := range optionPosts(s.Addr) {
		t.Run(p.name, func(t *testing.T) { testOptionPost(s.In(t), p, room) })
	}
	t.Run("post with a key", func(t *testing.T) { testPostWithKey(s.In(t), room) })

	for _, h := range []struct {
		name, path, origin string
		status             int
	}{
		{"handshake from a listed site", "/socket", "https://app.example.com", 101},
		{"handshake from another site", "/socket", "https://evil.example", 403},
		{"handshake from its own page", "/socket", "http://" + s.Addr, 101},
		{"handshake without a query", "/query", "", 400},
		{"handshake where it is off", "/post", "", 200},
	} {
		t.Run(h.name, func(t *testing.T) {
			o := &websocket.DialOptions{HTTPHeader: http.Header{}}
			if h.origin != "" {
				o.HTTPHeader.Set("Origin", h.origin)
			}
			conn, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+h.path, o)
			if resp == nil || resp.StatusCode != h.status {
				t.Errorf("%v %v, not %d", resp, err, h.status)
			}
			if conn != nil {
				conn.CloseNow()
			}
		})
	}
}

// testPublishers: publish, subscribe, echo, greeting and max_message.
func testPublishers(s *caddytest.Server) {
	read, write, quiet := s.Dial("/read", nil), s.Dial("/write", nil), s.Dial("/quiet?name=Ann&greet=Ann%ff", nil)
	s.Expect(write, "you may write")
	s.Expect(quiet, "hello Ann\uFFFD on /quiet")
	other := s.Dial("/quiet", nil)
	s.Expect(other, "hello  on /quiet")

	s.Send(quiet, "one")
	s.Expect(read, "one")
	s.Send(write, "two")
	s.Expect(read, "two")
	s.Expect(quiet, "two")
	s.Expect(other, "one", "two")
	s.Send(read, "I may not")
	s.ExpectClose(read, websocket.StatusPolicyViolation)
	s.Send(quiet, strings.Repeat("x", 100))
	s.Expect(other, strings.Repeat("x", 100))
	s.Send(quiet, strings.Repeat("x", 101))
	s.ExpectClose(quiet, websocket.StatusMessageTooBig)
}

// optionPost is a POST, and its answer, in which * stands for an ID, or for any reason.
type optionPost struct {
	name, path, body, header string
	status                   int
	answer                   string
	heard                    string // by a subscriber of /room/7
}

func optionPosts(addr string) []optionPost {
	long := strings.Repeat("x", 255)
	return []optionPost{
		{"post where publishing is off", "/read", "x", "", 403, "publishing is off on this route", ""},
		{"post too large", "/quiet", strings.Repeat("x", 101), "", 413, "the body is larger than 100 bytes", ""},
		{"post not UTF-8", "/quiet", "\xff", "", 400, "*", ""},
		{"post binary", "/quiet", "\xff", "Content-Type: application/octet-stream", 200, `{"id":"*-*"}`, ""},
		{"post with a wrong content type", "/quiet", "x", "Content-Type: a b", 400, "*", ""},
		{"post with a long key", "/quiet", "x", "Idempotency-Key: " + long + "x", 400, "*", ""},
		{"post a form to a wrong channel", "/room/7", "data=x&channel=8", "Content-Type: application/x-www-form-urlencoded", 403, `"8" is not a channel of this route`, ""},
		{"post a form", "/room/7", "data=to%207%0aby+form&channel=7&event=e", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`, "to 7\nby form"},
		{"post what is no form", "/room/7", "no data=field", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`, "no data=field"},
		{"post with a wrong event", "/quiet?event=a%0ab", "x", "", 400, "*", ""},
		{"post from another site", "/quiet", "x", "Origin: https://evil.example", 403, "*", ""},
		{"post from its own page", "/quiet", "x", "Origin: http://" + addr, 200, `{"id":"*-*"}`, ""},
		{"post where it is off", "/socket", "x", "", 200, "next", ""},
		{"post where nothing else is on", "/post", "x", "", 200, `{"id":"*-*"}`, ""},
		{"post to the second channel", "/room/7?channel=7", "to 7", "", 200, `{"id":"*-*"}`, "to 7"},
		{"post to the first channel", "/room/7?channel=news", "to news", "", 200, `{"id":"*-*"}`, "to news"},
		{"post to a wrong channel", "/room/7?channel=8", "to 8", "", 403, `"8" is not a channel of this route`, ""},
		{"post to an empty channel", "/room/", "x", "", 400, `the channel "{http.request.uri.path.1}" is empty`, ""},
		{"post without a query", "/query", "x", "", 400, "*", ""},
		{"post to a channel of 255 bytes", "/query?q=" + long, "x", "", 200, `{"id":"*-*"}`, ""},
		{"post to a channel of 256 bytes", "/query?q=" + long + "x", "x", "", 400, "*", ""},
		{"post to a channel that is not UTF-8", "/query?q=%ff", "x", "", 400, "*", ""},
		{"post to a channel with a control character", "/query?q=a%00", "x", "", 400, "*", ""},
	}
}

func testOptionPost(s *caddytest.Server, p optionPost, room *websocket.Conn) {
	name, value, _ := strings.Cut(p.header, ": ")
	var header []string
	if name != "" {
		header = []string{name, value}
	}
	status, answer := s.Do("POST", s.Addr+p.path, p.body, header...)
	answer = regexp.MustCompile(`"\w+-\d+"`).ReplaceAllString(strings.TrimSpace(answer), `"*-*"`)
	if p.answer == "*" && answer != "" { // some reason
		answer = p.answer
	}
	if status != p.status || answer != p.answer {
		s.T.Errorf("POST %.40s %s: %d %q, not %d %q", p.path, p.header, status, answer, p.status, p.answer)
	}
	if p.heard != "" {
		s.Expect(room, p.heard)
	}
}

// testPostWithKey: a key counts once per client and channel, and only for one message.
func testPostWithKey(s *caddytest.Server, room *websocket.Conn) {
	_, first := s.Post(s.Addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	_, second := s.Post(s.Addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	if status, answer := s.Post(s.Addr+"/room/7", "text/plain", "once more", "Idempotency-Key", "k"); status != 422 {
		s.T.Errorf("another message with the key: %d %s", status, answer)
	}
	if _, admin := s.Post(s.Admin+"/broadcast/publish?channel=news", "text/plain", "by admin", "Idempotency-Key", "k"); admin == first {
		s.T.Error("the admin API shares the clients' keys")
	}
	_, other7 := s.Post(s.Addr+"/room/7?channel=7", "text/plain", "another", "Idempotency-Key", "k")
	if first != second || first == other7 {
		s.T.Errorf("with a key: %s, then %s, on another channel %s", first, second, other7)
	}
	s.Expect(room, "once", "by admin", "another")
}

// TestWarnings: what is rarely meant is said in the log, once.
func TestWarnings(t *testing.T) {
	s := &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t), Log: filepath.Join(t.TempDir(), "log")}
	_, port, _ := net.SplitHostPort(s.Admin)
	s.Admin = "0.0.0.0:" + port
	round := warnings.Add(1)
	t.Cleanup(func() { caddy.Stop() })
	for i := range 3 {
		if err := s.Load(fmt.Sprintf(`broadcast /ws warned:%d {
				origins *
			}
			broadcast /read read {
				origins *
				publish off
			}
			header X-Round %d`, os.Getpid()+int(round), i)); err != nil {
			t.Fatal(err)
		}
	}
	s.WaitLog("may publish here as that visitor")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	reached := false
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			for range 3 {
				s.Do("GET", net.JoinHostPort(ip.IP.String(), port)+"/broadcast", "")
			}
			reached = true
		}
	}
	if reached && round == 1 {
		s.WaitLog("reachable from elsewhere")
	}
	log, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"may publish here", "reachable from elsewhere"} {
		if n := bytes.Count(log, []byte(text)); n > 1 {
			t.Errorf("%q is said %d times", text, n)
		}
	}
}

// warnings is how often TestWarnings has run: what it looks for is said once a process.
var warnings atomic.Int32
