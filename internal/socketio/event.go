package socketio

import (
	"errors"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// Codes of errors in acks, as broadcast.v1 has them.
const (
	codeInvalid     = "invalid"
	codeForbidden   = "forbidden"
	codeTooBig      = "too_big"
	codeLimit       = "limit"
	codeRate        = "rate"
	codeUnavailable = "unavailable"
	codeUnknown     = "unknown"
)

const tooFast = "too many events"

// codeOf returns the code for an error of the hub.
func codeOf(err error) string {
	invalid := new(hub.InvalidError)
	switch {
	case errors.As(err, &invalid):
		return codeInvalid
	case errors.Is(err, hub.ErrTooBig):
		return codeTooBig
	case errors.Is(err, hub.ErrTooManyChannels), errors.Is(err, hub.ErrJoinedTooMany):
		return codeLimit
	case errors.Is(err, hub.ErrUnknown):
		return codeUnknown
	}
	return codeUnavailable
}

// reject answers an event that nothing is done for. A client that wants no ack is told nothing.
func (s *session) reject(p *packet.Packet, code, text string) error {
	if p.ID != nil {
		s.send(packet.AppendAckError(nil, p.Namespace, p.ID, code, text))
	}
	return nil
}

// event publishes an event, or joins or leaves rooms, if the route has such events.
func (s *session) event(p *packet.Packet, attachments [][]byte) error {
	// First what costs least, since it has to hold for those that send most.
	ok, closing := s.limiter.Take()
	if closing != nil {
		return closing
	}
	if !ok {
		return s.reject(p, codeRate, tooFast)
	}
	if p.Rejected != nil {
		return s.reject(p, codeInvalid, p.Rejected.Error())
	}
	// A route that lets nobody join has no use for such events, so they are like all others.
	if e := s.endpoint; s.mayJoin != nil {
		switch p.Name {
		case e.JoinEvent:
			return s.joinRooms(p)
		case e.LeaveEvent:
			return s.leaveRooms(p)
		}
	}
	// Not closed, as a raw client is: pages emit things that were meant for a server, and have to live with that.
	if len(s.publish) == 0 {
		return s.reject(p, codeForbidden, "publishing is off on this route")
	}
	size := len(p.Payload)
	for _, a := range attachments {
		size += len(a)
	}
	c, err := p.Content(attachments)
	if err != nil {
		return s.reject(p, codeInvalid, err.Error())
	}
	// The event's name and the brackets do not count where other protocols do not count them either.
	if c.Args == nil && len(c.Data) > s.endpoint.MaxMessage || c.Args != nil && size > s.endpoint.MaxMessage {
		return s.reject(p, codeTooBig, "the event is too big")
	}
	return s.publishEvent(p, &c)
}

// publishEvent publishes what is in an event.
func (s *session) publishEvent(p *packet.Packet, c *packet.Content) error {
	channel := s.publish[0]
	if p.Namespace != packet.MainNamespace {
		channel = p.Namespace
	}
	m := c.Message(channel, p.Name)
	m.Source, m.From, m.NoEcho = s.source, s.conn, s.endpoint.NoEcho
	if e := s.endpoint; e.NoEcho && e.Recovery > 0 {
		// By its name, which stays when it goes on with another connection and gets what it has missed.
		m.NoEcho = false
		if m.Emit == nil {
			m.Emit = new(hub.Emit)
		}
		m.Emit.Except = []string{s.joined[s.indexOf(p.Namespace)].name}
	}
	h := s.endpoint.Hub
	if h.Shared() {
		// Its ID is part of what was parsed, which is gone when the log answers.
		namespace, id, conn := p.Namespace, slices.Clone(p.ID), s.conn
		h.PublishAsync(m, func(err error) {
			if a := answer(m, err, namespace, id); a != nil {
				conn.SendNow(textFrame(a))
			}
		})
		return nil
	}
	// While the loops are behind it waits: a WebSocket is not read meanwhile, and a POST not answered.
	err := h.PublishWait(m)
	if errors.Is(err, hub.ErrClosed) {
		return err
	}
	if a := answer(m, err, p.Namespace, p.ID); a != nil {
		s.send(a)
	}
	return nil
}

// answer returns the ack of an event, if the client wants one.
func answer(m *hub.Message, err error, namespace string, id []byte) []byte {
	switch {
	case id == nil:
		return nil
	case err != nil:
		return packet.AppendAckError(nil, namespace, id, codeOf(err), err.Error())
	}
	return packet.AppendAck(nil, namespace, id, m.ID())
}

// roomsOf returns the channels of the rooms that an event names.
func (s *session) roomsOf(p *packet.Packet) (channels []string, code, text string) {
	rooms, ok := p.Rooms()
	if !ok {
		return nil, codeInvalid, "the event names no room"
	}
	if len(rooms) > hub.MaxJoined {
		return nil, codeLimit, hub.ErrJoinedTooMany.Error()
	}
	seen := make(map[string]bool, len(rooms))
	for _, room := range rooms {
		c, ok := packet.Room(p.Namespace, room)
		if !ok {
			return nil, codeInvalid, "a room cannot have this name"
		}
		if err := hub.CheckName("the room", c); err != nil {
			return nil, codeInvalid, err.Error()
		}
		if !seen[c] {
			seen[c] = true
			channels = append(channels, c)
		}
	}
	return channels, "", ""
}

// joinRooms joins the rooms that an event names: all of them, or none. The ack comes where the join takes effect in the order of
// messages, and has the position there.
func (s *session) joinRooms(p *packet.Packet) error {
	channels, code, text := s.roomsOf(p)
	if code != "" {
		return s.reject(p, code, text)
	}
	for _, c := range channels {
		// As with broadcast.v1: the route's own channels, which it may have left, and those that it is on already.
		if !slices.Contains(s.channelsOf(p.Namespace), c) && !s.mayJoin(c) && !s.conn.On(c) {
			return s.reject(p, codeForbidden, "a room may not be joined on this route")
		}
	}
	return s.enter(p, channels)
}

// leaveRooms leaves the rooms that an event names. Those that the client is not in are left already.
func (s *session) leaveRooms(p *packet.Packet) error {
	channels, code, text := s.roomsOf(p)
	if code != "" {
		return s.reject(p, code, text)
	}
	for _, c := range channels {
		s.conn.Leave(c, nil)
	}
	// The ack comes after the last message of the rooms.
	return s.enter(p, nil)
}

// enter joins channels, if there are any, and acks the event with the position.
func (s *session) enter(p *packet.Packet, channels []string) error {
	err := s.conn.Enter(hub.Entrance{Channels: channels, Frame: func(w hub.Welcome, _ []*hub.Message) []byte {
		if p.ID == nil {
			return nil
		}
		return textFrame(packet.AppendAck(nil, p.Namespace, p.ID, w.ID))
	}})
	switch {
	case errors.Is(err, hub.ErrClosed):
		return err
	case err != nil:
		return s.reject(p, codeOf(err), err.Error())
	}
	return nil
}
