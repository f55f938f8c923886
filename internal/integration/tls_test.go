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

func TestTLS(t *testing.T) {
	_, port, _ := net.SplitHostPort(caddytest.FreeAddr(t))
	s := caddytest.Start(t, `auto_https off
		---
		broadcast /ws
	}
	https://localhost:`+port+` {
		`+caddytest.Certificate(t)+`
		broadcast /ws {
			compression on
		}`)
	plain := s.Dial("/ws", nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	var secure []*websocket.Conn
	for range 20 {
		c, _, err := websocket.Dial(t.Context(), "wss://localhost:"+port+"/ws", &websocket.DialOptions{
			HTTPClient: client, CompressionMode: websocket.CompressionNoContextTakeover,
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
