package backend

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/queue"
)

// taker gives the hub what comes from one source: from clients of the server, or from the Redis.
type taker struct {
	*Intake
	queue *queueSettings
}

// Publish implements resp.Publisher. What arrives together is published together, so that the hub's lock is taken once. It waits
// while the hub is full. If the hub shares a log, the replies are held back until the log has the messages.
func (t *taker) Publish(c *resp.Conn, ps []resp.Publication) {
	if t.hub.Shared() {
		for _, p := range ps {
			t.takeShared(c, string(p.Channel), p.Payload)
		}
		return
	}
	b := batches.Get().(*batch)
	b.taker, b.conn = t, c
	for _, p := range ps {
		b.add(string(p.Channel), p.Payload)
	}
	b.publish()
	batches.Put(b)
}

// takeSource takes what was published on a channel of the Redis that is subscribed to.
func (t *taker) takeSource(channel string, payload []byte) {
	b := batch{taker: t}
	b.add(channel, payload)
	b.publish()
}

// takeShared takes what was published on a channel of Redis, if the hub shares a log.
func (t *taker) takeShared(c *resp.Conn, channel string, payload []byte) {
	ms, k := t.messages(nil, channel, payload)
	if len(ms) == 0 {
		if k != nil {
			t.manage(channel, k)
		}
		c.Answer(0)
		return
	}
	held := c.Hold()
	t.hub.PublishAllAsync(ms, func(err error) {
		t.published(channel, err)
		held.Answer(subscribers(ms))
	})
}

// batch has what was published and not yet given to the hub.
type batch struct {
	taker    *taker
	conn     *resp.Conn // waits for replies; nil for a Redis that is subscribed to
	messages []*hub.Message
	entries  []entry
	size     int // bytes of the messages
}

// maxBatchBytes is how many bytes of messages are kept until they are published at once. A pickle of 500 bytes can become 1 MiB,
// and a read has more than a hundred of them.
const maxBatchBytes = 256 << 10

// entry is one publication of a batch.
type entry struct {
	channel  string // of Redis
	messages int    // how many it has become
}

// batches has batches that are not in use.
var batches = sync.Pool{New: func() any { return new(batch) }}

// add adds what was published on a channel.
func (b *batch) add(channel string, payload []byte) {
	before := len(b.messages)
	ms, k := b.taker.messages(b.messages, channel, payload)
	b.messages = ms
	if k != nil {
		b.publish() // what came before concerns the rooms as they were
		b.taker.manage(channel, k)
		before = 0
	}
	b.entries = append(b.entries, entry{channel, len(b.messages) - before})
	if len(b.messages) > before {
		b.size += sizeOf(b.messages[before])
	}
	if b.size > maxBatchBytes {
		b.publish()
	}
}

// sizeOf returns what a message takes, and those of the same event for other rooms, which share its memory.
func sizeOf(m *hub.Message) (n int) {
	n = len(m.Data)
	if m.Emit != nil {
		n += len(m.Emit.Args)
		for _, a := range m.Emit.Attachments {
			n += len(a)
		}
	}
	return n
}

// publish gives the hub what is in the batch, and answers.
func (b *batch) publish() {
	t, ms := b.taker, b.messages
	var err error
	if len(ms) > 0 {
		err = t.hub.PublishWait(ms...)
	}
	// A call publishes all of its messages or none. So if one of them is invalid, they are published one by one.
	again := len(b.entries) > 1 && isInvalid(err)
	for _, e := range b.entries {
		own := ms[:e.messages]
		ms = ms[e.messages:]
		if len(own) > 0 {
			if again {
				err = t.hub.PublishWait(own...)
			}
			t.published(e.channel, err)
		}
		if b.conn != nil {
			b.conn.Answer(subscribers(own))
		}
	}
	clear(b.messages)
	clear(b.entries)
	b.messages, b.entries, b.size = b.messages[:0], b.entries[:0], 0
}

// isInvalid reports whether the hub does not accept a message.
func isInvalid(err error) bool {
	_, ok := errors.AsType[*hub.InvalidError](err)
	return ok
}

// subscribers returns how many subscribers the messages have in total.
func subscribers(ms []*hub.Message) (n int) {
	for _, m := range ms {
		n += m.Subscribers
	}
	return n
}

// published counts what became of a publication.
func (t *taker) published(channel string, err error) {
	switch {
	case err == nil:
		t.counts.note(done)
	case isInvalid(err), errors.Is(err, hub.ErrTooBig):
		t.reject(invalid, channel, err)
	default:
		t.reject(unavailable, channel, err)
	}
}

// reject counts a publication that comes to nothing, and tells people: not of each, unless they look for them.
func (t *taker) reject(r result, channel string, err error) {
	channel = strings.ToValidUTF8(channel[:min(len(channel), hub.MaxName)], "\ufffd") // it may be as long as a message
	fields := []zap.Field{zap.Stringer("result", r), zap.String("channel", channel), zap.Error(err)}
	if t.counts.note(r) {
		logger().Warn("what a backend has published was dropped", fields...)
	} else {
		logger().Debug("what a backend has published was dropped", fields...)
	}
}

// TooLong implements resp.Publisher.
func (t *taker) TooLong(channel string, size, limit int) {
	t.reject(invalid, channel, fmt.Errorf("it has %d bytes, more than %d, and its connection was closed", size, limit))
}

// messages decodes what was published on a channel of Redis. It appends the messages, or returns a command about clients. What it
// returns shares no memory with the payload.
func (t *taker) messages(ms []*hub.Message, channel string, payload []byte) ([]*hub.Message, *queue.Command) {
	k, err := t.queue.decoder.Decode(channel, payload)
	switch {
	case errors.Is(err, queue.ErrChannel):
		return t.plain(ms, channel, payload), nil
	case err != nil:
		t.reject(invalid, channel, err)
	case k.Method == queue.Ignore:
		t.counts.note(ignored)
	case !t.has(k.Namespace):
		t.reject(wrongNamespace, channel, errors.New("no route has the namespace "+k.Namespace))
	case k.Method == queue.Emit:
		return t.emit(ms, channel, &k), nil
	default:
		own := k // or k would be allocated for each message
		return ms, &own
	}
	return ms, nil
}

// has reports whether there may be clients in a namespace.
func (t *taker) has(namespace string) bool {
	return namespace == packet.MainNamespace || t.queue.namespaces.Matches(namespace)
}

var errNotTaken = errors.New("the option publish has no such channel")

// plain appends what any Redis client has published on a channel, if an option allows that.
func (t *taker) plain(ms []*hub.Message, channel string, payload []byte) []*hub.Message {
	if !t.queue.publish.Matches(channel) {
		t.reject(wrongChannel, channel, errNotTaken)
		return ms
	}
	if len(payload) > maxMessage {
		t.reject(invalid, channel, fmt.Errorf("%d bytes, more than %d", len(payload), maxMessage))
		return ms
	}
	m := &hub.Message{Channel: channel, Data: bytes.Clone(payload), Source: hub.SourceRedis}
	if !utf8.Valid(payload) {
		m.Kind = hub.Binary
	}
	return append(ms, m)
}
