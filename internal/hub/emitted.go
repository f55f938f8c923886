package hub

import (
	"slices"
	"time"
)

// emitted is what a loop knows about the latest emit to several rooms: which connections have got it. The messages of an emit
// follow each other in the log, so nothing has to be known about earlier emits. A connection gets only the first message that
// reaches it, even if it joins or leaves channels between two of them. That can only happen with a shared log, because a single
// hub publishes all of them under one lock.
type emitted struct {
	id     uint64 // 0: none
	first  uint64 // its position, if there are no holes
	done   bool   // its last message is gathered
	begun  bool   // some of it was delivered, with a batch before
	conns  map[*Conn]struct{}
	groups []*audience // the connections that are on one of these alone have it

	// Connections that have lately gone on where another one was, with all that this had got or missed up to there. They are
	// of use for as many messages as an emit can have, and few, so a Conn has no room for it.
	back    map[*Conn]cameBack
	pruneAt int // how many there are when those of no use are dropped
}

// cameBack is where in the log a connection has gone on, and with what name.
type cameBack struct {
	seq  uint64
	name string
}

// minBack is how many are kept in any case.
const minBack = 64

// goesOn notes that a connection goes on where another one was.
func (x *emitted) goesOn(c *Conn, at cameBack) {
	if x.back == nil {
		x.back, x.pruneAt = make(map[*Conn]cameBack), minBack
	}
	if x.back[c] = at; len(x.back) < x.pruneAt {
		return
	}
	for c, b := range x.back {
		if b.seq+maxRooms < at.seq {
			delete(x.back, c)
		}
	}
	x.pruneAt = 2*len(x.back) + minBack
}

// between reports whether a connection came after the first message of the emit, and has what was before as far as it is for it.
func (x *emitted) between(c *Conn) bool {
	return c.startSeq >= x.first || len(x.back) > 0 && x.back[c].seq >= x.first
}

// begin makes the emit of a message the last.
func (x *emitted) begin(m *Message) {
	x.end()
	x.id, x.first = m.Emit.id, m.Seq-uint64(slices.Index(m.Emit.Rooms, m.room()))
}

// end forgets it.
func (x *emitted) end() {
	if len(x.conns) > maxSpareEntries {
		x.conns = nil
	}
	clear(x.conns)
	clear(x.groups)
	*x = emitted{conns: x.conns, groups: x.groups[:0], back: x.back, pruneAt: x.pruneAt}
}

// delivered ends it when all of it is delivered.
func (x *emitted) delivered() {
	if x.done {
		x.end()
	}
	x.begun = x.id != 0
}

// is reports whether a message is of the emit.
func (x *emitted) is(m *Message) bool { return m.several() && m.Emit.id == x.id }

// toGroup notes that those who are on one channel alone are given a run.
func (x *emitted) toGroup(a *audience, run []*Message) {
	if x.id != 0 && !slices.Contains(x.groups, a) && slices.ContainsFunc(run, x.is) {
		x.groups = append(x.groups, a)
	}
}

// got notes that a connection is given a run.
func (x *emitted) got(c *Conn, run []*Message) {
	if x.id != 0 && !x.done && slices.ContainsFunc(run, x.is) {
		x.add(c)
	}
}

func (x *emitted) add(c *Conn) {
	if x.conns == nil {
		x.conns = make(map[*Conn]struct{})
	}
	x.conns[c] = struct{}{}
}

// moves notes that a connection is about to join or to leave a channel. After that it does not belong to its group any more.
func (x *emitted) moves(c *Conn) {
	if x.id != 0 && len(c.memberships) == 1 && slices.Contains(x.groups, c.memberships[0].audience) {
		x.add(c)
	}
}

// forget forgets a connection that ends.
func (x *emitted) forget(c *Conn) {
	if len(x.conns) > 0 {
		delete(x.conns, c)
	}
	delete(x.back, c)
}

// gatherEmit notes who must not get all of the batch because of a message.
func (l *loop) gatherEmit(m *Message) {
	for _, c := range m.Emit.skip {
		if c.loop == l {
			c.skip = l.gen
			l.skips = true
		}
	}
	if m.several() {
		l.sorts = true
		l.emit.done = m.room() == m.Emit.Rooms[len(m.Emit.Rooms)-1]
	}
	if m.Emit.rooms {
		l.sorts = true
		l.excepts = append(l.excepts, m.Emit)
	}
}

// differs reports whether a connection may not get what others on its channels get of a batch that sorts.
func (l *loop) differs(c *Conn) bool {
	x := &l.emit
	if _, has := x.conns[c]; has || x.id != 0 && x.between(c) {
		return true
	}
	return slices.ContainsFunc(l.excepts, func(e *Emit) bool { return e.exceptsChannelOf(c) })
}

// exceptsChannelOf reports whether a connection is on a channel that is excepted. The loop calls it.
func (e *Emit) exceptsChannelOf(c *Conn) bool {
	return slices.ContainsFunc(c.memberships, func(at membership) bool { return slices.Contains(e.Except, at.audience.channel.name) })
}

// repeats reports whether a connection that differs must not get a message: it has the emit already, or got it before it came
// back, or is on a channel that is excepted.
func (l *loop) repeats(c *Conn, m *Message) bool {
	if m.Emit.rooms && m.Emit.exceptsChannelOf(c) {
		return true
	}
	if !l.emit.is(m) {
		return false
	}
	if _, has := l.emit.conns[c]; has {
		return true
	}
	// It came between two messages of the emit. Whether it has the ones before is known by its channels alone: see
	// hearer.
	if l.emit.between(c) {
		name := l.emit.back[c].name
		for _, room := range m.Emit.Rooms {
			if room == m.room() {
				break
			}
			if name != "" && room == name || slices.ContainsFunc(c.memberships, func(at membership) bool { return at.audience.channel.name == room }) {
				return true
			}
		}
	}
	return false
}

// once leaves of each emit to several rooms the first message that a run has.
func once(run []*Message) []*Message {
	last := uint64(0) // its messages follow each other
	return slices.DeleteFunc(run, func(m *Message) bool {
		if !m.several() {
			return false
		}
		again := m.Emit.id == last
		last = m.Emit.id
		return again
	})
}

// deliverTo delivers a message to the one connection that it is for. The barrier has delivered what that has to get before.
func (l *loop) deliverTo(c *Conn, m *Message) {
	l.catchUp(c)
	if c.state != stateOpen || m.withholds(c) || m.Emit.exceptsChannelOf(c) {
		return
	}
	if m.several() {
		if x := &l.emit; m.Emit.id != x.id {
			l.deliver()
			x.begin(m)
		}
		l.emit.begun = true
		l.emit.moves(c) // only this one of its group is looked at
		if l.repeats(c, m) {
			return
		}
		l.emit.add(c)
	}
	run := []*Message{m}
	var array *shared
	l.write(c, c.options.Format.Append(nil, run), false, &array, run)
	array.release()
	l.counts.took(run, time.Now())
	l.handleFailed()
}
