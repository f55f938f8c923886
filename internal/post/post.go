// Package post reads what is published by an HTTP request.
package post

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Error is a refusal, with the HTTP status that says so.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Body reads a request's body.
func Body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	data, err := readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(limit)
	case err != nil:
		return nil, bad("reading the body: %w", err)
	}
	return data, nil
}

// firstRead is how much space a body gets before any of it has come.
const firstRead = 16 << 10

// readAll reads n bytes, or if n is negative all there are. It makes no space for what is only announced.
func readAll(r io.Reader, n int64) ([]byte, error) {
	if n < 0 {
		return io.ReadAll(r)
	}
	data := make([]byte, 0, min(n, firstRead))
	for int64(len(data)) < n {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(n, int64(4*cap(data)))), data...)
		}
		got, err := io.ReadFull(r, data[len(data):cap(data)])
		data = data[:len(data)+got]
		if err != nil {
			return nil, err
		}
	}
	return data, nil
}

func tooLarge(limit int64) error {
	return &Error{http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", limit)}
}

// Message reads a message from a request: the body is the data, and the query names the event. It is JSON if its
// Content-Type is application/json, text if that is text/*, a form or absent, else binary. A form with the field data is taken as
// web frameworks send it, with its fields channel, event and data; any other is what curl -d says of everything. The
// channel is that of the form or the query, in this order, or empty. The header Idempotency-Key is the message's key (draft-ietf-httpapi-idempotency-key-header).
func Message(w http.ResponseWriter, r *http.Request, limit int64) (*hub.Message, error) {
	query := r.URL.Query()
	m := &hub.Message{Channel: strings.Clone(query.Get("channel")), Event: strings.Clone(query.Get("event")), Key: r.Header.Get("Idempotency-Key")}
	media, err := mediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, bad("%w", err)
	}
	if m.Data, err = Body(w, r, limit); err != nil {
		return nil, err
	}
	switch {
	case media == form:
		if fields, err := url.ParseQuery(string(m.Data)); err == nil && fields.Has("data") {
			m.Data = []byte(fields.Get("data"))
			m.Channel = cmp.Or(strings.Clone(fields.Get("channel")), m.Channel) // what is not escaped is a part of the body
			m.Event = cmp.Or(strings.Clone(fields.Get("event")), m.Event)
		}
	case media == "application/json":
		if !json.Valid(m.Data) {
			return nil, bad("the body is not JSON, as its Content-Type says")
		}
		m.Kind = hub.JSON
	case media != "" && !strings.HasPrefix(media, "text/"):
		m.Kind = hub.Binary
	}
	if m.Kind != hub.Binary && !utf8.Valid(m.Data) {
		return nil, bad("the body is not UTF-8; publish binary data with Content-Type: application/octet-stream")
	}
	if err := CheckNames(m); err != nil {
		return nil, bad("%w", err)
	}
	return m, nil
}

// CheckNames checks the names that a message has.
func CheckNames(m *hub.Message) error {
	for _, n := range [...]struct{ what, name string }{{"channel", m.Channel}, {"event", m.Event}, {"key", m.Key}} {
		if n.name != "" {
			if err := hub.CheckName(n.name); err != nil {
				return fmt.Errorf("the %s %w", n.what, err)
			}
		}
	}
	return nil
}

// Client is the publisher that a route's user is: apart from others, and from the admin API.
func Client(user string) string { return "route:" + user }

// Owner is who the idempotency keys of a route's client take space for: its user, or if it has none its address.
// Addresses of IPv6 are one for each /64, of which a client has all.
func Owner(user, remote string) string {
	if user != "" {
		return Client(user)
	}
	if ip, err := netip.ParseAddr(remote); err == nil && ip.Unmap().Is6() {
		prefix, _ := ip.WithZone("").Prefix(64)
		remote = prefix.String()
	}
	return "address:" + remote
}

const form = "application/x-www-form-urlencoded"

func bad(format string, args ...any) error {
	return &Error{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

func mediaType(contentType string) (string, error) {
	if contentType == "" {
		return "", nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("the Content-Type %q: %w", contentType, err)
	}
	return media, nil
}

// RetryLater says when to come back: in 1 to 10 seconds, so that not all do at once.
func RetryLater(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(10)))
}

// Refused gives an error of hub.Publish its status.
func Refused(w http.ResponseWriter, err error) error {
	if errors.Is(err, hub.ErrKeyReused) {
		return &Error{http.StatusUnprocessableEntity, err}
	}
	RetryLater(w)
	return &Error{http.StatusServiceUnavailable, err}
}
