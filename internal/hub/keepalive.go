package hub

import "time"

// ring spreads the connections of one ping interval over its seconds: each tick of the loop pings one slot, so that pings
// are a steady trickle and not a burst. One timer per loop does for all connections, where one per connection would cost
// memory and be reset with every ping. It is also the loop's list of all its connections.
type ring struct {
	slots [][]*Conn
}

// seconds returns a duration in ticks of a loop, rounded up, and at least one.
func seconds(d time.Duration) uint64 {
	return uint64(max(1, (d+time.Second-1)/time.Second))
}

// ring returns the ring that the connection belongs in.
func (l *loop) ring(c *Conn) *ring {
	n := int(seconds(c.options.PingInterval))
	r := l.rings[n]
	if r == nil {
		r = &ring{slots: make([][]*Conn, n)}
		l.rings[n] = r
	}
	return r
}

// add puts a connection in a slot. Its first ping comes after half an interval to a whole one, as its ID says: clients that
// come at the same time, as they do after a restart, would otherwise be pinged at the same time for ever. IDs are consecutive, and so
// are multiplied (by 2^32 over the golden ratio): a loop that has every 64th of them would use only some of the slots.
func (r *ring) add(c *Conn, now uint64) {
	n := uint64(len(r.slots))
	early := uint64(uint32(c.id*2654435769)) * (n/2 + 1) >> 32
	c.slot = int32((now + n - early) % n)
	slot := &r.slots[c.slot]
	c.pos = int32(len(*slot))
	*slot = append(*slot, c)
}

// remove takes a connection out. The last of its slot takes its place, on which each relies.
func (r *ring) remove(c *Conn) {
	slot := &r.slots[c.slot]
	last := len(*slot) - 1
	moved := (*slot)[last]
	(*slot)[c.pos] = moved
	moved.pos = c.pos
	(*slot)[last] = nil
	*slot = (*slot)[:last]
}

// each calls f for every connection. f may end the one it is given: remove moves the last of a slot into its place, and
// the last has been visited, because each goes from the end to the beginning.
func (l *loop) each(f func(*Conn)) {
	for _, r := range l.rings {
		for _, slot := range r.slots {
			for i := len(slot) - 1; i >= 0; i-- {
				f(slot[i])
			}
		}
	}
}

// tick pings the connections whose turn it is, closes those whose access has ended, and cuts off those whose time is up.
func (l *loop) tick() {
	l.now++
	for n, r := range l.rings {
		slot := r.slots[l.now%uint64(n)]
		for i := len(slot) - 1; i >= 0; i-- {
			l.keepAlive(slot[i])
		}
	}
	l.closeExpired()

	waiting := l.closing[:0]
	for _, c := range l.closing {
		switch {
		case c.state == stateClosed:
		case l.now >= c.deadline && !l.timeUp(c):
		default:
			waiting = append(waiting, c)
		}
	}
	// Otherwise the array would keep connections that have ended in memory.
	clear(l.closing[len(waiting):])
	l.closing = waiting
}

// sleeps reports whether the connection shows no life: its peer has sent nothing since the last ping, or too little of
// a message that it has begun, or the connection was not even started. One that is being written to is watched by its
// write timeout.
func (c *Conn) sleeps() bool {
	alive := c.alive.Swap(false)
	switch {
	case c.reading.Load() != readingNothing && !c.reading.CompareAndSwap(readingMoving, readingStalled):
		return true
	case c.flushing.Load():
		return !c.started()
	}
	return !alive && !c.options.OneWay
}

// started reports whether the connection has a transport.
func (c *Conn) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sink != nil
}

// keepAlive ends a connection that has shown no life for two intervals, and pings any other.
func (l *loop) keepAlive(c *Conn) {
	if c.state != stateOpen {
		return
	}
	if c.sleeps() {
		// Two, because after one interval the reply may just be on its way.
		if c.missed++; c.missed >= 2 {
			l.finish(c, ReasonSilent)
			return
		}
	} else {
		c.missed = 0
	}
	if c.flushing.Load() {
		// One with a backlog is watched by its write timeout, so mostly it is not pinged. Before it is started it has
		// nothing to reply on.
		if f, ok := c.options.Format.(PacedFormat); ok && f.PingsBusy() && c.started() {
			l.send(c, f.Ping(), heartbeat)
		}
		return
	}
	if p := c.options.Format.Ping(); p != nil && !c.flushing.Load() {
		l.send(c, p, heartbeat)
	}
}
