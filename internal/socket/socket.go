// Package socket is a client's network connection: the hub writes to it without waiting, and it is read without a
// goroutine of its own where the system tells what has come.
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

// Receiver is told what a socket reads.
type Receiver interface {
	// Received takes what was read, which is lent, and says whether more is to be read.
	Received(p []byte) (more bool)

	// Ended says that the client is gone, or Received wants no more. Nothing is called after it.
	Ended()
}

// Socket is a connection that the server has let go of. Its writing half is the hub's, as a hub.Sink; one
// goroutine reads at a time: one that is there as long as the client, or, with a poller, one for as long as there is
// something to read.
type Socket struct {
	net.Conn
	receiver Receiver
	early    []byte // was read by the server
	fd       int    // -1 if it cannot be written without waiting
	secure   bool   // by TLS

	raw syscall.RawConn // nil if it is none of the system's

	// With a poller:
	poller *Poller
	number uint64
	state  atomic.Int32 // idle, reading, or reading with more to come
	hungUp atomic.Bool  // the client sends no more
}

// New makes a socket of a connection and what was already read from it. The descriptor of a TCP or Unix connection,
// or of the one under TLS, is good until Close, as nobody else closes it, and the hub does not write after that.
// Writing to it costs half of what RawConn.Write does on top of the system call.
func New(conn net.Conn, early []byte, r Receiver, p *Poller) *Socket {
	s := &Socket{Conn: conn, receiver: r, early: early, fd: -1}
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
	s.raw = raw
	if raw != nil && nonBlocking {
		raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if p != nil && !s.secure && s.fd >= 0 {
		s.poller = p
	}
	return s
}

// Receive begins to read.
func (s *Socket) Receive() {
	if s.poller == nil || !s.poller.add(s) {
		go s.wait()
	}
}

// waitingSize is what is read at once by a goroutine that is there for one client.
const waitingSize = 512

// wait reads until the client is gone.
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

// CutOffAfter has the system end the connection if the client's does not confirm what it is sent for so long. It is
// for a client that never sends anything itself.
func (s *Socket) CutOffAfter(d time.Duration) {
	if s.fd >= 0 {
		setUserTimeout(s.fd, d) // where there is no such thing, TCP gives up by itself, later
	}
}

// TryWrite is part of hub.Sink. TLS goes through the backlog.
func (s *Socket) TryWrite(p []byte) (int, error) {
	switch {
	case s.fd < 0 || len(p) == 0:
		return 0, nil
	case !s.secure:
		return writeOnce(s.fd, p)
	}
	return 0, nil // crypto/tls may wait for a lock that its reader holds while the client takes nothing
}

// Write is part of hub.Sink.
func (s *Socket) Write(p []byte, timeout time.Duration) (int, error) {
	if s.secure {
		return s.writeSecure(p, timeout)
	}
	s.SetWriteDeadline(time.Now().Add(timeout))
	n, err := s.Conn.Write(p)
	s.SetWriteDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, hub.ErrStuck
	}
	return n, err
}

// lingerTime is how long the client may take to end a connection that cannot be ended by half.
const lingerTime = time.Second

// CloseWrite is part of hub.HalfCloser.
func (s *Socket) CloseWrite() {
	switch c := s.Conn.(type) {
	case *tls.Conn: // it says goodbye, and may wait for that
		go func() {
			c.CloseWrite()
			if under, ok := c.NetConn().(halfConn); ok {
				under.CloseWrite()
			}
		}()
	case halfConn:
		c.CloseWrite()
	default:
		s.SetReadDeadline(time.Now().Add(lingerTime)) // ends the reading, and by that the connection
	}
}

type halfConn interface{ CloseWrite() error }

// Close is part of hub.Sink.
func (s *Socket) Close() {
	if s.secure {
		s.SetDeadline(time.Now().Add(5 * time.Second)) // frees a reader that answers a client which takes nothing
		go s.Conn.Close()                              // TLS says goodbye, and may wait for that
		return
	}
	s.Conn.Close()
	if s.poller != nil {
		s.poller.remove(s) // epoll does not tell
	}
}
