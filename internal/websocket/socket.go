package websocket

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// socket is the writing half of a client, the hub's.
type socket struct {
	net.Conn
	fd     int    // -1 if it cannot be written without waiting
	secure bool   // by TLS
	closed func() // called by Close, if set
}

// newSocket takes the descriptor out of a TCP or Unix connection, or the one under TLS. It is good until Close, as
// nobody else closes the connection, and the hub does not write after that. Writing to it costs half of what
// RawConn.Write does on top of the system call.
func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn, fd: -1}
	if c, ok := conn.(*tls.Conn); ok {
		s.secure = true
		conn = c.NetConn()
	}
	var raw syscall.RawConn
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, _ = c.SyscallConn()
	case *net.UnixConn:
		raw, _ = c.SyscallConn()
	}
	if raw != nil && nonBlocking {
		raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	return s
}

// TryWrite is part of hub.Transport. TLS goes through the backlog.
func (s *socket) TryWrite(p []byte) (int, error) {
	switch {
	case s.fd < 0 || len(p) == 0:
		return 0, nil
	case !s.secure:
		return writeOnce(s.fd, p)
	}
	return 0, nil // crypto/tls may wait for a lock that its reader holds while the client takes nothing
}

// Write is part of hub.Transport.
func (s *socket) Write(p []byte, timeout time.Duration) (int, error) {
	s.SetWriteDeadline(time.Now().Add(timeout))
	n, err := s.Conn.Write(p)
	s.SetWriteDeadline(time.Time{})
	if !s.secure && errors.Is(err, os.ErrDeadlineExceeded) {
		return n, hub.ErrStuck // TLS would have lost its place
	}
	return n, err
}

// Close is part of hub.Transport.
func (s *socket) Close() {
	if s.secure {
		s.SetDeadline(time.Now().Add(5 * time.Second)) // frees a reader that answers a client which takes nothing
		go s.Conn.Close()                              // TLS says goodbye, and may wait for that
		return
	}
	s.Conn.Close()
	if s.closed != nil {
		s.closed()
	}
}
