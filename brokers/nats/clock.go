package nats

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
)

// setClock notes what the leader's clock has shown between asked and now. It was about in the middle.
func (l *log) setClock(shown, asked time.Time) {
	if shown.IsZero() { // a server that does not tell it
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = brokerlog.NewClock(shown, asked.Add(time.Since(asked)/2))
}
