package hub

import (
	"errors"
	"slices"
	"strings"
)

// MaxJoined is how many channels a connection may be on at once.
const MaxJoined = 1000

var (
	// ErrJoinedTooMany is returned to a connection that is on as many channels as it may be.
	ErrJoinedTooMany = errors.New("the connection is on 1000 channels already")

	// ErrNotJoined is returned to a connection that leaves a channel that it is not on.
	ErrNotJoined = errors.New("the connection is not on the channel")
)

// On says whether the connection is on a channel.
func (c *Conn) On(name string) bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	_, on := c.on(name)
	return on
}

// on reports whether the connection is on a channel, and where in Conn.audiences that is or would be. The caller holds
// Hub.mu.
func (c *Conn) on(name string) (at int, on bool) {
	return slices.BinarySearchFunc(c.audiences, name, func(a *audience, name string) int {
		return strings.Compare(a.channel.name, name)
	})
}

// Join subscribes the connection to one more channel. It is sent what frame makes of the welcome and of the messages
// that it missed after lastID, if that is set, and then gets every message published after Join returns. As all of
// that is one piece, there is no moment at which the connection has some of the older messages and not the others.
func (c *Conn) Join(name, lastID string, frame func(Welcome, []*Message) []byte) error {
	h := c.hub
	var p []byte // made of:
	var made Welcome
	var of []*Message
	for try := 0; ; try++ {
		h.mu.Lock()
		c.awaitRoom(len(p) + messageOverhead)
		if err := c.mayJoin(name); err != nil {
			h.mu.Unlock()
			return err
		}
		var ms []*Message
		w := Welcome{ID: FormatID(h.epoch, h.seq)}
		at, on := c.on(name)
		if !on {
			ms, w = h.since([]string{name}, lastID, 0, c.options.MaxBacklog)
		}
		if p == nil || made.Resumed != w.Resumed || !slices.Equal(of, ms) {
			locked := len(ms) == 0 || try == 3
			if !locked { // encoding takes long: try again when it is done
				h.mu.Unlock()
			}
			p, made, of = frame(w, ms), w, ms
			if !locked {
				continue
			}
		}
		if w.Lost != nil {
			h.gaps++
		}
		e := entry{op: opSend, conn: c, bytes: p}
		if !on {
			e.op, e.audience = opJoin, h.join(c.loop, name)
			c.audiences = slices.Insert(c.audiences, at, e.audience)
		}
		c.loop.inboxBytes += len(p) + messageOverhead
		wake := c.loop.push(e)
		h.mu.Unlock()
		h.wake(wake)
		return nil
	}
}

// mayJoin says what keeps the connection from joining a channel. The caller holds Hub.mu.
func (c *Conn) mayJoin(name string) error {
	if c.left {
		return ErrClosed
	}
	if _, on := c.on(name); on {
		return nil
	}
	if len(c.audiences) >= MaxJoined {
		return ErrJoinedTooMany
	}
	if c.hub.tooManyWith(name) {
		return c.hub.refuse(RefusedChannels, ErrTooManyChannels)
	}
	return nil
}

// Leave takes the connection out of a channel. After the last message that it gets from it, it is sent p.
func (c *Conn) Leave(name string, p []byte) error {
	h := c.hub
	h.mu.Lock()
	at, on := c.on(name)
	if !on {
		h.mu.Unlock()
		return ErrNotJoined
	}
	a := c.audiences[at]
	h.part(a)
	c.audiences = slices.Delete(c.audiences, at, at+1)
	wake := c.loop.push(entry{op: opLeave, conn: c, audience: a, bytes: p})
	h.mu.Unlock()
	h.wake(wake)
	return nil
}

// place is where a connection is in one of its audiences: in the list of the group, if it is its only one, or else in
// the list of the mixed.
type place struct {
	audience *audience
	index    int
}

// member is a connection in the list of the mixed, and which of its places that is. So who is moved in the list can be
// told without looking at all its places.
type member struct {
	conn  *Conn
	place int
}

// open takes a new connection in. Connect has given it its places.
func (l *loop) open(c *Conn) {
	c.state = stateOpen
	for i := range c.places {
		c.enter(i)
	}
	l.ring(c).add(c, l.now)
	if o := c.options.Observer; o != nil && len(c.places) > 0 {
		o.Subscribed(c, "")
	}
}

// join places a connection in one more audience, which starts with p.
func (l *loop) join(c *Conn, a *audience, p []byte) {
	if c.state != stateOpen {
		return
	}
	if len(c.places) == 1 {
		c.quit(0) // it moves from its group
	}
	c.places = append(c.places, place{audience: a})
	if len(c.places) == 2 {
		c.enter(0)
	}
	c.enter(len(c.places) - 1)
	if o := c.options.Observer; o != nil {
		o.Subscribed(c, a.channel.name)
	}
	l.send(c, p, required)
}

// leave takes a connection out of an audience, which ends with p.
func (l *loop) leave(c *Conn, a *audience, p []byte) {
	if c.state != stateOpen {
		return
	}
	if o := c.options.Observer; o != nil {
		o.Unsubscribed(c, a.channel.name)
	}
	i := slices.IndexFunc(c.places, func(at place) bool { return at.audience == a })
	c.quit(i)
	last := len(c.places) - 1
	if i < last {
		at := c.places[last]
		c.places[i] = at
		at.audience.mixed[at.index].place = i
	}
	if last == 1 { // it moves to a group
		c.quit(0)
	}
	c.places[last] = place{}
	c.places = c.places[:last]
	if last == 1 {
		c.enter(0)
	}
	l.send(c, p, required)
}

// enter puts a connection in the list of the audience of its place i.
func (c *Conn) enter(i int) {
	at := &c.places[i]
	a := at.audience
	if len(c.places) > 1 {
		at.index = len(a.mixed)
		a.mixed = append(a.mixed, member{c, i})
		return
	}
	list := a.group(c.options.Format)
	at.index = len(*list)
	*list = append(*list, c)
}

// quit takes a connection out of the list of the audience of its place i. The last of the list comes where it was.
func (c *Conn) quit(i int) {
	at := c.places[i]
	a := at.audience
	if len(c.places) > 1 {
		last := len(a.mixed) - 1
		moved := a.mixed[last]
		a.mixed[at.index] = moved
		moved.conn.places[moved.place].index = at.index
		a.mixed[last] = member{}
		a.mixed = a.mixed[:last]
		return
	}
	list := a.group(c.options.Format)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[at.index] = moved
	moved.places[0].index = at.index
	(*list)[last] = nil
	*list = (*list)[:last]
}

// group returns the list of the connections with a format that are on the channel alone.
func (a *audience) group(f Format) *[]*Conn {
	for i := range a.groups {
		if a.groups[i].format == f {
			return &a.groups[i].conns
		}
	}
	a.groups = append(a.groups, group{format: f})
	return &a.groups[len(a.groups)-1].conns
}
