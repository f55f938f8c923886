package websocket

import (
	"errors"

	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Peer is what a reader tells of its client, and asks for it: a *hub.Conn, or what stands for one until a client that has a
// connection already has moved it to the WebSocket. The methods are those of hub.Conn.
type Peer interface {
	Alive()
	Unfinished(have, space int) bool
	Finished()
	Reply(p []byte)
	Close(why hub.Reason, text string)
	Fail(why hub.Reason, text string)
	ReplyClose(p []byte)
	Done()
}

// session is the reading half of a client. It implements socket.Receiver and frame.Receiver.
type session struct {
	conn     Peer
	protocol receiver
	limits   *limits // nil means no limit
	counted  bool    // the hub counts memory of an unfinished message
	frames   frame.Reader
}

// receiver is the half of a protocol.Session that goes on after the handshake.
type receiver interface {
	Receive(frame.Message) error
}

// limits bound how fast a client may send.
type limits struct {
	data    protocol.Limiter
	control *rate.Limiter // beyond this, control frames count against data
}

// A client may send this many control frames per second, and this many at once, for free. That is more than any client's
// keep-alive and its answers to ours take.
const freeControl, freeControlBurst = 1, 10

// newSession begins a session before the client is subscribed. The protocol may change what it subscribes to.
func (e *Endpoint) newSession(c choice, req *protocol.Request) (*session, protocol.Session) {
	s := &session{frames: frame.NewReader(c.protocol.MaxReceived(e.MaxMessage), c.deflates)}
	if e.Rate.PerSecond > 0 {
		s.limits = &limits{protocol.NewLimiter(e.Hub, e.Rate), rate.NewLimiter(freeControl, freeControlBurst)}
		req.Limiter = &s.limits.data
	}
	opened := c.protocol.Open(e.Endpoint, req)
	s.protocol = opened
	return s, opened
}

// Received implements socket.Receiver.
func (s *session) Received(p []byte) (more bool) {
	// Any bytes count, because in the middle of a long frame a client cannot send a pong (RFC 6455, section 5.4).
	s.conn.Alive()
	for {
		rest, err := s.frames.Feed(p, s)
		if err == nil {
			break
		}
		// Close waits for the client's close frame. Fail does not: the client's answer could not be found in its bytes (RFC
		// 6455, section 7.1.7).
		if s.frames.CloseReadable() {
			s.conn.Close(protocol.Reason(err.Code), err.Text)
		} else {
			s.conn.Fail(protocol.Reason(err.Code), err.Text)
		}
		p = rest
	}
	s.countUnfinished()
	return !s.frames.Closed()
}

// Ended implements socket.Receiver. A connection that is closing ends when all is written, any other one at once.
func (s *session) Ended() { s.conn.Done() }

// countUnfinished has the hub count what an unfinished message takes, once for all that was read at once. The hub may close
// the connection for it, because the memory is needed or because the client does not go on.
func (s *session) countUnfinished() {
	n, space := s.frames.Unfinished()
	if space == 0 && !s.counted {
		return
	}
	if s.counted = space > 0; !s.conn.Unfinished(n, space) {
		s.frames.Discard()
		s.counted = false
	}
}

// Message implements frame.Receiver.
func (s *session) Message(m frame.Message) *frame.CloseError {
	// Most messages come in one read, and the hub was never told of them.
	if s.counted {
		s.conn.Finished()
	}
	err := s.protocol.Receive(m)
	if err == nil {
		return nil
	}
	if closing := new(frame.CloseError); errors.As(err, &closing) {
		return closing
	}
	s.frames.Discard() // the connection is being closed already
	return nil
}

// Control implements frame.Receiver. Only pings are answered, but all control frames are counted, and empty frames of
// messages too: each costs about as much to read as a message.
func (s *session) Control(op frame.Opcode, payload []byte) *frame.CloseError {
	if s.limits != nil && !s.limits.control.Allow() {
		if ok, err := s.limits.data.Take(); !ok {
			return err
		}
	}
	if op == frame.Ping {
		s.conn.Reply(frame.PongFrame(payload))
	}
	return nil
}

// Closed implements frame.Receiver. The hub sends the code back, unless the client's frame was itself an answer.
func (s *session) Closed(code frame.Code) { s.conn.ReplyClose(frame.CloseFrame(code, "")) }
