package hub

import (
	"cmp"
	"slices"
	"time"
)

// Options.MaxMemory bounds two things together: what the hub holds (Hub.held), which is
//
//   - the arrays that backlogs refer to, each once, and the lists of these;
//   - the messages in the history or in a replay, each once, with what the wire formats keep in them;
//   - what readers hold: messages that their clients have not finished, and publishers that wait;
//   - the table of idempotency keys;
//   - flushers that are stuck;
//
// and what is queued in the inboxes, which have a quarter of it at most. From five eighths on the hub makes room: see
// relieve. At three quarters, if that comes too late, nothing more is held: a write that does not fit closes its
// connection, and so does a part of a message. A message that does not fit is not published, or waits. The history has
// three eighths of it at most, and the keys one.

// heldLimit returns how many bytes may be held, with a limit.
func heldLimit(limit int64) int64 { return limit / 4 * 3 }

// relieveAt returns from how many bytes held on there has to be room made, with a limit.
func relieveAt(limit int64) int64 { return limit / 8 * 5 }

// historyBytes returns how many bytes the history may have.
func (o *Options) historyBytes() int {
	if o.MaxMemory > 0 {
		return int(min(int64(o.HistoryBytes), o.MaxMemory/8*3))
	}
	return o.HistoryBytes
}

// entryOverhead is about what an entry of an inbox costs, and a place in the history.
const entryOverhead = 128

// queued returns the bytes that wait in the inboxes, are about to come there, or have just been taken from them. The
// caller holds h.mu.
func (h *Hub) queued() (n int64) {
	n = int64(h.promised)
	for _, l := range h.loops {
		n += int64(l.inboxBytes + entryOverhead*len(l.inbox) + l.taken)
	}
	return n
}

// crowded reports whether n more bytes held would be too many. There is room for them unless relieve comes too late.
func (h *Hub) crowded(n int) bool {
	limit := h.maxMemory.Load()
	return limit > 0 && h.held.Load()+int64(n) > heldLimit(limit)
}

// hasRoom reports whether n more bytes may be queued. If nothing is, and no room has to be made, they always may: else
// one who waits for room could wait for ever. The caller holds h.mu.
func (h *Hub) hasRoom(n int) bool {
	limit := h.maxMemory.Load()
	if limit == 0 {
		return true
	}
	held, queued := h.held.Load(), h.queued()
	if held <= heldLimit(limit) && queued+int64(n) <= limit/4 || queued == 0 && held <= relieveAt(limit) {
		return true
	}
	if held > relieveAt(limit) { // even if it is less by now: makeRoom wakes who waits
		h.startRelief()
	}
	return false
}

// awaitRoom waits until there may be room: something was taken from an inbox, or makeRoom has ended. The caller holds
// h.mu since it has found that there is none.
func (h *Hub) awaitRoom() {
	h.waiting++
	h.room.Wait()
	h.waiting--
}

// waiterCost is about what a publisher costs that waits, besides its message: its goroutine and what it reads into.
const waiterCost = 32 << 10

// waits counts a reader that waits with n bytes, or with n negative no longer does. The caller does not hold Hub.mu.
func (c *Conn) waits(n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.hold(n)
	}
}

// reserve counts a reader that has to wait with n bytes, or where there is no room for that has the connection closed. It
// returns what waits has to count out. The caller does not hold Hub.mu.
func (c *Conn) reserve(n int) (reserved int) {
	if c.hub.crowded(n) {
		c.cut()
		return 0
	}
	c.waits(n)
	return n
}

// hold counts n more bytes that the connection's reader holds. It needs c.mu.
func (c *Conn) hold(n int) {
	if n != 0 {
		c.input += n
		c.hub.held.Add(int64(n))
	}
}

// States of Conn.reading.
const (
	readingNothing = iota
	readingMoving  // there is part of a message, and enough has come since the last ping
	readingStalled // too little has come
)

// minPace is how many bytes of a message have to come in a second.
const minPace = 512

// Unfinished notes that have bytes have come of a message that the peer has not finished, and that they take so much
// space; both are 0 when it has. It is the reader's to call. If it returns false there is no room for that: the
// connection is being closed, and the reader must let go of it.
func (c *Conn) Unfinished(have, space int) bool {
	switch {
	case space == 0:
		c.reading.Store(readingNothing)
	case c.reading.Load() == readingNothing, have-c.mark >= minPace*int(seconds(c.options.PingInterval)):
		c.mark = have
		c.reading.Store(readingMoving)
	}
	c.mu.Lock()
	more := space - c.message
	fits := c.dead || more <= 0 || !c.hub.crowded(more)
	if !fits {
		more, space = -c.message, 0
	}
	if !c.dead {
		c.hold(more)
		c.message = space
	}
	c.mu.Unlock()
	if !fits {
		c.cut()
	}
	c.hub.checkMemory()
	return fits
}

// Finished notes that the message is whole that Unfinished told of, so that the next one is not taken for it. It takes
// its space until Unfinished says that it does not. It is the reader's to call.
func (c *Conn) Finished() { c.reading.Store(readingNothing) }

// cut has the connection closed for what it would hold.
func (c *Conn) cut() {
	c.hub.depart(c)
	c.hub.post(c.loop, entry{op: opCut, conn: c})
}

// senderCost is about what a connection takes that has ended, and that a message of the history still refers to.
const senderCost = 512

// kept is about what a message takes in the history, or in a replay.
func (m *Message) kept() int64 {
	n := m.cost() + cap(m.Data) - len(m.Data) + entryOverhead
	n += len(m.Channel) + len(m.Event) + len(m.Key) + len(m.Publisher) + len(m.Owner)
	if m.From != nil { // only with NoEcho
		n += senderCost
	}
	return int64(n)
}

// memoryFor returns what messages take in the inboxes and the history. The caller holds h.mu.
func (h *Hub) memoryFor(ms []*Message) (n int) {
	for _, m := range ms {
		for _, ch := range [...]*channel{h.channels[m.Channel], h.all} {
			if ch != nil {
				n += len(ch.audiences) * (m.cost() + entryOverhead)
			}
		}
	}
	return n
}

// keep counts a message that the history takes in, as the first who needs it. The caller holds h.mu.
func (h *Hub) keep(m *Message) {
	m.holders.Store(1)
	h.held.Add(m.kept())
}

// keepReplay has a new connection hold messages of the history. The caller holds h.mu.
func (c *Conn) keepReplay(ms []*Message) {
	for _, m := range ms {
		m.holders.Add(1)
	}
	c.prelude = &prelude{replay: ms}
	c.countPrelude()
}

// letGo drops somebody's hold on messages. With the last they are counted out.
func (h *Hub) letGo(ms []*Message) {
	for _, m := range ms {
		if m.holders.Add(-1) == 0 {
			h.held.Add(-m.kept() - int64(max(0, m.encodedBytes.Swap(encodedGone))))
		}
	}
}

// encodedGone stands in Message.encodedBytes when the message is not counted any more.
const encodedGone = -1 << 31

// countEncoded counts what a wire format keeps in a message.
func (m *Message) countEncoded(n int) {
	if m.holders.Load() == 0 {
		return // it is in inboxes, for a moment
	}
	for {
		before := m.encodedBytes.Load()
		if before < 0 {
			return
		}
		if m.encodedBytes.CompareAndSwap(before, before+int32(n)) {
			m.hub.held.Add(int64(n))
			return
		}
	}
}

// relievePause is how long there is no other attempt where one has not made room: what is being written to connections
// that are closing already goes with them.
const relievePause = 100 * time.Millisecond

// checkMemory sees to it that there is room again if there is little. Whoever adds something calls it.
func (h *Hub) checkMemory() {
	limit := h.maxMemory.Load()
	if limit > 0 && h.held.Load() > relieveAt(limit) {
		h.startRelief()
	}
}

// startRelief has makeRoom run, if it does not.
func (h *Hub) startRelief() {
	if h.relieving.CompareAndSwap(false, true) {
		go h.makeRoom()
	}
}

// makeRoom relieves until there is room, and wakes those who wait for it.
func (h *Hub) makeRoom() {
	for {
		limit := h.maxMemory.Load()
		if limit > 0 {
			h.relieve(relieveAt(limit) - limit/8) // so that it need not be done again at once
		}
		enough := limit == 0 || h.held.Load() <= relieveAt(limit)
		if enough {
			h.relieving.Store(false) // before it wakes them: who finds no room from now on has it run again
		}
		h.mu.Lock()
		h.room.Broadcast()
		h.mu.Unlock()
		if enough {
			h.checkMemory()
			return
		}
		select {
		case <-time.After(relievePause):
		case <-h.stopped:
			return
		}
	}
}

// relieve makes room: the largest backlogs go, each with its connection, which can resume; then the oldest of the
// history; then small backlogs, the largest first; then what connections still hold that are closing.
func (h *Hub) relieve(target int64) {
	h.cutLargest(target, MinBacklog, (*loop).cut)
	h.dropHistory(target)
	h.cutLargest(target, 1, (*loop).cut)
	h.cutLargest(target, 1, func(l *loop, c *Conn) { l.end(c, ReasonMemory) })
}

// trimStep is how many bytes of the history go at once: the lock is not held for long.
const trimStep = 256 << 10

// dropHistory drops the oldest messages until the target is reached.
func (h *Hub) dropHistory(target int64) {
	for {
		excess := h.held.Load() - target
		if excess <= 0 || h.history.bytes.Load() == 0 {
			return
		}
		h.mu.Lock()
		if !h.closed {
			h.trimTo(int(max(0, h.history.bytes.Load()-min(excess, trimStep))), time.Now())
		}
		closed := h.closed
		h.mu.Unlock()
		if closed {
			return
		}
	}
}

// holder is a connection and the bytes that it holds.
type holder struct {
	conn *Conn
	size int
}

// cutLargest cuts the connections that hold most, but at least so much, until the target is reached. It asks each loop
// once for what its connections hold, and once to cut some of them. As several may hold the same bytes, it does that
// again, with twice as many, while there is too much.
func (h *Hub) cutLargest(target int64, least int, cut func(*loop, *Conn)) {
	for atLeast := 1; h.held.Load() > target; atLeast *= 2 {
		holders := h.holders(least)
		if len(holders) == 0 {
			return
		}
		victims := make([][]holder, len(h.loops))
		excess := h.held.Load() - target
		for i, some := range holders {
			if excess <= 0 && i >= atLeast {
				break
			}
			excess -= int64(some.size)
			victims[some.conn.loop.id] = append(victims[some.conn.loop.id], some)
		}
		progress := false
		h.onLoops(func(l *loop) {
			for _, some := range victims[l.id] {
				if h.held.Load() <= target {
					return
				}
				if some.conn.holds() < least {
					continue // it has taken it meanwhile
				}
				cut(l, some.conn)
				progress = progress || some.conn.holds() < some.size
			}
		})
		if !progress && atLeast >= len(holders) {
			return
		}
	}
}

// holders returns who holds at least so much, largest first.
func (h *Hub) holders(least int) (all []holder) {
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			if n := c.holds(); n >= least {
				all = append(all, holder{c, n})
			}
		})
	})
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.size, a.size) })
	return all
}

// holds returns how many bytes the connection holds: all that it refers to, though others may too.
func (c *Conn) holds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.size + int(c.space)*pieceSize + c.input
	if pre := c.prelude; pre != nil {
		n += pre.counted
		for _, m := range pre.replay {
			if m.dropped.Load() { // by the history
				n += int(m.kept()) / int(max(1, m.holders.Load()))
			}
		}
	}
	return n
}

// cut closes a connection for what it holds. What cannot be taken back is small, or it is cut off.
func (l *loop) cut(c *Conn) {
	if c.state == stateOpen {
		l.closeFor(ReasonMemory, c, codeTryLater, "too slow", true)
	}
	if c.holds() >= MinBacklog {
		l.end(c, ReasonMemory)
	}
}

// Memory returns the bytes that Options.MaxMemory bounds.
func (h *Hub) Memory() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held.Load() + h.queued()
}
