package integration

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestServesClient: the client for browsers.
func TestServesClient(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws
		respond next`)
	get := func(path string, header ...string) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", "http://"+s.Addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for path, want := range map[string]struct {
		hasPresence bool
		caching     string
	}{
		"/ws?client":            {false, "no-cache"},
		"/ws?client=1":          {false, "public, max-age=31536000, immutable"},
		"/ws?client=presence":   {true, "no-cache"},
		"/ws?client=presence@1": {true, "public, max-age=31536000, immutable"},
	} {
		resp := get(path, "Origin", "https://elsewhere.example")
		body, _ := io.ReadAll(resp.Body)
		h := resp.Header
		if resp.StatusCode != 200 || h.Get("Content-Type") != "text/javascript; charset=utf-8" || h.Get("Access-Control-Allow-Origin") != "*" ||
			h.Get("Cache-Control") != want.caching || !bytes.Contains(body, []byte("as connect")) ||
			bytes.Contains(body, []byte("presence")) != want.hasPresence {
			t.Errorf("%s: %s %v %.100s", path, resp.Status, h, body)
		}
		if resp := get(path, "If-None-Match", h.Get("Etag")); resp.StatusCode != 304 || resp.Header.Get("Cache-Control") != want.caching {
			t.Errorf("%s again: %s %v", path, resp.Status, resp.Header)
		}
	}
	for path, want := range map[string]string{
		"/ws?client=99":           "there is no version 99 of the client: this server has ?client=1",
		"/ws?client=presence@99":  "there is no version 99 of the client: this server has ?client=presence@1",
		"/ws?client=presence@new": "there is no version new of the client",
	} {
		resp := get(path)
		body, _ := io.ReadAll(resp.Body)
		// A page of any origin gets the status, and nobody keeps it.
		if h := resp.Header; resp.StatusCode != 404 || !strings.HasPrefix(string(body), want) || h.Get("Cache-Control") != "no-store" ||
			h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %s %v %s", path, resp.Status, h, body)
		}
	}
	for _, path := range []string{"/ws?client=ann", "/ws?client=", "/ws?x&client", "/ws", "/?client", "/?client=presence", "/?client=1", "/?client=99"} {
		if body, _ := io.ReadAll(get(path).Body); string(body) != "next" {
			t.Errorf("%s: %.50s", path, body)
		}
	}
}

// TestAdmits: a client that asks whether it may connect is told so, or why not, whatever transports the route takes.
// Nothing is connected by that.
func TestAdmits(t *testing.T) {
	s := caddytest.Start(t, `
		broadcast /all
		broadcast /socket {
			transports websocket
			max_connections 1
		}
		broadcast /stream {
			transports sse
		}
		broadcast /talk {
			subscribe off
		}
		broadcast /post {
			transports post
		}
		@unnamed path /unnamed
		broadcast @unnamed {query.room}
		@locked path /locked
		error @locked 401
		respond 404`)
	s.Dial("/socket", nil) // it is full
	for path, want := range map[string]int{
		"/all": 204, "/socket": 204, "/stream": 204, "/talk": 204, "/post": 404, "/unnamed": 400, "/locked": 401, "/none": 404,
	} {
		if status, body := s.Do("GET", s.Addr+path+"?protocol=broadcast.v1&last_id=x&join=room:1", ""); status != want {
			t.Errorf("%s: %d %q, not %d", path, status, body, want)
		}
	}
	if status, _ := s.Do("GET", s.Addr+"/all?protocol=broadcast.v1", "", "Origin", "https://elsewhere.example"); status != 403 {
		t.Errorf("a page of another origin is answered %d", status)
	}
	if n := s.Totals().Connections; n != 1 {
		t.Errorf("there are %d connections", n)
	}
}
