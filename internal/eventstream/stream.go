package eventstream

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
)

// stream is a client that is written by way of its handler's response writer, which has to stay. It is the hub's: a
// hub.Transport.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	base *http.ResponseController // of the server's own writer: Caddy's are not safe to be used while another writes
	done chan struct{}            // closed when the handler may return: nothing is written any more

	mu      sync.Mutex
	writing bool
	closed  bool
}

func newStream(w http.ResponseWriter) *stream {
	return &stream{
		w:    w,
		rc:   http.NewResponseController(w),
		base: http.NewResponseController(socket.Base(w)),
		done: make(chan struct{}),
	}
}

// TryWrite takes nothing: a response writer may wait.
func (s *stream) TryWrite([]byte) (int, error) { return 0, nil }

// Write writes p and sends it off. The deadline does not stay, for on HTTP/2 it resets even a stream that is not
// being written.
func (s *stream) Write(p []byte, timeout time.Duration) (n int, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, http.ErrHandlerTimeout
	}
	s.writing = true
	s.rc.SetWriteDeadline(time.Now().Add(timeout))
	s.mu.Unlock()

	n, err = s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if s.closed {
		close(s.done)
	} else if err == nil {
		s.rc.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// Close ends the stream: at once, or when what is being written is cut off.
func (s *stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return
	case s.writing:
		s.base.SetWriteDeadline(time.Now())
	default:
		close(s.done)
	}
	s.closed = true
}
