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

func TestOptions(t *testing.T) {
	s := caddytest.Start(t, `broadcast /read {
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
		respond "next"`)
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

	both := s.Dial("/room/7", nil)
	s.Send(both, "on the first channel")
	s.Expect(both, "on the first channel")
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		path, body, header string
		status             int
		answer             string
	}{
		{"/read", "x", "", 403, "publishing is off on this route"},
		{"/quiet", strings.Repeat("x", 101), "", 413, "the body is larger than 100 bytes"},
		{"/quiet", "\xff", "", 400, "*"},
		{"/quiet", "\xff", "Content-Type: application/octet-stream", 200, `{"id":"*-*"}`},
		{"/quiet", "x", "Content-Type: a b", 400, "*"},
		{"/quiet", "x", "Idempotency-Key: " + long + "x", 400, "*"},
		{"/room/7", "data=x&channel=8", "Content-Type: application/x-www-form-urlencoded", 403, `"8" is not a channel of this route`},
		{"/room/7", "data=to%207%0aby+form&channel=7&event=e", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`},
		{"/room/7", "no data=field", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`},
		{"/quiet?event=a%0ab", "x", "", 400, "*"},
		{"/quiet", "x", "Origin: https://evil.example", 403, "*"},
		{"/quiet", "x", "Origin: http://" + s.Addr, 200, `{"id":"*-*"}`},
		{"/socket", "x", "", 200, "next"},
		{"/post", "x", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=7", "to 7", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=news", "to news", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=8", "to 8", "", 403, `"8" is not a channel of this route`},
		{"/room/", "x", "", 400, `the channel "{http.request.uri.path.1}" is empty`},
		{"/query", "x", "", 400, "*"},
		{"/query?q=" + long, "x", "", 200, `{"id":"*-*"}`},
		{"/query?q=" + long + "x", "x", "", 400, "*"},
		{"/query?q=%ff", "x", "", 400, "*"},
		{"/query?q=a%00", "x", "", 400, "*"},
	} {
		name, value, _ := strings.Cut(c.header, ": ")
		var header []string
		if name != "" {
			header = []string{name, value}
		}
		status, answer := s.Do("POST", s.Addr+c.path, c.body, header...)
		answer = regexp.MustCompile(`"\w+-\d+"`).ReplaceAllString(strings.TrimSpace(answer), `"*-*"`)
		if c.answer == "*" && answer != "" { // some reason
			answer = c.answer
		}
		if status != c.status || answer != c.answer {
			t.Errorf("POST %.40s %s: %d %q, not %d %q", c.path, c.header, status, answer, c.status, c.answer)
		}
	}
	s.Expect(both, "to 7\nby form", "no data=field", "to 7", "to news")
	_, first := s.Post(s.Addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	_, second := s.Post(s.Addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	if status, answer := s.Post(s.Addr+"/room/7", "text/plain", "once more", "Idempotency-Key", "k"); status != 422 {
		t.Errorf("another message with the key: %d %s", status, answer)
	}
	if _, admin := s.Post(s.Admin+"/broadcast/publish?channel=news", "text/plain", "by admin", "Idempotency-Key", "k"); admin == first {
		t.Error("the admin API shares the clients' keys")
	}
	_, other7 := s.Post(s.Addr+"/room/7?channel=7", "text/plain", "another", "Idempotency-Key", "k")
	if first != second || first == other7 {
		t.Errorf("with a key: %s, then %s, on another channel %s", first, second, other7)
	}
	s.Expect(both, "once", "by admin", "another")

	for _, c := range []struct {
		path, origin string
		status       int
	}{
		{"/socket", "https://app.example.com", 101},
		{"/socket", "https://evil.example", 403},
		{"/socket", "http://" + s.Addr, 101},
		{"/query", "", 400},
		{"/post", "", 200},
	} {
		o := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if c.origin != "" {
			o.HTTPHeader.Set("Origin", c.origin)
		}
		conn, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+c.path, o)
		if resp == nil || resp.StatusCode != c.status {
			t.Errorf("GET %s from %s: %v %v, not %d", c.path, c.origin, resp, err, c.status)
		}
		if conn != nil {
			conn.CloseNow()
		}
	}
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
