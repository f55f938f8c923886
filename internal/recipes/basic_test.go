package recipes

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
)

const noPage = "there is no page at this address: it is a route of broadcast"

func testCheck(r *recipe) {
	s := serve(r, r.get("caddyfile", 0))
	s.expect(r.get("sh", 0), noPage, "WebSockets")
	stream := s.follow(r.get("sh", 1))
	stream.wait("retry:")
	s.expect(r.get("sh", 2), `{"id":"`)
	stream.wait("data: hello")
	// This curl shows the response's header when its time is over, which on a busy machine may be too early.
	out := ""
	for _, seconds := range []string{"0.5", "5", "30"} {
		if out = s.run(r.get("sh", 3, "-m 2", "-m "+seconds)); strings.Contains(out, "HTTP/1.1 101 ") {
			break
		}
	}
	if !strings.Contains(out, "HTTP/1.1 101 ") {
		r.Error(out)
	}
	s.expect(r.get("sh", 3, "-m 2", "", "Origin: https://example.com", "Origin: https://elsewhere.org"), "HTTP/1.1 403 ", "a page of origin")
	s.expect(r.get("sh", 3, "-m 2", "", "-H 'Connection: Upgrade'", "", "-H 'Upgrade: websocket'", ""), "HTTP/1.1 426 ", noPage)
}

func testSinglePageApp(r *recipe) {
	root := r.TempDir()
	for name, text := range map[string]string{"index.html": "the page", "app.js": "the script"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			r.Fatal(err)
		}
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the API at "+r.URL.Path) }))
	defer api.Close()
	s := serve(r, r.get("caddyfile", 0, "/srv/app/dist", root, "localhost:3000", api.Listener.Addr().String()))
	s.expect(r.get("sh", 0), "the page")
	s.expect(r.get("sh", 1), noPage)
	for path, want := range map[string]string{"/": "the page", "/app.js": "the script", "/api/orders": "the API at /api/orders"} {
		if status, body := s.get("https://example.com" + path); status != 200 || body != want {
			r.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, body := s.get("https://example.com/ws?client"); status != 200 || !strings.Contains(body, "export") {
		r.Errorf("the client: %d %.100q", status, body)
	}
	c := s.mustVisit("127.0.0.1", "wss://example.com/ws")
	s.Publish("", "hello")
	s.Expect(c, "hello")
}
