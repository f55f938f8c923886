package hub

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Entries implements broker.Sink. It waits while the inboxes have no room, because what is in the log cannot be refused.
func (s *sharedLog) Entries(run []broker.Entry) { s.call(func() { s.ingest(run) }) }

// ingest delivers entries, some under one lock.
func (s *sharedLog) ingest(run []broker.Entry) {
	now := time.Now()
	// The messages are made without the lock, because their check reads all of the data.
	ms := make([]*Message, min(len(run), atOnce))
	for len(run) > 0 {
		n := min(len(ms), len(run))
		var kicks []*kick
		for i := range run[:n] {
			e := &run[i]
			// A kick or a command is nothing to any client, so messageOf returns nil.
			if ms[i] = messageOf(e, now); ms[i] == nil && ownChannel(e.Channel) {
				if k := s.ownOf(e, now); k != nil {
					kicks = append(kicks, k)
				}
			}
		}
		// In pieces, so that nobody waits for the lock as long as a whole run takes.
		s.ingestSome(run[:n], ms[:n], kicks, now)
		// Otherwise they would stay in memory while later ones wait for room.
		clear(ms)
		run = run[n:]
	}
	h := s.hub
	if limit := h.maxHistoryBytes(); h.history.bytes.Load() > limit {
		h.trimAll(int(limit)) // see publish
	}
	h.checkMemory()
}

// maxHistoryBytes returns what the history may take. A reload may change it between two runs.
func (h *Hub) maxHistoryBytes() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(h.config.historyBytes())
}

// messageOf returns the message that an entry is, or nil if some client could not accept it: nobody who publishes through a
// hub can have made it.
func messageOf(e *broker.Entry, now time.Time) *Message {
	// The time is that of here and not the log's: it is what the fan-out histogram counts from, and two clocks differ.
	m := &Message{Channel: e.Channel, Event: e.Event, Data: e.Data, Kind: Kind(e.Kind &^ kindFlags), Seq: e.Seq, Time: now,
		Transient: e.Kind&kindTransient != 0}
	if e.Kind&kindEmit != 0 && m.parseEmit(e.Data) != nil {
		return nil
	}
	if e.Kind&kindConflate != 0 && (m.Emit != nil || !m.parseConflate(e.Data)) {
		return nil
	}
	// The log is input from outside: a node of another version or another program may have written the entry.
	if m.check() != nil {
		return nil
	}
	return m
}

// ingestSome delivers a piece of a run under one lock, which it releases only while there is no room.
// sharedLog.order is held: no two pieces are delivered at once.
func (s *sharedLog) ingestSome(run []broker.Entry, ms []*Message, kicks []*kick, now time.Time) {
	h := s.hub
	var wake uint64
	h.mu.Lock()
	for i, m := range ms {
		e := &run[i]
		switch {
		case !s.currentLocked():
		case s.catchUp != nil:
			s.catchUp.holdLocked(e)
			continue
		case m == nil:
			if ownChannel(e.Channel) {
				wake |= s.ownLocked(e.Channel, e.Seq, kicks)
			}
			// I1: what cannot be delivered moves the watermark all the same.
			h.seq = max(h.seq, e.Seq)
			continue
		case s.admitLocked(m, &wake):
			wake |= s.ingestLocked(e, m, now)
			continue
		}
		// Another log has taken its place, or the hub is closed. What is left is not for this log to deliver.
		break
	}
	h.mu.Unlock()
	h.wake(wake)
}

// admitLocked waits until there is room for a message, and reports whether it may be delivered then.
func (s *sharedLog) admitLocked(m *Message, wake *uint64) bool {
	h := s.hub
	// One at a time: a piece that is larger than an inbox would wait until that is empty.
	one := [...]*Message{m}
	for s.currentLocked() {
		if _, ok := h.fitsLocked(one[:]); ok {
			return true
		}
		if *wake != 0 { // it may be what is in their inboxes that has to go
			h.mu.Unlock()
			h.wake(*wake)
			*wake = 0
			h.mu.Lock()
			continue
		}
		h.awaitRoomLocked()
	}
	return false
}

// ingestLocked moves the watermark to an entry, and delivers it if its channel is open.
func (s *sharedLog) ingestLocked(e *broker.Entry, m *Message, now time.Time) (wake uint64) {
	h := s.hub
	s.counts.received++
	// A log that cannot tell the time leaves 0, which would count as decades.
	if e.Time > 0 {
		s.counts.delay.add(now.Sub(time.UnixMilli(e.Time)))
	}
	m.origin = h.origin
	// The numbers of connections are those of a node, and others have the same ones.
	if e.Conn != 0 && e.Node == h.node {
		// nil if the connection has ended meanwhile. Then there is no echo to suppress.
		m.From = h.echoes[ConnID(e.Conn)]
		m.NoEcho = m.From != nil
	}
	if m.Emit != nil {
		h.resolveLocked(m.Emit)
	}
	inOrder := m.Seq > h.seq
	if inOrder {
		// I1: also if nobody has the channel open. A position that is handed out afterwards (I2) then has this message
		// behind it.
		h.seq = m.Seq
	} else {
		s.counts.late++
	}
	if m.private() {
		return s.ingestPrivateLocked(m, inOrder)
	}
	o, ch := s.openLocked(m.Channel, m.Seq), h.channels[m.Channel]
	if o != nil && ch != nil {
		m.Subscribers = ch.subscribers
	}
	if o != nil && inOrder {
		o.delivered(m)
		s.keepLocked(ch, o, m) // before loops may have it too: see outbox
	}
	if h.all != nil && s.openLocked("", m.Seq) != nil {
		if inOrder {
			wake = h.deliverLocked(h.all, m)
		} else {
			wake = h.all.gapLocked() // somebody who is on all channels is at the watermark
		}
	}
	switch {
	case o == nil:
	case !inOrder:
		wake |= s.lateLocked(ch, o, m)
	case ch != nil:
		wake |= h.deliverLocked(ch, m)
	}
	return wake
}

// ownOf returns what an entry of one of the hub's own channels asks for, or nil if that is nothing.
func (s *sharedLog) ownOf(e *broker.Entry, now time.Time) *kick {
	switch e.Channel {
	case kickChannel:
		return s.kickOf(e, now)
	case keyChannel:
		if key, ok := parseKey(e.Data); ok {
			return &kick{seq: e.Seq, key: &key}
		}
	default:
		if k := s.commandOf(e); k != nil {
			return &kick{seq: e.Seq, command: k}
		}
	}
	return nil
}

// ingestPrivateLocked delivers a private message, if this node has the connection.
func (s *sharedLog) ingestPrivateLocked(m *Message, inOrder bool) (wake uint64) {
	h := s.hub
	o := s.openLocked(toChannel, m.Seq)
	if o == nil {
		return 0
	}
	s.traceLocked(m.Seq, nil, m.Emit.To)
	if o.last = max(o.last, m.Seq); inOrder {
		return h.sendPrivateLocked(m)
	}
	n := h.names[m.Emit.To]
	if n == nil {
		return 0
	}
	// I4: it may have told its client a position beyond the message, since it is on other channels too.
	if n.kept != nil {
		h.renewLocked(n)
		n.kept.droppedSeq = max(n.kept.droppedSeq, m.Seq)
	}
	if c := n.conn; c != nil {
		l := c.loop
		wake = l.pushLocked(entry{op: opCall, arg: func() { l.sendGap(c, c.options.Format.Gap(c.channels())) }})
	}
	return wake
}

// openLocked returns a channel if it is open for an entry at a position.
func (s *sharedLog) openLocked(name string, seq uint64) *openChannel {
	// An entry at or before o.at is history to whoever was positioned there. Delivered as well, it would come
	// twice.
	if o := s.findLocked(name); o != nil && o.opened && seq > o.at {
		return o
	}
	return nil
}

// lateLocked has an entry that comes late delivered to those that it is in order for, and the others told of a gap.
func (s *sharedLog) lateLocked(ch *channel, o *openChannel, m *Message) (wake uint64) {
	h := s.hub
	// I4: nobody on this channel alone can have gone past it if nothing newer of the channel was delivered. Which
	// connections these are, the loop decides (loop.late), because only it knows their memberships.
	newest := m.Seq > o.last
	if m.Transient && !newest {
		return 0 // it is no loss
	}
	// A client that comes back from before it is told of a gap, unless the history has it in order.
	o.delivered(m)
	switch floor := h.droppedSeqLocked(m.Channel, ch); {
	case newest:
		s.keepLocked(ch, o, m)
	case m.Seq > floor:
		s.setFloorLocked(m.Channel, m.Seq)
	}
	for a := range ch.audiences() {
		e := entry{op: opGap, audience: a}
		if newest {
			e.op, e.message, e.cost = opLate, m, int32(m.cost())
		}
		wake |= a.loop.pushLocked(e)
	}
	return wake
}

// gapLocked has the subscribers of a channel told that they miss messages.
func (ch *channel) gapLocked() (wake uint64) {
	for a := range ch.audiences() {
		wake |= a.loop.pushLocked(entry{op: opGap, audience: a})
	}
	return wake
}

// keepLocked keeps a message in the history, which is a cache of open channels, or notes that the channel has lost one.
func (s *sharedLog) keepLocked(ch *channel, o *openChannel, m *Message) {
	h := s.hub
	switch {
	case m.Transient:
	case h.keepsLocked(m.Channel, ch):
		if ch == nil {
			ch = h.openChannelLocked(m.Channel)
		}
		h.appendHistoryLocked(ch, m)
	case ch != nil:
		// Without a history all that is left of a message is that there was one: a client that resumes from before
		// it has a gap.
		ch.droppedSeq = max(ch.droppedSeq, m.Seq)
	default:
		o.floor = max(o.floor, m.Seq)
	}
}

// delivered notes that a message has come.
func (o *openChannel) delivered(m *Message) {
	o.last = max(o.last, m.Seq)
	if !m.Transient {
		o.loss = max(o.loss, m.Seq)
	}
}

// findLocked returns a channel that is open, or is being opened.
func (s *sharedLog) findLocked(name string) *openChannel {
	o := s.open[name]
	if o != nil && o.era != s.era { // what it knows is of another epoch, in which every open channel begins at the same place
		o.era, o.at, o.last, o.floor = s.era, s.began, s.began, s.began
		o.asked, o.gone, o.goneLimit, o.lostAll, o.loss = 0, 0, 0, 0, 0
	}
	if o != nil && o.lostAll < s.lostAll { // once: what is read may show that nothing is missing, and lower the floor
		o.floor, o.lostAll = max(o.floor, s.lostAll), s.lostAll
	}
	return o
}

// floorLocked is droppedSeqLocked for a channel that is not in Hub.channels. Of one that is not open nothing is known.
func (s *sharedLog) floorLocked(name string) uint64 {
	if o := s.findLocked(name); o != nil && o.opened {
		return o.floor
	}
	return s.hub.seq
}

// keepFloorLocked notes what a channel has lost that leaves Hub.channels.
func (s *sharedLog) keepFloorLocked(ch *channel) {
	if o := s.findLocked(ch.name); o != nil {
		o.floor = ch.droppedSeq
		if s.forgetting { // what is being dropped has positions of another epoch
			o.floor = s.began
		}
	}
}

// setFloorLocked sets up to where a channel has lost its messages. Unlike what a live message does, it may also set
// that back: fill does it when it has read older ones.
func (s *sharedLog) setFloorLocked(name string, seq uint64) {
	if ch := s.hub.channels[name]; ch != nil {
		ch.droppedSeq = seq
	} else if o := s.findLocked(name); o != nil {
		o.floor = seq
	}
}
