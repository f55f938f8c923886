// Package socket is the network connection of a client. The hub writes to it without blocking, and where the system
// supports it (see Poller) it is read without a goroutine of its own.
package socket

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Receiver gets what a socket reads. Its methods are not called concurrently.
type Receiver interface {
	// Received takes data that was read, and reports whether to read more. The data is valid only during the call.
	Received(p []byte) (more bool)

	// Ended is called once, when the client is gone or Received has returned false. Nothing is called after it.
	Ended()
}

// Socket is a hijacked connection. The hub owns its writing half, as a hub.Sink. One goroutine at a time reads: one that
// lives as long as the connection or, with a poller, one that lives while there is data.
type Socket struct {
	net.Conn
	receiver Receiver
	early    []byte   // data that the server read before the takeover
	fd       int      // -1 if it cannot be written without blocking
	carrier  *carrier // below TLS
	secure   bool     // over TLS

	raw syscall.RawConn // nil if it is not a socket of the system

	// With a poller:
	poller *Poller
	number uint64       // set once: Close may look at it before, or while, the poller adds the socket
	state  atomic.Int32 // idle, reading or again
	hungUp atomic.Bool  // the client sends no more
}

// New returns a socket for a connection and the data already read from it.
//
// It keeps the descriptor of a TCP or Unix connection, or of the one under TLS, outside of RawConn's protection. That is safe:
// nobody else closes the connection, and the hub does not write after Close. Writing to it directly halves what
// RawConn.Write costs on top of the system call (docs/performance.md).
func New(conn net.Conn, early []byte, r Receiver, p *Poller) *Socket {
	conn, read := unwrap(conn)
	s := &Socket{Conn: conn, receiver: r, early: append(early, read...), fd: -1}
	if c, ok := conn.(*tls.Conn); ok {
		s.secure = true
		s.carrier = carry(c)
		if conn = c.NetConn(); s.carrier != nil {
			conn = s.carrier.Conn
		}
	}
	switch c := conn.(type) {
	case *net.TCPConn:
		s.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = c.SyscallConn()
	}
	if s.raw != nil && nonBlocking {
		s.raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if p != nil && s.fd >= 0 && (!s.secure || s.carrier != nil) {
		s.poller, s.number = p, p.number()
	}
	if t := s.carrier; t != nil {
		t.fd, t.raw, t.hungUp, t.waits = s.fd, s.raw, &s.hungUp, s.poller == nil
	}
	return s
}

// Receive starts reading.
func (s *Socket) Receive() {
	if s.poller != nil && s.poller.add(s) {
		return
	}
	if s.carrier != nil {
		s.carrier.waits = true
	}
	go s.wait()
}

// waitingSize is the buffer size of a goroutine that waits for one client. It is small, because every idle client has one.
const waitingSize = 512

// wait reads until the client has disconnected. It is used where there is no poller.
func (s *Socket) wait() {
	defer s.receiver.Ended()
	if early := s.early; early != nil {
		s.early = nil
		if !s.receiver.Received(early) {
			return
		}
	}
	buf := make([]byte, waitingSize)
	for {
		n, err := s.Conn.Read(buf)
		if n > 0 && !s.receiver.Received(buf[:n]) || err != nil {
			return
		}
	}
}

// CutOffAfter makes the system end the connection if the client's system confirms nothing that it is sent for this long
// (TCP_USER_TIMEOUT, RFC 5482). It is for clients that never send anything themselves, such as event streams.
func (s *Socket) CutOffAfter(d time.Duration) {
	if s.fd >= 0 {
		setUserTimeout(s.fd, d) // without it, TCP gives up on its own, but later
	}
}

// TryWrite implements hub.Sink.
func (s *Socket) TryWrite(p []byte) (int, error) {
	switch {
	case s.fd < 0 || len(p) == 0:
		return 0, nil
	case !s.secure:
		return writeOnce(s.fd, p)
	case s.carrier != nil:
		return s.carrier.tryWrite(p)
	}
	return 0, nil // tls.Conn.Write would block on the socket, or on a lock that its reader holds while it does
}

// Write implements hub.Sink.
func (s *Socket) Write(p []byte, timeout time.Duration) (int, error) {
	switch {
	case s.carrier != nil:
		return s.carrier.write(p, timeout)
	case !s.secure:
		return writeSlowly(s.Conn, s.raw, p, timeout)
	}
	s.SetWriteDeadline(time.Now().Add(timeout))
	n, err := s.Conn.Write(p)
	s.SetWriteDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = hub.ErrTimeout // now the state of TLS is corrupt (documented at tls.Conn.SetWriteDeadline)
	}
	return n, err
}

// writeSlowly writes p to a connection. If the client accepts nothing within the timeout, it returns hub.ErrStuck. The system frees
// space in large steps, so a client also counts as accepting data if its system has confirmed any.
func writeSlowly(c net.Conn, raw syscall.RawConn, p []byte, timeout time.Duration) (n int, err error) {
	acked := confirmed(raw)
	for {
		c.SetWriteDeadline(time.Now().Add(timeout))
		m, err := c.Write(p[n:])
		c.SetWriteDeadline(time.Time{})
		n += m
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		before := acked
		if acked = confirmed(raw); m == 0 && acked == before {
			return n, hub.ErrStuck
		}
	}
}

// confirmed returns how many bytes the client's system has confirmed, or always 0 if this system cannot report it.
func confirmed(raw syscall.RawConn) (n uint64) {
	if raw != nil {
		raw.Control(func(fd uintptr) { n, _ = bytesAcked(int(fd)) })
	}
	return n
}

// LimitUnsent implements hub.PromptSink.
func (s *Socket) LimitUnsent(n int) {
	if s.fd >= 0 {
		limitUnsent(s.fd, n)
	}
}

// lingerTime is how long the client may take to end a connection that cannot be half-closed.
const lingerTime = time.Second

// CloseWrite implements hub.HalfCloser.
func (s *Socket) CloseWrite() {
	switch c := s.Conn.(type) {
	case *tls.Conn: // sends an alert
		if s.carrier == nil {
			go s.closeWriteTLS(c) // it may block on that (golang/go#31224)
		} else {
			s.closeWriteTLS(c)
		}
	case halfConn:
		c.CloseWrite()
	default:
		s.SetReadDeadline(time.Now().Add(lingerTime)) // ends the reader, and with it the connection
	}
}

// closeWriteTLS ends the sending half of TLS, and then of the connection below.
func (s *Socket) closeWriteTLS(c *tls.Conn) {
	c.CloseWrite()
	below := c.NetConn()
	if t := s.carrier; t != nil {
		below = t.Conn
		if t.holds() {
			go func() {
				t.send(lingerTime)
				closeWrite(below)
			}()
			return
		}
	}
	closeWrite(below)
}

// closeWrite ends the sending half of a connection, if it can.
func closeWrite(c net.Conn) {
	if c, ok := c.(halfConn); ok {
		c.CloseWrite()
	}
}

// halfConn is a connection that can end its sending half, which TCP, Unix and TLS connections can.
type halfConn interface{ CloseWrite() error }

// Close implements hub.Sink.
func (s *Socket) Close() {
	if s.secure && s.carrier == nil {
		s.SetDeadline(time.Now().Add(5 * time.Second)) // unblocks a reader that is answering a client which accepts no data
		go s.Conn.Close()                              // sends an alert, which may block for 5 seconds whatever the deadline (golang/go#31224, golang/go#45162)
		return
	}
	s.Conn.Close()
	if s.poller != nil {
		s.poller.remove(s) // epoll reports no event for a closed descriptor
	}
}
