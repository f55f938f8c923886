package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestSocketIOQuotas: limits count sessions: not requests, of which a client that polls has two at once, and not the WebSocket
// that it moves to.
func TestSocketIOQuotas(t *testing.T) {
	s := caddytest.Start(t, `broadcast /socket.io/* {
		socketio
		max_connections 10 per_ip 2
	}`)
	do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
	first, second := openSession(t, do), openSession(t, do)
	refused := func() {
		t.Helper()
		for _, transport := range []string{polling, socketIO} {
			r, _ := http.NewRequest(http.MethodGet, "http://"+s.Addr+transport, nil)
			if transport == socketIO {
				for name, value := range map[string]string{
					"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
				} {
					r.Header.Set(name, value)
				}
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %s %v", transport, resp.Status, resp.Header)
			}
		}
	}
	refused()
	c, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr+socketIO+first, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Send(c, "2probe")
	s.Expect(c, "3probe")
	s.Send(c, "5")
	s.Send(c, `421["x"]`)
	s.Expect(c, `42["x"]`)
	refused()
	_, list := s.Do(http.MethodGet, s.Admin+"/broadcast/connections", "")
	if strings.Count(list, `"transport":"websocket"`) != 1 || strings.Count(list, `"transport":"polling"`) != 1 {
		t.Error(list)
	}
	if status, body := do(http.MethodPost, polling+second, "1"); status != 200 {
		t.Error(status, body)
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 })
	openSession(t, do)
	refused()
}
