package browser

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// TestMain has WebSockets inside HTTP/2, which Go offers only with a setting that it reads before anything else.
func TestMain(m *testing.M) {
	caddytest.WithHTTP2WebSockets()
	os.Exit(caddytest.Main(m))
}

const socketPage = `<!doctype html><title>socket</title><script>
const got = []
let open = 0
for (let i = 0; i < 3; i++) {
	const socket = new WebSocket("/ws")
	socket.onopen = () => open++
	socket.onmessage = e => got.push(e.data)
	socket.onclose = e => got.push("closed " + e.code)
	if (i == 0) window.first = socket
}
</script>`

// secureConfig is a site with TLS, whose files are in a folder, as is the log of what the handler does.
func secureConfig(dir, port string) string {
	return fmt.Sprintf(`{
		admin off
		persist_config off
		auto_https disable_redirects
		skip_install_trust
		storage file_system %[1]s/storage
		servers {
			protocols h1 h2
		}
		log ours {
			output file %[1]s/log
			level DEBUG
			include http.handlers.broadcast
		}
	}
	https://localhost:%[2]s {
		tls internal
		root %[1]s
		broadcast /ws
		file_server
	}`, dir, port)
}

// TestHTTP2: a browser puts its WebSockets into the HTTP/2 connection that it has, and they are WebSockets.
func TestHTTP2(t *testing.T) {
	ctx := chromium.Open(t, chromedp.Flag("ignore-certificate-errors", true))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(socketPage), 0o600); err != nil {
		t.Fatal(err)
	}
	port := caddytest.FreePort(t)
	if err := caddytest.Load(secureConfig(dir, port)); err != nil {
		t.Fatal(err)
	}
	defer caddy.Stop()
	wait := func(expression string) chromedp.Action[chromedp.Void] {
		return chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second))
	}
	handshakes := chromedp.Events(ctx, network.WebSocketHandshakeResponseReceived)
	err := chromedp.Do(ctx,
		chromedp.Navigate("https://localhost:"+port),
		wait("open == 3"),
		chromedp.Evaluate[chromedp.Void](`first.send("one"); first.send("two".repeat(1000)); undefined`),
		wait(`got.length == 6 && got.filter(s => s == "one").length == 3`),
		chromedp.Evaluate[chromedp.Void](`got.length = 0; first.close(3000); undefined`),
		wait(`got[0] == "closed 3000"`),
	)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for e, err := range handshakes { // RFC 8441, section 5: the answer is 200, where that of HTTP/1.1 is 101
		if err != nil || e.Response.Status != 200 {
			t.Errorf("a handshake is answered %+v, %v", e.Response, err)
		}
		if seen++; seen == 3 || err != nil {
			break
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte(`"transport":"websocket","http":2`)); n != 3 {
		t.Errorf("%d of 3 WebSockets are inside HTTP/2", n)
	}
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
	if err := chromedp.Do(ctx, wait(`got.filter(s => s == "closed 1012").length == 2`)); err != nil {
		t.Errorf("the end is not told: %v", err)
	}
}
