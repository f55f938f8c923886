package hub

import (
	"errors"
	"slices"
)

var (
	// ErrNameTaken is returned to a connection that wants a name that another one has.
	ErrNameTaken = errors.New("another connection has the name")

	// ErrNotResumed is returned to a connection that cannot go on where another one was, because messages are missing.
	ErrNotResumed = errors.New("messages are missing after the position")
)

// toChannel is the channel of a shared log for everything that is addressed to names: private messages, and commands. A hub opens
// it for the first connection with a name. Like kickChannel, no client can name it.
const toChannel = "\x01to"

// ownChannel reports whether a channel of the log is the hub's own.
func ownChannel(name string) bool {
	return name == kickChannel || name == toChannel || name == keyChannel
}

// nameCost is about how much memory a kept name takes.
const nameCost = 256

// named is what the hub knows of a name. It has a connection, or none while messages are kept for a client that may come back.
type named struct {
	conn *Conn
	// kept has the private messages, or is nil if none are kept. It is not one of Hub.channels, so nobody can subscribe to it
	// or find it in a list, but its messages count towards the history like others.
	kept   *channel
	origin *origin // that the positions in kept are of

	since  uint64 // when conn got it
	joined uint64 // when conn came on the last of its channels
	left   uint64 // when the connection that had it ended, in the epoch of origin
}

// namedLocked returns the connection that has a name, if one does.
func (h *Hub) namedLocked(name string) *Conn {
	if n := h.names[name]; n != nil {
		return n.conn
	}
	return nil
}

// Named returns the connection that has a name, if one of this hub does.
func (h *Hub) Named(name string) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.namedLocked(name)
}

// HasName reports whether a connection of this hub has a name, or had it and may come back.
func (h *Hub) HasName(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[name] != nil
}

// Forget ends a name: no connection has it any more, and nothing is kept for it.
func (h *Hub) Forget(name string) { h.forget(name, false) }

// ForgetUnused is Forget, unless a connection has the name.
func (h *Hub) ForgetUnused(name string) { h.forget(name, true) }

func (h *Hub) forget(name string, unused bool) {
	h.inPieces(func() (all bool) {
		n := h.names[name]
		if n == nil || unused && n.conn != nil {
			return true
		}
		for i := 0; n.kept != nil && n.kept.history.count > 0; i++ {
			if i == atOnce {
				return false
			}
			h.dropOldestLocked(n.kept)
		}
		if n.kept != nil {
			h.held.Add(-nameCost)
		}
		if c := n.conn; c != nil {
			h.setNamesLocked(c, slices.DeleteFunc(h.namesOf[c], func(s string) bool { return s == name }))
		}
		delete(h.names, name)
		return true
	})
}

// setNamesLocked notes which names a connection has.
func (h *Hub) setNamesLocked(c *Conn, names []string) {
	if len(names) == 0 {
		delete(h.namesOf, c)
		return
	}
	h.namesOf[c] = names
}

// giveNameLocked gives a name to a connection. It is nobody's, or was taken from the one that had it.
func (h *Hub) giveNameLocked(c *Conn, name string, keep bool) {
	if h.names == nil {
		h.names, h.namesOf = make(map[string]*named), make(map[*Conn][]string)
	}
	n := h.names[name]
	if n == nil {
		n = new(named)
		h.names[name] = n
	}
	n.conn, n.since, n.joined = c, h.seq, h.seq
	if keep && n.kept == nil {
		// Messages that the name had before were for somebody else.
		n.kept, n.origin = &channel{name: toChannel, droppedSeq: h.seq}, h.origin
		h.held.Add(nameCost)
	}
	h.namesOf[c] = append(h.namesOf[c], name)
}

// loseNamesLocked takes the names away from a connection that gets no more messages.
func (h *Hub) loseNamesLocked(c *Conn) {
	for _, name := range h.namesOf[c] {
		if n := h.names[name]; n.kept != nil {
			n.conn = nil
			h.renewLocked(n)
			n.left = h.seq
			if len(h.commands) > 0 { // those that wait do not find the connection any more
				n.left = min(n.left, h.commands[0].seq-1)
			}
		} else {
			delete(h.names, name)
		}
	}
	delete(h.namesOf, c)
}

// sendPrivateLocked puts a private message in the inbox of the loop of its connection, and keeps it if that was asked for.
func (h *Hub) sendPrivateLocked(m *Message) (wake uint64) {
	n := h.names[m.Emit.To]
	if n == nil || slices.Contains(m.Emit.Except, m.Emit.To) {
		return 0
	}
	if n.conn != nil {
		m.Subscribers = 1
	}
	switch { // before the loop may have it too: see outbox
	case n.kept == nil || m.Transient:
	case h.keepsLocked(toChannel, n.kept):
		h.renewLocked(n)
		h.appendHistoryLocked(n.kept, m)
	default:
		n.kept.droppedSeq = max(n.kept.droppedSeq, m.Seq)
	}
	if c := n.conn; c != nil {
		wake = c.loop.pushLocked(entry{op: opTo, conn: c, message: m, cost: int32(m.cost())})
	}
	return wake
}

// renewLocked starts what is kept for a name again in a new epoch. The messages of the previous epoch have been dropped.
func (h *Hub) renewLocked(n *named) {
	if n.origin != h.origin {
		n.origin, n.kept.droppedSeq = h.origin, h.seq
	}
}

// addPrivateLocked adds the private messages of a name to those that are replayed after a position. It reports false if some
// are missing, or all are more than the limit.
func (h *Hub) addPrivateLocked(x *hearer, ms []*Message, e *Entrance, limit int) ([]*Message, bool) {
	n := h.names[x.name]
	kept := n != nil && n.kept != nil
	_, seq, _ := parseID(e.LastID) // missedLocked has looked at it
	if e.Follow != nil && !e.Follow.holdsLocked(kept, seq) {
		return nil, false
	}
	if !kept {
		return ms, e.Follow != nil
	}
	h.renewLocked(n)
	if max(n.kept.droppedSeq, h.namesLost) > seq {
		return nil, false
	}
	ms, size := x.appendMissedLocked(slices.Clip(ms), n.kept, seq, encodedSize(ms), limit)
	if size > limit {
		return nil, false
	}
	return ms, true
}

// tellNamesLocked has the connections that have names told that they may miss private messages.
func (h *Hub) tellNamesLocked() (wake uint64) {
	if len(h.namesOf) == 0 {
		return 0
	}
	for _, l := range h.loops {
		wake |= l.pushLocked(entry{op: opCall, arg: func() {
			h.mu.Lock()
			var conns []*Conn
			for c := range h.namesOf {
				if c.loop == l {
					conns = append(conns, c)
				}
			}
			h.mu.Unlock()
			for _, c := range conns {
				l.sendGap(c, c.options.Format.Gap(c.channels()))
			}
		}})
	}
	return wake
}

// refitNames applies other bounds to what is kept for names.
func (h *Hub) refitNames() {
	h.mu.Lock()
	var kept []*channel
	for _, n := range h.names {
		if n.kept != nil && n.kept.history.count > 0 {
			kept = append(kept, n.kept)
		}
	}
	h.mu.Unlock()
	h.inPieces(func() (all bool) {
		for range atOnce {
			if len(kept) == 0 {
				return true
			}
			if count, _ := kept[0].keepLocked(h); kept[0].history.count > count {
				h.dropOldestLocked(kept[0])
				continue
			}
			h.ageLocked(kept[0])
			kept = kept[1:]
		}
		return false
	})
}
