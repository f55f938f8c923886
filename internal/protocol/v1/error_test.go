package v1

import (
	"errors"
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestPublishErrors: what the client can do something about is an error that it is sent. Of anything else it learns by the
// end of its connection.
func TestPublishErrors(t *testing.T) {
	for err, want := range map[error]string{
		hub.ErrKeyReused: codeConflict, &hub.InvalidError{}: codeInvalid, hub.ErrDown: codeUnavailable, hub.ErrUnknown: codeUnknown,
		hub.ErrTooBig: codeTooBig, hub.ErrClosed: "",
	} {
		code := ""
		if e, ok := errors.AsType[*Error](publishError(fmt.Errorf("publishing: %w", err))); ok {
			code = e.code
		}
		if code != want {
			t.Errorf("%v: %q, want %q", err, code, want)
		}
	}
}
