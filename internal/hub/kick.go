package hub

// Kick closes the connections that the filter selects, and returns how many there were. It has the loops do it, so it waits
// until each has come to it in its inbox, and must not be called from a loop.
func (h *Hub) Kick(f Filter, why Reason, text string) (n int) {
	h.onLoops(func(l *loop) { n += l.kick(f.has, why, text) })
	return n
}

// kick closes the loop's connections that are selected, and returns how many there were.
func (l *loop) kick(selected func(*Conn) bool, why Reason, text string) (n int) {
	l.each(func(c *Conn) {
		if c.state == stateOpen && selected(c) {
			l.close(c, why, text, false)
			n++
		}
	})
	return n
}

// Retire closes the connections that have one of the options, and from now on Connect rejects these options with
// ErrRetired. A connection is found by one or the other: Connect looks at the mark under the lock that sets it, and a
// connection that it admitted before is in its loop's inbox when the loop is asked to close it.
func (h *Hub) Retire(options []*ConnOptions, why Reason, text string) {
	if len(options) == 0 {
		return // no options would mean every connection to Kick
	}
	h.mu.Lock()
	for _, o := range options {
		o.retired = true
	}
	h.mu.Unlock()
	h.Kick(Filter{Options: options}, why, text)
}

// onLoops has each loop call f, one after the other.
func (h *Hub) onLoops(f func(*loop)) {
	for _, l := range h.loops {
		h.onLoop(l, f)
	}
}

// onLoop has a loop call f, and waits for that. If the hub stops first, f may not be called: nobody is left that it
// could concern.
func (h *Hub) onLoop(l *loop, f func(*loop)) {
	done := make(chan struct{})
	h.enqueue(l, entry{op: opCall, call: func() { f(l); close(done) }})
	select {
	case <-done:
	case <-h.stopped:
	}
}
