package socket

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Through calls answer, which writes a response to w, and reports whether the response reached the server's own writer.
// Handlers in front may wrap that writer, and some hold back the response until the handler returns.
//
// This can only be seen from below. Caddy's IdleTimeoutWriter (caddyserver/caddy#7913) is below all other wrappers, so it is
// made to write to a witness during the call. On a site without idle timeouts there is none, and only Caddy's own
// recorders can be asked.
func Through(w http.ResponseWriter, r *http.Request, answer func() error) (bool, error) {
	_, lowest := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if lowest == nil {
		err := answer()
		return !buffers(w), err
	}
	inner := lowest.ResponseWriterWrapper
	seen := &witness{ResponseWriter: inner.ResponseWriter}
	lowest.ResponseWriterWrapper = &caddyhttp.ResponseWriterWrapper{ResponseWriter: seen}
	defer func() { lowest.ResponseWriterWrapper = inner }()
	err := answer()
	return seen.answered, err
}

// witness records whether a response's header passes through it.
type witness struct {
	http.ResponseWriter
	answered bool
}

// Unwrap lets http.ResponseController find the server's writer below the witness.
func (w *witness) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *witness) WriteHeader(status int) {
	// 1xx are interim: the response is still to come (RFC 9110, section 15.2).
	w.answered = w.answered || status >= http.StatusOK
	w.ResponseWriter.WriteHeader(status)
}

func (w *witness) Write(p []byte) (int, error) {
	w.answered = true
	return w.ResponseWriter.Write(p)
}

// buffers reports whether one of the writers says that it holds back the response.
func buffers(w http.ResponseWriter) bool {
	for {
		if recorder, ok := w.(interface{ Buffered() bool }); ok && recorder.Buffered() {
			return true
		}
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = inner.Unwrap()
	}
}
