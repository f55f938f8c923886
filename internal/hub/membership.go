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

// Join subscribes the connection to one more channel. It is sent what frame makes of the welcome and of the messages
// that it missed after lastID, if that is set, and then gets every message published after Join returns. As all of
// that is one piece, there is no moment at which the connection has some of the older messages and not the others.
func (c *Conn) Join(name, lastID string, frame func(Welcome, []*Message) []byte) error {
	h := c.hub
	var made snapshot // what p was made of
	var p []byte
	size, promised, waited := 0, 0, 0
	var w want
	defer w.done(h)
	defer func() { c.countWaiting(-waited) }()
	for try := 0; ; try++ {
		h.mu.Lock()
		// What the last try was promised is queued below, or promised again.
		h.promised -= promised
		waited += c.awaitRoomLocked(max(size, len(p))+messageOverhead, len(p))
		s, err := c.positionLocked(name, lastID, &w)
		if err != nil {
			if promised > 0 {
				h.hasSpace.Broadcast() // others may have waited for what is not promised any more
			}
			h.mu.Unlock()
			return err
		}
		promised = 0
		if p == nil || !s.equal(made) {
			if len(s.messages) > 0 && try < joinTries {
				before := size
				if size = encodedSize(s.messages); size > before {
					h.mu.Unlock()
					continue // there may be no room for that much
				}
				promised = size // counts as queued while it is encoded
				h.promised += promised
				h.mu.Unlock()
				made, p = s, frame(s.welcome, s.messages)
				continue // does it still hold?
			}
			p = frame(s.welcome, s.messages)
		}
		wake := c.joinLocked(name, s, p)
		h.mu.Unlock()
		h.wake(wake)
		return nil
	}
}

// joinTries is how often Join looks again, to find that what was missed is more than it had room for, or that the history
// has changed while it was encoded without Hub.mu, which takes long. After that it encodes under the lock, so that it
// comes to an end on a busy channel too.
const joinTries = 4

// encodedSize returns at most how many bytes messages take when they are encoded.
func encodedSize(ms []*Message) (n int) {
	for _, m := range ms {
		n += m.size()
	}
	return n
}

// snapshot is what a channel starts from at one moment.
type snapshot struct {
	joined   bool // the connection is on the channel already: it starts from nothing
	origin   *origin
	welcome  Welcome
	messages []*Message
}

// equal reports whether the same frame is right for both: positions may differ where no message does.
func (s snapshot) equal(o snapshot) bool {
	return s.origin == o.origin && s.welcome.Resumed == o.welcome.Resumed && slices.Equal(s.messages, o.messages)
}

// positionLocked is snapshotLocked, but with a shared log it first waits until the channel can be joined. It may release
// Hub.mu meanwhile.
func (c *Conn) positionLocked(name, lastID string, w *want) (s snapshot, err error) {
	h := c.hub
	if h.log != nil {
		if err := c.mayJoinLocked(name); err != nil {
			return s, err
		}
		if w.channels == nil {
			*w = want{channels: []string{name}, lastID: lastID, limit: c.options.MaxBacklog, conn: c}
		}
		if err := h.awaitLocked(w); err != nil {
			return s, err
		}
	}
	return c.snapshotLocked(name, lastID)
}

// snapshotLocked returns what a channel starts from now, or why the connection cannot join it.
func (c *Conn) snapshotLocked(name, lastID string) (s snapshot, err error) {
	if err := c.mayJoinLocked(name); err != nil {
		return s, err
	}
	h := c.hub
	s.origin = h.origin
	if _, s.joined = c.findLocked(name); s.joined {
		s.welcome.ID = FormatID(h.epoch, h.seq)
		return s, nil
	}
	s.messages, s.welcome = h.replayFromLocked([]string{name}, lastID, 0, c.options.MaxBacklog)
	return s, nil
}

// joinLocked subscribes the connection to a channel, if it is not yet, and sends it p, which starts it.
func (c *Conn) joinLocked(name string, s snapshot, p []byte) (wake uint64) {
	h := c.hub
	e := entry{op: opSend, conn: c, bytes: p}
	if !s.joined {
		e.op, e.audience = opJoin, h.subscribeLocked(c.loop, name)
		at, _ := c.findLocked(name)
		c.audiences = slices.Insert(c.audiences, at, e.audience)
	}
	if s.welcome.Gaps != nil {
		h.gaps++
	}
	c.loop.inboxBytes += len(p) + messageOverhead
	return c.loop.pushLocked(e)
}

// mayJoinLocked returns why the connection cannot join a channel, if it cannot.
func (c *Conn) mayJoinLocked(name string) error {
	if c.left {
		return ErrClosed
	}
	// Joining twice is not an error: a client that lost the answer may ask again.
	if _, on := c.findLocked(name); on {
		return nil
	}
	if len(c.audiences) >= MaxJoined {
		return ErrJoinedTooMany
	}
	if c.hub.overChannelsLocked(name) {
		return c.hub.reject(LimitChannels, ErrTooManyChannels)
	}
	return nil
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
	wake := c.loop.pushLocked(entry{op: opLeave, conn: c, audience: a, bytes: p})
	h.mu.Unlock()
	h.wake(wake)
	return nil
}

// membership is where a connection is in one of its audiences: in the list of a group if it is on that channel alone, or
// otherwise in the list of the mixed.
type membership struct {
	audience *audience
	index    int
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
	for i := range c.memberships {
		c.attach(i)
	}
	l.ring(c).add(c, l.now)
	if o := c.options.Observer; o != nil && len(c.memberships) > 0 {
		o.Subscribed(c, "")
	}
}

// join attaches a connection to one more audience, and sends it p first.
func (l *loop) join(c *Conn, a *audience, p []byte) {
	if c.state != stateOpen {
		return
	}
	c.moved = true
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
	if c.state != stateOpen {
		return
	}
	if o := c.options.Observer; o != nil {
		o.Unsubscribed(c, a.channel.name)
	}
	c.moved = true
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
		at.index = len(a.mixed)
		a.mixed = append(a.mixed, member{c, i})
		return
	}
	list := a.group(c.options.Format)
	at.index = len(*list)
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
