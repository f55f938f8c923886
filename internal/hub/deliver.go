package hub

import (
	"slices"
	"time"
)

const (
	// maxBatch limits the data that a loop delivers in one write, so that one batch does not fill a backlog by itself.
	maxBatch = MinBacklog

	// maxSpareEntries and maxSpareBytes limit the space that is kept for the next inbox, and the next encoded batch. What
	// one burst needed would otherwise stay for good.
	maxSpareEntries = 8 << 10
	maxSpareBytes   = 1 << 20
)

// gathers reports whether the batch has something for the connection.
func (c *Conn) gathers() bool {
	if len(c.loop.touched) == 0 {
		return false
	}
	for _, p := range c.memberships {
		if p.audience.gathers() {
			return true
		}
	}
	return false
}

// gathers reports whether the batch has something for the audience.
func (a *audience) gathers() bool { return len(a.pending) > 0 }

// gather adds a message to the current batch.
func (l *loop) gather(a *audience, m *Message) {
	if a.every > 0 {
		l.gatherLater(a, m)
	} else {
		l.gatherNow(a, m)
	}
}

// gatherNow is gather for an audience whose messages do not wait.
func (l *loop) gatherNow(a *audience, m *Message) {
	if m.several() && m.Emit.id != l.emit.id {
		if l.emit.id != 0 && (!l.emit.done || l.emit.begun) {
			l.deliver() // what is known of the one before is needed until then
		}
		l.emit.begin(m)
	}
	n := m.batchSize()
	if l.size > 0 && l.size+n > maxBatch {
		l.deliver()
	}
	if len(l.touched) == 0 {
		// A batch has a number, so that what connections remember of it (skip, gen and turn) need not be cleared.
		l.gen++
	}
	if len(a.pending) == 0 {
		l.touched = append(l.touched, a)
	}
	a.pending = append(a.pending, m)
	l.size += n
	if c := m.From; m.NoEcho && c.loop == l {
		c.skip = l.gen
		l.skips = true
	}
	if m.Emit != nil {
		l.gatherEmit(m)
	}
}

// deliver writes the current batch, with one write for each connection that gets something of it.
func (l *loop) deliver() {
	if len(l.touched) == 0 {
		return
	}
	for _, a := range l.touched {
		for i := range a.groups {
			l.deliverGroup(a, &a.groups[i], a.pending)
		}
		for _, m := range a.mixed {
			c := m.conn
			// One that is on several of the channels is listed once: it gets one write.
			if c.gen != l.gen {
				c.gen, c.turn = l.gen, int32(len(l.mixed))
				l.mixed = append(l.mixed, concerned{conn: c})
			}
			l.mixed[c.turn].add(a)
		}
	}
	if len(l.mixed) > 0 {
		l.deliverMixed()
	}

	now := time.Now()
	for _, a := range l.touched {
		if a.every == 0 { // else most of it is what was asked for
			l.counts.took(a.pending, now)
		}
		clear(a.pending)
		// There may be a million audiences, so what a burst needed is not kept for each of them.
		if a.pending = a.pending[:0]; cap(a.pending) > 64 {
			a.pending = nil
		}
	}
	clear(l.touched)
	l.touched = l.touched[:0]
	l.size, l.skips = 0, false
	if l.sorts {
		l.sorts = false
		clear(l.excepts)
		l.excepts = l.excepts[:0]
		l.emit.delivered()
	}
	l.handleFailed()
}

// handleFailed handles the connections that could not be written to.
func (l *loop) handleFailed() {
	for _, f := range l.failed {
		l.handleResult(f.conn, f.result)
	}
	clear(l.failed)
	l.failed = l.failed[:0]
}

// deliverGroup writes a run to connections that are on its channel alone.
func (l *loop) deliverGroup(a *audience, g *group, run []*Message) {
	if l.sorts {
		l.emit.toGroup(a, run)
	}
	// Into space that is used again, so a backlog that keeps some of it needs a copy (lent).
	p := g.format.Append(l.encoded[:0], run)
	var array *shared
	for _, c := range g.conns {
		if l.skips && c.skip == l.gen || l.sorts && l.differs(c) {
			l.deliverExcept(c, run)
			continue
		}
		l.write(c, p, true, &array, run)
	}
	array.release()
	l.reuse(p)
}

// concerned is a connection on several channels, and the first three of its audiences that the current batch has
// messages for. Mostly there is one, and it need not be searched for among the connection's up to MaxJoined channels.
type concerned struct {
	conn      *Conn
	n         int
	audiences [3]*audience
}

// add notes an audience. Beyond the third it only counts them, and pick looks at the memberships.
func (x *concerned) add(a *audience) {
	if x.n < len(x.audiences) {
		x.audiences[x.n] = a
	}
	x.n++
}

// pick returns the audiences that a connection gets messages of.
func (l *loop) pick(x *concerned) []*audience {
	if x.n <= len(x.audiences) {
		return x.audiences[:x.n]
	}
	l.picked = l.picked[:0]
	for _, at := range x.conn.memberships {
		if at.audience.gathers() {
			l.picked = append(l.picked, at.audience)
		}
	}
	return l.picked
}

// deliverMixed writes to connections on several channels, each of which gets the messages of its own channels, in
// the order of the log. Neighbors that get the same messages in the same format share the bytes.
func (l *loop) deliverMixed() {
	cache := &l.cache
	for i := range l.mixed {
		c := l.mixed[i].conn
		picked, format := l.pick(&l.mixed[i]), c.options.Format
		if !cache.has(format, picked) {
			l.reuse(cache.drop())
			cache.encode(l.encoded[:0], format, picked, l.sorts)
		}
		if l.skips && c.skip == l.gen || l.sorts && l.differs(c) {
			l.deliverExcept(c, cache.run)
			continue
		}
		if l.sorts {
			l.emit.got(c, cache.run)
		}
		l.write(c, cache.bytes, true, &cache.array, cache.run)
	}
	l.reuse(cache.drop())
	cache.reset()
	clear(l.mixed)
	clear(l.picked[:cap(l.picked)])
	l.mixed, l.picked = spare(l.mixed), l.picked[:0]
}

// encodeCache holds what the previous connection on several channels got, because the next one mostly gets the same.
type encodeCache struct {
	format    Format
	audiences []*audience // those that the run is of
	run       []*Message
	longest   int // run
	bytes     []byte
	array     *shared // what backlogs keep of bytes, if they do
}

// has reports whether the bytes are right for a connection with this format that is on these audiences.
func (x *encodeCache) has(f Format, audiences []*audience) bool {
	return x.format == f && slices.Equal(x.audiences, audiences)
}

// encode merges what the audiences have in the batch, and appends it in the format to dst.
func (x *encodeCache) encode(dst []byte, f Format, audiences []*audience, sorts bool) {
	x.format, x.audiences, x.run = f, append(x.audiences[:0], audiences...), x.run[:0]
	for _, a := range audiences {
		x.run = append(x.run, a.pending...)
	}
	x.longest = max(x.longest, len(x.run))
	if len(audiences) > 1 {
		slices.SortFunc(x.run, bySeq)
	}
	if sorts {
		x.run = once(x.run)
	}
	x.bytes = f.Append(dst, x.run)
}

// drop lets go of the bytes, and returns their space.
func (x *encodeCache) drop() []byte {
	x.array.release()
	p := x.bytes
	x.bytes, x.array = nil, nil
	return p
}

// reset empties the cache, so that it holds no messages between two batches, but keeps the space of its lists.
func (x *encodeCache) reset() {
	clear(x.run[:x.longest])
	clear(x.audiences[:cap(x.audiences)])
	*x = encodeCache{audiences: x.audiences[:0], run: spare(x.run)}
}

// spare returns the space of a list for the next one, unless it is more than maxSpareEntries.
func spare[E any](list []E) []E {
	if cap(list) > maxSpareEntries {
		return nil
	}
	return list[:0]
}

// deliverExcept writes a run to a connection without the messages that it must not get: those that it has published itself
// with NoEcho, and what its emit says (emitted).
func (l *loop) deliverExcept(c *Conn, run []*Message) {
	var rest []*Message
	for _, m := range run {
		if !m.withholds(c) && m.Seq > l.ahead[c] && !(l.sorts && m.Emit != nil && l.repeats(c, m)) {
			rest = append(rest, m)
		}
	}
	if l.sorts {
		l.emit.got(c, run)
	}
	// With space of its own, because the loop's has the bytes for the others.
	if len(rest) > 0 {
		var array *shared
		l.write(c, c.options.Format.Append(nil, rest), false, &array, rest)
		array.release()
	}
}

// reuse keeps the space of encoded bytes for the next ones, now that they are written.
func (l *loop) reuse(p []byte) {
	switch {
	case p == nil:
	case cap(p) > maxSpareBytes:
		l.encoded = nil
	default:
		l.encoded = p
	}
}

// write hands a run to a connection, which is p when it is encoded; see Conn.write. A failure is handled after the batch, because
// it takes the connection out of the lists that deliver is going through.
func (l *loop) write(c *Conn, p []byte, lent bool, array **shared, run []*Message) {
	if c.flushing.Load() && c.options.Conflate { // it does not keep up
		if f := c.list(run); f > writeQueued {
			l.failed = append(l.failed, failure{c, f})
		}
		return
	}
	l.delivered += uint64(len(run))
	l.bytes += uint64(len(p))
	l.calls++
	c.sent += uint64(len(p))
	if f := c.write(p, lent, array, droppable); f > writeQueued {
		l.failed = append(l.failed, failure{c, f})
	}
}

// reply sends what Conn.Reply was given.
func (l *loop) reply(c *Conn) {
	l.hub.mu.Lock()
	replies := c.replies
	c.replies = nil
	l.hub.mu.Unlock()
	if len(replies) == 1 {
		l.send(c, replies[0], droppable)
	} else {
		l.send(c, slices.Concat(replies...), droppable)
	}
}

// send writes something other than messages to an open connection. It must not be called while a batch is being
// delivered, because it may take the connection out of lists.
func (l *loop) send(c *Conn, p []byte, k pieceKind) {
	if c.state != stateOpen || len(p) == 0 {
		return
	}
	var array *shared
	f := c.write(p, false, &array, k)
	array.release()
	l.handleResult(c, f)
}
