package backend

import (
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/queue"
)

var errRooms = errors.New("no room of the namespace can have one of these names")

// emit appends the messages of an event.
func (t *taker) emit(ms []*hub.Message, channel string, k *queue.Command) []*hub.Message {
	if k.WantsAck && t.counts.acks.CompareAndSwap(false, true) { // once: it is the same with each emit of the backend
		logger().Warn("a backend waits for acks of clients, which do not come", zap.String("channel", channel))
	}
	m, err := t.message(k)
	if err != nil {
		t.reject(invalid, channel, err)
		return ms
	}
	if len(k.Rooms) == 0 {
		return append(ms, m)
	}
	var rooms, names []string
	for _, room := range k.Rooms {
		as := t.find(k.Namespace, room)
		switch {
		case as.name && as.channel && len(k.Rooms) == 1:
			ms = append(ms, hub.ToRooms(m, []string{as.text}, func(string) bool { return true })...)
		case as.name: // in a list it has to be one of both, because a client gets the event once
			names = append(names, as.text)
		case !as.channel:
			continue
		}
		rooms = append(rooms, as.text)
	}
	all := hub.ToRooms(m, rooms, func(room string) bool { return slices.Contains(names, room) })
	if len(all) == 0 {
		t.reject(invalid, channel, errRooms)
	}
	return append(ms, all...)
}

// message returns the message of an event, for all of its namespace.
func (t *taker) message(k *queue.Command) (*hub.Message, error) {
	content, err := packet.NewContent(k.AppendArguments(nil), k.Attachments)
	if err != nil {
		return nil, err
	}
	m := content.Message(t.all(k.Namespace), k.Name)
	m.Source = hub.SourceRedis
	if len(k.Except) > 0 {
		if m.Emit == nil {
			m.Emit = new(hub.Emit)
		}
		m.Emit.Except = t.excepted(k)
	}
	return m, nil
}

// all returns the channel that everybody in a namespace is on.
func (t *taker) all(namespace string) string {
	if namespace == packet.MainNamespace {
		return t.queue.main
	}
	return namespace
}

// excepted returns the names and channels that a command excepts.
func (t *taker) excepted(k *queue.Command) (list []string) {
	for _, room := range k.Except {
		if as := t.find(k.Namespace, room); as.name || as.channel {
			list = append(list, as.text)
		}
	}
	return list
}

// found is what a room of a backend can be: the ID of one client's socket, which is a name in the hub, a channel, or nothing.
type found struct {
	text          string // the name, and the channel
	name, channel bool
}

// find returns what a room is. With a shared log that is not always certain, because a client may be on another hub. So what looks
// like a client's ID, and is not one of this hub, may be either.
func (t *taker) find(namespace, room string) (f found) {
	var ok bool
	if f.text, ok = packet.Room(namespace, room); !ok {
		return f
	}
	if f.name = t.hub.HasName(f.text); !f.name {
		f.name, f.channel = t.hub.Shared() && socketio.MayBeID(room), true
	}
	return f
}
