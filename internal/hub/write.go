package hub

import "bytes"

// writeResult is what became of a write.
type writeResult uint8

const (
	writeDone     writeResult = iota // the socket has all of it, or the connection needs nothing more
	writeQueued                      // the backlog refers to it
	writeOverflow                    // the backlog is full: the connection has to be closed
	writeCrowded                     // all backlogs together are: the same
	writeBroken                      // the socket is broken
	writeCutOff                      // like writeCrowded, but part of a frame was written and the rest has no room
)

// write hands p to the socket, and to the backlog what the socket does not accept. The loop calls it. *array is what
// backlogs may keep. The first connection that needs it makes it, as a copy of p if p is only lent, and the caller
// releases it.
func (c *Conn) write(p []byte, lent bool, array **shared, k pieceKind) writeResult {
	n := 0
	// While it is true a flusher may be writing, and p has to come after what is queued.
	if !c.flushing.Load() {
		var err error
		if n, err = c.sink.TryWrite(p); err != nil {
			return writeBroken
		}
		if n == len(p) {
			return writeDone
		}
	}
	if *array == nil {
		if c.hub.crowded(len(p)) {
			if n > 0 {
				return writeCutOff
			}
			return writeCrowded
		}
		if lent {
			p = bytes.Clone(p)
		}
		*array = share(p, &c.hub.held)
	}
	return c.enqueue(*array, n, k)
}

// enqueue adds what is left of an array to the backlog, after its first n bytes, and makes sure that there is a flusher.
// If part was written already the rest is always accepted, because a frame must end.
func (c *Conn) enqueue(array *shared, n int, k pieceKind) writeResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing || n == len(array.bytes) {
		return writeDone
	}
	b := &c.backlog
	defer c.settleLocked(b.footprint())
	p := piece{array.bytes[n:], array, k}
	limit := c.options.MaxBacklog
	over := b.excess(len(p.bytes), limit) > 0
	if k == heartbeat {
		if b.pinged && n == 0 {
			return writeDone
		}
		over = false // one that waits takes next to nothing, and is not what makes a client too slow
	}
	if c.options.DropOldest {
		if over {
			b.dropOldest(len(p.bytes), limit, c.gapNotice)
			// A message is accepted in addition to what could not be dropped. A reply is not: the peer would have to ask for
			// less.
			over = k == required && b.excess(len(p.bytes), limit) > 0
		}
		over = over || k == required && b.required >= maxRequired
	}
	if over && n == 0 {
		return writeOverflow
	}
	array.refs.Add(1)
	b.push(p)
	b.begun = b.begun || n > 0
	c.flushLocked()
	if over {
		return writeOverflow
	}
	return writeQueued
}

// gapNotice makes the piece that tells the peer that messages are missing, if the format has one.
func (c *Conn) gapNotice() (piece, bool) {
	p := c.options.Format.Gap(c.channels())
	if p == nil {
		return piece{}, false
	}
	c.loop.counts.gaps.Add(1)
	return piece{p, share(p, &c.hub.held), gapNotice}, true
}

// channels returns the names of the connection's channels, or "*" if it is on all of them. The loop calls it.
func (c *Conn) channels() []string {
	names := make([]string, len(c.memberships))
	for i, at := range c.memberships {
		if names[i] = at.audience.channel.name; names[i] == "" {
			names[i] = "*"
		}
	}
	return names
}

// writeFinal adds the last piece to the backlog, or writes it if nothing comes before it. With drop set, only what is
// being written comes before it.
func (c *Conn) writeFinal(p []byte, drop bool) writeResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing {
		return writeQueued
	}
	c.closing = true
	b := &c.backlog
	defer c.settleLocked(b.footprint())
	if drop {
		c.hub.letGo(b.dropAll())
	}
	n := 0
	if !c.flushing.Load() {
		if len(p) == 0 {
			return writeDone
		}
		var err error
		if n, err = c.sink.TryWrite(p); err != nil {
			return writeBroken
		}
		if n == len(p) {
			return writeDone
		}
		b.begun = n > 0
	}
	if len(p) > 0 {
		b.push(piece{p[n:], share(p, &c.hub.held), required})
		c.flushLocked()
	}
	return writeQueued
}

// flushLocked makes sure that a flusher is on its way to the connection. The loop calls it.
func (c *Conn) flushLocked() {
	if !c.flushing.Load() {
		c.flushing.Store(true)
		c.loop.flush(c)
	}
}

// settleLocked counts in the hub by how much the backlog has changed. Whatever changes it calls this before it releases
// c.mu.
func (c *Conn) settleLocked(before footprint) {
	now := c.backlog.footprint()
	if n := now.waiting - before.waiting; n != 0 {
		c.hub.backlog.Add(int64(n))
	}
	if n := now.held - before.held; n != 0 {
		c.hub.held.Add(int64(n))
	}
}

// flush writes the backlog until it is empty. A flusher calls it. On an error it leaves flushing set, and the rest to
// the loop.
func (c *Conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var space *chunk // for what is encoded: it is free again when the next messages are, because what was is written
	for !c.dead && !c.backlog.empty() {
		before := c.backlog.footprint()
		s := c.backlog.next()
		c.settleLocked(before) // next takes what waits as messages
		if s.encode == nil {
			if err := c.writeStepLocked(s); err != nil {
				c.hub.enqueue(c.loop, entry{op: opWriteFailed, conn: c, arg: err})
				return // with space, to which the backlog may refer
			}
			continue
		}
		if space == nil {
			space = chunks.Get().(*chunk)
		}
		// Without the lock, so that the loop can add to the backlog meanwhile.
		c.mu.Unlock()
		made := c.options.Format.Append(space[:0], s.encode)
		c.mu.Lock()
		if !c.dead { // or stopWriting has let go of them
			c.replayLocked(s.encode, made)
		}
	}
	if space != nil {
		chunks.Put(space)
	}
	if c.dead {
		return
	}
	c.resetLocked()
	// Under Conn.mu and with an empty backlog: the loop may write itself as soon as it sees this.
	c.flushing.Store(false)
	if c.closing {
		c.hub.enqueue(c.loop, entry{op: opFlushed, conn: c})
	}
}

// writeStepLocked writes a step, and takes out of the backlog what was written of it. First it tries without waiting: that needs no
// deadline, and shows which flushers are stuck. That is under the lock, because a sink that is closed, which it is when the connection
// is dead, must not be tried. While the peer is slow the loop can add to the backlog.
func (c *Conn) writeStepLocked(s step) error {
	t := c.sink
	tried, err := t.TryWrite(s.write)
	n := 0
	if rest := s.write[tried:]; err == nil && len(rest) > 0 {
		c.mu.Unlock()
		n, err = c.loop.flushers.write(t, rest, c.options.WriteTimeout)
		c.mu.Lock()
	}
	s.recycle()
	if c.dead {
		return nil // stopWriting has emptied the backlog, so what was written is no part of it any more
	}
	c.advanceLocked(tried+n, err)
	if err == ErrStuck && n > 0 {
		return nil // one that is slow, but accepts something, goes on
	}
	return err
}

// advanceLocked takes out of the backlog what was written of a step.
func (c *Conn) advanceLocked(n int, err error) {
	before := c.backlog.footprint()
	if err == ErrStuck {
		c.backlog.halt(n)
	} else {
		c.backlog.advance(n)
	}
	c.settleLocked(before)
}

// replayLocked has encoded messages of the history written next, unless they were dropped meanwhile.
func (c *Conn) replayLocked(ms []*Message, p []byte) {
	before := c.backlog.footprint()
	if !c.backlog.encoded(ms, p) {
		return
	}
	c.settleLocked(before)
	c.hub.letGo(ms)
	clear(ms) // the array stays as long as the replay
	counts := &c.loop.counts
	counts.deliveries.Add(uint64(len(ms)))
	counts.written.Add(uint64(len(p)))
	counts.writes.Add(1)
}

// resetLocked empties the backlog.
func (c *Conn) resetLocked() {
	before := c.backlog.footprint()
	c.hub.letGo(c.backlog.reset())
	c.settleLocked(before)
}

// resume has a flusher go on where one gave up.
func (c *Conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.loop.flushers.flush(c)
	}
}

// stopWriting ends the connection's writing for good and returns its transport, if it had one.
func (c *Conn) stopWriting() Sink {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	c.resetLocked()
	c.holdLocked(-c.input)
	c.flushing.Store(true) // nobody writes to it, or starts a flusher for it
	t := c.sink
	c.sink = nil // history may still refer to the connection
	return t
}
