package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/rates"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// session is the reading half of a client, a socket.Receiver.
type session struct {
	hub     *hub.Hub
	conn    *hub.Conn
	channel string // where it publishes; "" if it may not
	v1      *v1    // if it speaks broadcast.v1
	pace    *pace  // nil is no limit
	noEcho  bool
	deaf    bool // it is being closed for a protocol error: its bytes mean nothing any more
	over    bool // its close frame was read
	holds   bool // part of a message, as the hub knows
	frames  frames
}

// Received takes what was read.
func (s *session) Received(p []byte) (more bool) {
	s.conn.Alive()
	for !s.deaf && !s.over {
		rest, bad := s.frames.feed(p, s)
		if bad == nil {
			break
		}
		s.deaf = bad.code == codeProtocolError // what it sends is read all the same, or the kernel would reset the connection
		if s.deaf || s.frames.inFrame {        // if it answers in the middle of a frame, that is not seen
			s.conn.Fail(bad.code, bad.text)
		} else {
			s.conn.Close(bad.code, bad.text)
		}
		s.frames.skip, s.frames.message = true, nil // only its close frame counts now
		p = rest
	}
	s.unfinished()
	return !s.over
}

// unfinished tells the hub what there is of a message that is not finished.
func (s *session) unfinished() {
	if space := cap(s.frames.message); space > 0 || s.holds {
		if s.holds = space > 0; !s.conn.Unfinished(len(s.frames.message), space) {
			s.frames.skip, s.frames.message, s.holds = true, nil, false // it is being closed
		}
	}
}

// Ended is called when the client is gone, or has said that it goes.
func (s *session) Ended() { s.conn.Done() }

// pace is how fast a client may go on.
type pace struct {
	said    *rate.Limiter
	chatter *rate.Limiter // what comes faster counts as said
	refused int           // how often in a row it was too fast
}

const (
	// maxRefused is how often in a row a client may be too fast before it is closed.
	maxRefused = 20
	// So much chatter in a second, and at once, is free: more than any keep-alive of a client, and its answers to ours.
	freeChatter, freeChatterAtOnce = 1, 10
)

func newPace(l rates.Limit) *pace {
	said := l.New()
	if said == nil {
		return nil
	}
	return &pace{said: said, chatter: rate.NewLimiter(freeChatter, freeChatterAtOnce)}
}

// tooFast counts what the client sends, and says whether it is to be refused, or, as it does not stop, closed.
func (s *session) tooFast() (refuse bool, bad *fault) {
	if s.pace == nil {
		return false, nil
	}
	if s.pace.said.Allow() {
		s.pace.refused = 0
		return false, nil
	}
	s.hub.Refused(hub.RefusedRate)
	if s.pace.refused++; s.pace.refused > maxRefused || s.v1 == nil { // a raw client could not be told
		return true, &fault{codePolicy, "too fast"}
	}
	return true, nil
}

func (s *session) chatter(opcode uint8, payload []byte) {
	if s.pace != nil && !s.pace.chatter.Allow() {
		switch refuse, bad := s.tooFast(); {
		case bad != nil:
			s.conn.Close(bad.code, bad.text)
			s.frames.skip, s.frames.message = true, nil
			return
		case refuse:
			return
		}
	}
	if opcode == opPing {
		s.conn.Reply(wire.Pong(payload))
	}
}

func (s *session) closed(code uint16) {
	s.over = true
	s.conn.Answer(code) // unless it was an answer itself
}

// message publishes what the client sent.
func (s *session) message(kind uint8, deflated bool, data []byte, own bool) *fault {
	if s.holds {
		s.conn.Finished()
	}
	if s.channel == "" && s.v1 == nil {
		return &fault{codePolicy, "publishing is off"}
	}
	if s.v1 == nil {
		if _, bad := s.tooFast(); bad != nil {
			return bad
		}
	}
	if deflated {
		var err error
		if data, err = inflate(data, s.frames.max); err != nil {
			return &fault{codeInvalidData, "not deflated data"}
		}
		if len(data) > s.frames.max {
			return &fault{codeTooBig, "message too big"}
		}
	} else if !own && s.v1 == nil {
		data = append(make([]byte, 0, len(data)), data...)
	}
	if deflated && kind == opText && !utf8.Valid(data) {
		return &fault{codeInvalidData, "not UTF-8"}
	}
	if s.v1 != nil {
		return s.requests(kind, data)
	}
	m := &hub.Message{Channel: s.channel, Data: data, Source: "websocket", From: s.conn, NoEcho: s.noEcho}
	if kind == opBinary {
		m.Kind = hub.Binary
	}
	// A client that sends faster than the loops deliver is not read meanwhile, and TCP holds it back.
	err := s.hub.PublishWait(m)
	if invalid := new(hub.InvalidError); errors.As(err, &invalid) {
		return &fault{codeInvalidData, "not what may be published"}
	} else if err != nil {
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
	if data := b.Bytes(); cap(data) > 2*len(data) {
		return bytes.Clone(data), nil // it may be kept
	}
	return b.Bytes(), nil
}
