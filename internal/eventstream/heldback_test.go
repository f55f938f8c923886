package eventstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// recorder keeps an answer back until its handler has returned.
type recorder struct {
	http.ResponseWriter
	status int
	kept   bytes.Buffer
}

func (r *recorder) Unwrap() http.ResponseWriter       { return r.ResponseWriter }
func (r *recorder) WriteHeader(status int)            { r.status = status }
func (r *recorder) Write(p []byte) (n int, err error) { return r.kept.Write(p) }
func (r *recorder) Flush()                            {}

func (r *recorder) release() {
	if r.status != 0 {
		r.ResponseWriter.WriteHeader(r.status)
	}
	r.ResponseWriter.Write(r.kept.Bytes())
}

// withIdleTimeouts does what Caddy's server does before its handlers.
func withIdleTimeouts(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	idle := &caddyhttp.IdleTimeoutWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		Ctrl:                  http.NewResponseController(w),
		Deadline:              caddyhttp.IdleDeadline{Timeout: time.Minute},
	}
	return idle, r.WithContext(caddyhttp.ContextWithIdleTimeouts(r.Context(), nil, idle))
}

// TestHeldBack: where a handler in front keeps the answer back, the client gets an answer that says so, with a head.
func TestHeldBack(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"a plain recorder": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w, r = withIdleTimeouts(w, r)
				rec := &recorder{ResponseWriter: w}
				next.ServeHTTP(rec, r)
				rec.release()
			})
		},
		"Caddy's recorder without idle timeouts": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := caddyhttp.NewResponseRecorder(w, new(bytes.Buffer), func(int, http.Header) bool { return true })
				next.ServeHTTP(rec, r)
				rec.WriteResponse()
			})
		},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, version), func(t *testing.T) { testHeldBack(t, wrap, version) })
		}
	}
}

func testHeldBack(t *testing.T, wrap func(http.Handler) http.Handler, version int) {
	s := serve(t, hub.Config{}, nil, wrap)
	s.server.EnableHTTP2 = version == 2
	s.server.StartTLS()
	req, _ := http.NewRequest("GET", s.server.URL+"/?channels=a", nil)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := s.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.ProtoMajor != version {
		t.Error(resp.Proto)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	// Caddy's recorder keeps what it has written before an error, where nobody but its handler can take it back.
	if !strings.Contains(string(body), "keeps the event stream back") || resp.Header.Get("X-Accel-Buffering") != "" {
		t.Errorf("%s %v %q", resp.Status, resp.Header, body)
	}
	s.wait(t, func(stats hub.Stats) bool { return stats.Connections == 0 })
}

// TestPassedOn: a recorder that lets event streams pass changes nothing.
func TestPassedOn(t *testing.T) {
	s := serve(t, hub.Config{}, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w, r = withIdleTimeouts(w, r)
			next.ServeHTTP(caddyhttp.NewResponseRecorder(w, nil, nil), r)
		})
	}).start()
	_, r, head := s.stream(t, "a", "")
	if head.StatusCode != 200 {
		t.Error(head.Status)
	}
	expect(t, r, event{"", "retry", ""}, event{"*", "", ""})
	id := s.publish(t, "a", "x")
	expect(t, r, event{id, "", "x\n"})
}

type panics struct{ http.ResponseWriter }

func (p panics) Unwrap() http.ResponseWriter { return p.ResponseWriter }
func (panics) Write([]byte) (int, error)     { panic(http.ErrAbortHandler) }

// TestPanicInFront: a connection does not stay in the hub when a writer in front panics before it has started.
func TestPanicInFront(t *testing.T) {
	s := serve(t, hub.Config{}, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(panics{w}, r) })
	}).start()
	c, r := s.request(t, "a", accept)
	defer c.Close()
	io.Copy(io.Discard, r) // until the server has closed it
	s.wait(t, func(stats hub.Stats) bool { return stats.Connections == 0 })
}
