package hub

import (
	"cmp"
	"runtime"
	"slices"
	"time"
)

// Filter selects connections. Fields that are not set select all.
type Filter struct {
	ID      ConnID
	After   ConnID // those with larger IDs
	Options []*ConnOptions
	User    string
	Channel string
	Clients bool // only clients, and no event streams of the admin API
}

// has reports whether the filter selects a connection. Only the connection's loop may ask, because memberships are
// its own.
func (f Filter) has(c *Conn) bool {
	return (len(f.Options) == 0 || slices.Contains(f.Options, c.options)) && (f.ID == 0 || c.id == f.ID) && c.id > f.After && (f.User == "" || c.User() == f.User) &&
		(!f.Clients || c.options.Transport != TransportAdmin) &&
		(f.Channel == "" || slices.ContainsFunc(c.memberships, func(at membership) bool { return at.audience.channel.name == f.Channel }))
}

// Connection describes a connection, for lists.
type Connection struct {
	ID          ConnID
	User        string
	Remote      string
	Transport   string
	Channels    []string
	ConnectedAt time.Time
	Expires     time.Time // when its access ends, or zero
	Sent        uint64    // bytes handed to it, without what was replayed
	Backlog     int       // bytes that wait for it
}

// Connections returns the connections that the filter selects, at most limit of them, in the order of their IDs. Each loop
// describes limit of its own, because all those with the smallest IDs may be on one loop. Hub.mu is not held: a list of
// many connections delays one loop at a time, and no publisher.
func (h *Hub) Connections(f Filter, limit int) (list []Connection) {
	h.onLoops(func(l *loop) {
		var some []*Conn
		l.each(func(c *Conn) {
			if c.state == stateOpen && f.has(c) {
				some = append(some, c)
			}
		})
		slices.SortFunc(some, func(a, b *Conn) int { return cmp.Compare(a.id, b.id) })
		for _, c := range some[:min(limit, len(some))] {
			list = append(list, c.Describe())
		}
	})
	slices.SortFunc(list, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) })
	return list[:min(limit, len(list))]
}

// Describe describes the connection. Only its loop, and so an Observer, may call it.
func (c *Conn) Describe() Connection {
	c.mu.Lock()
	backlog := c.backlog.size
	c.mu.Unlock()
	var expires time.Time
	if e := c.loop.expiries.of[c]; e != nil {
		expires = e.at
	}
	return Connection{c.id, c.User(), c.remote, c.transport(), c.channels(), time.UnixMilli(c.connected), expires, c.sent, backlog}
}

// Users counts the connections of a channel by user. It looks at all connections of the hub, since only loops may look at
// the members of a channel, and no counts by user are kept: nobody but an administrator asks for them.
func (h *Hub) Users(channel string) map[string]int {
	users := make(map[string]int)
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			if c.User() != "" && c.state == stateOpen && (Filter{Channel: channel}).has(c) {
				users[c.User()]++
			}
		})
	})
	return users
}

// Channel describes a channel that has subscribers or history, for lists.
type Channel struct {
	Name        string
	Subscribers int
	History     int    // messages kept
	LastID      string // of the last of them, if there is one
}

// Channels returns the channels whose names begin with prefix and come after another name, at most limit of them, in the
// order of their names. It reads atOnce of them at a time, so one that is opened or closed meanwhile may be missing or not.
func (h *Hub) Channels(prefix, after string, limit int) (list []Channel) {
	next := following(after)
	some := make([]Channel, 0, atOnce)
	for len(list) < limit {
		some = some[:0]
		n := min(atOnce, limit-len(list))
		h.mu.Lock()
		for name := range h.index.from(next, prefix) {
			if some = append(some, h.describeLocked(h.channels[name])); len(some) == n {
				break
			}
		}
		h.mu.Unlock()
		list = append(list, some...)
		if len(some) < n {
			break
		}
		next = following(some[n-1].Name)
		runtime.Gosched() // see inPieces
	}
	return list
}

// Channel returns one channel, if it has subscribers or history.
func (h *Hub) Channel(name string) (c Channel, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := h.channels[name]
	if ch == nil {
		return c, false
	}
	return h.describeLocked(ch), true
}

// describeLocked copies what a list has of a channel, since the channel may change when the lock is released.
func (h *Hub) describeLocked(ch *channel) Channel {
	c := Channel{Name: ch.name, Subscribers: ch.subscribers, History: ch.history.count}
	if n := ch.history.count; n > 0 {
		c.LastID = ch.newest().ID()
	}
	return c
}
