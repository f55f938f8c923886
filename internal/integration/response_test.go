package integration

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// app answers as the path says.
func app(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/orders/json":
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"id": 1}`)
	case "/orders/parts":
		for _, part := range []string{"a", "b", "c"} {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
		}
	case "/orders/binary":
		w.Write([]byte{0xff, 0})
	case "/orders/gzip":
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			io.WriteString(w, "plain")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, "plain")
		z.Close()
	case "/orders/brotli":
		w.Header().Set("Content-Encoding", "br")
		io.WriteString(w, "\x0b\x02\x80plain\x03")
	case "/orders/large":
		io.WriteString(w, strings.Repeat("x", 1<<10+1))
	case "/orders/nothing":
		w.WriteHeader(http.StatusNoContent)
	case "/orders/bad":
		http.Error(w, "bad", http.StatusUnprocessableEntity)
	case "/orders/not_json":
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{`)
	case "/orders/broken":
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/orders/elsewhere":
		w.Header().Set("X-Channel", "elsewhere")
		io.WriteString(w, "moved")
	default:
		io.WriteString(w, r.Method+" "+r.URL.Path)
	}
}

// TestResponse: what an application responds to requests that change something is published, and its client gets the response
// as ever.
func TestResponse(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(app))
	t.Cleanup(backend.Close)
	s := caddytest.Start(t, `broadcast /ws orders elsewhere
		encode gzip
		broadcast_response /orders/* orders {http.request.method} {
			max_message 1KiB
		}
		broadcast_response /orders/elsewhere {http.reverse_proxy.header.X-Channel}
		reverse_proxy `+strings.TrimPrefix(backend.URL, "http://"))
	c := s.Dial("/ws", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	read := func() string {
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	read() // the hello
	for _, test := range []struct{ method, path, body, published string }{
		{"POST", "/orders/json", `{"id": 1}`, `"channel":"orders","event":"POST","data":{"id": 1}`},
		{"PATCH", "/orders/parts", "abc", `"channel":"orders","event":"PATCH","data":"abc"`},
		{"PUT", "/orders/binary", "\xff\x00", `"event":"PUT","data":"/wA=","encoding":"base64"`},
		{"DELETE", "/orders/7", "DELETE /orders/7", `"data":"DELETE /orders/7"`},
		{"POST", "/orders/gzip", "plain", `"data":"plain"`},
	} {
		if status, body := s.Do(test.method, s.Addr+test.path, "x"); status/100 != 2 || body != test.body {
			t.Errorf("%s %s: %d %q", test.method, test.path, status, body)
		}
		if got := read(); !strings.Contains(got, test.published) {
			t.Errorf("%s %s: %s is published", test.method, test.path, got)
		}
	}
	for _, path := range []string{"/orders/nothing", "/orders/bad", "/orders/large", "/orders/not_json", "/orders/brotli", "/other"} {
		s.Do("POST", s.Addr+path, "x")
	}
	s.Do("GET", s.Addr+"/orders/8", "")
	if resp, err := http.Post("http://"+s.Addr+"/orders/broken", "", nil); err == nil {
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("half of a response is taken for all of it")
		}
		resp.Body.Close()
	}
	// Both handlers publish this response.
	s.Do("POST", s.Addr+"/orders/elsewhere", "x")
	got := read()
	if !strings.Contains(got, `"data":"moved"`+"},") {
		got += read()
	}
	if strings.Count(got, `"data"`) != 2 || strings.Count(got, `"data":"moved"`) != 2 || !strings.Contains(got, `"channel":"elsewhere"`) {
		t.Errorf("not only the last response was published: %s", got)
	}
	for _, why := range []string{"it has 1025 bytes, more than the 1024 of max_message", `it has the Content-Encoding \"br\"`, "not published"} {
		s.WaitLog(why)
	}
	s.ExpectMetrics(`published_total{source="response"} 7`)
}

// TestResponseErrors: wrong options are rejected.
func TestResponseErrors(t *testing.T) {
	for config, want := range map[string]string{
		"broadcast_response":                            "broadcast_response needs the channel to publish on",
		"broadcast_response /x":                         "broadcast_response needs the channel to publish on",
		"broadcast_response a b c":                      "wrong argument count",
		"broadcast_response a {\nsize 1\n}":             "unrecognized option size",
		"broadcast_response a {\nmax_message 0\n}":      "max_message must be greater than 0",
		"broadcast_response a {\nmax_message 128MiB\n}": "max_message is 134217728 bytes, must be 1 to 67108864, at Caddyfile:6",
		`broadcast_response ""`:                         "no channel is given",
	} {
		err := caddytest.Load("{\nadmin off\npersist_config off\n}\nhttp://" + caddytest.FreeAddr(t) + " {\n" + config + "\n}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", config, err, want)
		}
	}
}

// TestResponseOfRoute: what a route itself responds to who publishes there, or polls, is not published.
func TestResponseOfRoute(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws
		broadcast /socket.io/* {
			socketio
		}
		broadcast_response default
		respond hi`)
	c := s.Dial("/ws", nil)
	s.Post(s.Addr+"/ws", "text/plain", "one")
	openSession(t, func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) })
	s.Post(s.Addr+"/other", "text/plain", "x")
	s.Expect(c, "one", "hi")
}
