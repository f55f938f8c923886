package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestSocketIO: clients of Socket.IO and all others are on the same channels, whatever their transport is, and the others find
// the route as before.
func TestSocketIO(t *testing.T) {
	s := caddytest.Start(t, `broadcast /socket.io/* {
		socketio
		ping_interval 1s
	}
	respond other`)
	do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
	sid := openSession(t, do)
	c, _ := dialNamespace(s, "/")
	raw := s.Dial("/socket.io/", nil)
	s.Send(c, `42["e",{"a":1}]`)
	s.Expect(raw, `{"a":1}`)
	s.Expect(c, `42["e",{"a":1}]`)
	s.Send(raw, "text")
	s.Expect(c, `42["message","text"]`)
	var packets []string
	for len(packets) < 2 { // a GET is answered with what has been delivered, which need not be all yet
		status, body := do("GET", polling+sid, "")
		if status != 200 {
			t.Fatal(status, body)
		}
		for packet := range strings.SplitSeq(body, "\x1e") {
			if packet != "2" {
				packets = append(packets, packet)
			}
		}
	}
	if packets[0] != `42["e",{"a":1}]` || packets[1] != `42["message","text"]` {
		t.Error(packets)
	}
	if status, body := do("GET", polling+sid, ""); status != 200 || body != "2" {
		t.Error("a ping:", status, body)
	}
	s.Expect(c, "2")
	for path, want := range map[string]string{
		"/socket.io/": "other", "/socket.io/x.js": "other", "/socket.io/socket.io.js": "/*!\n * Socket.IO v4", "/socket.io/socket.io.min.js": "/*!\n * Socket.IO v4",
		"/socket.io/socket.io.esm.min.js": "/*!\n * Socket.IO v4",
	} {
		if status, body := do("GET", path, ""); status != 200 || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %.40q", path, status, body)
		}
	}
}

// TestSocketIOReload: a client that polls does not notice that the configuration is replaced while its GET waits.
func TestSocketIOReload(t *testing.T) {
	const config = "broadcast /socket.io/* {\nsocketio\n}"
	s := caddytest.Start(t, config)
	sid := openSession(t, func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) })
	got := make(chan string)
	go func() {
		_, body := s.Do("GET", s.Addr+polling+sid, "")
		got <- body
	}()
	if err := s.Load(config); err != nil {
		t.Fatal(err)
	}
	s.Publish("", "1")
	if body := <-got; body != `42["message","1"]` {
		t.Error(body)
	}
	s.Publish("", "2")
	if _, body := s.Do("GET", s.Addr+polling+sid, ""); body != `42["message","2"]` {
		t.Error(body)
	}
	c, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr+socketIO+sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Send(c, "2probe")
	s.Expect(c, "3probe")
	s.Send(c, "5")
	s.Publish("", "3")
	s.Expect(c, `42["message","3"]`)
}

// TestSocketIOOrigins: a page of another site that may use the route can read all answers, errors too, and no other page gets
// any.
func TestSocketIOOrigins(t *testing.T) {
	s := caddytest.Start(t, `broadcast /socket.io/* {
		socketio
		origins https://app.example.com
	}`)
	ask := func(method, path, origin string) *http.Response {
		t.Helper()
		r, _ := http.NewRequest(method, "http://"+s.Addr+path, nil)
		r.Header.Set("Origin", origin)
		if method == "OPTIONS" {
			r.Header.Set("Access-Control-Request-Method", "POST")
			r.Header.Set("Access-Control-Request-Headers", "x-token")
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", polling, 200}, {"GET", polling + "&sid=none", 400}, {"POST", polling + "&sid=none", 400}, {"OPTIONS", polling, 204}} {
		resp := ask(c.method, c.path, "https://app.example.com")
		h := resp.Header
		if resp.StatusCode != c.status || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
			h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin" {
			t.Errorf("%s %s: %s %v", c.method, c.path, resp.Status, h)
		}
		if c.status == 204 && h.Get("Access-Control-Allow-Headers") != "x-token" {
			t.Error(h)
		}
		resp = ask(c.method, c.path, "https://evil.example.com")
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 403 || string(body) != `{"code":4,"message":"Forbidden"}` || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, body)
		}
	}
}

// roundTrip sends a request by a version of HTTP, and returns the status and the body.
func roundTrip(t *testing.T, rt http.RoundTripper, method, url, body string) (int, string) {
	r, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	p, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(p)
}

// TestSocketIOTunnels: over HTTP/2 and HTTP/3 clients poll, move to a WebSocket, and begin with one.
func TestSocketIOTunnels(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("HTTP ", version), func(t *testing.T) {
			port := caddytest.FreePort(t)
			s := caddytest.Start(t, strings.NewReplacer("PORT", port, "CERTIFICATE", caddytest.Certificate(t)).Replace(`auto_https off
				---
				respond plain
			}
			https://localhost:PORT {
				CERTIFICATE
				broadcast /socket.io/* {
					socketio
				}`))
			url := "https://localhost:" + port
			rt := s.HTTP2()
			if version == 3 {
				tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
				t.Cleanup(func() { tr.Close() })
				rt = tr
			}
			do := func(method, path, body string) (int, string) { return roundTrip(t, rt, method, url+path, body) }
			sid := openSession(t, do)
			got := make(chan string, 1)
			go func() {
				_, body := do("GET", polling+sid, "")
				got <- body
			}()
			c := s.DialTunnel(rt, url+socketIO+sid)
			send := func(text string) {
				t.Helper()
				if err := wsutil.WriteClientMessage(c, ws.OpText, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			send("2probe")
			s.ExpectTunnel(c, "3probe")
			if body := <-got; body != "6" {
				t.Error(body)
			}
			send("5")
			send(`42["e",1]`)
			s.ExpectTunnel(c, `42["e",1]`)
			d := s.DialTunnel(rt, url+socketIO)
			wsutil.ReadServerData(d)
			wsutil.WriteClientMessage(d, ws.OpText, []byte("40"))
			wsutil.ReadServerData(d)
			send(`42["e",2]`)
			s.ExpectTunnel(c, `42["e",2]`)
			s.ExpectTunnel(d, `42["e",2]`)
		})
	}
}

// TestSocketIOReloads: a session that polls outlives reloads that leave its route, while it has no request, and can be recovered
// after them. A route that is gone takes its sessions with it.
func TestSocketIOReloads(t *testing.T) {
	const config = "broadcast {\nhistory 10\n}\n---\nheader X-Round %d\nbroadcast /socket.io/* {\nsocketio\nping_interval %ds\n}"
	s := caddytest.Start(t, fmt.Sprintf(config, 0, 60))
	do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
	sid := openSession(t, do)
	c := openSocket(s, nil)
	s.Send(c, "40")
	_, connected, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		s.Publish("", fmt.Sprint(i))
		if err := s.Load(fmt.Sprintf(config, i+1, 60)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 3; { // a GET is answered with what has been delivered, which need not be all yet
		status, body := do("GET", polling+sid, "")
		for event := range strings.SplitSeq(body, "\x1e") {
			if want := fmt.Sprintf(`42["message","%d"`, i); status != 200 || !strings.HasPrefix(event, want) {
				t.Fatal(status, body)
			}
			i++
		}
	}
	c.CloseNow()
	_, pid, _ := strings.Cut(string(connected), `"pid":`)
	c = openSocket(s, nil)
	s.Send(c, `40{"pid":`+pid)
	if _, again, err := c.Read(t.Context()); err != nil || string(again) != string(connected) {
		t.Errorf("%s, and not %s: %v", again, connected, err)
	}
	c.CloseNow()
	if status, _ := do("POST", polling+sid, "1"); status != 200 {
		t.Error(status)
	}
	if err := s.Load(fmt.Sprintf(config, 8, 1)); err != nil {
		t.Fatal(err)
	}
	sid = openSession(t, do)
	if err := s.Load("broadcast {\nhistory 10\n}\n---\nbroadcast /ws"); err != nil {
		t.Fatal(err)
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
	if err := s.Load(fmt.Sprintf(config, 9, 60)); err != nil {
		t.Fatal(err)
	}
	if status, body := do("GET", polling+sid, ""); status != 400 || !strings.Contains(body, `"code":1`) {
		t.Error(status, body)
	}
}

// TestSocketIOGreeting: a greeting may be JSON, whose braces are not those of placeholders. For other clients it is the same text.
func TestSocketIOGreeting(t *testing.T) {
	s := caddytest.Start(t, "broadcast /socket.io/* {\n\tsocketio {\n\t\tgreeting_event welcome\n\t}\n"+
		"\tgreeting `{\"data\": {\"path\": \"{path}\", \"unknown\": \"{unknown}\"}, \"list\": [{ \"a\": {} }]}`\n}")
	const want = `{"data": {"path": "/socket.io/", "unknown": ""}, "list": [{ "a": {} }]}`
	c, _ := dialNamespace(s, "/")
	s.Expect(c, `42["welcome",`+want+`]`)
	s.Expect(s.Dial("/socket.io/", nil), want)
}
