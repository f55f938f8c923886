package protocol

import (
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// Limiter bounds how fast a client may send.
type Limiter struct {
	hub      *hub.Hub // counts what is rejected
	bucket   *rate.Limiter
	patience int // how many in a row are rejected before the client is closed
	rejected int // how many in a row were
}

// NewLimiter returns the limiter of one client. It has to have a limit.
func NewLimiter(h *hub.Hub, l ratelimit.Limit) Limiter { return Limiter{hub: h, bucket: l.New()} }

// Tolerate sets how many messages in a row are rejected, one by one, before the client is closed. It is 0 until a protocol
// sets it, since a client that cannot be told of a rejection must be closed at once.
func (l *Limiter) Tolerate(patience int) {
	if l != nil {
		l.patience = patience
	}
}

// Take counts a message, and reports whether the client may send it. The error closes a client that does not stop.
func (l *Limiter) Take() (ok bool, err *frame.CloseError) {
	if l == nil {
		return true, nil
	}
	if l.bucket.Allow() {
		l.rejected = 0
		return true, nil
	}
	l.hub.CountRejected(hub.LimitRate)
	if l.rejected++; l.rejected > l.patience {
		return false, &frame.CloseError{Code: frame.PolicyViolation, Text: "too fast"}
	}
	return false, nil
}
