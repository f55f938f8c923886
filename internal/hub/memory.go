package hub

import (
	"cmp"
	"slices"
	"time"
)

// memory returns the bytes of all backlogs and the history.
func (h *Hub) memory() int64 { return h.backlog.Load() + h.history.bytes.Load() }

// relievePause is how long there is no other attempt where one has not made room: what is being written to connections
// that are closing already goes with them.
const relievePause = 100 * time.Millisecond

// checkMemory sees to it that there is room again if there is none. Loops and publishers call it after they have
// added something.
func (h *Hub) checkMemory() {
	if n := h.maxMemory.Load(); n > 0 && h.memory() > n && h.relieving.CompareAndSwap(false, true) {
		go func() {
			h.relieve(n - n/8) // so that it need not be done again at once
			if h.memory() > n {
				time.Sleep(relievePause)
			}
			h.relieving.Store(false)
		}()
	}
}

// relieve makes room: the largest backlogs go, each with its connection, which can resume; then the oldest of the
// history; then small backlogs, the largest first.
func (h *Hub) relieve(target int64) {
	h.cutLargest(target, MinBacklog)
	h.trimAll(int(max(0, target-h.backlog.Load())))
	h.cutLargest(target, 1)
}

// cutLargest closes the connections with the largest backlogs, but not those below a size, until the target is reached.
func (h *Hub) cutLargest(target int64, least int) {
	if h.memory() <= target {
		return
	}
	type holder struct {
		conn *Conn
		size int
	}
	var holders []holder
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			if n := c.holds(); n >= least {
				holders = append(holders, holder{c, n})
			}
		})
	})
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.size, a.size) })
	for _, some := range holders {
		if h.memory() <= target {
			return
		}
		h.onLoop(some.conn.loop, func(l *loop) { l.cut(some.conn, least) })
	}
}

// holds returns how many bytes wait for the connection.
func (c *Conn) holds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.size
	if c.prelude != nil {
		n += len(c.prelude.bytes)
	}
	return n
}

// cut closes a connection for its backlog: what cannot be taken back is small, or it is cut off.
func (l *loop) cut(c *Conn, least int) {
	if c.holds() < least {
		return // it has taken it meanwhile
	}
	if c.state == stateOpen {
		l.closeFor(ReasonMemory, c, codeTryLater, "too slow", true)
	}
	if c.holds() >= MinBacklog {
		l.end(c, ReasonMemory)
	}
}
