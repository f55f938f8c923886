package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestForwardAuth: a backend that refuses handshakes is asked without one if the configuration says so; if it does not, the
// log tells how.
func TestForwardAuth(t *testing.T) {
	// Like Werkzeug, the backend takes a handshake for one of its own WebSockets.
	const backend = `@auth path /auth
		handle @auth {
			@upgrade header Upgrade *
			respond @upgrade "no WebSocket here" 400
			header X-User ann
			respond "" 200
		}
		`
	const warning = "forward_auth passes WebSocket handshakes on as such"
	for i, c := range []struct {
		config       string
		warns, works bool
	}{
		{"forward_auth /ws ADDR {\nuri /auth\n}\nbroadcast /ws a0", true, false},
		{"forward_auth ADDR {\nuri /auth\n}\nhandle /ws {\nbroadcast a1\n}", true, false},
		{"route /ws {\nforward_auth ADDR {\nuri /auth\n}\nbroadcast a2\n}", true, false},
		{"forward_auth /ws ADDR {\nuri /auth\nheader_up -Upgrade\nheader_up -Connection\n}\nbroadcast /ws a3", false, true},
		{"forward_auth /private/* ADDR {\nuri /auth\n}\nbroadcast /ws a4", false, true},
	} {
		s := caddytest.Start(t, "@site not path /auth\nroute /auth {\n"+backend+"}\nhandle @site {\n"+c.config+"\n}")
		log, _ := os.ReadFile(s.Log)
		if got := strings.Contains(string(log), warning); got != c.warns {
			t.Errorf("%d: warned %v", i, got)
		}
		if _, resp, err := s.TryDial("/ws", nil); (err == nil) != c.works {
			t.Errorf("%d: %v %v", i, resp, err)
		}
	}
}
