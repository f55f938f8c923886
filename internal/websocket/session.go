package websocket

import (
	"compress/flate"
	"errors"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

const (
	// readBuffer is what gorilla buffers: enough for a control frame, which is what a quiet client sends. Longer
	// messages are read past it.
	readBuffer = 128

	// drainTime is how long a client that breaks the protocol may go on sending before it is cut off, so that it
	// reads the close frame before its own bytes make the kernel reset the connection.
	drainTime = time.Second
)

// session is the reading half of a client: one goroutine.
type session struct {
	hub     *hub.Hub
	conn    *hub.Conn
	ws      *websocket.Conn
	tunnel  tunnel
	guard   *frameGuard // if the client may deflate
	max     int
	channel string
	noEcho  bool
}

func (s *session) start() {
	s.ws.SetPingHandler(s.ping)
	s.ws.SetCloseHandler(func(int, string) error { return nil })
	socket := newSocket(s.tunnel.Conn)
	if !s.conn.Start(socket) {
		socket.Close()
		return
	}
	go s.run()
}

func (s *session) ping(payload string) error {
	s.conn.Reply(wire.Pong(payload))
	return nil
}

// run reads until the client is gone.
func (s *session) run() {
	defer s.conn.Done()
	code, text := s.read()
	switch code {
	case 0, websocket.CloseAbnormalClosure:
	case websocket.CloseProtocolError:
		s.conn.Close(code, text)
		s.tunnel.Conn.SetReadDeadline(time.Now().Add(drainTime))
		io.Copy(io.Discard, s.tunnel.Conn)
	default:
		s.conn.Close(code, text)
		for { // until its close frame
			if _, _, err := s.ws.NextReader(); err != nil {
				return
			}
		}
	}
}

// read publishes what the client sends. It returns the code to close with, 0 if there is nobody to tell.
func (s *session) read() (code uint16, text string) {
	for {
		kind, r, err := s.ws.NextReader()
		if err != nil {
			return s.reason(err)
		}
		if s.channel == "" {
			return websocket.ClosePolicyViolation, "publishing is off"
		}
		data, err := s.message(r)
		if err != nil {
			return s.reason(err)
		}
		if len(data) > s.max {
			return websocket.CloseMessageTooBig, "message too big"
		}
		m := &hub.Message{Channel: s.channel, Data: data, From: s.conn, NoEcho: s.noEcho}
		if kind == websocket.BinaryMessage {
			m.Kind = hub.Binary
		} else if !utf8.Valid(data) {
			return websocket.CloseInvalidFramePayloadData, "not UTF-8"
		}
		// A client that sends faster than the loops deliver is not read meanwhile, and TCP holds it back.
		if err := s.hub.PublishWait(m); err != nil {
			return websocket.CloseServiceRestart, err.Error() // it is closing already, with a code of its own
		}
	}
}

var scratches = sync.Pool{New: func() any { return new([4096]byte) }}

// message reads a message whole, in as much memory as it needs, but stops beyond the limit.
func (s *session) message(r io.Reader) ([]byte, error) {
	r = io.LimitReader(r, int64(s.max)+1)
	scratch := scratches.Get().(*[4096]byte)
	defer scratches.Put(scratch)
	for n := 0; ; {
		k, err := r.Read(scratch[n:])
		n += k
		switch {
		case err == io.EOF:
			return append(make([]byte, 0, n), scratch[:n]...), nil
		case err != nil:
			return nil, err
		case n == len(scratch):
			rest, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			return append(append(make([]byte, 0, n+len(rest)), scratch[:n]...), rest...), nil
		}
	}
}

// reason turns gorilla's error into a close code.
func (s *session) reason(err error) (code uint16, text string) {
	if s.tunnel.code != 0 {
		return s.tunnel.code, s.tunnel.text
	}
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return uint16(closed.Code), ""
	}
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		return websocket.CloseInvalidFramePayloadData, "not deflated data"
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		return websocket.CloseProtocolError, "a frame's length is over 2^63"
	}
	return 0, ""
}
