package integration

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestTunnels: WebSockets inside HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220) are like those on HTTP/1.1.
func TestTunnels(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("HTTP ", version), func(t *testing.T) { testTunnels(t, version) })
	}
}

func testTunnels(t *testing.T, version int) {
	s := startTunnels(t, version)
	s.run("handshake", tunnels.testHandshake)
	s.run("messages", tunnels.testMessages)
	s.run("refusals", tunnels.testRefusals)
	s.run("compression", tunnels.testCompression)
	s.run("closes", tunnels.testCloses)
	s.run("one that does not read", tunnels.testStuck)
	s.run("access log", tunnels.testAccessLog)
	s.run("reload and end", tunnels.testReload) // the last: it stops Caddy
	expectCleanLog(s.Server)
}

// run runs a subtest. What fails or is opened in it belongs to the subtest, not to its parent.
func (s tunnels) run(name string, test func(tunnels)) {
	s.T.(*testing.T).Run(name, func(t *testing.T) {
		s.Server = s.Server.In(t) // s is a copy
		test(s)
	})
}

// tunnels is a server, and the clients that every subtest finds there.
type tunnels struct {
	*caddytest.Server
	version int
	config  string
	url     string
	rt      http.RoundTripper   // with one connection for all tunnels
	plain   *websocket.Conn     // on HTTP/1.1
	tunnel  *caddytest.Tunnel   // subscribed to the same channel; it has read the greeting
	silent  []*caddytest.Tunnel // subscribed to another channel; they outlive Caddy's idle timeouts, which are shorter than this test
}

// tunnelConfig is the site on HTTP/1.1 and the head of the one on HTTPS: PORT is its port, CERTIFICATE its certificate.
const tunnelConfig = `servers {
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
	https://localhost:PORT {
		CERTIFICATE
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

// startTunnels starts a server and the clients.
func startTunnels(t *testing.T, version int) tunnels {
	port := caddytest.FreePort(t)
	s := tunnels{version: version, url: "https://localhost:" + port}
	s.config = strings.NewReplacer("PORT", port, "CERTIFICATE", caddytest.Certificate(t)).Replace(tunnelConfig)
	s.Server = caddytest.Start(t, s.config)
	s.rt = s.HTTP2()
	if version == 3 {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(func() { tr.Close() })
		s.rt = tr
	}
	s.plain = s.Dial("/ws", nil)
	for range 97 {
		s.silent = append(s.silent, s.DialTunnel(s.rt, s.url+"/silent"))
	}
	s.tunnel = s.DialTunnel(s.rt, s.url+"/ws", "Sec-WebSocket-Protocol", "soap", "Accept-Encoding", "gzip")
	if s.tunnel.Resp.StatusCode != 200 {
		t.Fatal(s.tunnel.Resp.Status)
	}
	s.ExpectTunnel(s.tunnel, "hello")
	return s
}

// open opens another tunnel.
func (s tunnels) open() *caddytest.Tunnel { return s.DialTunnel(s.rt, s.url+"/ws") }

// testHandshake: the answer has what the server and other handlers add, and nothing that belongs to HTTP/1.1.
func (s tunnels) testHandshake() {
	resp := s.tunnel.Resp
	h := resp.Header
	if resp.StatusCode != 200 || resp.ProtoMajor != s.version || h.Get("Sec-Websocket-Protocol") != "soap" || h.Get("X-Early") != "yes" ||
		h.Get("X-Late") != "yes" || h.Get("Sec-Websocket-Accept") != "" || h.Get("Upgrade") != "" || h.Get("Content-Encoding") != "" {
		s.T.Fatalf("%s %s %v", resp.Proto, resp.Status, h)
	}
}

// testMessages: messages go both ways, in order.
func (s tunnels) testMessages() {
	var texts []string
	for i := range 100 {
		texts = append(texts, fmt.Sprint(i, strings.Repeat(" and on", i)))
	}
	for i, text := range texts {
		if i%2 == 0 {
			s.Send(s.plain, text)
		} else if err := wsutil.WriteClientText(s.tunnel, []byte(text)); err != nil {
			s.T.Fatal(err)
		}
		s.Expect(s.plain, text)
	}
	s.ExpectTunnel(s.tunnel, texts...)
}

func (s tunnels) testRefusals() {
	for _, r := range []struct {
		about, path, header, value string
		status                     int
	}{
		{"another site", "/ws", "Origin", "https://evil.example", 403},
		{"wrong version", "/ws", "Sec-WebSocket-Version", "12", 400},
		{"wrong protocol", "/ws", "Sec-WebSocket-Protocol", "a/b", 400},
		{"no password", "/private", "X", "y", 401},
	} {
		s.run(r.about, func(s tunnels) {
			if got := s.DialTunnel(s.rt, s.url+r.path, r.header, r.value).Resp.StatusCode; got != r.status {
				s.T.Errorf("%s with %s %s: %d, not %d", r.path, r.header, r.value, got, r.status)
			}
		})
	}
}

// testCompression: with permessage-deflate, a long message is a short frame.
func (s tunnels) testCompression() {
	packed := s.DialTunnel(s.rt, s.url+"/ws",
		"Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	if ext := packed.Resp.Header.Get("Sec-Websocket-Extensions"); !strings.HasPrefix(ext, "permessage-deflate") {
		s.T.Errorf("extensions %q", ext)
	}
	s.ExpectTunnel(packed, "hello")
	text := strings.Repeat("x", 500)
	s.Send(s.plain, text)
	s.Expect(s.plain, text)
	s.ExpectTunnel(s.tunnel, text)
	if head, err := ws.ReadHeader(packed); err != nil || !head.Rsv1() || head.Length > 50 {
		s.T.Errorf("the deflated frame: %+v %v", head, err)
	}
	packed.End()
}

// expectEnd: a close frame with the code is the last thing a client reads.
func (s tunnels) expectEnd(c *caddytest.Tunnel, want ws.StatusCode) {
	s.T.Helper()
	if code := s.CloseOf(c); code != want {
		s.T.Errorf("closed with %d, not %d", code, want)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		s.T.Errorf("after the close frame: %v", err)
	}
}

// testCloses: each close has its code, and the stream ends after it.
func (s tunnels) testCloses() {
	for _, c := range []struct {
		about string
		code  ws.StatusCode
		send  func(*caddytest.Tunnel)
	}{
		{"too large", 1009, func(c *caddytest.Tunnel) { wsutil.WriteClientText(c, make([]byte, 1001)) }},
		{"not UTF-8", 1007, func(c *caddytest.Tunnel) { wsutil.WriteClientText(c, []byte{0xff}) }},
		{"not masked", 1002, func(c *caddytest.Tunnel) { c.Write([]byte{0x81, 1, 'x'}) }},
		{"a close", 1000, func(c *caddytest.Tunnel) { wsutil.WriteClientMessage(c, ws.OpClose, ws.NewCloseFrameBody(1000, "")) }},
	} {
		s.run(c.about, func(s tunnels) {
			tunnel := s.open()
			c.send(tunnel)
			s.expectEnd(tunnel, c.code)
		})
	}
	s.run("without a word", func(s tunnels) {
		s.open().End()
		s.waitForOthersToEnd()
	})
}

// waitForOthersToEnd waits until only the clients that every subtest finds are connected.
func (s tunnels) waitForOthersToEnd() {
	s.T.Helper()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 2+len(s.silent) })
}

// testStuck: one that does not read costs only itself: neither those on its connection, nor others.
func (s tunnels) testStuck() {
	s.waitForOthersToEnd()
	stuck := s.open()
	text := strings.Repeat("y", 1000)
	for i := 0; s.Totals().Connections == 3+len(s.silent); i++ {
		if i == 200 {
			s.Publish("channel=silent", "hello")
			for _, c := range s.silent {
				s.ExpectTunnel(c, "hello")
			}
		}
		s.Send(s.plain, text)
		s.Expect(s.plain, text)
		s.ExpectTunnel(s.tunnel, text)
	}
	stuck.End()
	s.Publish("channel=silent", "still here")
	for _, c := range s.silent {
		s.ExpectTunnel(c, "still here")
		c.End()
	}
}

// testAccessLog: Caddy's access log has a line for each tunnel.
func (s tunnels) testAccessLog() {
	s.open().End()
	s.DialTunnel(s.rt, s.url+"/ws", "Origin", "https://evil.example")
	s.DialTunnel(s.rt, s.url+"/private")
	for _, want := range []string{`"status":200`, `"status":403`, `"status":401`, fmt.Sprint(`"http":`, s.version)} {
		s.WaitLog(want)
	}
}

// testReload: a reload changes nothing for tunnels, and the end of Caddy is told.
func (s tunnels) testReload() {
	if err := s.Load(strings.Replace(s.config, "X-Early", "X-Changed", 1)); err != nil {
		s.T.Fatal(err)
	}
	s.Send(s.plain, "after the reload")
	s.ExpectTunnel(s.tunnel, "after the reload")
	if err := caddy.Stop(); err != nil {
		s.T.Error(err)
	}
	s.expectEnd(s.tunnel, 1012)
}

// expectCleanLog stops Caddy: until then, no handler has panicked, or has written a header twice.
func expectCleanLog(s *caddytest.Server) {
	s.T.Helper()
	if err := caddy.Stop(); err != nil {
		s.T.Error(err)
	}
	if log, _ := os.ReadFile(s.Log); bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		s.T.Errorf("the log: %s", log)
	}
}
