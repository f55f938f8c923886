package redis

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
)

// setClock notes what the server's clock shows now, in milliseconds since 1970.
func (l *log) setClock(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = brokerlog.NewClock(time.UnixMilli(now), time.Now())
}
