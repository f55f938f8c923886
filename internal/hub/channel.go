package hub

import (
	"iter"
	"math/bits"
	"slices"
	"time"
)

// A channel is a name that has subscribers or history. Its subscribers are spread over the loops: those on one loop are
// an audience, which is what a message is put in the loop's inbox for. Within an audience, the connections that are on
// this channel alone are in groups, one for each format, and everyone in a group is written the same bytes. Those that
// are on several channels are mixed: each is written the messages of all its channels together, in one piece.
//
//	channel "a" ─┬─ audience on loop 0 ─┬─ group raw:          c1 c4 c9
//	             │                      ├─ group broadcast.v1: c2
//	             │                      └─ mixed:              c7 (also on "b")
//	             └─ audience on loop 1 ─── group raw:          c3 c5
//
// Hub.mu guards channels and what of an audience it counts. What is in the groups is the loop's own: it follows the
// count when the loop comes to the entry in its inbox.
type channel struct {
	name        string // "" for the one that stands for all
	subscribers int
	now         spread   // the audiences whose messages do not wait
	later       []spread // the others, by how long they wait
	history     storedList
	droppedSeq  uint64 // the last message that history does not have any more, or never had
	keep        keeping

	conflated map[ConflateKey]*stored // the newest of each key in history, nil if there is none
}

// spread is the audiences of a channel on all loops whose messages wait as long. The list is in the order of the loops, and it is
// not changed but replaced, because entries refer to it.
type spread struct {
	loops     uint64 // bits of those that have one
	audiences []*audience
}

// audience is the subscribers of a channel on one loop, or those of them whose messages wait as long.
type audience struct {
	channel *channel
	loop    *loop
	every   time.Duration // how long its messages wait for others; see delay
	size    int           // guarded by Hub.mu: the subscribers by the log, which the loop follows

	// The loop's own.
	groups  []group
	mixed   []member
	pending []*Message // what the current batch has for this channel
}

// group is the connections of one format that are on a channel alone.
type group struct {
	format Format
	conns  []*Conn
}

// openChannelLocked makes a channel. Nothing is known of messages that it had before, so it counts as having lost what
// any forgotten channel has lost.
func (h *Hub) openChannelLocked(name string) *channel {
	ch := &channel{name: name, droppedSeq: h.droppedSeqLocked(name, nil)}
	h.channels[name] = ch
	h.index.add(name)
	return ch
}

// droppedSeqLocked returns the last message that a channel has lost. The channel is nil if it is not in Hub.channels.
func (h *Hub) droppedSeqLocked(name string, ch *channel) uint64 {
	switch {
	case ch != nil:
		return ch.droppedSeq
	case h.log != nil:
		return h.log.floorLocked(name)
	default:
		return h.droppedSeq
	}
}

// forgetChannelLocked forgets a channel that nobody needs.
func (h *Hub) forgetChannelLocked(ch *channel) {
	if ch.subscribers == 0 && ch.history.count == 0 && ch.name != toChannel {
		if h.log != nil {
			h.log.keepFloorLocked(ch)
		} else {
			h.droppedSeq = max(h.droppedSeq, ch.droppedSeq)
		}
		delete(h.channels, ch.name)
		h.index.remove(ch.name)
	}
}

// subscribeLocked counts a connection as one more subscriber of a channel.
func (h *Hub) subscribeLocked(c *Conn, name string) *audience {
	ch := h.channels[name]
	if ch == nil {
		ch = h.openChannelLocked(name)
	}
	if ch.subscribers == 0 {
		h.subscribed++
	}
	if h.log != nil {
		h.markLocked(ch)
	}
	return ch.addLocked(c.loop, c.options.DeliverEvery)
}

// subscribeToAllLocked counts a connection as one more subscriber of every channel.
func (h *Hub) subscribeToAllLocked(c *Conn) *audience {
	if h.all == nil {
		h.all = new(channel)
	}
	return h.all.addLocked(c.loop, c.options.DeliverEvery)
}

// addLocked counts one more subscriber on a loop.
func (ch *channel) addLocked(l *loop, every time.Duration) *audience {
	ch.subscribers++
	s := ch.spreadFor(every)
	i := s.index(l)
	if s.loops&l.bit == 0 {
		s.loops |= l.bit
		list := make([]*audience, 0, len(s.audiences)+1)
		list = append(append(list, s.audiences[:i]...), &audience{channel: ch, loop: l, every: every})
		s.audiences = append(list, s.audiences[i:]...)
	}
	a := s.audiences[i]
	a.size++
	return a
}

// index returns where in the list the audience of a loop is, or would be.
func (s *spread) index(l *loop) int { return bits.OnesCount64(s.loops & (l.bit - 1)) }

// spreadFor returns the audiences whose messages wait that long. Of those that do there are as many as values of
// ConnOptions.DeliverEvery, so this is a search.
func (ch *channel) spreadFor(every time.Duration) *spread {
	if every == 0 {
		return &ch.now
	}
	for i := range ch.later {
		if s := &ch.later[i]; s.audiences[0].every == every {
			return s
		}
	}
	ch.later = append(ch.later, spread{})
	return &ch.later[len(ch.later)-1]
}

// removeLocked forgets an audience that is empty.
func (ch *channel) removeLocked(a *audience) {
	s := ch.spreadFor(a.every)
	i := s.index(a.loop)
	s.loops &^= a.loop.bit
	s.audiences = slices.Concat(s.audiences[:i], s.audiences[i+1:])
	ch.later = slices.DeleteFunc(ch.later, func(s spread) bool { return s.loops == 0 })
}

// spreads returns those that have audiences. The channel may be nil.
func (ch *channel) spreads() iter.Seq[*spread] {
	return func(yield func(*spread) bool) {
		if ch == nil || ch.now.loops != 0 && !yield(&ch.now) {
			return
		}
		for i := range ch.later {
			if !yield(&ch.later[i]) {
				return
			}
		}
	}
}

// audiences returns those of all loops.
func (ch *channel) audiences() iter.Seq[*audience] {
	return func(yield func(*audience) bool) {
		for s := range ch.spreads() {
			for _, a := range s.audiences {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// home returns the first loop that has subscribers of the channel.
func (ch *channel) home() *loop {
	for a := range ch.audiences() {
		return a.loop
	}
	return nil
}

// unsubscribeLocked counts one subscriber less. An audience or a channel that is empty is forgotten. A later subscriber
// gets a new one, so that what is still on its way to the old one does not reach it.
func (h *Hub) unsubscribeLocked(a *audience) {
	ch := a.channel
	a.size--
	ch.subscribers--
	if h.log != nil {
		h.markLocked(ch)
	}
	if a.size == 0 {
		ch.removeLocked(a)
	}
	switch {
	case ch.subscribers > 0:
		return
	case ch == h.all:
		h.all = nil
	default:
		h.subscribed--
		h.forgetChannelLocked(ch)
	}
	if h.log != nil {
		h.log.idleLocked(ch.name)
	}
}

// unsubscribeAllLocked takes a connection out of its channels, but only out of some at once. It returns the others, for
// unsubscribeRest. The connection gets no message that is published from now on, because the caller has the loop detach
// it.
func (h *Hub) unsubscribeAllLocked(c *Conn) (rest []*audience) {
	if c.left {
		return nil
	}
	c.left = true
	if len(h.namesOf) > 0 {
		h.loseNamesLocked(c)
	}
	rest, c.audiences = c.audiences, nil
	return h.unsubscribeSomeLocked(rest)
}

// unsubscribeAll is unsubscribeAllLocked and unsubscribeRest, for a caller that does not hold Hub.mu.
func (h *Hub) unsubscribeAll(c *Conn) {
	h.mu.Lock()
	rest := h.unsubscribeAllLocked(c)
	h.mu.Unlock()
	h.unsubscribeRest(rest)
}

// unsubscribeRest counts one subscriber less of each audience, and lets others have the lock in between.
func (h *Hub) unsubscribeRest(rest []*audience) {
	for len(rest) > 0 {
		h.mu.Lock()
		rest = h.unsubscribeSomeLocked(rest)
		h.mu.Unlock()
	}
}

// unsubscribeSomeLocked counts one subscriber less of some of the audiences, and returns the others.
func (h *Hub) unsubscribeSomeLocked(all []*audience) (rest []*audience) {
	n := min(atOnce, len(all))
	for _, a := range all[:n] {
		h.unsubscribeLocked(a)
	}
	return all[n:]
}
