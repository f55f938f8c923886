// Package post reads what is published by an HTTP request.
package post

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/rates"
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

// Message reads a message from a request: the body is the data, and the query names the channel and the event. It is JSON
// if its Content-Type is application/json or ends in +json, text if that is text/*, a form or absent, else binary. A form
// with the field data is taken by its fields channel, event and data; one without any of these is what curl -d says of
// everything. An object of application/json that names a channel is taken as a line of application/x-ndjson is, and refused if it comes as a
// form or without a type. The channel
// is empty if none is named. The header Idempotency-Key is the message's key
// (draft-ietf-httpapi-idempotency-key-header). Other parameters of the query are refused, unless they are among more.
func Message(w http.ResponseWriter, r *http.Request, limit int64, more ...string) (*hub.Message, error) {
	m := &hub.Message{Key: r.Header.Get("Idempotency-Key")}
	to, err := inQuery(r, more)
	if err != nil {
		return nil, bad("%w", err)
	}
	media, err := mediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, bad("%w", err)
	}
	if m.Data, err = Body(w, r, limit); err != nil {
		return nil, err
	}
	switch {
	case media == form:
		data, ok, err := to.fromForm(m.Data)
		if err != nil {
			return nil, bad("%w", err)
		}
		if ok {
			m.Data = data
		}
	case media == "":
		if err := to.notEnvelope(m.Data); err != nil {
			return nil, bad("%w", err)
		}
	case media == "multipart/form-data":
		return nil, &Error{http.StatusUnsupportedMediaType, errors.New("a form is published as application/x-www-form-urlencoded, not multipart/form-data")}
	case media == "application/json":
		ok, err := to.fromJSON(m, m.Data)
		if err != nil {
			return nil, bad("%w", err)
		}
		if !ok {
			m.Kind = hub.JSON
		}
	case strings.HasSuffix(media, "+json"): // RFC 6839, section 3.1
		m.Kind = hub.JSON
	case media != "" && !strings.HasPrefix(media, "text/"):
		m.Kind = hub.Binary
	}
	m.Channel, m.Event = to.channel, to.event
	return m, nil
}

// Client is the publisher that a route's user is: apart from others, and from the admin API.
func Client(user string) string { return "route:" + user }

// Owner is who the idempotency keys of a route's client take space for: its user, or if it has none its address.
// Addresses of IPv6 are one for each /64, of which a client has all.
func Owner(user, remote string) string {
	if user != "" {
		return Client(user)
	}
	return "address:" + rates.Address(remote, rates.DefaultIPv6Prefix)
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
	if invalid := new(hub.InvalidError); errors.As(err, &invalid) {
		return &Error{http.StatusBadRequest, err}
	}
	RetryLater(w)
	return &Error{http.StatusServiceUnavailable, err}
}
