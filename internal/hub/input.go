package hub

// waiterCost is about what a waiting publisher costs in addition to its message: its goroutine, and what it reads into.
const waiterCost = 32 << 10

// Hold counts n more bytes that the caller keeps for a connection, or, if n is negative, that it no longer does.
func (h *Hub) Hold(n int) { h.held.Add(int64(n)) }

// HoldMembers is Hold for what is kept to know who is on which channel. It reports whether that is within its share: an eighth of
// the limit. What is beyond it can be freed only by those who leave, so the caller has to send somebody away.
func (h *Hub) HoldMembers(n int) (within bool) {
	h.held.Add(int64(n))
	all := h.members.Add(int64(n))
	if n > 0 {
		h.checkMemory()
	}
	limit := h.maxMemory.Load()
	return limit == 0 || all <= limit/8
}

// Hold counts n more bytes that the caller keeps for the connection until that has ended, or, if n is negative, that it no longer
// does. If there is no room for them it returns false: the connection is being closed, and the caller must release them.
func (c *Conn) Hold(n int) bool {
	if n > 0 && c.reserve(n) == 0 {
		return false
	}
	if n < 0 {
		c.countWaiting(n)
	}
	c.hub.checkMemory()
	return true
}

// countWaiting counts a reader that waits while it holds n bytes, or, if n is negative, that no longer does. The caller
// does not hold Hub.mu.
func (c *Conn) countWaiting(n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.holdLocked(n)
	}
}

// reserve counts a reader that has to wait with n bytes. If there is no room for them it has the connection closed. It
// returns what countWaiting has to count out. The caller does not hold Hub.mu.
func (c *Conn) reserve(n int) (reserved int) {
	if c.hub.crowded(n) {
		c.evict()
		return 0
	}
	c.countWaiting(n)
	return n
}

// holdLocked counts n more bytes that the connection's reader holds.
func (c *Conn) holdLocked(n int) {
	if n != 0 {
		c.input += n
		c.hub.held.Add(int64(n))
	}
}

// States of Conn.reading.
const (
	readingNothing = iota
	readingMoving  // there is part of a message, and enough has come since the last ping
	readingStalled // too little has come
)

// minPace is how many bytes per second of a message have to arrive, on average between two pings. Without it a client
// could hold the space of a large message for ever, by sending a byte now and then.
const minPace = 512

// Unfinished notes that have bytes of a message have arrived that the peer has not finished, and that they take space
// bytes of memory. Both are 0 when there is no such message. The reader calls it. If it returns false there is no room for
// that: the connection is being closed, and the reader must release what it has.
func (c *Conn) Unfinished(have, space int) bool {
	switch {
	case space == 0:
		c.reading.Store(readingNothing)
	case c.reading.Load() == readingNothing, have-c.mark >= minPace*int(seconds(c.options.PingInterval)):
		c.mark = have
		c.reading.Store(readingMoving)
	}
	c.mu.Lock()
	more := space - c.message
	fits := c.dead || more <= 0 || !c.hub.crowded(more)
	if !fits {
		more, space = -c.message, 0
	}
	if !c.dead {
		c.holdLocked(more)
		c.message = space
	}
	c.mu.Unlock()
	if !fits {
		c.evict()
	}
	c.hub.checkMemory()
	return fits
}

// Finished notes that the message that Unfinished reported is complete, so that the next one is not taken for it. It
// takes its space until Unfinished says that it does not. The reader calls it.
func (c *Conn) Finished() { c.reading.Store(readingNothing) }

// evict has the connection closed because of what it would hold.
func (c *Conn) evict() {
	c.hub.unsubscribeAll(c)
	c.hub.enqueue(c.loop, entry{op: opEvict, conn: c})
}
