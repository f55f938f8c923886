package logwriter

import (
	"bytes"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// loggerName is the logger of the writers themselves. What it logs they do not publish.
const loggerName = "broadcast.log"

// logger returns it. It is that of the running configuration, which the writers outlive.
func logger() *zap.Logger { return caddy.Log().Named(loggerName) }

func (q *queue) fields(entries uint64, err error) []zap.Field {
	fields := []zap.Field{zap.String("channel", q.channel), zap.Uint64("entries", entries)}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	return fields
}

// publish publishes messages in order and waits for the result. It returns how many of them were published, and the error for
// the others. Text that is not what it should be is repaired.
func publish(h *hub.Hub, ms []*hub.Message) (n int, err error) {
	answer := make(chan error, 1)
	for {
		// It waits while the hub or the broker has no room: there is a queue here for that.
		h.PublishAllAsync(ms, func(err error) { answer <- err })
		err := <-answer
		if invalid, ok := errors.AsType[*hub.InvalidError](err); ok && repair(ms[invalid.Index]) {
			continue // each message is repaired once, so this ends
		}
		if partial, ok := errors.AsType[*broker.PartialError](err); ok {
			return len(partial.Places), err
		}
		if err != nil {
			return 0, err
		}
		return len(ms), nil
	}
}

// repair makes text of a message that is not valid. It reports false if it was text already: then something else is wrong.
func repair(m *hub.Message) bool {
	valid := bytes.ToValidUTF8(m.Data, []byte("\uFFFD"))
	if m.Kind == hub.Text && bytes.Equal(valid, m.Data) {
		return false
	}
	m.Kind, m.Data = hub.Text, valid
	return true
}
