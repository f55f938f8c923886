package route

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// discard is a response that nobody reads. Its header is empty again for each request, and its map is not.
type discard struct {
	header http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
func (w *discard) WriteHeader(status int)      { w.status = status }

// TestPostAllocations: a POST costs the message, its data, the list of the route's channels, and what the response is
// written from and its headers' values. What Caddy's replacer takes for a placeholder comes on top.
func TestPostAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, time.Second)
	for _, c := range []struct {
		name, channel, body, contentType string
		want                             float64
	}{
		{"text", "news", "hello", "text/plain", 5},
		{"text of a browser", "news", "hello", "text/plain;charset=UTF-8", 5},
		{"JSON", "news", `[1]`, "application/json", 5},
		{"no type", "news", "hello", "", 5},
		{"empty", "news", "", "text/plain", 5},
		{"a placeholder in the channel", "room:{http.request.uri.path.1}", "hello", "text/plain", 5 + 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := Config{Hub: h, Logger: zap.NewNop(), Publish: true, Channels: []string{c.channel}, Transports: []string{Post}}
			config.SetDefaults()
			route, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			body := bytes.NewReader([]byte(c.body))
			r := httptest.NewRequest(http.MethodPost, "/ws/7", io.NopCloser(body))
			r.ContentLength = int64(len(c.body))
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			caddyhttp.NewTestReplacer(r)
			*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1"}))
			w := &discard{header: make(http.Header)}
			n := testing.AllocsPerRun(100, func() {
				body.Seek(0, io.SeekStart)
				clear(w.header)
				if err := route.ServeHTTP(w, r, nil); err != nil {
					t.Error(err)
				}
			})
			if n > c.want {
				t.Errorf("%v allocations, more than %v", n, c.want)
			}
			if w.header.Get("Content-Type") != "application/json" || w.header.Get("Cache-Control") != "no-store" {
				t.Errorf("the response has the header %v", w.header)
			}
		})
	}
}
