package publishers

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// viteApp is a folder as npm create vite makes it, with the files of docs/vite.md and the client's package.
func viteApp(t *testing.T, caddy string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files := code(page(t, "vite.md"))
	files["index.html"] = `<!doctype html><link rel="icon" href="data:,"><body><script type="module" src="/src/main.js"></script>`
	files["from-route.html"] = strings.Replace(files["index.html"], "main", "from-route", 1)
	files["src/from-route.js"] = strings.Replace(files["src/main.js"], "./live.js", "./live-from-route.js", 1)
	files["vite.config.js"] = strings.Replace(files["vite.config.js"], "localhost:8080", caddy, 1)
	files["short/vite.config.js"] = fmt.Sprintf(`export default { server: { proxy: { "/ws": "http://%s" } } }`, caddy)
	files["short/index.html"] = files["index.html"]
	write(t, dir, files)

	// The packages are shared with other tests, so each is a link of its own beside the client.
	from, to := npm.Install(t, os.DirFS("testdata/npm")), filepath.Join(dir, "node_modules")
	packages, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if strings.HasPrefix(p.Name(), ".vite") { // what Vite has cached, if another test has run it there
			continue
		}
		if err := os.Symlink(filepath.Join(from, p.Name()), filepath.Join(to, p.Name())); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(to, "caddy-broadcast"), clientPackage(t))
	return dir
}

// clientPackage returns the files that npm packs of the client's folder, or more. Somebody may have installed packages there.
func clientPackage(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"*.js", "package.json"} {
		paths, err := filepath.Glob("../../client/" + pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(path)] = string(text)
		}
	}
	return files
}

// startVite starts Vite's server for a folder, and returns its address.
func startVite(t *testing.T, dir string) (addr string) {
	t.Helper()
	addr = caddytest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	process := servertest.NewProcess(t, filepath.Join(t.TempDir(), "log"),
		script(dir, `node "$MODULES"/vite/bin/vite.js --host 127.0.0.1 --strictPort --port "$PORT"`,
			"PORT="+port, "MODULES="+npm.Install(t, os.DirFS("testdata/npm")))...)
	process.Run()
	process.WaitListening(addr)
	return addr
}

// TestVite: with the files of docs/vite.md, pages that come from Vite's server get messages by WebSocket, whether the client is a
// package or comes from the route.
func TestVite(t *testing.T) {
	s := &caddytest.Server{T: t, Addr: "localhost:" + caddytest.FreePort(t), Admin: caddytest.FreeAddr(t)}
	_, port, _ := net.SplitHostPort(s.Addr)
	dir := viteApp(t, s.Addr)
	caddytest.Run(t, fmt.Sprintf("{\n\tadmin %s\n\tpersist_config off\n}\n", s.Admin)+
		strings.Replace(block(t, page(t, "vite.md"), "caddyfile", "bind localhost"), "8080", port, 1))
	vite := startVite(t, dir)

	t.Run("short form", func(t *testing.T) {
		// A browser would not let a page set Origin, and some do not send Sec-Fetch-Site, as here.
		short := startVite(t, filepath.Join(dir, "short"))
		for _, c := range []struct {
			vite   string
			status int
		}{{vite, http.StatusOK}, {short, http.StatusForbidden}} {
			if status, body := s.In(t).Do("POST", c.vite+"/ws", "x", "Origin", "http://"+c.vite); status != c.status {
				t.Errorf("%d %s, not %d", status, body, c.status)
			}
		}
	})
	browser := chromium.Open(t)
	if err := chromedp.Do(browser); err != nil { // tabs are of a browser that runs
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/from-route.html"} {
		t.Run(path, func(t *testing.T) {
			ctx, cancel := chromedp.NewContext(browser)
			defer cancel()
			if err := chromedp.Do(ctx, chromedp.Navigate("http://"+vite+path)); err != nil {
				t.Fatal(err)
			}
			s := s.In(t)
			// Vite may reload the page once, when it has prepared the package, and the page gets only what comes after that.
			for deadline := time.Now().Add(servertest.Patience); ; {
				s.Publish("", "hello")
				poll := chromedp.Poll[chromedp.Void](`document.body.innerText.includes("hello")`,
					chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(time.Second))
				err := chromedp.Do(ctx, poll)
				_, connections := s.Do("GET", s.Admin+"/broadcast/connections", "")
				if err == nil && strings.Contains(connections, `"transport":"websocket"`) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err, connections)
				}
			}
		})
		s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 }) // the tab is closed
	}
}
