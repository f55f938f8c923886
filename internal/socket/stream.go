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

// Stream is a client that is written through its handler's response writer and read through its request's body. It is used
// on HTTP/2 and HTTP/3, and where a connection cannot be taken over. The hub owns it, as a hub.Sink, but the handler
// must not return until it is done.
type Stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	base *http.ResponseController // of the server's own writer: Caddy's writers are not safe for concurrent use
	body io.Reader
	done chan struct{} // closed when the handler may return, because nothing is written any more

	mu       sync.Mutex
	writing  bool
	closed   bool
	deadline time.Time   // of the current write
	timer    *time.Timer // runs late; made by the first write
}

// never replaces Caddy's idle timeout. The hub itself notices silent clients.
const never = 100 * 365 * 24 * time.Hour

// NewStream returns a stream for a request whose response has begun. It takes the place of Caddy's idle timeouts
// (caddyserver/caddy#7913), which would end an idle client after a minute.
//
// A stream has a timer of its own, and sets a deadline only when that has run out. On HTTP/2 each deadline is a message to the
// goroutine that serves the connection. Caddy sets four of them for each write, and each of them costs nearly as much as the data.
func NewStream(w http.ResponseWriter, r *http.Request) *Stream {
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Override(never, 0)
	}
	if writer != nil {
		writer.Ctrl = http.NewResponseController(unlimited{writer.ResponseWriter})
	}
	s := &Stream{
		w:    w,
		rc:   http.NewResponseController(w),
		base: http.NewResponseController(Base(w)),
		body: r.Body,
		done: make(chan struct{}),
	}
	s.base.SetWriteDeadline(time.Time{}) // what was set for the response's header, and nobody sets again
	return s
}

// Wait waits until the stream is done. If the request is over first, it calls gone and then waits.
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

// TryWrite implements hub.Sink. It writes nothing, because a response writer may block.
func (s *Stream) TryWrite([]byte) (int, error) { return 0, nil }

// unlimited is a writer for Caddy's IdleTimeoutWriter to set deadlines of, which have no effect.
type unlimited struct{ http.ResponseWriter }

func (unlimited) SetWriteDeadline(time.Time) error { return nil }

// Write implements hub.Sink.
func (s *Stream) Write(p []byte, timeout time.Duration) (n int, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, http.ErrHandlerTimeout
	}
	s.writing = true
	deadline := time.Now().Add(timeout)
	s.deadline = deadline
	if s.timer == nil {
		s.timer = time.AfterFunc(timeout, s.late)
	} else {
		s.timer.Reset(timeout)
	}
	s.mu.Unlock()

	n, err = s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}

	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	if s.closed {
		close(s.done)
	} else if err != nil && !time.Now().Before(deadline) {
		err = hub.ErrTimeout // servers report it in different ways, HTTP/2 as a closed stream (see golang/go#56478)
	}
	return n, err
}

// late interrupts a write whose time is up. The stream is of no use after that: net/http resets it on HTTP/2, and a deadline
// that has passed cannot be extended (documented at http.ResponseController.SetWriteDeadline).
func (s *Stream) late() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.writing && !now.Before(s.deadline) { // else it fired as the write ended
		s.base.SetWriteDeadline(now)
	}
}

// Close implements hub.Sink. It ends the stream immediately, or interrupts the current write, which then ends it.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.rc.SetReadDeadline(time.Now()) // unblocks Receive
	// The handler must not return while something is written, so Write then ends the stream.
	if s.writing {
		s.base.SetWriteDeadline(time.Now())
	} else {
		close(s.done)
	}
}

// KeepIdle has Caddy's idle timeouts (caddyserver/caddy#7913) not end a request that is answered late.
func KeepIdle(r *http.Request) {
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Override(never, 0)
	}
	if writer != nil {
		writer.Override(never, 0, 0)
	}
}
