package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// startSecure runs Caddy with a site like that of caddytest.Start, and another one with TLS at a port of localhost.
func startSecure(t *testing.T, plain, secure string) (s *caddytest.Server, port string) {
	t.Helper()
	_, port, _ = net.SplitHostPort(caddytest.FreeAddr(t))
	s = caddytest.Start(t, `auto_https off
		---
		`+plain+`
	}
	https://localhost:`+port+` {
		`+caddytest.Certificate(t)+`
		`+secure)
	return s, port
}

// insecure returns a client that accepts any certificate.
func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

func TestTLS(t *testing.T) {
	s, port := startSecure(t, "broadcast /ws", `broadcast /ws {
			compression on
		}`)
	plain := s.Dial("/ws", nil)
	var secure []*websocket.Conn
	for range 20 {
		c, _, err := websocket.Dial(t.Context(), "wss://localhost:"+port+"/ws", &websocket.DialOptions{
			HTTPClient: insecure(), CompressionMode: websocket.CompressionNoContextTakeover,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		secure = append(secure, c)
	}
	var want []string
	for i := range 200 {
		m := fmt.Sprint(i, strings.Repeat(" and on", i))
		want = append(want, m)
		s.Send(secure[0], m)
	}
	for _, c := range append(secure, plain) {
		s.Expect(c, want...)
	}
}
