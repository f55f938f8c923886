package hub

// messageList is messages that wait in a backlog as what they are, and not yet encoded, so that a newer one can still replace them
// (ConnOptions.Conflate). A piece of the kind listed stands for it in the queue: replies that come between two messages have
// their place between two lists. What the flusher comes to, it takes as a replay.
type messageList struct {
	messages []*Message          // nil where one was replaced
	taken    int                 // how many were taken from its beginning
	fixed    int                 // how many, with those taken, are not replaced any more
	live     int                 // those that are not nil
	newest   map[conflated]place // that wait in the backlog, in any of its lists; they share it
}

// place is where a message waits: its number among all that were ever put in the list.
type place struct {
	list *messageList
	at   int
}

const (
	// listedCost is about what a message takes in a list, besides itself.
	listedCost = 16

	// minSpareSlots is how many places of replaced messages a list has before it is made shorter, if they are more than
	// the others. So that costs no more, for each message, than it did to add it.
	minSpareSlots = 64
)

// list adds a message to the backlog, and returns the one that it replaces, if there is one.
func (b *backlog) list(m *Message, array func(*messageList) *shared) (replaced *Message) {
	l := b.lastList()
	if l == nil || b.queue[len(b.queue)-1].array.list != l {
		var newest map[conflated]place
		if l != nil {
			newest = l.newest
		}
		l = &messageList{newest: newest}
		b.push(piece{array: array(l), kind: listed})
	}
	if m.Conflate.IsSet() {
		key := m.conflated()
		if p, ok := l.newest[key]; ok && p.at >= p.list.fixed {
			replaced = p.list.remove(p.at)
			b.unlisted(replaced)
		}
		if l.newest == nil {
			l.newest = make(map[conflated]place)
		}
		l.newest[key] = place{l, l.taken + len(l.messages)}
	}
	l.messages = append(l.messages, m)
	l.live++
	b.size += m.batchSize()
	b.held += int32(listedCost + m.conflateCost())
	return replaced
}

// unlisted counts a message out.
func (b *backlog) unlisted(m *Message) {
	b.size -= m.batchSize()
	b.held -= int32(listedCost + m.conflateCost())
}

// lastList returns the list that was begun last, of those that wait.
func (b *backlog) lastList() *messageList {
	for i := len(b.queue) - 1; i >= 0; i-- { // mostly the last, or after it are replies that wait, and these are few
		if b.queue[i].kind == listed {
			return b.queue[i].array.list
		}
	}
	return nil
}

// remove removes a message that is replaced.
func (l *messageList) remove(at int) *Message {
	m := l.messages[at-l.taken]
	l.messages[at-l.taken] = nil
	if l.live--; len(l.messages)-l.live > max(l.live, minSpareSlots) {
		l.shorten()
	}
	return m
}

// shorten removes the places of messages that were replaced.
func (l *messageList) shorten() {
	rest := make([]*Message, 0, l.live+minSpareSlots)
	fixed := l.taken
	for i, m := range l.messages {
		if m == nil {
			continue
		}
		if l.isNewest(m, l.taken+i) {
			l.newest[m.conflated()] = place{l, l.taken + len(rest)}
		}
		if rest = append(rest, m); l.taken+i < l.fixed {
			fixed++
		}
	}
	l.messages, l.fixed = rest, fixed
}

// isNewest reports whether a message of the list is the newest of its conflate key that waits.
func (l *messageList) isNewest(m *Message, at int) bool {
	return m.Conflate.IsSet() && l.newest[m.conflated()] == place{l, at}
}

// takeListed makes a replay of what comes first in a queue that begins with a list, as much as is written at once. From then
// on it is not replaced any more, nor is what waits with it. A list of which nothing is left is dropped, so afterwards the queue may begin with
// something else and there is no replay.
func (b *backlog) takeListed() {
	l := b.queue[0].array.list
	// What changes all the time would move to the end all the time, and never be sent. Therefore what waits now is sent, all of
	// it, and what comes meanwhile is conflated among itself.
	if l.taken >= l.fixed {
		l.fixed = l.taken + len(l.messages)
	}
	var ms []*Message
	n, size := 0, 0
	for ; n < len(l.messages); n++ {
		m := l.messages[n]
		if m == nil {
			continue
		}
		if size += m.size(); size > chunkSize && len(ms) > 0 {
			break
		}
		ms = append(ms, m)
		b.unlisted(m)
		if l.isNewest(m, l.taken+n) {
			delete(l.newest, m.conflated())
		}
	}
	clear(l.messages[:n])
	l.messages, l.taken, l.live = l.messages[n:], l.taken+n, l.live-len(ms)
	if l.live == 0 {
		b.release(b.queue[0])
		b.queue[0] = piece{}
		b.queue = b.queue[1:]
	}
	if len(ms) > 0 {
		b.replay = &replay{messages: ms}
	}
}

// unlist returns the messages of a piece that is dropped, after it has counted them out.
func (b *backlog) unlist(p piece) (dropped []*Message) {
	if p.kind != listed {
		return nil
	}
	for _, m := range p.array.list.messages {
		if m != nil {
			b.unlisted(m)
			dropped = append(dropped, m)
		}
	}
	return dropped
}

// list has a connection that does not keep up get a run later, without what is replaced until then. What it holds afterwards
// may be more than its limit by one batch, as one batch always fits.
func (c *Conn) list(run []*Message) writeResult {
	h := c.hub
	if h.crowded(listedCost * len(run)) {
		return writeCrowded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing {
		return writeDone
	}
	b := &c.backlog
	before := b.footprint()
	alone := len(b.queue) == 0
	for _, m := range run {
		h.hold(m)
		if replaced := b.list(m, h.shareList); replaced != nil {
			h.letGo([]*Message{replaced})
		}
	}
	c.settleLocked(before)
	c.flushLocked()
	if !alone && b.excess(0, c.options.MaxBacklog) > 0 {
		return writeOverflow
	}
	return writeQueued
}

// shareList returns what refers to a list in a queue.
func (h *Hub) shareList(l *messageList) *shared {
	s := share(nil, &h.held)
	s.list = l
	return s
}
