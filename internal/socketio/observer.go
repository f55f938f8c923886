package socketio

import (
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// observer learns which rooms clients are in, including those that backends put them in, and when their connections end. It passes
// everything on to the route's own observer.
type observer struct {
	hub.Observer
	table *Table
}

// Observe returns the observer of the connections of Socket.IO clients.
func (t *Table) Observe(o hub.Observer) hub.Observer { return observer{o, t} }

// Subscribed implements hub.Observer.
func (o observer) Subscribed(c *hub.Conn, channel string) {
	if s := o.table.of(c); s != nil && channel != "" && s.endpoint.Recovery > 0 {
		o.table.mu.Lock()
		s.rooms = append(s.rooms, channel)
		o.table.mu.Unlock()
	}
	o.Observer.Subscribed(c, channel)
}

// Unsubscribed implements hub.Observer. That it leaves all of them is its end, after which it may come back to them.
func (o observer) Unsubscribed(c *hub.Conn, channel string) {
	if why, ok := c.Parting(); ok && o.table.endsForGood(why) {
		o.end(c, why) // now, as the client may be slow to go, and quick to come back
	} else if s := o.table.of(c); s != nil && channel != "" {
		o.table.mu.Lock()
		if i := slices.Index(s.rooms, channel); i >= 0 {
			s.rooms = slices.Delete(s.rooms, i, i+1)
		}
		o.table.mu.Unlock()
	}
	o.Observer.Unsubscribed(c, channel)
}

// Ended implements hub.Observer.
func (o observer) Ended(c *hub.Conn, why hub.Reason) {
	o.end(c, why)
	o.Observer.Ended(c, why)
}

// endsForGood reports whether a client cannot resume its session. When its route ends, the new one may not let it into the same
// rooms. When the process ends, and another one goes on with its records, that one looks at them: see Table.recoverable.
func (t *Table) endsForGood(why hub.Reason) bool {
	return packet.ForGood(why) || why == hub.ReasonRestart && !t.handingOver.Load()
}

// end ends the session of a connection.
func (o observer) end(c *hub.Conn, why hub.Reason) {
	o.table.mu.Lock()
	s := o.table.sessions[c]
	var names, left []string
	if s != nil {
		delete(o.table.sessions, c)
		s.ended, s.why = true, why
		if s.early != nil {
			s.early.Stop()
		}
		if s.late != nil {
			s.late.Stop()
		}
		if packet.ForGood(why) {
			for _, r := range s.records {
				left = append(left, r.name())
			}
		}
		names = o.table.endLocked(s)
	}
	o.table.mu.Unlock()
	if len(names) > 0 {
		// Not here: the loop waits, and what is kept for a name may be long.
		go func() {
			s.endElsewhere(left...)
			forget(s.endpoint.Hub, names)
		}()
	}
}

// Dismissed implements hub.Dismisser: a backend takes a client out of the namespace in which it has the name, or of that of the
// channel.
func (o observer) Dismissed(c *hub.Conn, name, channel string) bool {
	s := o.table.of(c)
	return s != nil && s.dismiss(func(j joined) bool {
		return j.name == name || channel != "" && j.namespace == packet.Namespace(channel)
	})
}
