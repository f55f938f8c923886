package publish

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestFailed: the status says whether the client should try again, and may.
func TestFailed(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{hub.ErrFull, 503, true},
		{hub.ErrClosed, 503, true},
		{hub.ErrDown, 503, true},
		{hub.ErrUnknown, 504, false},
		{hub.ErrTooBig, 413, false},
		{hub.ErrKeyReused, 422, false},
		{&hub.InvalidError{}, 400, false},
	} {
		w := httptest.NewRecorder()
		err := Failed(w, fmt.Errorf("publishing: %w", c.err)).(*HTTPError)
		if retry := w.Header().Get("Retry-After") != ""; err.Status != c.status || retry != c.retry {
			t.Errorf("%v: %d %v, want %d %v", c.err, err.Status, retry, c.status, c.retry)
		}
	}
}
