package publish

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// HTTPError is the reason why a request is rejected, with the HTTP status for it. It is neither caddyhttp.HandlerError nor
// caddy.APIError, because routes need the one and the admin API the other. Each converts it.
type HTTPError struct {
	Status int
	Err    error
}

func (e *HTTPError) Error() string { return e.Err.Error() }
func (e *HTTPError) Unwrap() error { return e.Err }

// Reject returns an HTTPError.
func Reject(status int, format string, args ...any) error {
	return &HTTPError{status, fmt.Errorf(format, args...)}
}

// RetryLater tells the client to retry in 1 to 10 seconds, at random, so that not all clients retry at once.
func RetryLater(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(10)))
}

// Failed returns an error of hub.Publish with the status for it. This is where the HTTP status of a full or closed hub is
// decided: whatever is not wrong with the message itself gets a 503, because the same request may succeed later. A 504 is
// for what may have succeeded already.
func Failed(w http.ResponseWriter, err error) error {
	invalid := new(hub.InvalidError)
	switch {
	case errors.Is(err, hub.ErrKeyReused):
		return &HTTPError{http.StatusUnprocessableEntity, err}
	case errors.Is(err, hub.ErrTooBig):
		return &HTTPError{http.StatusRequestEntityTooLarge, err}
	case errors.Is(err, hub.ErrUnknown):
		return Reject(http.StatusGatewayTimeout, "%w; publish it again with the same Idempotency-Key, and it is published once", err)
	case errors.As(err, &invalid):
		return &HTTPError{http.StatusBadRequest, err}
	}
	RetryLater(w)
	return &HTTPError{http.StatusServiceUnavailable, err}
}
