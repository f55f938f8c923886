package hub

import "errors"

// tooSlow is what a client is told that has to reconnect because of its backlog. It has nothing to do with whether its
// own limit was reached or that of all.
const tooSlow = "too slow"

// handleResult ends a connection for what became of a write.
func (l *loop) handleResult(c *Conn, f writeResult) {
	switch f {
	case writeOverflow:
		l.close(c, ReasonSlow, tooSlow, true)
	case writeCrowded:
		l.close(c, ReasonMemory, tooSlow, true)
	case writeBroken:
		l.finish(c, ReasonLost)
	case writeCutOff:
		l.finish(c, ReasonMemory)
	}
}

// close takes an open connection out of its channels and sends the close frame: after all that is due, or with drop
// after what is being written alone.
func (l *loop) close(c *Conn, why Reason, text string, drop bool) {
	if c.state == stateOpen {
		l.closeWith(c, why, c.options.Format.Close(why, text), drop)
	}
}

// closeWith is close with a close frame that was made already.
func (l *loop) closeWith(c *Conn, why Reason, p []byte, drop bool) {
	if c.state != stateOpen {
		return
	}
	c.state = stateClosing
	c.reason = why
	l.detachAll(c)

	c.deadline = l.now + seconds(c.options.WriteTimeout) + 1
	l.closing = append(l.closing, c)
	if c.options.OneWay {
		c.peerDone = true // there is no answer to wait for
	}
	switch c.writeFinal(p, drop) {
	case writeDone:
		l.flushed(c)
	case writeBroken:
		l.finish(c, ReasonLost)
	}
}

// readerEnded ends a connection whose peer is gone; one that is closing may write its last first.
func (l *loop) readerEnded(c *Conn) {
	c.peerDone = true
	switch c.state {
	case stateOpen:
		l.finish(c, ReasonClient)
	case stateClosing:
		if !c.flushing.Load() {
			l.finish(c, c.reason)
		}
	}
}

// maxLinger is how many seconds the peer has to end a connection of which we have shut our side.
const maxLinger = 3

// fail closes a connection for Conn.Fail.
func (l *loop) fail(c *Conn, why Reason, text string) {
	c.failing = true
	switch {
	case c.state == stateOpen:
		l.close(c, why, text, false)
	case !c.flushing.Load(): // it was closing already
		l.flushed(c)
	}
}

// flushed ends a closing connection whose peer has answered; else it waits for the answer, or that the peer ends the
// connection, or the deadline.
func (l *loop) flushed(c *Conn) {
	if c.state != stateClosing {
		return
	}
	half, canHalf := c.sink.(HalfCloser)
	switch {
	case c.failing && canHalf && !c.peerDone:
		half.CloseWrite()
		c.deadline = min(c.deadline, l.now+maxLinger)
	case c.failing, c.peerDone:
		l.finish(c, c.reason)
	}
}

// writeFailed deals with a flusher that gave up: if only because the peer is stuck, the connection is closed as too
// slow and what it was being sent is tried once more, for the close frame must come after it.
func (l *loop) writeFailed(c *Conn, err error) {
	if c.state == stateOpen && errors.Is(err, ErrStuck) {
		l.close(c, ReasonSlow, tooSlow, true)
		c.resume()
		return
	}
	l.finish(c, reasonForError(err))
}

// evict closes a connection for what it holds. What cannot be taken back is small, or it is cut off.
func (l *loop) evict(c *Conn) {
	if c.state == stateOpen {
		l.close(c, ReasonMemory, tooSlow, true)
	}
	if c.memory() >= MinBacklog {
		l.finish(c, ReasonMemory)
	}
}

// finish cuts a connection off and forgets it. If it is closing already, that is why.
func (l *loop) finish(c *Conn, why Reason) {
	if c.state == stateClosed {
		return
	}
	if c.state == stateClosing {
		why = c.reason
	}
	l.counts.closed[why].Add(1)
	c.state = stateClosed
	l.detachAll(c)
	l.ring(c).remove(c)
	if t := c.stopWriting(); t != nil {
		t.Close()
	}
	l.hub.forgetConn(c)
	if o := c.options.Observer; o != nil {
		o.Ended(c, why)
	}
}

// detachAll takes a connection out of its channels for good.
func (l *loop) detachAll(c *Conn) {
	if o := c.options.Observer; o != nil && len(c.memberships) > 0 {
		o.Unsubscribed(c, "")
	}
	l.hub.unsubscribeAll(c)
	for i := range c.memberships {
		c.detach(i)
	}
	c.memberships = nil
}
