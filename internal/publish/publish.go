// Package publish reads messages that are published by HTTP, and the message object that all of our JSON formats share.
package publish

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// Body reads a request's body. One that is announced as too large is rejected unread: net/http then does not send the
// "100 Continue" that a client may be waiting for (RFC 9110, section 10.1.1), and the body is not sent at all.
func Body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body := io.Reader(r.Body)
	if r.ContentLength < 0 { // otherwise no more than that is read, which is within the limit
		body = http.MaxBytesReader(w, r.Body, limit)
	}
	data, err := readAll(body, r.ContentLength)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge(limit)
		}
		return nil, Reject(http.StatusBadRequest, "reading the body: %w", err)
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
			// Four times as much each time: a sender makes us reserve at most four times what it has sent, or
			// firstRead, and the longest body (64 MiB) is copied six times.
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

// tooLarge is the error for both ways to exceed the limit: announced, and sent.
func tooLarge(limit int64) error {
	return Reject(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", limit)
}

// Message reads a message from a request. The body is the data, and the query names the channel, the event and the conflate key, and
// keep=0 has the message not kept. The channel is empty if none is named. The header Idempotency-Key is the message's key
// (draft-ietf-httpapi-idempotency-key-header). Other query parameters are rejected, unless they are among more.
//
// The Content-Type decides what the body is:
//
//   - application/json that is an object with a channel: a message object, as a line of application/x-ndjson is.
//   - any other application/json, or a type that ends in +json (RFC 6839, section 3.1): JSON.
//   - a form with any of the fields channel, event and data: a message. Any other form: text, since curl -d labels every
//     body as a form.
//   - text/*, or no type: text.
//   - anything else: binary.
//
// A message object that comes as a form, or without a type, is rejected, because its sender meant the channel that it names.
func Message(w http.ResponseWriter, r *http.Request, limit int64, more ...string) (*hub.Message, error) {
	m := &hub.Message{Key: r.Header.Get("Idempotency-Key")}
	to, err := inQuery(r, more)
	if err != nil {
		return nil, Reject(http.StatusBadRequest, "%w", err)
	}
	media, err := mediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, Reject(http.StatusBadRequest, "%w", err)
	}
	if m.Data, err = Body(w, r, limit); err != nil {
		return nil, err
	}
	switch {
	case media == form:
		data, ok, err := to.fromForm(m.Data)
		if err != nil {
			return nil, Reject(http.StatusBadRequest, "%w", err)
		}
		if ok {
			m.Data = data
		}
	case media == "":
		if err := to.notObject(m.Data); err != nil {
			return nil, Reject(http.StatusBadRequest, "%w", err)
		}
	case media == "multipart/form-data":
		return nil, Reject(http.StatusUnsupportedMediaType, "a form is published as application/x-www-form-urlencoded, not multipart/form-data")
	case media == "application/json":
		o, err := to.fromJSON(m.Data, m.Key)
		if err != nil {
			return nil, Reject(http.StatusBadRequest, "%w", err)
		}
		// It is not a message object but the data itself.
		if o == nil {
			m.Kind = hub.JSON
			break
		}
		key := cmp.Or(o.Key, m.Key)
		if m, err = o.Message(""); err != nil {
			return nil, Reject(http.StatusBadRequest, "%w", err)
		}
		m.Key = key
	case strings.HasSuffix(media, "+json"):
		m.Kind = hub.JSON
	case media != "" && !strings.HasPrefix(media, "text/"):
		m.Kind = hub.Binary
	}
	// Not the object's own fields: by now `to` has what the query, the form or the object says.
	m.Channel, m.Event, m.Transient, m.Conflate = to.channel, to.event, m.Transient || to.transient, hub.NewConflateKey(to.conflate)
	return m, nil
}

// Namespace returns the idempotency namespace of a route's user, distinct from other users and from the admin API.
func Namespace(user string) string { return "route:" + user }

// Owner returns who a client's idempotency keys are charged to: its user, or its address if it has none. IPv6 addresses
// count by their /64, since a client that has one address of it usually has them all.
func Owner(user, remote string) string {
	if user != "" {
		return Namespace(user)
	}
	return "address:" + ratelimit.Address(remote, ratelimit.DefaultIPv6Prefix)
}

// form is the type of HTML forms, and what curl -d sends whatever the data is.
const form = "application/x-www-form-urlencoded"

// mediaType returns a type in lower case, without its parameters. A charset is not looked at: text has to be UTF-8.
func mediaType(contentType string) (string, error) {
	switch contentType {
	case "", "text/plain", "application/json", "application/octet-stream":
		return contentType, nil // as most are, without the map that parsing takes
	case "text/plain;charset=UTF-8":
		return "text/plain", nil // what browsers send for a string
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("the Content-Type %q: %w", contentType, err)
	}
	return media, nil
}
