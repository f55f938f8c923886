// Package browser has tests that run in a real Chromium.
package browser

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/chromedp/chromedp"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// site is Caddy with a folder of pages, behind a line that can be cut.
type site struct {
	t           *testing.T
	dir, config string
	addr, admin string
	upstream    string
	mu          sync.Mutex
	line        net.Listener
	conns       []net.Conn
	held        bool // what comes over the line does not go on
	released    *sync.Cond
}

func serve(t *testing.T, page, directives string) *site {
	t.Helper()
	caddytest.OwnData(t)
	dir := t.TempDir()
	s := &site{t: t, dir: dir, admin: filepath.Join(dir, "admin.sock"), upstream: filepath.Join(dir, "http.sock")}
	s.released = sync.NewCond(&s.mu)
	s.write("index.html", page)
	s.config = fmt.Sprintf(`{
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
	}`, s.admin, s.upstream, dir, directives)
	s.start()
	s.addr = "127.0.0.1:0"
	s.open()
	t.Cleanup(func() {
		s.shut()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// write writes a file of the site.
func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// start starts Caddy, or replaces its configuration.
func (s *site) start() {
	s.t.Helper()
	if err := caddytest.Load(s.config); err != nil {
		s.t.Fatal(err)
	}
}

// open opens the line.
func (s *site) open() {
	s.t.Helper()
	line, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.line, s.addr = line, line.Addr().String()
	s.mu.Unlock()
	go func() {
		for {
			c, err := line.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", s.upstream)
			if err != nil {
				c.Close()
				continue
			}
			s.mu.Lock()
			s.conns = append(s.conns, c, up)
			s.mu.Unlock()
			go s.forward(up, c)
			go s.forward(c, up)
		}
	}()
}

func (s *site) forward(to, from net.Conn) {
	defer to.Close()
	p := make([]byte, 64<<10)
	for {
		n, err := from.Read(p)
		if err != nil {
			return
		}
		s.mu.Lock()
		for s.held {
			s.released.Wait()
		}
		s.mu.Unlock()
		if _, err := to.Write(p[:n]); err != nil {
			return
		}
	}
}

// hold lets nothing through any more, without a word, as a network does that is gone; or all again.
func (s *site) hold(held bool) {
	s.mu.Lock()
	s.held = held
	s.released.Broadcast()
	s.mu.Unlock()
}

// shut takes the line away, and cuts all connections.
func (s *site) shut() {
	s.line.Close()
	s.hold(false)
	s.cut()
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
	s.publishOn(t, "default", data)
}

func (s *site) publishOn(t *testing.T, channel, data string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: unixDialer(s.admin)}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://localhost/broadcast/publish?channel="+url.QueryEscape(channel), "text/plain", strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
}

func unixDialer(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }
}

// page is a tab of the browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

func (p page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for a condition.
func (page) until(expression string) chromedp.Action[chromedp.Void] {
	return chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second))
}

// wait is run and until.
func (p page) wait(expression string) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, p.until(expression)); err != nil {
		got, _ := chromedp.Run(p.ctx, chromedp.Evaluate[any]("JSON.stringify(globalThis.seen ?? [location.href, document.body.innerText])"))
		p.t.Fatalf("%s: %v; seen: %.2000v", expression, err, got)
	}
}

func evaluate[T any](p page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
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
	p := page{t, ctx}
	run, wait := p.run, p.until
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
