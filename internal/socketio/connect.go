package socketio

import (
	"encoding/json"
	"errors"
	"time"

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
	case namespace != packet.MainNamespace && (e.MayConnect == nil || !e.MayConnect(namespace) || len(namespace) > MaxNamespace):
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
	keys, now := s.ticketKeys(), time.Now()
	err := s.conn.Enter(hub.Entrance{
		Channels: r.channels, Name: r.name(), Keep: e.Recovery > 0, Replay: s.replay,
		Frame: func(w hub.Welcome, last []*hub.Message) []byte {
			r.position = w.ID
			if len(keys) > 0 {
				r.pid = s.ticket(&keys[0], namespace, r.sid, w.ID, now)
			}
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
	r, channels, followed := s.find(p.Namespace, pid)
	if r == nil {
		return false
	}
	// Without an offset it has got no event. The reference gives up then, though nothing is missing that it does not have.
	received := offset != ""
	if !received {
		offset = r.position
	}
	err := s.conn.Enter(hub.Entrance{
		Channels: channels, LastID: offset, Received: received, Name: r.name(), Keep: true, Whole: true, Follow: followed,
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
		return true // it was kicked, and has come back before its connection was closed
	}
	if followed != nil { // another server may not have noticed yet that the client has gone
		e.Hub.Note(hub.NameCommand{Do: hub.DoMove, Name: r.name()})
	}
	return true
}

// find returns the record that a client names, and the channels that it is to be on. If its session was another server's, or has
// ended here, it is followed in the shared log, which has what backends have had it join and leave since.
func (s *session) find(namespace, pid string) (*record, []string, *hub.Followed) {
	if isTicket(pid) && s.mayJoin != nil {
		return nil, nil, nil // or it could join rooms, and then go on where these are not known
	}
	r, channels := s.endpoint.Table.recoverable(s, namespace, pid)
	if !isTicket(pid) || r != nil && s.endpoint.Table.lives(r) {
		return r, channels, nil
	}
	if !s.endpoint.Hub.Shared() { // any more
		return r, channels, nil
	}
	if r != nil {
		if f, ok := s.conn.Follow(r.name(), "", channels); ok && r.covers(f.Channels) {
			return r, f.Channels, f
		}
	}
	sid, position, ok := s.openTicket(s.ticketKeys(), namespace, pid, time.Now())
	if !ok {
		return nil, nil, nil
	}
	own := s.channelsOf(namespace)
	f, ok := s.conn.Follow(nameOf(namespace, sid), position, own)
	if !ok {
		return nil, nil, nil
	}
	if r == nil {
		r = &record{pid: pid, sid: sid, namespace: namespace, route: s.endpoint.Route, user: s.user, channels: own,
			position: position, keep: s.endpoint.Recovery}
	}
	if !r.covers(f.Channels) {
		return nil, nil, nil
	}
	return r, f.Channels, f
}

// entered notes that the client is in a namespace.
func (s *session) entered(r *record) {
	s.joined = append(s.joined, joined{r.namespace, r.name()})
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
