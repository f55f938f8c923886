package script

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// TestServe: browsers get the files compressed, other programs as they are, and nobody gets again what it has.
func TestServe(t *testing.T) {
	get := func(method, name string, header ...string) *http.Response {
		t.Helper()
		r := httptest.NewRequest(method, "/socket.io/"+name, nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		if !Wants(r) {
			t.Fatalf("%s %s is not for this", method, name)
		}
		w := httptest.NewRecorder()
		if err := Serve(w, r); err != nil {
			t.Fatal(err)
		}
		return w.Result()
	}
	for name, size := range map[string]int64{"socket.io.js": 16 << 10, "socket.io.min.js": 16 << 10, "socket.io.esm.min.js": 14 << 10} {
		plain := get("GET", name, "Accept-Encoding", "br, gzip;q=0")
		small := get("GET", name, "Accept-Encoding", "gzip, deflate, br, zstd")
		if plain.Header.Get("Content-Encoding") != "" || small.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: encoded %v and %v", name, plain.Header, small.Header)
		}
		if n, err := strconv.ParseInt(small.Header.Get("Content-Length"), 10, 64); err != nil || n > size {
			t.Errorf("%s has %d bytes, more than %d", name, n, size)
		}
		for _, resp := range []*http.Response{plain, small} {
			h := resp.Header
			if resp.StatusCode != 200 || h.Get("Cache-Control") != "public, max-age=604800" || h.Get("Vary") != "Accept-Encoding" ||
				h.Get("Access-Control-Allow-Origin") != "*" || !strings.HasPrefix(h.Get("Content-Type"), "text/javascript") {
				t.Errorf("%s: %s %v", name, resp.Status, h)
			}
		}
		if plain.Header.Get("Etag") == small.Header.Get("Etag") {
			t.Errorf("%s: one tag for two encodings", name)
		}
		for _, encoding := range []string{"", "gzip"} {
			tag := get("HEAD", name, "Accept-Encoding", encoding).Header.Get("Etag")
			if again := get("GET", name, "Accept-Encoding", encoding, "If-None-Match", tag); again.StatusCode != 304 || again.ContentLength > 0 {
				t.Errorf("%s: %s", name, again.Status)
			}
		}
	}
	for _, path := range []string{"/socket.io/", "/socket.io/socket.io.js.map", "/socket.io/socket.io.min.js.gz"} {
		if Wants(httptest.NewRequest("GET", path, nil)) {
			t.Errorf("%s is for this", path)
		}
	}
	if Wants(httptest.NewRequest("POST", "/socket.io/socket.io.js", nil)) {
		t.Error("a POST is for this")
	}
}
