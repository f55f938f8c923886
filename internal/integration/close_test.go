package integration

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// expectProtocolError sends a frame that is none, and wants to be told so, and then nothing more.
func expectProtocolError(t *testing.T, c io.ReadWriter) {
	t.Helper()
	broken := ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(15, true, nil)))
	if _, err := c.Write(broken); err != nil {
		t.Fatal(err)
	}
	f, err := frametest.Read(c)
	if err != nil || f.Header.OpCode != ws.OpClose {
		t.Fatalf("%+v, %v", f, err)
	}
	if code, _ := ws.ParseCloseFrameData(f.Payload); code != 1002 {
		t.Errorf("closed with %d", code)
	}
	if p, err := io.ReadAll(c); err != nil || len(p) > 0 {
		t.Errorf("then %q, %v", p, err)
	}
}

// TestProtocolError: a client that breaks the protocol is told so, and that there is no more, whatever the connection is
// made of, and though it has not ended it itself.
func TestProtocolError(t *testing.T) {
	_, secure, _ := net.SplitHostPort(caddytest.FreeAddr(t))
	_, wrapped, _ := net.SplitHostPort(caddytest.FreeAddr(t))
	s := caddytest.Start(t, `auto_https off
		servers :`+wrapped+` {
			protocols h1
		}
		---
		broadcast /ws
	}
	http://localhost:`+wrapped+` {
		broadcast /ws
	}
	https://localhost:`+secure+` {
		`+caddytest.Certificate(t)+`
		broadcast /ws`)
	for name, host := range map[string]string{"plain": s.Addr, "protocols h1": "localhost:" + wrapped, "TLS": "localhost:" + secure} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if name == "TLS" {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, _, err := (ws.Dialer{}).Upgrade(c, &url.URL{Scheme: "ws", Host: host, Path: "/ws"}); err != nil {
				t.Fatal(err)
			}
			expectProtocolError(t, c)
		})
	}
	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer h3.Close()
	for name, rt := range map[string]http.RoundTripper{"HTTP/2": s.HTTP2(), "HTTP/3": h3} {
		t.Run(name, func(t *testing.T) {
			c := s.In(t).DialTunnel(rt, "https://localhost:"+secure+"/ws")
			defer c.End()
			expectProtocolError(t, c)
		})
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
}
