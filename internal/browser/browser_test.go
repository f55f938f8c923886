// Package browser has tests that run in a real Chromium.
package browser

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/chromedp/chromedp"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// site is Caddy with a folder of pages, behind a line that can be cut.
type site struct {
	addr, admin string
	line        net.Listener
	mu          sync.Mutex
	conns       []net.Conn
}

func serve(t *testing.T, page, directives string) *site {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &site{admin: filepath.Join(dir, "admin.sock")}
	upstream := filepath.Join(dir, "http.sock")
	config := fmt.Sprintf(`{
		admin unix/%s
		persist_config off
		broadcast {
			history 1000
		}
	}
	http:// {
		bind unix/%s
		root %s
		%s
		file_server
	}`, s.admin, upstream, dir, directives)
	cfg, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(cfg, true); err != nil {
		t.Fatal(err)
	}
	if s.line, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.addr = s.line.Addr().String()
	go func() {
		for {
			c, err := s.line.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", upstream)
			if err != nil {
				c.Close()
				continue
			}
			s.mu.Lock()
			s.conns = append(s.conns, c, up)
			s.mu.Unlock()
			go func() { io.Copy(up, c); up.Close() }()
			go func() { io.Copy(c, up); c.Close() }()
		}
	}()
	t.Cleanup(func() {
		s.line.Close()
		s.cut()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// cut cuts all connections.
func (s *site) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *site) publish(t *testing.T, data string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", s.admin)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://localhost/broadcast/publish", "text/plain", strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
}

const streamPage = `<!doctype html><title>stream</title><script>
const got = [], gaps = []
let opened = 0
const source = new EventSource("/events")
source.onopen = () => opened++
source.onmessage = e => got.push(e.data)
source.addEventListener("gap", e => gaps.push(e.data))
</script>`

// TestEventSource: the browser's own EventSource comes back when it is cut off, and misses nothing.
func TestEventSource(t *testing.T) {
	ctx := chromium.Open(t)
	s := serve(t, streamPage, "broadcast /events")
	run := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(expression string) chromedp.Action[chromedp.Void] {
		return chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second))
	}
	run(chromedp.Navigate("http://"+s.addr), wait("opened == 1"))
	s.cut() // before any message: the position came with the head
	var want []string
	send := func(n int) {
		for range n {
			data := fmt.Sprint("message ", len(want), "\nin two lines")
			want = append(want, data)
			s.publish(t, data)
		}
	}
	send(10)
	run(wait("opened == 2"))
	send(10)
	run(wait("got.length == 20"))
	s.cut()
	send(10)
	run(wait("opened == 3 && got.length == 30"))
	send(10)
	run(wait("got.length >= 40"))
	got, err := chromedp.Run(ctx, chromedp.Evaluate[[][]string]("[got, gaps]"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got[0], want) || len(got[1]) > 0 {
		t.Errorf("the page got %q and the gaps %q", got[0], got[1])
	}
}
