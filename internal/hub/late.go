package hub

import "slices"

// late delivers a message that came out of order, after a fault of the log, to the connections of an audience that it is in
// order for. They are on this channel alone, always were (Conn.moved), and began before it. The hub has found that nothing newer of the
// channel was put in their way. The others are told of a gap: they may have told their clients a position beyond it.
func (l *loop) late(a *audience, m *Message) {
	for i := range a.groups {
		g := &a.groups[i]
		run := []*Message{m}
		p := g.format.Append(nil, run)
		var array *shared
		var rest []*Conn
		for _, c := range g.conns {
			switch {
			case c.moved || c.startSeq >= m.Seq:
				// They are told after the loop, because tellGap may take connections out of the list.
				rest = append(rest, c)
			case m.withholds(c):
			default:
				l.write(c, p, false, &array, run)
			}
		}
		array.release()
		l.tellGap(rest, a.channel.name)
	}
	l.tellGapMixed(a)
	l.handleFailed()
}

// gap tells the connections of an audience that they miss messages of its channel. Without an audience it tells all
// connections, about all of their channels, and their position then, if it is known.
func (l *loop) gap(a *audience, id string) {
	if a == nil {
		l.each(func(c *Conn) {
			if c.state != stateOpen || len(c.memberships) == 0 {
				return
			}
			if f, ok := c.options.Format.(GapFormat); ok && id != "" {
				l.sendGap(c, f.GapAt(c.channels(), id))
			} else {
				l.sendGap(c, c.options.Format.Gap(c.channels()))
			}
		})
		return
	}
	for i := range a.groups {
		// A copy, because tellGap may take connections out of the list.
		l.tellGap(slices.Clone(a.groups[i].conns), a.channel.name)
	}
	l.tellGapMixed(a)
}

// tellGapMixed tells those of an audience that are on several channels.
func (l *loop) tellGapMixed(a *audience) {
	// Always all of them: a client on several channels has one position for all, which may be beyond the message.
	conns := make([]*Conn, len(a.mixed))
	for i, m := range a.mixed {
		conns[i] = m.conn
	}
	l.tellGap(conns, a.channel.name)
}

// tellGap tells connections that they miss messages of a channel. It may take them out of their lists.
func (l *loop) tellGap(conns []*Conn, name string) {
	if name == "" {
		name = "*" // as Conn.channels
	}
	var format Format
	var p []byte
	for _, c := range conns {
		// Neighbors mostly have the same format, so the notice is encoded once for many.
		if f := c.options.Format; f != format {
			format, p = f, f.Gap([]string{name})
		}
		l.sendGap(c, p)
	}
}

// sendGap sends the notice of a gap, if the format has one, or closes the connection, if that is how its client learns of it. A full backlog may drop it, because what takes its place names
// all channels of the connection.
func (l *loop) sendGap(c *Conn, p []byte) {
	l.catchUp(c)
	if len(p) > 0 {
		l.counts.gaps.Add(1)
		l.send(c, p, droppable)
	} else if f, ok := c.options.Format.(GaplessFormat); ok && f.ClosesOnGap() && c.state == stateOpen {
		l.counts.gaps.Add(1)
		l.close(c, ReasonUnavailable, "messages are missing", false)
	}
}
