package socket

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Through calls answer, which answers a request by way of w, and reports whether the answer got through to the server's
// own writer. Handlers in front may wrap that writer, and some keep an answer back until the handler returns. That is
// seen from below: Caddy's writer with an idle timeout is under all the others, and it is made to write to a witness
// meanwhile. On a site without idle timeouts only Caddy's own recorders can be asked.
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

// witness sees an answer's head pass.
type witness struct {
	http.ResponseWriter
	answered bool
}

func (w *witness) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *witness) WriteHeader(status int) {
	w.answered = w.answered || status >= http.StatusOK
	w.ResponseWriter.WriteHeader(status)
}

func (w *witness) Write(p []byte) (int, error) {
	w.answered = true
	return w.ResponseWriter.Write(p)
}

// buffers reports whether one of the writers says that it keeps the answer back.
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
