package presence

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// observer has the connections of a route be members of their channels. It passes everything on to the route's own observer.
type observer struct {
	hub.Observer
	table *Table
	grace time.Duration
}

// Observe returns the observer of the connections of a route with presence.
func (t *Table) Observe(o hub.Observer, grace time.Duration) hub.Observer {
	return observer{o, t, grace}
}

// Subscribed implements hub.Observer.
func (o observer) Subscribed(c *hub.Conn, channel string) {
	o.Observer.Subscribed(c, channel)
	o.each(c, channel, o.table.join)
}

// Unsubscribed implements hub.Observer.
func (o observer) Unsubscribed(c *hub.Conn, channel string) {
	o.Observer.Unsubscribed(c, channel)
	// A client that leaves a channel, or that is kicked, does not come back in a moment, unlike one whose connection ends.
	grace := o.grace
	if why, ok := c.Parting(); channel != "" || ok && why == hub.ReasonPolicy {
		grace = 0
	}
	o.each(c, channel, func(c *hub.Conn, channel string) { o.table.leave(c, channel, grace) })
}

// each calls f for a channel, or, if the name is empty, for all channels that the connection is on.
func (o observer) each(c *hub.Conn, channel string, f func(*hub.Conn, string)) {
	if channel != "" {
		f(c, channel)
		return
	}
	for _, channel := range c.Describe().Channels {
		f(c, channel)
	}
}
