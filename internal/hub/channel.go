package hub

import "slices"

// All stands for every channel. No channel can have its name.
const All = "\x00"

// channel is a name that has subscribers or history. Hub.mu guards it.
type channel struct {
	name        string
	subscribers int
	audiences   []*audience // one for each loop that has a subscriber
	history     []*stored   // oldest first
	lost        uint64      // the last message that is not kept any more
}

// audience is the subscribers of a channel on one loop.
type audience struct {
	channel *channel
	loop    *loop
	size    int // guarded by Hub.mu: those who have joined and not left, by the log

	// The loop's own: membership by the entries of the inbox that it has processed.
	groups []group    // connections on this channel alone, by format: they all get the same bytes
	mixed  []member   // connections on other channels too
	batch  []*Message // what the current batch has for this channel
}

type group struct {
	format Format
	conns  []*Conn
}

// open makes a channel. The caller holds h.mu.
func (h *Hub) openChannelLocked(name string) *channel {
	ch := &channel{name: name, lost: h.lost}
	h.channels[name] = ch
	if name != All {
		h.index.add(name)
	}
	return ch
}

// release forgets a channel that nobody needs. The caller holds h.mu.
func (h *Hub) forgetChannelLocked(ch *channel) {
	if ch.subscribers == 0 && len(ch.history) == 0 {
		h.lost = max(h.lost, ch.lost)
		delete(h.channels, ch.name)
		if ch.name != All {
			h.index.remove(ch.name)
		}
	}
}

// join counts one more subscriber of a channel on a loop. The caller holds h.mu.
func (h *Hub) subscribeLocked(l *loop, name string) *audience {
	ch := h.channels[name]
	if ch == nil {
		ch = h.openChannelLocked(name)
	}
	if ch.subscribers++; ch.subscribers == 1 {
		if name == All {
			h.all = ch
		} else {
			h.subscribed++
		}
	}
	for _, a := range ch.audiences {
		if a.loop == l {
			a.size++
			return a
		}
	}
	a := &audience{channel: ch, loop: l, size: 1}
	ch.audiences = append(ch.audiences, a)
	return a
}

// part counts one subscriber less. The caller holds h.mu.
func (h *Hub) unsubscribeLocked(a *audience) {
	ch := a.channel
	a.size--
	ch.subscribers--
	if a.size == 0 {
		i, last := slices.Index(ch.audiences, a), len(ch.audiences)-1
		ch.audiences[i] = ch.audiences[last]
		ch.audiences[last] = nil
		ch.audiences = ch.audiences[:last]
	}
	if ch.subscribers == 0 {
		if ch == h.all {
			h.all = nil
		} else {
			h.subscribed--
		}
		h.forgetChannelLocked(ch)
	}
}

// leave takes a connection out of its channels: a piece of them, and returns the others, which partAll takes it out of.
// It gets no message published from now on, as the caller has its loop do the same. An audience or a channel that is
// empty is forgotten; who comes later finds a new one, so what is still on the way to the old one stays right. The
// caller holds h.mu.
func (h *Hub) unsubscribeAllLocked(c *Conn) (rest []*audience) {
	if c.left {
		return nil
	}
	c.left = true
	rest, c.audiences = c.audiences, nil
	return h.unsubscribeSomeLocked(rest)
}

// depart is leave for one who does not hold h.mu.
func (h *Hub) unsubscribeAll(c *Conn) {
	h.mu.Lock()
	rest := h.unsubscribeAllLocked(c)
	h.mu.Unlock()
	h.unsubscribeRest(rest)
}

// partAll counts one subscriber less of each.
func (h *Hub) unsubscribeRest(rest []*audience) {
	for len(rest) > 0 {
		h.mu.Lock()
		rest = h.unsubscribeSomeLocked(rest)
		h.mu.Unlock()
	}
}

// partSome counts one subscriber less of a piece of the audiences, and returns the others. The caller holds h.mu.
func (h *Hub) unsubscribeSomeLocked(all []*audience) (rest []*audience) {
	n := min(atOnce, len(all))
	for _, a := range all[:n] {
		h.unsubscribeLocked(a)
	}
	return all[n:]
}
