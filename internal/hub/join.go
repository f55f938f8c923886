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
	size, waited := 0, 0
	defer func() { c.waits(-waited) }()
	for try, promised := 0, 0; ; try++ {
		h.mu.Lock()
		h.promised -= promised
		waited += c.awaitRoom(max(size, len(p))+messageOverhead, len(p))
		if err := c.mayJoin(name); err != nil {
			if promised > 0 {
				h.room.Broadcast() // others may have waited for that
			}
			h.mu.Unlock()
			return err
		}
		promised = 0
		var ms []*Message
		w := Welcome{ID: FormatID(h.epoch, h.seq)}
		at, on := c.on(name)
		if !on {
			ms, w = h.since([]string{name}, lastID, 0, c.options.MaxBacklog)
		}
		if p == nil || made.Resumed != w.Resumed || !slices.Equal(of, ms) {
			locked := len(ms) == 0 || try == 4
			if !locked {
				before := size
				if size = sizes(ms); size > before { // it may have to wait for room
					h.mu.Unlock()
					continue
				}
				// Encoding takes long: try again when it is done. What it makes counts as queued from now on.
				promised = size
				h.promised += promised
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

// sizes returns at most how many bytes messages take when they are encoded.
func sizes(ms []*Message) (n int) {
	for _, m := range ms {
		n += m.size()
	}
	return n
}

// Send sends p, after what was published before. It waits while the loop has as much waiting as it may.
func (c *Conn) Send(p []byte) {
	h, l := c.hub, c.loop
	n := len(p) + messageOverhead
	h.mu.Lock()
	waited := c.awaitRoom(n, len(p))
	l.inboxBytes += n
	wake := l.push(entry{op: opSend, conn: c, bytes: p})
	h.mu.Unlock()
	h.wake(wake)
	c.waits(-waited)
}

// awaitRoom waits while the loop, or all together, have as much waiting as they may, to queue n bytes. Meanwhile the
// reader holds some, which it counts, as its caller counts them out later. The caller holds Hub.mu.
func (c *Conn) awaitRoom(n, holds int) (waited int) {
	h, l := c.hub, c.loop
	for !h.closed && !c.left && (l.inboxBytes > 0 && l.inboxBytes+n > h.options.MaxInbox || !h.hasRoom(n+entryOverhead)) {
		if waited == 0 {
			h.mu.Unlock()
			waited = c.reserve(waiterCost + holds)
			h.mu.Lock()
			continue // there may be room now
		}
		h.awaitRoom()
	}
	return waited
}
