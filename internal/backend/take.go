package backend

import (
	"bytes"
	"errors"
	"slices"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/queue"
)

// taker gives the hub what comes by one way: by the server, or from the Redis.
type taker struct {
	*Intake
	queue *queueSettings
}

// Publish implements resp.Publisher.
func (t *taker) Publish(c *resp.Conn, channel, payload []byte) (subscribers int) {
	return t.take(c, string(channel), payload)
}

// take gives the hub what was published on a channel of Redis. It waits while the hub is full. If the hub shares a log and there
// is a connection, the answer is held back until the log has answered.
func (t *taker) take(c *resp.Conn, channel string, payload []byte) (subscribers int) {
	command, err := t.queue.decoder.Decode(channel, payload)
	switch {
	case errors.Is(err, queue.ErrChannel):
		return t.plain(c, channel, payload)
	case err != nil:
		t.reject(Invalid, "a message of a backend is invalid and was dropped", channel, err)
		return 0
	case command.Method == queue.Ignore:
		t.counts.note(Ignored)
		return 0
	case !t.has(command.Namespace):
		t.reject(WrongSpace, "a backend names a namespace that no route has", channel, errors.New(command.Namespace))
		return 0
	case command.Method == queue.Emit:
		return t.emit(c, channel, &command)
	}
	t.manage(channel, &command)
	return 0
}

// reject counts a message that comes to nothing, and tells people.
func (t *taker) reject(r Result, text, channel string, err error) {
	if t.counts.note(r) {
		logger().Warn(text, zap.String("channel", channel), zap.Error(err))
	}
}

// has reports whether there may be clients in a namespace.
func (t *taker) has(namespace string) bool {
	return namespace == packet.MainNamespace || matches(t.queue.namespaces, namespace)
}

func matches(patterns []v1.JoinPattern, name string) bool {
	for _, p := range patterns {
		if p.Matches(name) {
			return true
		}
	}
	return false
}

// plain publishes what any client of Redis has published on a channel, if that is allowed.
func (t *taker) plain(c *resp.Conn, channel string, payload []byte) (subscribers int) {
	if !matches(t.queue.publish, channel) {
		t.reject(WrongName, "a backend publishes on a channel that is not taken", channel, nil)
		return 0
	}
	m := &hub.Message{Channel: channel, Data: bytes.Clone(payload), Source: hub.SourceRedis}
	if !utf8.Valid(payload) {
		m.Kind = hub.Binary
	}
	return t.publish(c, channel, m)
}

// publish publishes the messages of an emit, or one message, and returns how many subscribers they have.
func (t *taker) publish(c *resp.Conn, channel string, ms ...*hub.Message) (subscribers int) {
	count := func() (n int) {
		for _, m := range ms {
			n += m.Subscribers
		}
		return n
	}
	if c != nil && len(ms) == 1 && t.hub.Shared() {
		held := c.Hold()
		t.hub.PublishAsync(ms[0], func(err error) {
			t.published(channel, err)
			held.Answer(count())
		})
		return 0
	}
	err := t.hub.PublishWait(ms...)
	t.published(channel, err)
	return count()
}

// published counts what became of messages.
func (t *taker) published(channel string, err error) {
	switch invalid := new(hub.InvalidError); {
	case err == nil:
		t.counts.note(Done)
	case errors.As(err, &invalid), errors.Is(err, hub.ErrTooBig):
		t.reject(Invalid, "a message of a backend is invalid and was dropped", channel, err)
	default:
		t.reject(Unavailable, "a message of a backend could not be published", channel, err)
	}
}

// emit publishes an event.
func (t *taker) emit(c *resp.Conn, channel string, k *queue.Command) (subscribers int) {
	if k.WantsAck && t.counts.acks.CompareAndSwap(false, true) { // once: it is the same with each emit of the backend
		logger().Warn("a backend waits for acks of clients, which do not come", zap.String("channel", channel))
	}
	m, err := t.message(k)
	if err != nil {
		t.reject(Invalid, "a message of a backend is invalid and was dropped", channel, err)
		return 0
	}
	if len(k.Rooms) == 0 {
		return t.publish(c, channel, m)
	}
	var rooms, names []string
	for _, room := range k.Rooms {
		if t.isName(room) {
			rooms, names = append(rooms, room), append(names, room)
		} else if room, ok := packet.Room(k.Namespace, room); ok {
			rooms = append(rooms, room)
		}
	}
	ms := hub.ToRooms(m, rooms, func(room string) bool { return slices.Contains(names, room) })
	if len(ms) == 0 {
		t.reject(Invalid, "a message of a backend is invalid and was dropped", channel, errRooms)
		return 0
	}
	return t.publish(c, channel, ms...)
}

var errRooms = errors.New("no room with one of these names can be in the namespace")

// message returns the message of an event, for all of the namespace.
func (t *taker) message(k *queue.Command) (*hub.Message, error) {
	content, err := packet.NewContent(k.AppendArguments(nil), k.Attachments)
	if err != nil {
		return nil, err
	}
	m := &hub.Message{Channel: t.all(k.Namespace), Event: k.Name, Data: content.Data, Kind: content.Kind, Source: hub.SourceRedis}
	if m.Event == packet.DefaultEvent { // to clients of other protocols it is none
		m.Event = ""
	}
	if content.Args != nil {
		m.Emit = &hub.Emit{Args: content.Args, Attachments: content.Attachments}
		if content.Data == nil {
			m.Data = packet.AppendPlain(make([]byte, 0, packet.PlainSize(content.Args, content.Attachments)), content.Args, content.Attachments)
		}
	}
	if len(k.Except) > 0 {
		if m.Emit == nil {
			m.Emit = new(hub.Emit)
		}
		m.Emit.Except = t.excepted(k)
	}
	return m, nil
}

// all returns the channel of everybody in a namespace.
func (t *taker) all(namespace string) string {
	if namespace == packet.MainNamespace {
		return t.queue.main
	}
	return namespace
}

// excepted returns the names and channels of what a command excepts.
func (t *taker) excepted(k *queue.Command) (list []string) {
	for _, room := range k.Except {
		if t.isName(room) {
			list = append(list, room)
		} else if room, ok := packet.Room(k.Namespace, room); ok {
			list = append(list, room)
		}
	}
	return list
}

// isName reports whether a room is the ID of one client's socket.
func (t *taker) isName(room string) bool { return t.hub.HasName(room) }
