package hub

import (
	"slices"
)

// Entrance describes what a connection enters: channels, and optionally a name. With a name and a LastID, the connection takes the
// place of the one that has or had the name.
type Entrance struct {
	Channels []string // without duplicates
	LastID   string   // if set, the connection is sent what it missed after this position
	Received bool     // LastID belongs to a message that the connection has received
	Replay   int      // without LastID, how many of the channels' last messages it is sent

	// Name, if set, is given to the connection. It then receives messages to this name (Emit.To), and none that except it.
	// With Keep, messages to the name that arrive while no connection has it are kept, like the history, until Hub.Forget.
	Name string
	Keep bool

	// Whole has Enter fail with ErrNotResumed if the connection would miss something after LastID, or if the name is no longer
	// known. Then nothing has changed.
	Whole bool

	// Follow, with Whole, is the result of Conn.Follow, if the connection that had the name belonged to another hub, or has
	// ended. Then the name need not be known here.
	Follow *Followed

	// Frame encodes what the connection is sent first: its welcome, and the messages that it missed, in the order of the log.
	// It may be called several times, also under a lock, so it must not call the hub.
	Frame func(Welcome, []*Message) []byte
}

// Join subscribes the connection to one more channel. It is sent what frame makes of the welcome and of the messages
// that it missed after lastID, if that is set, and then gets every message published after Join returns. As all of
// that is one piece, there is no moment at which the connection has some of the older messages and not the others.
func (c *Conn) Join(name, lastID string, frame func(Welcome, []*Message) []byte) error {
	return c.Enter(Entrance{Channels: []string{name}, LastID: lastID, Frame: frame})
}

// Enter is Join for several channels and a name at once. If another connection has the name, because its client has given it up
// and nobody has noticed yet, that connection ends under the same lock. So each message to the name and to the channels reaches
// exactly one of the two, and what the old connection could no longer send is among what the new one has missed.
func (c *Conn) Enter(e Entrance) error {
	h := c.hub
	if len(e.Channels) > 1 {
		e.Channels = slices.Sorted(slices.Values(e.Channels)) // for hearer
	}
	var made snapshot // what p was made of
	var p []byte
	size, promised, waited := 0, 0, 0
	var w, names want
	defer w.done(h)
	defer names.done(h)
	defer func() { c.countWaiting(-waited) }()
	for try := 0; ; try++ {
		h.mu.Lock()
		// What the last try was promised is queued below, or promised again.
		h.promised -= promised
		waited += c.awaitRoomLocked(max(size, len(p))+messageOverhead, len(p))
		s, err := c.positionLocked(&e, &w, &names)
		if err != nil {
			if promised > 0 {
				h.hasSpace.Broadcast() // others may have waited for what is not promised any more
			}
			h.mu.Unlock()
			return err
		}
		promised = 0
		if p == nil || !s.equal(made) {
			if len(s.messages) > 0 && try < joinTries {
				before := size
				if size = encodedSize(s.messages); size > before {
					h.mu.Unlock()
					continue // there may be no room for that much
				}
				promised = size // counts as queued while it is encoded
				h.promised += promised
				h.mu.Unlock()
				made, p = s, e.Frame(s.welcome, s.messages)
				continue // does it still hold?
			}
			p = e.Frame(s.welcome, s.messages)
		}
		wake, rest := c.enterLocked(&e, s, p)
		h.mu.Unlock()
		h.wake(wake)
		h.unsubscribeRest(rest)
		return nil
	}
}

// joinTries is how often Enter looks again, to find that what was missed is more than it had room for, or that the history
// has changed while it was encoded without Hub.mu, which takes long. After that it encodes under the lock, so that it
// comes to an end on a busy channel too.
const joinTries = 4

// encodedSize returns at most how many bytes messages take when they are encoded.
func encodedSize(ms []*Message) (n int) {
	for _, m := range ms {
		n += m.size()
	}
	return n
}

// snapshot is what a connection starts from at one moment.
type snapshot struct {
	fresh    []string // the channels that it is not on yet; for the others nothing is sent
	origin   *origin
	welcome  Welcome
	messages []*Message
}

// equal reports whether the same frame is right for both: positions may differ where no message does.
func (s snapshot) equal(o snapshot) bool {
	return s.origin == o.origin && s.welcome.Resumed == o.welcome.Resumed && slices.Equal(s.messages, o.messages)
}

// positionLocked is snapshotLocked, but with a shared log it first waits until the channels can be joined. It may release
// Hub.mu meanwhile.
func (c *Conn) positionLocked(e *Entrance, w, names *want) (s snapshot, err error) {
	h := c.hub
	if e.Name != "" {
		h.naming = true
	}
	if h.log != nil {
		if _, err := c.mayEnterLocked(e); err != nil {
			return s, err
		}
		if e.Name != "" {
			*names = want{channels: []string{toChannel}, conn: c, deadline: names.deadline}
			err := h.awaitLocked(names)
			// The channel is never released, and with another log it is opened first.
			names.unpinLocked()
			if err != nil {
				return s, err
			}
		}
		if w.channels == nil {
			*w = want{channels: e.Channels, lastID: e.LastID, replay: e.Replay, limit: c.options.MaxBacklog, conn: c}
		}
		if err := h.awaitLocked(w); err != nil {
			return s, err
		}
	}
	return c.snapshotLocked(e)
}

// snapshotLocked returns what the channels start from now, or why the connection cannot enter.
func (c *Conn) snapshotLocked(e *Entrance) (s snapshot, err error) {
	if s.fresh, err = c.mayEnterLocked(e); err != nil {
		return s, err
	}
	h := c.hub
	s.origin = h.origin
	if len(s.fresh) == 0 && !e.Whole {
		s.welcome.ID = FormatID(h.epoch, h.seq)
		return s, nil
	}
	x := hearer{conn: c, channels: e.Channels, name: e.Name}
	if e.Received {
		_, x.received, _ = parseID(e.LastID)
	}
	s.messages, s.welcome = h.replayFromLocked(&x, s.fresh, e.LastID, e.Replay, c.options.MaxBacklog)
	if !e.Whole {
		if len(s.fresh) > 1 {
			slices.SortFunc(s.messages, bySeq)
		}
		return s, nil
	}
	if s.welcome.Resumed && e.Name != "" {
		s.messages, s.welcome.Resumed = h.addPrivateLocked(&x, s.messages, e, c.options.MaxBacklog)
	}
	if !s.welcome.Resumed {
		return s, ErrNotResumed
	}
	slices.SortFunc(s.messages, bySeq)
	if len(s.messages) > 0 {
		s.welcome.ID = FormatID(h.epoch, min(h.seq, s.messages[0].Seq-1))
	}
	return s, nil
}

// enterLocked gives the connection its name, subscribes it to the channels, and sends it p, which starts it. It returns what a
// connection that had the name is still a subscriber of, for Hub.unsubscribeRest.
func (c *Conn) enterLocked(e *Entrance, s snapshot, p []byte) (wake uint64, rest []*audience) {
	h := c.hub
	if s.welcome.Gaps != nil {
		h.gaps++
	}
	cost := int32(len(p) + messageOverhead)
	if len(s.fresh) != 1 {
		wake |= c.loop.pushLocked(entry{op: opSend, conn: c, arg: p, cost: cost})
		p, cost = nil, 0
	}
	if e.Whole && h.log != nil { // without one all messages of an emit are before it, or all are after it
		at := cameBack{h.seq, e.Name}
		wake |= c.loop.pushLocked(entry{op: opCall, conn: c, arg: func() {
			if c.state == stateOpen {
				c.loop.emit.goesOn(c, at)
			}
		}})
	}
	if len(s.fresh) > 0 {
		for _, name := range h.namesOf[c] {
			h.names[name].joined = h.seq
		}
	}
	for _, name := range s.fresh {
		a := h.subscribeLocked(c, name)
		at, _ := c.findLocked(name)
		c.audiences = slices.Insert(c.audiences, at, a)
		wake |= c.loop.pushLocked(entry{op: opJoin, conn: c, audience: a, arg: p, cost: cost})
	}
	if old := h.namedLocked(e.Name); e.Name != "" && old != c {
		// After the joins: a channel that is without subscribers for a moment is forgotten, and with it what it has lost.
		if old != nil {
			rest = h.unsubscribeAllLocked(old)
			wake |= old.loop.pushLocked(entry{op: opClose, conn: old, why: ReasonClient, arg: "another connection goes on"})
		}
		known := h.names[e.Name] != nil
		h.giveNameLocked(c, e.Name, e.Keep)
		if _, seq, ok := parseID(e.LastID); ok && e.Follow != nil && !known && e.Keep {
			h.names[e.Name].kept.droppedSeq = seq // after that there was none
		}
	}
	return wake, rest
}

// mayEnterLocked returns which of the channels the connection is not on yet, or why it cannot enter them.
func (c *Conn) mayEnterLocked(e *Entrance) (fresh []string, err error) {
	h := c.hub
	if c.left {
		return nil, ErrClosed
	}
	if e.Name != "" && !e.Whole {
		if n := h.names[e.Name]; n != nil && n.conn != c {
			return nil, ErrNameTaken
		}
	}
	fresh = e.Channels
	more := 0 // that have no subscribers yet
	for i, name := range e.Channels {
		// Joining twice is not an error: a client that lost the answer may ask again.
		if _, on := c.findLocked(name); on {
			if len(fresh) == len(e.Channels) {
				fresh = slices.Clone(e.Channels[:i])
			}
			continue
		}
		if len(fresh) != len(e.Channels) {
			fresh = append(fresh, name)
		}
		if ch := h.channels[name]; ch == nil || ch.subscribers == 0 {
			more++
		}
	}
	if len(fresh) > 0 && len(c.audiences)+len(fresh) > MaxJoined {
		return nil, ErrJoinedTooMany
	}
	if n := h.config.MaxChannels; n > 0 && more > 0 && h.subscribed+more > n {
		return nil, h.reject(LimitChannels, ErrTooManyChannels)
	}
	return fresh, nil
}

// Channels returns the channels that the connection is on, in the order of their names. One that has ended is on none.
func (c *Conn) Channels() []string {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	names := make([]string, len(c.audiences))
	for i, a := range c.audiences {
		names[i] = a.channel.name
	}
	return names
}
