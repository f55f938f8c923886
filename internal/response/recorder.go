package response

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// recorder passes a response on and keeps a copy, if it is one that may be published. It has no method ReadFrom, so that
// everything goes through Write.
type recorder struct {
	http.ResponseWriter
	limit int // of body

	status int // 0 until there is one, and for a response that is not published
	known  bool
	size   int    // of the whole body
	body   []byte // nothing if it is larger than limit

	length, encoding, mediaType string // of the header
}

// WriteHeader notes the status. It implements http.ResponseWriter.
func (rec *recorder) WriteHeader(status int) {
	// Informational responses come before the one that counts (RFC 9110, section 15.2).
	if status >= 200 || status == http.StatusSwitchingProtocols {
		rec.begin(status)
	}
	rec.ResponseWriter.WriteHeader(status)
}

// begin notes the status and the header. It comes before the writer outside, which may change the header: the handler encode
// compresses what it gets.
func (rec *recorder) begin(status int) {
	if rec.known {
		return
	}
	rec.known = true
	if status >= 200 && status < 300 {
		rec.status = status
	}
	header := rec.Header()
	rec.length, rec.encoding = header.Get("Content-Length"), header.Get("Content-Encoding")
	rec.mediaType, _, _ = mime.ParseMediaType(header.Get("Content-Type"))
}

// Write implements http.ResponseWriter.
func (rec *recorder) Write(p []byte) (int, error) {
	rec.begin(http.StatusOK) // if it has not begun
	n, err := rec.ResponseWriter.Write(p)
	if rec.status != 0 {
		if rec.size += n; rec.size <= rec.limit {
			rec.body = append(rec.body, p[:n]...)
		} else {
			rec.body = nil
		}
	}
	return n, err
}

// Unwrap has http.ResponseController find what flushes.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// check returns the kind of a response's body, or why it cannot be published.
func (rec *recorder) check() (hub.Kind, error) {
	if n, err := strconv.Atoi(rec.length); err == nil && n != rec.size {
		return 0, fmt.Errorf("it has %d bytes of %d", rec.size, n)
	}
	if rec.encoding != "" && !strings.EqualFold(rec.encoding, "identity") {
		return 0, fmt.Errorf("it has the Content-Encoding %q", rec.encoding)
	}
	if rec.size > rec.limit {
		return 0, fmt.Errorf("it has %d bytes, more than the %d of max_message", rec.size, rec.limit)
	}
	switch {
	case rec.mediaType == "application/json" || strings.HasSuffix(rec.mediaType, "+json"):
		return hub.JSON, nil
	case utf8.Valid(rec.body):
		return hub.Text, nil
	}
	return hub.Binary, nil
}
