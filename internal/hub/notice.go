package hub

import (
	"slices"
	"sync"
)

// Notice is what the connections on a channel are told that is not a message, such as who else is on it: it has no position, is
// not kept, and is not resumed. Only connections that listen for the notices of the channel get it.
type Notice struct {
	Name    string // what it is about
	Channel string
	Data    []byte // a JSON object in one line

	mu      sync.Mutex
	encoded []encoding
}

// NoticeFormat is a Format that has a form for notices. Connections of other formats get none.
type NoticeFormat interface {
	Format
	Notice(name, channel string, data []byte) []byte
}

// in returns the notice in a format, or nil. It is encoded once for all loops.
func (n *Notice) in(format Format) []byte {
	f, ok := format.(NoticeFormat)
	if !ok {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.encoded {
		if e.key == format {
			return e.bytes
		}
	}
	p := slices.Clip(f.Notice(n.Name, n.Channel, n.Data))
	n.encoded = append(n.encoded, encoding{format, p})
	return p
}

// Notify sends a notice to the connections that listen, after what was published before, also where that waits for the next
// delivery. What it costs under Hub.mu does not grow with their number.
func (h *Hub) Notify(n *Notice) {
	h.mu.Lock()
	var wake uint64
	if ch := h.channels[n.Channel]; ch != nil {
		for a := range ch.audiences() {
			wake |= a.loop.pushLocked(entry{op: opCall, arg: func() { a.loop.notify(a, n) }})
		}
	}
	h.mu.Unlock()
	h.wake(wake)
}

// Listen sends the connection a notice, and has it get those of the same channel that come after it: none that was given to
// Notify before. It does not count in the inbox, because thousands of connections may be sent the same bytes.
func (c *Conn) Listen(n *Notice) {
	if _, ok := c.options.Format.(NoticeFormat); !ok {
		return
	}
	c.hub.enqueue(c.loop, entry{op: opCall, conn: c, arg: func() { c.loop.listen(c, n) }})
}

// listen is Listen, on the loop.
func (l *loop) listen(c *Conn, n *Notice) {
	i := slices.IndexFunc(c.memberships, func(at membership) bool { return at.audience.channel.name == n.Channel })
	if i < 0 || c.state != stateOpen {
		return // it has left meanwhile
	}
	if every := c.options.DeliverEvery; every > 0 && len(l.delayFor(every).notices) > 0 { // those were given to Notify before
		l.deliver()
		l.deliverDelayed(l.delayFor(every))
		if c.state != stateOpen {
			return
		}
	}
	c.memberships[i].listens = true
	var array *shared
	l.writeNotice(c, n.in(c.options.Format), &array)
	array.release()
	l.handleFailed()
}

// notify writes a notice to those of an audience that listen, after the messages that wait for it.
func (l *loop) notify(a *audience, n *Notice) {
	if a.every > 0 {
		if d := l.delayFor(a.every); len(d.touched) > 0 {
			d.notices = append(d.notices, func() { l.notifyNow(a, n) })
			return
		}
	}
	l.notifyNow(a, n)
}

// notifyNow is notify for an audience for which no messages wait.
func (l *loop) notifyNow(a *audience, n *Notice) {
	for i := range a.groups {
		g := &a.groups[i]
		p := n.in(g.format)
		if p == nil {
			continue
		}
		var array *shared
		for _, c := range g.conns {
			if c.memberships[0].listens {
				l.writeNotice(c, p, &array)
			}
		}
		array.release()
	}
	l.notifyMixed(a, n)
	l.handleFailed() // only now, as it takes connections out of the lists
}

// notifyMixed is notify for connections on several channels, which are not sorted by format.
func (l *loop) notifyMixed(a *audience, n *Notice) {
	var format Format
	var p []byte
	var array *shared
	for _, m := range a.mixed {
		c := m.conn
		if !c.memberships[m.index].listens {
			continue
		}
		if c.options.Format != format {
			array.release()
			format, array = c.options.Format, nil
			p = n.in(format)
		}
		l.writeNotice(c, p, &array)
	}
	array.release()
}

// writeNotice writes a notice. A full backlog that drops its oldest messages keeps notices: what they tell is known to the
// client only if it gets all of them.
func (l *loop) writeNotice(c *Conn, p []byte, array **shared) {
	l.bytes += uint64(len(p))
	l.calls++
	c.sent += uint64(len(p))
	if f := c.write(p, false, array, required); f > writeQueued {
		l.failed = append(l.failed, failure{c, f})
	}
}
