package socketio

import (
	"encoding/json"
	"errors"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// connect takes the client into a namespace, as another one or as the one that it was before.
func (s *session) connect(p *packet.Packet) error {
	e, namespace := s.endpoint, p.Namespace
	// It counts as an event: a client could connect and disconnect all the time, and each takes a place in the hub.
	ok, closing := s.limiter.Take()
	switch {
	case closing != nil:
		return closing
	case !ok:
		s.send(packet.AppendConnectError(nil, namespace, tooFast, codeRate))
		return nil
	case namespace != packet.MainNamespace && (e.MayConnect == nil || !e.MayConnect(namespace)):
		if s.refused++; s.refused > maxRefused {
			return &frame.CloseError{Code: frame.PolicyViolation, Text: "too many namespaces that do not exist"}
		}
		s.send(packet.AppendConnectError(nil, namespace, packet.InvalidNamespace, ""))
		return nil
	case len(s.joined) == maxNamespaces:
		s.send(packet.AppendConnectError(nil, namespace, "too many namespaces", codeLimit))
		return nil
	}
	if s.recovers(p) {
		return nil
	}
	// Both IDs are new, because the client compares them with those that it had: another pid tells it that it was not recovered
	// (socket.io-client, lib/socket.ts, onconnect).
	r := &record{
		sid: newID(), namespace: namespace, route: e.Route, user: s.user, channels: s.channelsOf(namespace), keep: e.Recovery,
	}
	if e.Recovery > 0 {
		r.pid = newID()
	}
	err := s.conn.Enter(hub.Entrance{
		Channels: s.channelsOf(namespace), Name: r.sid, Keep: e.Recovery > 0, Replay: s.replay,
		Frame: func(w hub.Welcome, last []*hub.Message) []byte {
			r.position = w.ID
			first := s.greet(namespace, textFrame(packet.AppendConnected(nil, namespace, r.sid, r.pid)), w.ID)
			return Format{e.Recovery > 0}.Append(first, last)
		},
	})
	if err != nil {
		return s.refuse(namespace, err)
	}
	s.entered(r)
	if r.pid != "" {
		e.Table.track(r, s)
	}
	return nil
}

// channelsOf returns the channels of a namespace without its rooms.
func (s *session) channelsOf(namespace string) []string {
	switch {
	case s.channels == nil: // the route lets nobody subscribe
		return nil
	case namespace == packet.MainNamespace:
		return s.channels
	}
	return []string{namespace}
}

// greet appends the route's greeting. It needs a position as every event does: the client takes the last argument of the last
// event, if that is a string, for its own.
func (s *session) greet(namespace string, first []byte, position string) []byte {
	if s.greeting == "" {
		return first
	}
	// The channel stands for the namespace, so any room of it will do. It is not sent.
	channel, _ := packet.Room(namespace, "greeting")
	o := packet.Outgoing{Channel: channel, Event: s.endpoint.GreetingEvent, Data: []byte(s.greeting), Kind: hub.Text}
	if c := s.greeting[0]; (c == '{' || c == '[') && json.Valid(o.Data) {
		o.Kind = hub.JSON
	}
	if s.endpoint.Recovery > 0 {
		o.Offset = []byte(position)
	}
	return packet.AppendEvent(first, &o)
}

// recovers has the client go on where it was, if it asks for that and misses nothing then.
func (s *session) recovers(p *packet.Packet) bool {
	e := s.endpoint
	pid, offset := p.Credentials()
	if e.Recovery == 0 || pid == "" {
		return false
	}
	r, channels := e.Table.recoverable(s, p.Namespace, pid)
	if r == nil {
		return false
	}
	// Without an offset it has got no event. The reference gives up then, though nothing is missing that it does not have.
	if offset == "" {
		offset = r.position
	}
	err := s.conn.Enter(hub.Entrance{
		Channels: channels, LastID: offset, Name: r.sid, Keep: true, Whole: true,
		Frame: func(_ hub.Welcome, missed []*hub.Message) []byte {
			// Before the events, so that the page has socket.recovered when they come.
			first := textFrame(packet.AppendConnected(nil, p.Namespace, r.sid, r.pid))
			return Format{Offsets: true}.Append(first, missed)
		},
	})
	if err != nil {
		return false // it begins anew
	}
	s.entered(r)
	if !e.Table.takeOver(r, s) {
		// It was kicked, and has come back before its connection was closed.
		s.conn.Close(hub.ReasonPolicy, hub.KickText)
	}
	return true
}

// entered notes that the client is in a namespace.
func (s *session) entered(r *record) {
	s.joined = append(s.joined, joined{r.namespace, r.sid})
	s.endpoint.Table.entered(s)
}

// refuse answers a Connect that came to nothing.
func (s *session) refuse(namespace string, err error) error {
	if errors.Is(err, hub.ErrClosed) {
		return err
	}
	// The session goes on: the client may be in other namespaces, and try this one again.
	s.send(packet.AppendConnectError(nil, namespace, err.Error(), codeOf(err)))
	return nil
}
