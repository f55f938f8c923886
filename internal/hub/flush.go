package hub

import "sync"

// chunkSize is what a flusher writes at once: a TLS record at most. maxBusy bounds the pieces in it, so that dropping
// others does not have to move many.
const (
	chunkSize = 16 << 10
	maxBusy   = 256
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// resume lets a flusher go on where one gave up.
func (c *Conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.hub.flushers.flush(c)
	}
}

// flush writes the prelude and the backlog until they are empty. On an error it leaves flushing set, and the rest to
// the loop.
func (c *Conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.dead && (c.prelude != nil || len(c.backlog) > 0) {
		if pre := c.prelude; pre != nil && len(pre.bytes) == 0 {
			c.nextOfReplay(pre)
			continue
		}
		p, lent := c.take()
		t := c.transport
		c.mu.Unlock()
		n, err := t.Write(p, c.options.WriteTimeout)
		if lent != nil {
			chunks.Put(lent)
		}
		c.mu.Lock()
		c.consume(n)
		if err != nil {
			if err == ErrStuck && n > 0 {
				continue // slow, but it moves
			}
			c.hub.post(c.loop, entry{op: opFailed, conn: c, err: err})
			return
		}
	}
	if c.dead {
		return
	}
	c.emptied()
	c.flushing.Store(false)
	if c.closing {
		c.hub.post(c.loop, entry{op: opFlushed, conn: c})
	}
}

// The following need c.mu.

// setPrelude sets what of the prelude is written next.
func (c *Conn) setPrelude(p []byte) {
	pre := c.prelude
	c.hub.backlog.Add(int64(len(p) - len(pre.bytes)))
	pre.bytes, pre.begun = p, false
	c.countPrelude()
}

// countPrelude counts what the prelude holds by itself: not the messages, which are shared.
func (c *Conn) countPrelude() {
	pre := c.prelude
	n := cap(pre.bytes) + 8*cap(pre.replay)
	c.hub.held.Add(int64(n - pre.counted))
	pre.counted = n
}

// giveUpReplay lets go of the messages that are not encoded yet.
func (c *Conn) giveUpReplay() {
	pre := c.prelude
	c.hub.letGo(pre.replay)
	pre.replay = nil
	c.countPrelude()
}

// endPrelude ends a prelude whose messages are gone.
func (c *Conn) endPrelude() {
	c.prelude.replay = nil // its array counts, though it is empty
	c.setPrelude(nil)
	c.prelude = nil
}

// nextOfReplay encodes as much of the replay as is written at once, or ends the prelude.
func (c *Conn) nextOfReplay(pre *prelude) {
	ms := pre.replay
	if len(ms) == 0 {
		c.endPrelude()
		return
	}
	n, size := 1, ms[0].size()
	for n < len(ms) && size+ms[n].size() <= chunkSize {
		size += ms[n].size()
		n++
	}
	c.mu.Unlock()
	p := c.options.Format.Append(nil, ms[:n])
	c.mu.Lock()
	if c.prelude != pre {
		return // it was given up meanwhile
	}
	if pre.replay != nil {
		c.hub.letGo(ms[:n])
		clear(ms[:n])
		pre.replay = ms[n:]
	}
	c.setPrelude(p)
	l := c.loop
	l.counts.deliveries.Add(uint64(n))
	l.counts.written.Add(uint64(len(p)))
	l.counts.writes.Add(1)
}

// take returns what to write next: a part of the prelude, or of the backlog's first piece if that is large or alone,
// else as many as fit a chunk, joined, which is lent.
func (c *Conn) take() (p []byte, lent *[chunkSize]byte) {
	if pre := c.prelude; pre != nil {
		pre.begun = true
		return pre.bytes[:min(len(pre.bytes), chunkSize)], nil
	}
	if first := c.backlog[0].bytes; len(c.backlog) == 1 || len(first) >= chunkSize {
		c.busy = 1
		return first[:min(len(first), chunkSize)], nil
	}
	lent = chunks.Get().(*[chunkSize]byte)
	n := 0
	c.busy = 0
	for _, p := range c.backlog[:min(len(c.backlog), maxBusy)] {
		n += copy(lent[n:], p.bytes)
		c.busy++
		if n == chunkSize {
			break
		}
	}
	return lent[:n], lent
}

// consume takes what was written off the prelude or the backlog. An array counts until all of it is written.
func (c *Conn) consume(n int) {
	c.busy = 0
	if c.dead {
		return
	}
	if pre := c.prelude; pre != nil {
		c.hub.backlog.Add(-int64(n))
		if pre.bytes = pre.bytes[n:]; len(pre.bytes) == 0 {
			pre.bytes = nil
			c.countPrelude()
		}
		return
	}
	c.add(-n)
	for n > 0 {
		first := &c.backlog[0]
		if n < len(first.bytes) {
			first.bytes = first.bytes[n:]
			c.begun = true
			return
		}
		n -= len(first.bytes)
		if first.kind == answer {
			c.answers--
		}
		c.hub.unshare(first.array)
		*first = piece{}
		c.backlog = c.backlog[1:]
		c.begun = false
	}
}
