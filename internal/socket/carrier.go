package socket

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// carrier carries the records of a TLS connection. It takes the place of the socket below a tls.Conn that was taken over, and
// unlike a socket it never makes the tls.Conn wait:
//
//   - What the tls.Conn writes is kept where the socket does not accept it. So a loop can write without blocking, no lock of
//     the tls.Conn is held while a client accepts no data, and a write that ran out of time can go on later.
//   - With a poller, a read returns errNothing when there is nothing to read, so an idle client needs no goroutine.
//
// All of TLS remains with crypto/tls. The carrier handles what it has encrypted, as the network does.
//
//	loop: tryWrite ──► tls.Conn.Write ──► carrier.Write ──► out ──► write(2)
//	flusher: write ──►                                          ──► wait
//	reader: tls.Conn.Read ──► carrier.Read ──► read(2)
type carrier struct {
	net.Conn // the socket, or what hides it
	tls      *tls.Conn
	fd       int             // -1 if it cannot be written without blocking
	raw      syscall.RawConn // nil if it is not a socket of the system
	hungUp   *atomic.Bool    // the client sends no more

	// The writer's own: the loop's, and the flusher's while it is at work.
	owed int // bytes of what is written next that are in out already, and only have to be accepted

	// The reader's own.
	waits bool   // reads wait for data: there is no poller
	empty bool   // the socket had no more when it was last read
	ahead []byte // was read from the socket before

	mu     sync.Mutex // never held while anything waits
	out    []byte     // records that the socket has not accepted
	taken  bool       // the writer is going to write out
	closed bool       // the descriptor may be another connection's by now
}

// carry puts a carrier below a connection whose handshake is done, and which nobody else uses. It returns nil if it cannot.
func carry(c *tls.Conn) *carrier {
	if !inside.known {
		return nil
	}
	inner, ahead := unwrap(c.NetConn())
	t := &carrier{Conn: inner, tls: c, fd: -1, waits: true, ahead: ahead}
	*inside.transport(c) = t
	t.shrink()
	return t
}

// shrink frees the buffers of the tls.Conn that have nothing in them, if they are large: crypto/tls keeps them as they are. Of a
// handshake they are 3.7 KiB, half of what an idle connection takes. The reader calls it.
func (t *carrier) shrink() {
	for _, b := range inside.buffers(t.tls) {
		if b.Len() == 0 && b.Cap() > smallBuffer {
			*b = bytes.Buffer{}
		}
	}
}

// smallBuffer is what a tls.Conn needs for a short record. So a client that only answers pings has no new buffer each time.
const smallBuffer = 1 << 10

// nothingError is the error of a read that would have to wait.
type nothingError struct{}

func (nothingError) Error() string { return "there is nothing to read" }
func (nothingError) Timeout() bool { return true }

// Temporary lets a tls.Conn go on after the error with what it has of a record, as it can after a deadline.
func (nothingError) Temporary() bool { return true }

var errNothing net.Error = nothingError{}

// Read is called by the tls.Conn.
func (t *carrier) Read(p []byte) (int, error) {
	switch {
	case len(t.ahead) > 0:
		n := copy(p, t.ahead)
		if t.ahead = t.ahead[n:]; len(t.ahead) == 0 {
			t.ahead = nil
		}
		return n, nil
	case t.waits:
		return t.Conn.Read(p)
	case t.empty:
		return 0, errNothing
	}
	n, err := readOnce(t.raw, p)
	// A short read means that the socket is empty, unless the end follows.
	t.empty = n < len(p) && !t.hungUp.Load()
	switch {
	case n > 0:
		return n, nil
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err == nil:
		err = io.EOF
	}
	return 0, err
}

// maxOut is how much may be in out. A client that asks for ever more answers, such as those to key updates (RFC 8446,
// section 4.6.3), without reading them, is cut off.
const maxOut = 64 << 10

// Write is called by the tls.Conn, for one record at a time. What the writer has encrypted is written later, all of it at once.
// What the tls.Conn itself has to say, its reader or its end, is written as far as the socket accepts it now. The rest waits
// for what is written next, which is a ping at the latest.
func (t *carrier) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.out)+len(p) > maxOut {
		return 0, hub.ErrTimeout
	}
	t.out = append(t.out, p...)
	if !t.taken && !t.closed && t.fd >= 0 {
		if err := t.writeOutLocked(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// writeOutLocked writes of out what the socket accepts now.
func (t *carrier) writeOutLocked() error {
	n, err := writeOnce(t.fd, t.out)
	if t.out = t.out[n:]; len(t.out) == 0 {
		t.out = nil
	}
	return err
}

// holds reports whether there is something in out that nobody is about to write.
func (t *carrier) holds() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.out) > 0 && !t.taken
}

// Close is called by the tls.Conn.
func (t *carrier) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	return t.Conn.Close()
}

const (
	// maxRecord is how much is encrypted at once: as much as a record holds (RFC 8446, section 5.1).
	maxRecord = 16 << 10

	// maxTried is how much of it a loop encrypts without asking how much space the socket has. What the socket does not
	// accept takes memory that is not counted.
	maxTried = 4 << 10
)

// records has space for what is encrypted at once: a record and what encryption adds to it (RFC 8446, section 5.2), or the
// smaller ones that crypto/tls makes of the first 128 KiB.
var records = sync.Pool{New: func() any { return new([maxRecord + 2<<10]byte) }}

// tryWrite writes what the socket accepts without blocking. What is encrypted has to be sent in any case. So where the socket
// does not accept all of it, some of p counts as not written (owed), which has the hub come back to write the rest.
func (t *carrier) tryWrite(p []byte) (n int, err error) {
	if t.owed > 0 {
		return 0, nil // p begins with what is encrypted already, and was not accepted by the client in time
	}
	for n < len(p) {
		m := min(len(p)-n, maxRecord)
		if m > maxTried && !hasRoom(t.fd, m) {
			m = maxTried
		}
		// At least one byte of p has to count as written: then the hub must not drop the rest.
		if n+m < 2 {
			return n, nil
		}
		left, err := t.encrypt(p[n : n+m])
		if left < 0 || err != nil {
			return n, err
		}
		n += m
		if left > 0 {
			t.owed = min(left, n-1)
			return n - t.owed, nil
		}
	}
	return n, nil
}

// encrypt writes p without blocking, and returns how many bytes the socket has not accepted of its records. It is -1
// if nothing was encrypted, because there are some left of before.
func (t *carrier) encrypt(p []byte) (left int, err error) {
	t.mu.Lock()
	if len(t.out) > 0 {
		if err := t.writeOutLocked(); err != nil || len(t.out) > 0 {
			t.mu.Unlock()
			return -1, err
		}
	}
	space := records.Get().(*[maxRecord + 2<<10]byte)
	t.out, t.taken = space[:0], true
	t.mu.Unlock()

	_, err = t.tls.Write(p)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = false
	if err == nil {
		err = t.writeOutLocked()
	}
	t.out = bytes.Clone(t.out)
	records.Put(space)
	return len(t.out), err
}

// write writes p, and may take as long as timeout, and longer if the client accepts something within that time.
func (t *carrier) write(p []byte, timeout time.Duration) (n int, err error) {
	for {
		if err := t.send(timeout); err != nil {
			return n, err
		}
		m := min(t.owed, len(p)-n)
		n, t.owed = n+m, t.owed-m
		if n == len(p) {
			return n, nil
		}
		m = min(maxRecord, len(p)-n)
		t.mu.Lock()
		t.taken = true
		t.mu.Unlock()
		if _, err := t.tls.Write(p[n : n+m]); err != nil {
			return n, err
		}
		t.owed = m
	}
}

// send waits until the socket has accepted all of out. If the client accepts nothing within the timeout, the rest stays there.
func (t *carrier) send(timeout time.Duration) error {
	for {
		t.mu.Lock()
		p := t.out
		t.out, t.taken = nil, len(p) > 0
		t.mu.Unlock()
		if len(p) == 0 {
			return nil
		}
		n, err := writeSlowly(t.Conn, t.raw, p, timeout)
		if err == nil {
			continue // others may have added something
		}
		t.mu.Lock()
		t.out, t.taken = append(p[n:], t.out...), false
		t.mu.Unlock()
		return err
	}
}
