package socket

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Stream is a client that is written by way of its handler's response writer, and read by its request's body: on
// HTTP/2 and 3, and where a connection cannot be taken over. It is the hub's, as a hub.Sink, but the handler has
// to stay until it is done.
type Stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	base *http.ResponseController // of the server's own writer: Caddy's are not safe to be used while another writes
	body io.Reader
	done chan struct{} // closed when the handler may return: nothing is written any more

	mu      sync.Mutex
	writing bool
	closed  bool
}

// never is when a client that is silent is cut off here: its keep-alive is the hub's.
const never = 100 * 365 * 24 * time.Hour

// NewStream makes a stream of a request that was answered. Caddy's own idle timeouts are set aside; timeout is that of
// writes.
func NewStream(w http.ResponseWriter, r *http.Request, timeout time.Duration) *Stream {
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Override(never, 0)
	}
	if writer != nil {
		writer.Override(timeout, 0, 0)
	}
	return &Stream{
		w:    w,
		rc:   http.NewResponseController(w),
		base: http.NewResponseController(Base(w)),
		body: r.Body,
		done: make(chan struct{}),
	}
}

// Wait waits until the stream is done, or calls gone when the request is over and then waits.
func (s *Stream) Wait(ctx context.Context, gone func()) {
	select {
	case <-s.done:
	case <-ctx.Done():
		gone()
		<-s.done
	}
}

// Receive reads until the client is gone, and waits until the stream is done.
func (s *Stream) Receive(r Receiver) {
	buf := make([]byte, waitingSize)
	for {
		n, err := s.body.Read(buf)
		if n > 0 && !r.Received(buf[:n]) || err != nil {
			break
		}
	}
	r.Ended()
	<-s.done
}

// TryWrite takes nothing: a response writer may wait.
func (s *Stream) TryWrite([]byte) (int, error) { return 0, nil }

// Write writes p and sends it off. The deadline does not stay, for on HTTP/2 it resets even a stream that is not
// being written.
func (s *Stream) Write(p []byte, timeout time.Duration) (n int, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, http.ErrHandlerTimeout
	}
	s.writing = true
	deadline := time.Now().Add(timeout)
	s.rc.SetWriteDeadline(deadline)
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
	} else if !time.Now().Before(deadline) {
		err = hub.ErrTimeout // which the server reports as a stream that was closed
	}
	return n, err
}

// Close ends the stream: at once, or when what is being written is cut off.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.rc.SetReadDeadline(time.Now()) // frees Receive
	if s.writing {
		s.base.SetWriteDeadline(time.Now())
	} else {
		close(s.done)
	}
}
