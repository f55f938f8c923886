package socket

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// writeSecure writes over TLS. After a write has timed out, the TLS state is corrupt and all later writes fail with the same
// error (documented at tls.Conn.SetWriteDeadline), and it is not known how much the client has accepted. So the deadline is
// extended while the client's system confirms any bytes. That gives write_timeout the same meaning as without TLS. Where
// the system does not report confirmed bytes, a whole chunk has to be accepted within that time.
func (s *Socket) writeSecure(p []byte, timeout time.Duration) (int, error) {
	w := watches.Get().(*watch)
	w.begin(s, timeout)
	n, err := s.Conn.Write(p)
	w.end()
	watches.Put(w)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, hub.ErrTimeout
	}
	return n, err
}

// watch extends the deadline of a write.
type watch struct {
	timer *time.Timer

	mu      sync.Mutex
	socket  *Socket // nil when the write has ended
	timeout time.Duration
	acked   uint64 // bytes that the client's system had confirmed at the last check
	looked  bool
}

var watches = sync.Pool{New: func() any { return new(watch) }}

// looks is the number of checks within the timeout. A stalled client is noticed up to one interval late.
const looks = 4

// begin watches one write of a socket. Between two writes the deadline is off.
func (w *watch) begin(s *Socket, timeout time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.socket, w.timeout, w.looked = s, timeout, false
	step := timeout / looks
	s.SetWriteDeadline(time.Now().Add(timeout + step)) // the first check has nothing to compare with
	if w.timer == nil {
		w.timer = time.AfterFunc(step, w.look)
	} else {
		w.timer.Reset(step)
	}
}

// look extends the deadline if the client's system has confirmed anything since the last look. The timer's
// goroutine runs it.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	// It fired while the write ended: Stop does not wait for that.
	if w.socket == nil {
		return
	}
	acked, ok := w.socket.acked()
	if !ok {
		return
	}
	if w.looked && acked != w.acked {
		w.socket.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	w.acked, w.looked = acked, true
	w.timer.Reset(w.timeout / looks)
}

// end ends the watch of a write, so that the pool can give it to another socket.
func (w *watch) end() {
	// Before the lock, so that it mostly does not fire any more.
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.socket.SetWriteDeadline(time.Time{})
	w.socket = nil
}

// acked returns how many bytes the client's system has confirmed, if this system can report it.
func (s *Socket) acked() (n uint64, ok bool) {
	if s.raw == nil {
		return 0, false
	}
	if err := s.raw.Control(func(fd uintptr) { n, ok = bytesAcked(int(fd)) }); err != nil {
		return 0, false
	}
	return n, ok
}
