// Package post reads what is published by an HTTP request.
package post

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
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
	body := http.MaxBytesReader(w, r.Body, limit)
	var data []byte
	var err error
	if n := r.ContentLength; n >= 0 {
		data = make([]byte, n)
		_, err = io.ReadFull(body, data)
	} else {
		data, err = io.ReadAll(body)
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(limit)
	case err != nil:
		return nil, &Error{http.StatusBadRequest, fmt.Errorf("reading the body: %w", err)}
	}
	return data, nil
}

func tooLarge(limit int64) error {
	return &Error{http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", limit)}
}

// Message reads a message from a request: the body is the data, and the query names the event. It is text if its
// Content-Type is text/*, application/json, a form (which is what curl -d says of everything) or absent, else binary.
func Message(w http.ResponseWriter, r *http.Request, channel string, limit int64) (*hub.Message, error) {
	m := &hub.Message{Channel: channel, Event: r.URL.Query().Get("event")}
	if m.Event != "" {
		if err := hub.CheckName(m.Event); err != nil {
			return nil, &Error{http.StatusBadRequest, fmt.Errorf("the event %w", err)}
		}
	}
	kind, err := kindOf(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, &Error{http.StatusBadRequest, err}
	}
	m.Kind = kind
	if m.Data, err = Body(w, r, limit); err != nil {
		return nil, err
	}
	if m.Kind == hub.Text && !utf8.Valid(m.Data) {
		return nil, &Error{http.StatusBadRequest,
			errors.New("the body is not UTF-8; publish binary data with Content-Type: application/octet-stream")}
	}
	return m, nil
}

func kindOf(contentType string) (hub.Kind, error) {
	if contentType == "" {
		return hub.Text, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, fmt.Errorf("the Content-Type %q: %w", contentType, err)
	}
	if strings.HasPrefix(media, "text/") || media == "application/json" || media == "application/x-www-form-urlencoded" {
		return hub.Text, nil
	}
	return hub.Binary, nil
}

// Refused gives an error of hub.Publish its status.
func Refused(w http.ResponseWriter, err error) error {
	w.Header().Set("Retry-After", "1")
	return &Error{http.StatusServiceUnavailable, err}
}
