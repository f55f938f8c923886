package publishers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// The names of the ways to Caddy.
const (
	admin    = "admin API"
	listener = "listener"
)

// token is the one that apps and the internal listener share.
const token = "a-long-random-text"

// shop is Caddy with the route and the internal listener of docs/publishers.md, and a page.
type shop struct {
	*caddytest.Server
	listener string        // the address of the internal listener
	events   func() string // returns the next event that the page gets

	mu    sync.Mutex
	saved map[string]int // how many events the page has to get of each order
}

// newShop chooses the addresses.
func newShop(t *testing.T) *shop {
	server := &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t)}
	return &shop{Server: server, listener: caddytest.FreeAddr(t), saved: map[string]int{}}
}

// open starts Caddy. Its admin API accepts these hosts besides its own.
func (s *shop) open(t *testing.T, hosts ...string) {
	text := page(t, "publishers.md")
	site := strings.ReplaceAll(block(t, text, "caddyfile", "broadcast /ws orders"), "example.com", "http://"+s.Addr)
	_, port, _ := net.SplitHostPort(s.listener)
	listener := strings.ReplaceAll(block(t, text, "caddyfile", "http://:8090"), "8090", port)
	caddytest.Run(t, fmt.Sprintf(`{
		admin %s {
			origins %s
		}
		persist_config off
	}
	%s
	%s`, s.Admin, strings.Join(append(hosts, s.Admin), " "), site, listener))
	_, s.events = s.Stream("http://" + s.Addr + "/ws")
}

// close publishes a last event, and compares what the page got until that with the orders.
func (s *shop) close(t *testing.T) {
	t.Helper()
	s.Publish("channel=orders&event=closed", "")
	got := map[string]int{}
	for {
		event, data, ok := strings.Cut(s.events(), "\ndata: ")
		if !ok {
			continue // the first ones only say when and where to resume
		}
		if strings.HasSuffix(event, "event: closed") {
			break
		}
		var order struct{ ID, Item string }
		if err := json.Unmarshal([]byte(data), &order); err != nil || !strings.HasSuffix(event, "event: created") || order.Item != "tea" {
			t.Fatalf("the page got %s %q: %v", event, data, err)
		}
		got[order.ID]++
	}
	for id, n := range s.saved {
		if got[id] != n {
			t.Errorf("the page got %d events of the order %q, and not %d", got[id], id, n)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Errorf("the page got events of the orders %v", got)
	}
}

// way is one of the two that an app has to Caddy.
type way struct {
	name        string
	environment []string
	link        *servertest.Proxy
	connections atomic.Int32 // how often the app has connected
	responses   atomic.Int32 // how often Caddy has responded
}

// ways returns links for both ways. Neither lets the first response through. With the admin API the connection is closed then, and
// with the listener nothing happens, so that the app has to notice by itself.
func (s *shop) ways(t *testing.T) []*way {
	ended := make(chan struct{})
	a := newWay(t, admin, s.Admin, func() {})
	a.environment = []string{"PUBLISH_URL=http://" + a.link.Addr() + "/broadcast/publish"}
	l := newWay(t, listener, s.listener, func() { <-ended })
	l.environment = []string{"PUBLISH_URL=http://" + l.link.Addr() + "/publish", "PUBLISH_TOKEN=" + token}
	t.Cleanup(func() { close(ended) }) // before the links end, which wait for it
	return []*way{a, l}
}

func newWay(t *testing.T, name, target string, instead func()) *way {
	w := &way{name: name}
	w.link = servertest.NewProxy(t, target, func(_ *servertest.Proxy, client, server net.Conn) {
		w.connections.Add(1)
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 ")) && w.responses.Add(1) == 1 {
				instead()
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return w
}

// running is an app that runs.
type running struct {
	*shop
	t    *testing.T
	app  app
	name string // of its orders
	url  string
	log  string // path
}

// start starts an app that publishes in this way.
func (s *shop) start(t *testing.T, a app, w *way) *running {
	dir, port := t.TempDir(), caddytest.FreePort(t)
	write(t, dir, code(section(t, page(t, "publishers.md"), a.section)))
	r := &running{s, t, a, a.name + ", " + w.name, "http://127.0.0.1:" + port, filepath.Join(t.TempDir(), "log")}
	command := a.setUp(t, dir)
	process := servertest.NewProcess(t, r.log, script(dir, command, append(w.environment, "PORT="+port)...)...)
	process.Run()
	process.WaitListening("127.0.0.1:" + port)
	return r
}

// order orders something, and expects the app to accept it.
func (r *running) order(id, item string) {
	r.t.Helper()
	contentType, body := "application/x-www-form-urlencoded", url.Values{"id": {id}, "item": {item}}.Encode()
	if r.app.json {
		text, err := json.Marshal(map[string]string{"id": id, "item": item})
		if err != nil {
			r.t.Fatal(err)
		}
		contentType, body = "application/json", string(text)
	}
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+"/orders", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	// Django wants a cookie and a header with the same text from pages that post.
	const csrf = "0123456789abcdefghijklmnopqrstuv"
	request.Header.Set("Cookie", "csrftoken="+csrf)
	request.Header.Set("X-CSRFToken", csrf)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusCreated {
		r.t.Fatalf("%s: %s %.1000s %v", id, response.Status, text, err)
	}
}

// announces orders something that the page has to be told of once.
func (r *running) announces(what string) {
	r.t.Helper()
	id := r.name + ": " + what
	r.order(id, "tea")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saved[id]++
}

// waitLog waits until the app's log has a text.
func (r *running) waitLog(text string) {
	r.t.Helper()
	// The app writes to a file, which has no event.
	for deadline := time.Now().Add(servertest.Patience); !strings.Contains(r.readLog(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("the log lacks %q", text)
		}
	}
}

func (r *running) readLog() string {
	r.t.Helper()
	log, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(log)
}
