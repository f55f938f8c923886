package hub

// Kick closes the connections that the filter selects, and returns how many there were. It has the loops do it, so it waits
// until each has come to it in its inbox, and must not be called from a loop.
func (h *Hub) Kick(f Filter, why Reason, text string) (n int) {
	h.onLoops(func(l *loop) { n += l.kick(f.has, why, text, 0) })
	return n
}

// KickCode is Kick for an administrator, who may have clients told a code: see CodedFormat. 0 is that of the reason.
func (h *Hub) KickCode(f Filter, code uint16) (n int) {
	h.onLoops(func(l *loop) { n += l.kick(f.has, ReasonPolicy, KickText, code) })
	return n
}

// CodedFormat is a Format that can tell a client a code, which an administrator has chosen, in place of that of the reason. To the
// hub it is a number.
type CodedFormat interface {
	Format
	CloseCode(channels []string, code uint16, text string) []byte
}

// MinKickCode and MaxKickCode bound the codes that an administrator can choose.
const (
	MinKickCode = 4000
	MaxKickCode = 4999
)

// kick closes the loop's connections that are selected, and returns how many there were.
func (l *loop) kick(selected func(*Conn) bool, why Reason, text string, code uint16) (n int) {
	l.each(func(c *Conn) {
		if c.state != stateOpen || !selected(c) {
			return
		}
		n++
		if f, ok := c.options.Format.(CodedFormat); ok && code != 0 {
			l.closeWith(c, why, f.CloseCode(c.channels(), code, text), false)
		} else {
			l.close(c, why, text, false)
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
	h.enqueue(l, entry{op: opCall, arg: func() { f(l); close(done) }})
	select {
	case <-done:
	case <-h.stopped:
	}
}
