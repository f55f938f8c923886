package hub

import (
	"errors"
	"slices"
	"strings"
)

var (
	// ErrJoinedTooMany is returned to a connection that is on MaxJoined channels already.
	ErrJoinedTooMany = errors.New("the connection is on 1000 channels already")

	// ErrNotJoined is returned to a connection that leaves a channel that it is not on.
	ErrNotJoined = errors.New("the connection is not on the channel")
)

// On reports whether the connection is on a channel.
func (c *Conn) On(name string) bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	_, on := c.findLocked(name)
	return on
}

// findLocked reports whether the connection is on a channel, and where in Conn.audiences that is or would be.
func (c *Conn) findLocked(name string) (at int, on bool) {
	// Sorted and not a map: most connections are on one channel, and a map would take several times the memory of a
	// list with one entry.
	return slices.BinarySearchFunc(c.audiences, name, func(a *audience, name string) int {
		return strings.Compare(a.channel.name, name)
	})
}

// Leave takes the connection out of a channel. After the last message that it gets from it, it is sent p.
func (c *Conn) Leave(name string, p []byte) error {
	h := c.hub
	h.mu.Lock()
	at, on := c.findLocked(name)
	if !on {
		h.mu.Unlock()
		return ErrNotJoined
	}
	a := c.audiences[at]
	h.unsubscribeLocked(a)
	c.audiences = slices.Delete(c.audiences, at, at+1)
	// What is in the inbox before this entry is still delivered, and nothing after it.
	wake := c.loop.pushLocked(entry{op: opLeave, conn: c, audience: a, arg: p})
	h.mu.Unlock()
	h.wake(wake)
	return nil
}

// membership is where a connection is in one of its audiences: in the list of a group if it is on that channel alone, or
// otherwise in the list of the mixed.
type membership struct {
	audience *audience
	index    int32
	listens  bool // the connection gets the channel's notices; see Conn.Listen
}

// member is a connection in the list of the mixed, and the index of its membership there. When a member is moved in the
// list, its membership is found without a search.
type member struct {
	conn  *Conn
	index int // of its membership
}

// open attaches a new connection. Connect has given it its memberships.
func (l *loop) open(c *Conn) {
	c.state = stateOpen
	l.passOver(c)
	for i := range c.memberships {
		c.attach(i)
	}
	l.ring(c).add(c, l.now)
	l.conns++
	if o := c.options.Observer; o != nil && len(c.memberships) > 0 {
		o.Subscribed(c, "")
	}
}

// join attaches a connection to one more audience, and sends it p first.
func (l *loop) join(c *Conn, a *audience, p []byte) {
	if l.catchUp(c); c.state != stateOpen {
		return
	}
	c.moved = true
	l.emit.moves(c)
	if len(c.memberships) == 1 {
		c.detach(0) // it moves from its group
	}
	c.memberships = append(c.memberships, membership{audience: a})
	if len(c.memberships) == 2 {
		c.attach(0)
	}
	c.attach(len(c.memberships) - 1)
	if o := c.options.Observer; o != nil {
		o.Subscribed(c, a.channel.name)
	}
	// The barrier has delivered what was gathered, so p is first.
	l.send(c, p, required)
}

// leave detaches a connection from an audience, and sends it p last.
func (l *loop) leave(c *Conn, a *audience, p []byte) {
	if l.catchUp(c); c.state != stateOpen {
		return
	}
	if o := c.options.Observer; o != nil {
		o.Unsubscribed(c, a.channel.name)
	}
	c.moved = true
	l.emit.moves(c)
	i := slices.IndexFunc(c.memberships, func(at membership) bool { return at.audience == a })
	c.detach(i)
	last := len(c.memberships) - 1
	if i < last {
		at := c.memberships[last]
		c.memberships[i] = at
		at.audience.mixed[at.index].index = i
	}
	if last == 1 { // it moves to a group
		c.detach(0)
	}
	c.memberships[last] = membership{}
	c.memberships = c.memberships[:last]
	if last == 1 {
		c.attach(0)
	}
	l.send(c, p, required)
}

// attach puts a connection in the list that its membership i belongs in.
func (c *Conn) attach(i int) {
	at := &c.memberships[i]
	a := at.audience
	if len(c.memberships) > 1 {
		at.index = int32(len(a.mixed))
		a.mixed = append(a.mixed, member{c, i})
		return
	}
	list := a.group(c.options.Format)
	at.index = int32(len(*list))
	*list = append(*list, c)
}

// detach takes a connection out of the list that its membership i is in. The last of the list takes its place.
func (c *Conn) detach(i int) {
	at := c.memberships[i]
	a := at.audience
	if len(c.memberships) > 1 {
		last := len(a.mixed) - 1
		moved := a.mixed[last]
		a.mixed[at.index] = moved
		moved.conn.memberships[moved.index].index = at.index
		a.mixed[last] = member{}
		a.mixed = a.mixed[:last]
		return
	}
	list := a.group(c.options.Format)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[at.index] = moved
	moved.memberships[0].index = at.index
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
	// A list, because formats are few. An empty group stays: its format mostly comes back.
	a.groups = append(a.groups, group{format: f})
	return &a.groups[len(a.groups)-1].conns
}
