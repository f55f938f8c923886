package hub

import "errors"

// tooSlow is the text for a client that is closed because of its backlog. It is the same whether its own limit was
// exceeded or that of all backlogs together, because the client can do the same about both.
const tooSlow = "too slow"

// handleResult closes or ends a connection if a write to it requires that.
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

// close takes an open connection out of its channels and sends the close frame: after its backlog, or, with drop, only
// after what is being written.
func (l *loop) close(c *Conn, why Reason, text string, drop bool) {
	if c.state == stateOpen {
		p := []byte(nil)
		if f, ok := c.options.Format.(PartingFormat); ok {
			p = f.CloseOn(c.channels(), why, text)
		} else {
			p = c.options.Format.Close(why, text)
		}
		l.closeWith(c, why, p, drop)
	}
}

// closeWith is close with a close frame that was made already.
func (l *loop) closeWith(c *Conn, why Reason, p []byte, drop bool) {
	if c.state == stateOpen && !drop {
		l.catchUp(c) // which may close it
	}
	if c.state != stateOpen {
		return
	}
	c.state = stateClosing
	c.reason = why
	l.detachAll(c)

	c.deadline = l.now + seconds(c.options.WriteTimeout) + 1 // plus one, because the current tick has partly passed
	l.closing = append(l.closing, c)
	if c.options.OneWay {
		c.peerDone = true // there is no reply to wait for
	}
	switch c.writeFinal(p, drop) {
	case writeDone:
		l.flushed(c)
	case writeBroken:
		l.finish(c, ReasonLost)
	}
}

// readerEnded ends a connection whose peer has disconnected. One that is closing may write its backlog first, because a peer
// that has ended its half only may still read.
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

const (
	// maxLinger is how many seconds the peer has to end a connection whose writing side we have closed.
	maxLinger = 3

	// replyTime is how many ticks a peer that was stopped in the middle of a frame has to send the rest of it and its close
	// frame. Closing our side at once would lose the close frame for clients behind a proxy: most proxies answer a half-closed
	// connection by closing both sides, and what the client is still sending is then reset.
	replyTime = 2
)

// fail closes a connection for Conn.Fail.
func (l *loop) fail(c *Conn, why Reason, text string) {
	c.failing = true
	c.mayReply = why != ReasonProtocol && why != ReasonInvalid // the faults that fail a connection (RFC 6455, section 7.1.7)
	switch {
	case c.state == stateOpen:
		l.close(c, why, text, false)
	case !c.flushing.Load(): // it was closing already
		l.flushed(c)
	}
}

// flushed ends a closing connection whose peer has replied. Otherwise the connection waits for the reply, for the peer to
// disconnect, or for the deadline.
func (l *loop) flushed(c *Conn) {
	if c.state != stateClosing {
		return
	}
	_, canHalf := c.sink.(HalfCloser)
	switch {
	case c.failing && canHalf && !c.peerDone:
		if c.mayReply {
			c.deadline = min(c.deadline, l.now+replyTime)
		} else {
			l.closeWriting(c)
		}
	case c.failing, c.peerDone:
		l.finish(c, c.reason)
	}
}

// closeWriting ends our half of the connection, which has the peer end the other (RFC 6455, section 7.1.1).
func (l *loop) closeWriting(c *Conn) {
	c.sink.(HalfCloser).CloseWrite()
	c.deadline = min(c.deadline, l.now+maxLinger)
}

// timeUp ends a closing connection at its deadline. It reports whether the connection gets another one, because it had
// time to reply and used it up.
func (l *loop) timeUp(c *Conn) (more bool) {
	if _, canHalf := c.sink.(HalfCloser); !c.mayReply || !canHalf || c.flushing.Load() {
		l.finish(c, c.reason)
		return false
	}
	c.mayReply = false
	c.deadline = l.now + maxLinger
	l.closeWriting(c)
	return true
}

// writeFailed handles a flusher that gave up. If the peer is only stuck, the connection is closed as too slow, and what
// was being written is tried once more, because the close frame must come after it.
func (l *loop) writeFailed(c *Conn, err error) {
	if c.state == stateOpen && errors.Is(err, ErrStuck) {
		l.close(c, ReasonSlow, tooSlow, true)
		c.resume()
		return
	}
	l.finish(c, reasonForError(err))
}

// evict closes a connection because of what it holds. If what cannot be dropped is as large as a backlog may at least be,
// there is no time to write it: the connection ends at once.
func (l *loop) evict(c *Conn) {
	if c.state == stateOpen {
		l.close(c, ReasonMemory, tooSlow, true)
	}
	if c.memory() >= MinBacklog {
		l.finish(c, ReasonMemory)
	}
}

// finish ends a connection and forgets it. If it was closing already, the reason is the one for that: what happens to a client
// after its close frame, such as a reset, says nothing about why it was closed.
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
	l.conns--
	if t := c.stopWriting(); t != nil {
		t.Close()
	}
	l.emit.forget(c)
	l.expiries.remove(c)
	l.hub.forgetConn(c)
	if o := c.options.Observer; o != nil {
		o.Ended(c, why)
	}
}

// detachAll takes a connection out of all its channels, in the log and on the loop.
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
