// Package raw is what clients speak that ask for no protocol of ours: over a WebSocket a message is a frame with nothing
// added, in both directions, and an event stream has the events of the HTML Standard.
package raw

import (
	"errors"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Protocol implements protocol.Streamer.
type Protocol struct{}

// Name returns "": no client asks for this protocol.
func (Protocol) Name() string { return "" }

// Format returns a Format.
func (Protocol) Format(minDeflate int) hub.Format { return Format{minDeflate} }

// MaxReceived returns maxMessage: a frame is the message.
func (Protocol) MaxReceived(maxMessage int) int { return maxMessage }

// Open begins a session. The client cannot resume: it gets no IDs, and could not be told of a gap.
func (Protocol) Open(e *protocol.Endpoint, r *protocol.Request) protocol.Session {
	r.LastID = ""
	s := &session{endpoint: e, limiter: r.Limiter, request: r}
	if len(r.Publish) > 0 {
		s.channel = r.Publish[0]
	}
	return s
}

// StreamFormat returns an eventstream.Format.
func (Protocol) StreamFormat() hub.Format { return eventstream.Format{} }

// OpenStream begins an event stream.
func (Protocol) OpenStream(*protocol.Request) protocol.Greeter { return stream{} }

type stream struct{}

func (stream) Greeting(_ *hub.Conn, _ *hub.ConnOptions, w hub.Welcome) []byte {
	return eventstream.Format{}.Start(w)
}

// session is a client that has a WebSocket.
type session struct {
	endpoint *protocol.Endpoint
	conn     *hub.Conn
	channel  string // where it publishes, or "" if it may not
	limiter  *protocol.Limiter
	request  *protocol.Request // until Greeting; there are very many sessions, and most are idle
}

// Greeting returns the route's greeting.
func (s *session) Greeting(c *hub.Conn, _ *hub.ConnOptions, _ hub.Welcome) (first []byte) {
	if text := s.request.Greeting; text != "" {
		first = frame.TextFrame(text)
	}
	s.conn, s.request = c, nil
	return first
}

// Receive publishes what the client sent. The checks that cost least come first.
func (s *session) Receive(f frame.Message) error {
	if s.channel == "" {
		return &frame.CloseError{Code: frame.PolicyViolation, Text: "publishing is off"}
	}
	if _, err := s.limiter.Take(); err != nil {
		return err
	}
	data, err := f.Own()
	if err != nil {
		return err
	}
	m := &hub.Message{Channel: s.channel, Data: data, Source: hub.SourceWebSocket, From: s.conn, NoEcho: s.endpoint.NoEcho}
	if f.Opcode == frame.Binary {
		m.Kind = hub.Binary
	}
	h := s.endpoint.Hub
	if h.Shared() {
		c := s.conn
		h.PublishAsync(m, func(err error) { failed(c, err) })
		return nil
	}
	// A client that sends faster than the loops deliver is not read meanwhile, and TCP holds it back.
	err = h.PublishWait(m)
	if invalid := new(hub.InvalidError); errors.As(err, &invalid) {
		return &frame.CloseError{Code: frame.InvalidData, Text: "the message cannot be published"}
	}
	return err
}

// failed closes a client whose message was not published to a shared log, or may not have been. It cannot be told in
// another way, and with its next connection it may come to a server that can publish.
func failed(c *hub.Conn, err error) {
	invalid := new(hub.InvalidError)
	switch {
	case err == nil, errors.Is(err, hub.ErrClosed):
	case errors.As(err, &invalid):
		c.Close(hub.ReasonInvalid, "the message cannot be published")
	case errors.Is(err, hub.ErrTooBig):
		c.Close(hub.ReasonTooBig, "the message is too big")
	default:
		c.Close(hub.ReasonUnavailable, "the message could not be published")
	}
}
