package events

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Observer emits an event for whatever happens to a connection. It implements hub.Observer.
type Observer struct{ Emitter *Emitter }

// Subscribed implements hub.Observer.
func (o Observer) Subscribed(c *hub.Conn, channel string) { o.emit(Subscribed, c, channel, nil) }

// Unsubscribed implements hub.Observer.
func (o Observer) Unsubscribed(c *hub.Conn, channel string) { o.emit(Unsubscribed, c, channel, nil) }

// Ended implements hub.Observer.
func (o Observer) Ended(c *hub.Conn, why hub.Reason) {
	o.emit(Closed, c, "", func(v hub.Connection, data map[string]any) {
		delete(data, "channels")
		data["reason"] = why.String()
		data["sent"] = v.Sent
		data["seconds"] = time.Since(v.ConnectedAt).Seconds()
	})
}

func (o Observer) emit(name string, c *hub.Conn, channel string, more func(hub.Connection, map[string]any)) {
	if !o.Emitter.HasListeners(name) {
		return
	}
	v := c.Describe()
	if channel != "" {
		v.Channels = []string{channel}
	}
	data := map[string]any{
		"connection": c.ID(),
		"user":       v.User,
		"remote":     v.Remote,
		"transport":  v.Transport,
		"channels":   v.Channels,
	}
	if more != nil {
		more(v, data)
	}
	o.Emitter.Emit(name, data)
}
