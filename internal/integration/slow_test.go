package integration

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// TestSlowClient: a client that does not read delays nobody, costs no more than its backlog, and is closed with 1013.
func TestSlowClient(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testSlowClient(t, false) })
	t.Run("TLS", func(t *testing.T) { testSlowClient(t, true) })
}

func testSlowClient(t *testing.T, secure bool) {
	const route = `broadcast /ws {
		max_message 1MiB
		max_backlog 1MiB
	}`
	s, port := startSecure(t, route, route)
	url := "ws://" + s.Addr + "/ws"
	if secure {
		url = "wss://localhost:" + port + "/ws"
	}
	dialer := ws.Dialer{TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	slow, _, _, err := dialer.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	quick := s.Dial("/ws", nil)
	data := strings.Repeat("x", 256<<10)
	for n, subscribers := 0, 2; subscribers == 2; n++ {
		if n == 400 {
			t.Fatal("the slow one is never given up")
		}
		status, body := s.Post(s.Admin+"/broadcast/publish", "text/plain", data)
		if status != 200 {
			t.Fatal(status, body)
		}
		var answer struct{ Subscribers int }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		subscribers = answer.Subscribers
		s.Expect(quick, data)
		if v := s.Totals(); v.Backlog > 2<<20 {
			t.Fatalf("the backlog is %d bytes", v.Backlog)
		}
	}
	expectSlow(t, slow)
	slow.Close()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 && v.Backlog == 0 })
}

// expectSlow reads what is left for a slow client, to the close frame, which says that it was too slow.
func expectSlow(t *testing.T, c io.Reader) {
	t.Helper()
	for {
		f, err := frametest.Read(c)
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode != ws.OpClose {
			continue
		}
		if code, text := ws.ParseCloseFrameData(f.Payload); code != 1013 {
			t.Fatalf("closed with %d %s", code, text)
		}
		return
	}
}
