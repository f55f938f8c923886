package websocket

import (
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
	raw syscall.RawConn // nil if it cannot be written without waiting: TLS, or not a socket

	// The arguments and the results of one TryWrite; step is made once, so that a write allocates nothing.
	step func(fd uintptr) bool
	p    []byte
	n    int
	err  error
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn}
	switch c := conn.(type) {
	case *net.TCPConn:
		s.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = c.SyscallConn()
	}
	s.step = s.write
	return s
}

// TryWrite is part of hub.Transport.
func (s *socket) TryWrite(p []byte) (int, error) {
	if s.raw == nil || !nonBlocking {
		return 0, nil
	}
	s.p, s.n, s.err = p, 0, nil
	err := s.raw.Write(s.step)
	s.p = nil
	if err == nil {
		err = s.err
	}
	return s.n, err
}

// write does one system call. It says that it is done whatever became of it, or RawConn would wait.
func (s *socket) write(fd uintptr) bool {
	s.n, s.err = writeOnce(fd, s.p)
	return true
}

// Write is part of hub.Transport.
func (s *socket) Write(p []byte, timeout time.Duration) (int, error) {
	s.SetWriteDeadline(time.Now().Add(timeout))
	n, err := s.Conn.Write(p)
	s.SetWriteDeadline(time.Time{})
	if s.raw != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return n, hub.ErrStuck // TLS would have lost its place
	}
	return n, err
}

// Close is part of hub.Transport.
func (s *socket) Close() {
	if s.raw == nil {
		go s.Conn.Close() // TLS says goodbye, and may wait for that
		return
	}
	s.Conn.Close()
}
