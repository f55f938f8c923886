package hub

// Config.MaxMemory bounds two things together: what the hub holds (Hub.held), which is
//
//   - the arrays that backlogs refer to, each once, and the lists of these;
//   - the messages in the history or in a replay, each once, with what the wire formats keep in them;
//   - what readers hold: messages that their clients have not finished, and publishers that wait;
//   - the table of idempotency keys;
//   - the members of channels (HoldMembers);
//   - flushers that are stuck;
//
// and what is queued in the inboxes, which have at most a quarter of it. When more than five eighths are held, the hub
// makes room: see evict. When three quarters are held, because that comes too late, nothing more is: a write that does
// not fit closes its connection, and so does a part of a message. A message that does not fit is not published, or its
// publisher waits. Three quarters held and one queued are the whole limit. The history has at most three eighths, the
// keys one, and members one, so that they alone do not make connections close.

// heldLimit returns how many bytes may be held under a limit.
func heldLimit(limit int64) int64 { return limit / 4 * 3 }

// evictAt returns how many bytes may be held under a limit before room is made.
func evictAt(limit int64) int64 { return limit / 8 * 5 }

// historyBytes returns how many bytes the history may have.
func (c *Config) historyBytes() int {
	if c.MaxMemory > 0 {
		return int(min(int64(c.HistoryBytes), c.MaxMemory/8*3))
	}
	return c.HistoryBytes
}

// entryOverhead is about what an entry of an inbox costs, and a place in the history.
const entryOverhead = 128

// crowded reports whether n more bytes held would be too many. There is room for them unless evict comes too late.
func (h *Hub) crowded(n int) bool {
	limit := h.maxMemory.Load()
	return limit > 0 && h.held.Load()+int64(n) > heldLimit(limit)
}

// hasRoomLocked reports whether n more bytes may be queued. If nothing is queued, and no room has to be made, they always
// may. Otherwise a publisher of a large message could wait for ever.
func (h *Hub) hasRoomLocked(n int) bool {
	limit := h.maxMemory.Load()
	if limit == 0 {
		return true
	}
	held, queued := h.held.Load(), h.queuedLocked()
	if held <= heldLimit(limit) && queued+int64(n) <= limit/4 || queued == 0 && held <= evictAt(limit) {
		return true
	}
	if held > evictAt(limit) {
		h.startEviction() // even if less is held by now, because makeRoom wakes those that wait
	}
	return false
}

// awaitRoomLocked waits until there may be room: a loop is done with something, or makeRoom has ended. The caller
// has held h.mu since it found that there is none.
func (h *Hub) awaitRoomLocked() {
	// Loops do not hold h.mu when they count out. One that counts after this sees that somebody waits, and what one has counted
	// out before is seen here.
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	if !h.movedLocked() {
		h.hasSpace.Wait()
	}
}

// senderCost is about what a connection takes that has ended while a message in the history still refers to it.
const senderCost = 512

// memory is about what a message takes in the history, or in a replay.
func (m *Message) memory() int64 {
	n := m.cost() + cap(m.Data) - len(m.Data) + entryOverhead
	n += len(m.Channel) + len(m.Event) + len(m.Key) + len(m.Publisher) + len(m.Owner) + m.conflateCost()
	if m.From != nil { // only with NoEcho
		n += senderCost
	}
	if m.Emit != nil {
		n += senderCost * len(m.Emit.skip)
	}
	return int64(n)
}

// memoryOfHolder returns what of a message counts for one of the connections that hold it.
func (m *Message) memoryOfHolder() int {
	n := m.holders.Load()
	if n&inHistory != 0 {
		return 0
	}
	return int(m.memory()) / int(max(1, n))
}

// memoryForLocked returns what messages take in the inboxes and the history.
func (h *Hub) memoryForLocked(ms []*Message) (n int) {
	for _, m := range ms {
		if m.private() {
			n += m.cost() + entryOverhead
			continue
		}
		for _, ch := range [...]*channel{h.channels[m.Channel], h.all} {
			for s := range ch.spreads() {
				n += len(s.audiences) * (m.cost() + entryOverhead)
			}
		}
	}
	return n
}

// inHistory is set in Message.holders while the history has the message. A message that it has dropped, or never had, counts
// for the connections that still wait for it: see Conn.memory.
const inHistory = 1 << 30

// holdHistoryLocked counts a message that the history keeps. The history is its first holder.
func (h *Hub) holdHistoryLocked(m *Message) {
	m.holders.Store(1 | inHistory)
	h.held.Add(m.memory())
}

// hold has a backlog hold a message. The first holder counts it in.
func (h *Hub) hold(m *Message) {
	if m.holders.Add(1) == 1 {
		h.held.Add(m.memory())
	}
}

// holdReplayLocked has a new connection hold messages of the history.
func (c *Conn) holdReplayLocked(ms []*Message) {
	for _, m := range ms {
		m.holders.Add(1)
	}
	before := c.backlog.footprint()
	c.backlog.replay = &replay{messages: ms}
	c.settleLocked(before)
}

// letGo ends one holder's hold on messages. With its last holder a message is counted out.
func (h *Hub) letGo(ms []*Message) {
	for _, m := range ms {
		// encodedGone keeps a loop that is just encoding the message from counting more bytes in, which nobody would
		// count out.
		if m.holders.Add(-1) == 0 {
			h.held.Add(-m.memory() - int64(max(0, m.encodedBytes.Swap(encodedGone))))
		}
	}
}

// encodedGone stands in Message.encodedBytes when the message is not counted any more.
const encodedGone = -1 << 31

// countEncoded counts what a wire format keeps in a message.
func (m *Message) countEncoded(n int) {
	if m.holders.Load() == 0 {
		return // it is only in inboxes, which count it already, and for a moment
	}
	for {
		before := m.encodedBytes.Load()
		if before < 0 {
			return
		}
		if m.encodedBytes.CompareAndSwap(before, before+int32(n)) {
			m.origin.hub.held.Add(int64(n))
			return
		}
	}
}

// Memory returns the bytes that Config.MaxMemory bounds.
func (h *Hub) Memory() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held.Load() + h.queuedLocked()
}
