package integration

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestTunnels: WebSockets inside HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220) are like those on HTTP/1.1.
func TestTunnels(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("HTTP/", version), func(t *testing.T) { testTunnels(t, version) })
	}
}

func testTunnels(t *testing.T, version int) {
	_, port, _ := net.SplitHostPort(caddytest.FreeAddr(t))
	crt := caddytest.Certificate(t)
	config := `servers {
			metrics
			timeouts {
				read_body_idle 1s
				write_idle 1s
			}
		}
		auto_https off
		---
		broadcast /ws
	}
	https://localhost:` + port + ` {
		` + crt + `
		log
		encode
		header X-Early yes
		header >X-Late yes
		basic_auth /private {
			Ann $2a$04$PkcVHxbMrnOUnST5f4gKJONzph1TgD9FoBQt0dxs7scnXU5EI3QUK
		}
		broadcast /ws {
			compression on 1B
			max_message 1000
			max_backlog 64KiB
			write_timeout 2s
			ping_interval 1s
			greeting hello
		}
		broadcast /private
		broadcast /silent silent {
			ping_interval 1h
		}
		handle_errors {
			respond "{err.status_code}"
		}`
	s := caddytest.Start(t, config)
	config2 := &tls.Config{InsecureSkipVerify: true}
	transport := func() http.RoundTripper {
		if version == 3 {
			tr := &http3.Transport{TLSClientConfig: config2}
			t.Cleanup(func() { tr.Close() })
			return tr
		}
		return s.HTTP2()
	}
	rt := transport()
	url := "https://localhost:" + port
	plain := s.Dial("/ws", nil)
	var silent []*caddytest.Tunnel // outlive Caddy's idle timeouts, which are shorter than this test
	for range 97 {
		silent = append(silent, s.DialTunnel(rt, url+"/silent"))
	}

	c := s.DialTunnel(rt, url+"/ws", "Sec-WebSocket-Protocol", "soap", "Accept-Encoding", "gzip")
	h := c.Resp.Header
	if c.Resp.StatusCode != 200 || c.Resp.ProtoMajor != version || h.Get("Sec-Websocket-Protocol") != "soap" || h.Get("X-Early") != "yes" ||
		h.Get("X-Late") != "yes" || h.Get("Sec-Websocket-Accept") != "" || h.Get("Upgrade") != "" || h.Get("Content-Encoding") != "" {
		t.Fatalf("%s %s %v", c.Resp.Proto, c.Resp.Status, h)
	}
	s.ExpectTunnel(c, "hello")
	var texts []string
	for i := range 100 {
		texts = append(texts, fmt.Sprint(i, strings.Repeat(" and on", i)))
	}
	for i, text := range texts {
		if i%2 == 0 {
			s.Send(plain, text)
		} else if err := wsutil.WriteClientText(c, []byte(text)); err != nil {
			t.Fatal(err)
		}
		s.Expect(plain, text)
	}
	s.ExpectTunnel(c, texts...)

	// Refusals.
	for _, r := range []struct {
		path, name, value string
		status            int
	}{
		{"/ws", "Origin", "https://evil.example", 403},
		{"/ws", "Sec-WebSocket-Version", "12", 400},
		{"/ws", "Sec-WebSocket-Protocol", "a/b", 400},
		{"/private", "X", "y", 401},
	} {
		if got := s.DialTunnel(rt, url+r.path, r.name, r.value).Resp.StatusCode; got != r.status {
			t.Errorf("%s with %s %s: %d, not %d", r.path, r.name, r.value, got, r.status)
		}
	}
	// permessage-deflate
	packed := s.DialTunnel(rt, url+"/ws", "Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	if ext := packed.Resp.Header.Get("Sec-Websocket-Extensions"); !strings.HasPrefix(ext, "permessage-deflate") {
		t.Errorf("extensions %q", ext)
	}
	s.ExpectTunnel(packed, "hello")
	s.Send(plain, strings.Repeat("x", 500))
	s.Expect(plain, strings.Repeat("x", 500))
	s.ExpectTunnel(c, strings.Repeat("x", 500))
	if head, err := ws.ReadHeader(packed); err != nil || !head.Rsv1() || head.Length > 50 {
		t.Errorf("the deflated frame: %+v %v", head, err)
	}
	packed.End()

	// Each close has its code, and the stream ends after it.
	closes := func(c *caddytest.Tunnel, want ws.StatusCode, send func(*caddytest.Tunnel)) {
		t.Helper()
		send(c)
		if code := s.CloseOf(c); code != want {
			t.Errorf("closed with %d, not %d", code, want)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("after the close frame: %v", err)
		}
	}
	open := func() *caddytest.Tunnel { return s.DialTunnel(rt, url+"/ws") }
	closes(open(), 1009, func(c *caddytest.Tunnel) { wsutil.WriteClientText(c, make([]byte, 1001)) })
	closes(open(), 1007, func(c *caddytest.Tunnel) { wsutil.WriteClientText(c, []byte{0xff}) })
	closes(open(), 1002, func(c *caddytest.Tunnel) { c.Write([]byte{0x81, 1, 'x'}) })
	closes(open(), 1000, func(c *caddytest.Tunnel) { wsutil.WriteClientMessage(c, ws.OpClose, ws.NewCloseFrameBody(1000, "")) })
	open().End() // without a word

	// One that does not read costs only itself: neither those on its connection, nor others.
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 2+len(silent) })
	stuck := s.DialTunnel(rt, url+"/ws")
	for i := 0; s.Totals().Connections == 3+len(silent); i++ {
		if i == 200 {
			s.Publish("channel=silent", "hello")
			for _, c := range silent {
				s.ExpectTunnel(c, "hello")
			}
		}
		s.Send(plain, strings.Repeat("y", 1000))
		s.Expect(plain, strings.Repeat("y", 1000))
		s.ExpectTunnel(c, strings.Repeat("y", 1000))
	}
	stuck.End()

	// A reload changes nothing for them, an end is told.
	s.Publish("channel=silent", "still here")
	for _, c := range silent {
		s.ExpectTunnel(c, "still here")
		c.End()
	}
	if err := s.Load(strings.Replace(config, "X-Early", "X-Changed", 1)); err != nil {
		t.Fatal(err)
	}
	s.Send(plain, "after the reload")
	s.ExpectTunnel(c, "after the reload")
	for _, want := range []string{`"status":200`, `"status":403`, `"status":401`, fmt.Sprint(`"http":`, version)} {
		s.WaitLog(want)
	}
	closes(c, 1012, func(*caddytest.Tunnel) {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if log, _ := os.ReadFile(s.Log); bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
}
