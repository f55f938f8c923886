package hub

import (
	"cmp"
	"slices"
	"time"
)

// evictPause is the time between two attempts to make room, if the first was not enough. Meanwhile connections that are
// closing may end, and what they hold is freed.
const evictPause = 100 * time.Millisecond

// checkMemory has room made if there is little. Whoever adds something calls it.
func (h *Hub) checkMemory() {
	limit := h.maxMemory.Load()
	if limit > 0 && h.held.Load() > evictAt(limit) {
		h.startEviction()
	}
}

// startEviction has makeRoom run, if it does not run already.
func (h *Hub) startEviction() {
	if h.evicting.CompareAndSwap(false, true) {
		go h.makeRoom()
	}
}

// makeRoom evicts until there is room, and wakes those that wait for it.
func (h *Hub) makeRoom() {
	for {
		limit := h.maxMemory.Load()
		if limit > 0 {
			h.evict(evictAt(limit) - limit/8) // so that it need not be done again at once
		}
		enough := limit == 0 || h.held.Load() <= evictAt(limit)
		if enough {
			h.evicting.Store(false) // before it wakes them: whoever finds no room from now on starts it again
		}
		h.mu.Lock()
		h.hasSpace.Broadcast()
		h.mu.Unlock()
		if enough {
			h.checkMemory()
			return
		}
		select {
		case <-time.After(evictPause):
		case <-h.stopped:
			return
		}
	}
}

// evict makes room, in an order that hurts least: first it closes the connections with the largest backlogs, which can
// resume. Then it drops the oldest messages of the history, then connections with small backlogs, the largest first, and
// in the end what connections that are closing still hold.
func (h *Hub) evict(target int64) {
	h.cutLargest(target, MinBacklog, (*loop).evict)
	h.dropHistory(target)
	h.cutLargest(target, 1, (*loop).evict)
	h.cutLargest(target, 1, func(l *loop, c *Conn) { l.finish(c, ReasonMemory) })
}

// trimStep is how many bytes of the history are dropped at once, so that the lock is not held for long.
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
			h.trimToLocked(int(max(0, h.history.bytes.Load()-min(excess, trimStep))), time.Now())
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

// cutLargest cuts the connections that hold most, if they hold at least that much, until the target is reached. It asks
// each loop once what its connections hold, and once to cut some of them. Several may hold the same bytes, and then
// cutting one frees none: it repeats that, with twice as many connections, while too much is held.
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
		// Without a lock, because the loops are called one after the other (onLoops).
		progress := false
		h.onLoops(func(l *loop) {
			for _, some := range victims[l.id] {
				if h.held.Load() <= target {
					return
				}
				if some.conn.memory() < least {
					continue // its peer has accepted it meanwhile
				}
				cut(l, some.conn)
				progress = progress || some.conn.memory() < some.size
			}
		})
		if !progress && atLeast >= len(holders) {
			return
		}
	}
}

// holders returns the connections that hold at least that much, largest first.
func (h *Hub) holders(least int) (all []holder) {
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			if n := c.memory(); n >= least {
				all = append(all, holder{c, n})
			}
		})
	})
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.size, a.size) })
	return all
}

// memory returns how many bytes the connection holds: all that it refers to, even if others refer to it too.
func (c *Conn) memory() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.backlog.size + c.backlog.footprint().held + c.input
	if s, ok := c.sink.(BufferedSink); ok {
		n += s.Buffered()
	}
	if r := c.backlog.replay; r != nil {
		for _, m := range r.messages {
			n += m.memoryOfHolder()
		}
	}
	for _, p := range c.backlog.queue {
		if p.kind != listed {
			continue
		}
		for _, m := range p.array.list.messages {
			if m != nil {
				n += m.memoryOfHolder()
			}
		}
	}
	return n
}
