package publishers

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestPublishers: the page gets each order once, whatever happens between the app and Caddy, and no customer sees an error.
func TestPublishers(t *testing.T) {
	s := newShop(t)
	ways := map[string][]*way{"a shell": s.ways(t)}
	for _, a := range apps {
		ways[a.name] = s.ways(t)
	}
	if testing.Short() {
		for name := range ways {
			ways[name] = ways[name][:1]
		}
	}
	var hosts []string
	for _, pair := range ways {
		hosts = append(hosts, pair[0].link.Addr())
	}
	t.Setenv("PUBLISH_TOKEN", token)
	s.open(t, hosts...)
	// Not t.Parallel, which runs as many at once as there are cores: most of the time they wait. But not all, because apps that start
	// take the time that others need to notice a response within two seconds.
	running, places := sync.WaitGroup{}, make(chan struct{}, 4)
	for _, w := range ways["a shell"] {
		running.Go(func() { t.Run("a shell, "+w.name, func(t *testing.T) { s.testShell(t, w) }) })
	}
	for _, a := range apps {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			for _, w := range ways[a.name] {
				t.Run(a.name+", "+w.name, func(t *testing.T) { s.start(t, a, w).test(w) })
			}
		})
	}
	running.Wait()
	s.close(t)
}

func (r *running) test(w *way) {
	r.announces("the response is lost")
	if n := w.connections.Load(); n != 2 {
		r.t.Errorf("it has tried %d times", n)
	}
	// Unless this machine is so slow that the first try ended before its response.
	if w.responses.Load() == 2 && strings.Contains(r.readLog(), "not published") {
		r.t.Error("it has not noticed that the second try succeeded")
	}
	r.announces("all is well")
	if w.name == listener { // where messages may have 64 KiB
		before := w.responses.Load()
		r.order("too long", strings.Repeat("tea", 30_000))
		r.waitLog("413")
		r.waitLog("larger than")
		if n := w.responses.Load() - before; n != 1 {
			r.t.Errorf("Caddy has rejected it %d times", n)
		}
	}
	w.link.Refuse()
	r.order("Caddy is gone", "tea")
	r.waitLog("created was not published on orders")
	w.link.Accept()
	r.announces("Caddy is back")
}

// testShell runs the command for shells, which has no app around it.
func (s *shop) testShell(t *testing.T, w *way) {
	need(t, "curl", "curl", "--version")
	need(t, "openssl", "openssl", "version")
	command := code(section(t, page(t, "publishers.md"), "Other apps and scripts"))["publish.sh"]
	run := func() (string, error) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Env = append(append(os.Environ(), "PUBLISH_TOKEN="), w.environment...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err != nil || !strings.Contains(out, `{"id":"`) {
		t.Fatalf("%v: %s", err, out)
	}
	s.mu.Lock()
	s.saved["7"]++
	s.mu.Unlock()
	w.link.Refuse()
	if out, err := run(); err == nil {
		t.Errorf("curl does not fail: %s", out)
	}
}

// TestListener: the internal listener publishes for those with the token, on any channel, and does nothing else.
func TestListener(t *testing.T) {
	s := newShop(t)
	t.Setenv("PUBLISH_TOKEN", token)
	s.open(t)
	for _, c := range []struct {
		method, path, authorization string
		status                      int
	}{
		{"POST", "/publish?channel=orders", "Bearer " + token, http.StatusOK},
		{"POST", "/publish?channel=user:42&event=created", "Bearer " + token, http.StatusOK},
		{"POST", "/publish", "Bearer " + token, http.StatusBadRequest},
		{"POST", "/publish?chanel=orders", "Bearer " + token, http.StatusBadRequest},
		{"POST", "/publish?channel=orders", "Bearer " + token + "r", http.StatusUnauthorized},
		{"POST", "/publish?channel=orders", "Bearer ", http.StatusUnauthorized},
		{"POST", "/publish?channel=orders", "", http.StatusUnauthorized},
		{"GET", "/publish?channel=orders", "Bearer " + token, http.StatusUnauthorized},
		{"POST", "/broadcast/publish?channel=orders", "Bearer " + token, http.StatusUnauthorized},
	} {
		header := []string{"Accept", "text/event-stream"}
		if c.authorization != "" {
			header = append(header, "Authorization", c.authorization)
		}
		if status, body := s.Do(c.method, s.listener+c.path, "x", header...); status != c.status {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.authorization, status, body)
		}
	}
	os.Unsetenv("PUBLISH_TOKEN") // which the test has set, and sets back
	for _, authorization := range []string{"Bearer " + token, "Bearer ", "Bearer", ""} {
		if status, body := s.Do("POST", s.listener+"/publish?channel=orders", "x", "Authorization", authorization); status != http.StatusUnauthorized {
			t.Errorf("without a token, %q: %d %s", authorization, status, body)
		}
	}
}

// TestFlaskExample: examples/flask has the code of the page.
func TestFlaskExample(t *testing.T) {
	text, err := os.ReadFile("../../examples/flask/broadcast.py")
	if err != nil {
		t.Fatal(err)
	}
	if printed := code(section(t, page(t, "publishers.md"), "Flask"))["broadcast.py"]; printed != string(text) {
		t.Error("docs/publishers.md and examples/flask/broadcast.py differ")
	}
}

// TestCaddyfiles: Caddy takes each Caddyfile of the pages.
func TestCaddyfiles(t *testing.T) {
	for _, name := range []string{"publishers.md", "vite.md"} {
		for _, config := range caddyfiles(t, name) {
			if _, err := caddytest.Adapt(config); err != nil {
				t.Errorf("docs/%s: %v\n%s", name, err, config)
			}
		}
	}
}
