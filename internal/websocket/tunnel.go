package websocket

import (
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// tunnel is the connection that gorilla reads. What gorilla writes to it goes nowhere: first its answer to the
// handshake, which answer sends, later close frames that tell why it can read no further.
type tunnel struct {
	net.Conn
	session *session
	answer  func(head []byte) (conn net.Conn, early []byte, err error)
	early   []byte

	// What gorilla wanted to close with.
	code uint16
	text string
}

func (t *tunnel) Read(p []byte) (n int, err error) {
	if len(t.early) > 0 {
		n = copy(p, t.early)
		if t.early = t.early[n:]; len(t.early) == 0 {
			t.early = nil
		}
	} else if n, err = t.Conn.Read(p); n > 0 {
		t.session.conn.Alive()
	}
	if g := t.session.guard; g != nil && n > 0 {
		if bad := g.pass(p[:n]); bad != nil {
			t.code, t.text = 1002, bad.Error()
			return 0, bad
		}
	}
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	if t.answer != nil {
		var err error
		t.Conn, t.early, err = t.answer(p)
		t.answer = nil
		if err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if len(p) >= 4 && p[0] == 0x88 {
		t.code, t.text = binary.BigEndian.Uint16(p[2:]), string(p[4:])
	}
	return len(p), nil
}

// The hub and the kernel watch over time.

func (t *tunnel) Close() error                     { return nil }
func (t *tunnel) SetDeadline(time.Time) error      { return nil }
func (t *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (t *tunnel) SetWriteDeadline(time.Time) error { return nil }

// frameGuard follows the frames of a client that may deflate, for then gorilla lets the bit that says "deflated"
// pass on frames that must not have it (RFC 7692, section 6).
type frameGuard struct {
	header [10]byte // without the mask
	have   int
	skip   uint64 // mask and payload
}

var errReserved = errors.New("RSV1 on a control or continuation frame")

func (g *frameGuard) pass(p []byte) error {
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(g.skip, uint64(len(p)))
			g.skip -= n
			p = p[n:]
			continue
		}
		g.header[g.have] = p[0]
		g.have++
		p = p[1:]
		if g.have < 2 {
			continue
		}
		length, want := uint64(g.header[1]&0x7f), 2
		switch length {
		case 126:
			want = 4
		case 127:
			want = 10
		}
		if g.have < want {
			continue
		}
		switch want {
		case 4:
			length = uint64(binary.BigEndian.Uint16(g.header[2:]))
		case 10:
			length = binary.BigEndian.Uint64(g.header[2:])
		}
		opcode := g.header[0] & 0x0f
		if g.header[0]&0x40 != 0 && (opcode == 0 || opcode >= 8) {
			return errReserved
		}
		g.have = 0
		if length > 1<<63-1 {
			return errors.New("a frame's length is over 2^63 (RFC 6455, section 5.2)")
		}
		g.skip = length
		if g.header[1]&0x80 != 0 {
			g.skip += 4
		}
	}
	return nil
}
