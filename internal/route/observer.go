package route

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// observer logs the end of connections, and emits all that happens to them.
type observer struct {
	logger *zap.Logger
	events.Observer
}

// Ended logs why a connection has ended.
func (o observer) Ended(conn *hub.Conn, why hub.Reason) {
	// The event is emitted whatever the log's level is.
	o.Observer.Ended(conn, why)
	// Check first, because the fields cost allocations and the level is mostly off.
	if entry := o.logger.Check(zapcore.DebugLevel, "closed"); entry != nil {
		c := conn.Describe()
		entry.Write(zap.Uint64("connection", uint64(c.ID)), zap.String("reason", why.String()), zap.String("remote", c.Remote),
			zap.String("transport", c.Transport), zap.String("user", c.User), zap.Duration("duration", time.Since(c.ConnectedAt)),
			zap.Uint64("sent", c.Sent))
	}
}
