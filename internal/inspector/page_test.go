package inspector

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func get(method, path, etag string) (*httptest.ResponseRecorder, error) {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("If-None-Match", etag)
	w := httptest.NewRecorder()
	return w, Serve(w, r)
}

// TestServe: each file has its type, a strict policy, and is asked for again; no other is there.
func TestServe(t *testing.T) {
	size := 0
	names := map[string]string{"": "text/html", "ui.css": "text/css", "broadcast.js": "text/javascript"}
	files, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if path.Ext(f.Name()) == ".js" {
			names[f.Name()] = "text/javascript"
		}
	}
	for name, contentType := range names {
		w, err := get("GET", Prefix+name, "")
		if err != nil || w.Code != http.StatusOK {
			t.Fatalf("%q: %d, %v", name, w.Code, err)
		}
		if name != "broadcast.js" {
			size += w.Body.Len()
		}
		h := w.Header()
		if !strings.HasPrefix(h.Get("Content-Type"), contentType+";") || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none';") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-cache" ||
			h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q has the header %v", name, h)
		}
		if w, err := get("GET", Prefix+name, h.Get("Etag")); err != nil || w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%q again: %d, %v", name, w.Code, err)
		}
	}
	// The limit was 29 KiB before the page had a table of nodes, messages that unfold, keys to move through them, rows that fit on a
	// phone, and a message for when Caddy is gone. The page has no build step, so comments count too. Compressed it has 14 KiB.
	if size > 40<<10 {
		t.Errorf("the page has %d bytes, more than 40 KiB", size)
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", Prefix + "nothing", http.StatusNotFound},
		{"GET", Prefix + "ui.go", http.StatusNotFound},
		{"GET", Prefix + "../totals.js", http.StatusNotFound},
		{"POST", Prefix, http.StatusMethodNotAllowed},
	} {
		_, err := get(c.method, c.path, "")
		var refusal caddy.APIError
		if !errors.As(err, &refusal) || refusal.HTTPStatus != c.status {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
	}
}
