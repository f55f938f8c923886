package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

const (
	// lingerTime is how long a client that breaks the protocol may go on sending before it is cut off, so that it
	// reads the close frame before its own bytes make the kernel reset the connection.
	lingerTime = time.Second

	// readSize is what is read at once: by a goroutine that is there only to read, and by one that waits.
	readSize    = 16 << 10
	waitingSize = 512
)

// session is the reading half of a client. One goroutine reads at a time: one that is there as long as the client, or,
// with a poller, one for as long as there is something to read.
type session struct {
	hub     *hub.Hub
	conn    *hub.Conn
	nc      net.Conn
	channel string // where it publishes; "" if it may not
	noEcho  bool
	deaf    bool // it is being closed for a protocol error: its bytes mean nothing any more
	over    bool // its close frame was read
	frames  frames
	early   []byte // what came with the handshake

	// With a poller:
	raw    syscall.RawConn
	number uint64
	state  atomic.Int32 // idle, reading, or reading with more to come
	hungUp atomic.Bool  // the client sends no more
}

// start begins to read and to write.
func (s *session) start(p *Poller, first []byte) {
	socket := newSocket(s.nc)
	polled := p != nil && !socket.secure && socket.fd >= 0
	if polled {
		s.raw, _ = s.nc.(syscall.Conn).SyscallConn()
		socket.closed = func() { p.remove(s) } // epoll does not tell
	}
	if !s.conn.Start(socket, first) {
		socket.Close()
		return
	}
	if !polled || !p.add(s) {
		go s.wait()
	}
}

// wait reads until the client is gone.
func (s *session) wait() {
	defer s.conn.Done()
	if early := s.early; early != nil {
		s.early = nil
		s.received(early)
	}
	buf := make([]byte, waitingSize)
	for !s.over {
		n, err := s.nc.Read(buf)
		if n > 0 {
			s.received(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// received takes what was read.
func (s *session) received(p []byte) {
	s.conn.Alive()
	for !s.deaf && !s.over {
		rest, bad := s.frames.feed(p, s)
		if bad == nil {
			return
		}
		s.conn.Close(bad.code, bad.text)
		if bad.code == codeProtocolError {
			s.deaf = true
			time.AfterFunc(lingerTime, s.conn.Done)
		}
		s.frames.skip, s.frames.message = true, nil // only its close frame counts now
		p = rest
	}
}

func (s *session) ping(payload []byte) { s.conn.Reply(wire.Pong(payload)) }

func (s *session) closed(code uint16) {
	s.over = true
	s.conn.Close(code, "") // the answer, unless it was one
}

// message publishes what the client sent.
func (s *session) message(kind uint8, deflated bool, data []byte, own bool) *fault {
	if s.channel == "" {
		return &fault{codePolicy, "publishing is off"}
	}
	if deflated {
		var err error
		if data, err = inflate(data, s.frames.max); err != nil {
			return &fault{codeInvalidData, "not deflated data"}
		}
		if len(data) > s.frames.max {
			return &fault{codeTooBig, "message too big"}
		}
	} else if !own {
		data = append(make([]byte, 0, len(data)), data...)
	}
	m := &hub.Message{Channel: s.channel, Data: data, From: s.conn, NoEcho: s.noEcho}
	if kind == opBinary {
		m.Kind = hub.Binary
	} else if !utf8.Valid(data) {
		return &fault{codeInvalidData, "not UTF-8"}
	}
	// A client that sends faster than the loops deliver is not read meanwhile, and TCP holds it back.
	if s.hub.PublishWait(m) != nil {
		s.frames.skip = true // it is being closed already
	}
	return nil
}

var (
	inflaters   = sync.Pool{New: func() any { return flate.NewReader(nil) }}
	inflateTail = []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff} // ends the data, and then the stream
)

// inflate undoes deflate (RFC 7692, section 7.2.2), but not beyond the limit and a byte.
func inflate(data []byte, limit int) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(data), bytes.NewReader(inflateTail)), nil); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(r, int64(limit)+1))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b.Bytes(), nil
}
