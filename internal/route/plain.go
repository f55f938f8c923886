package route

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// servePlain passes a request on that is not the route's. If no handler has a page for it, the response says what the address
// is for: somebody has opened it in a browser or with curl, or a proxy has removed the headers of a handshake, and Caddy's
// empty response would look like a route that does not work.
func (route *Route) servePlain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return next.ServeHTTP(w, r)
	}
	watched := &watchedWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	err := next.ServeHTTP(watched, r)
	if watched.used {
		return err
	}
	status := http.StatusNotFound
	if err == nil {
		status = route.statusOfPlain(w.Header(), r.ProtoMajor)
	} else if failed, ok := errors.AsType[caddyhttp.HandlerError](err); !ok || failed.StatusCode != http.StatusNotFound {
		return err
	}
	explained := route.errors.Respond(w, r, caddyhttp.Error(status, route.noPageError()))
	if explained != nil && err != nil {
		return err // the configuration handles errors, and this one is not ours
	}
	return explained
}

// statusOfPlain returns the status for a request that nothing responds to, and sets the header that goes with it.
func (route *Route) statusOfPlain(h http.Header, protocol int) int {
	switch {
	case route.acceptsSockets:
		if protocol == 1 { // RFC 9110, section 15.5.22. In HTTP/2 it is an error (RFC 9113, section 8.2.2).
			h.Set("Upgrade", "websocket")
		}
		return http.StatusUpgradeRequired
	case route.acceptsStreams:
		return http.StatusNotAcceptable
	default:
		h.Set("Allow", http.MethodPost) // RFC 9110, section 15.5.6
		return http.StatusMethodNotAllowed
	}
}

// noPageError returns the error for a plain GET, which names what the route accepts.
func (route *Route) noPageError() error {
	var accepted []string
	if route.acceptsSockets {
		accepted = append(accepted, "WebSockets")
	}
	if route.acceptsStreams {
		accepted = append(accepted, "event streams (Accept: text/event-stream)")
	}
	if route.acceptsPosts {
		accepted = append(accepted, "POSTs")
	}
	if route.engine != nil {
		accepted = append(accepted, "clients of Socket.IO")
	}
	return errors.New("there is no page at this address: it is a route of broadcast, and accepts " + strings.Join(accepted, ", "))
}

// watchedWriter notes whether a handler has used it. One that gets at the writer below, for example to flush it, counts as one
// that has.
type watchedWriter struct {
	caddyhttp.ResponseWriterWrapper
	used bool
}

func (w *watchedWriter) WriteHeader(status int) {
	w.used = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.used = true
	return w.ResponseWriter.Write(p)
}

func (w *watchedWriter) ReadFrom(r io.Reader) (int64, error) {
	w.used = true
	return w.ResponseWriterWrapper.ReadFrom(r)
}

func (w *watchedWriter) Unwrap() http.ResponseWriter {
	w.used = true
	return w.ResponseWriter
}
