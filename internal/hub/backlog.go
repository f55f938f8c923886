package hub

import (
	"bytes"
	"sync/atomic"
	"unsafe"
)

// shared is an array that backlogs refer to. It counts in Hub.held once, however many they are.
type shared struct {
	bytes []byte
	refs  atomic.Int32
}

// sharedOverhead is about what an array costs besides its bytes.
const sharedOverhead = 64

func (s *shared) cost() int64 { return int64(cap(s.bytes)) + sharedOverhead }

// share counts p. The caller holds the first reference.
func (h *Hub) share(p []byte) *shared {
	s := &shared{bytes: p}
	s.refs.Store(1)
	h.held.Add(s.cost())
	return s
}

// unshare drops a reference. Nil is none.
func (h *Hub) unshare(s *shared) {
	if s != nil && s.refs.Add(-1) == 0 {
		h.held.Add(-s.cost())
	}
}

// piece is a part of a backlog.
type piece struct {
	bytes []byte // what is left of it
	array *shared
	kind  kind
}

// kind says what dropOldest does with a piece.
type kind uint8

const (
	droppable kind = iota // messages, and what is of no use later
	answer                // answers a request of the peer: it is kept
	gap                   // says that messages were dropped here
)

// pieceSize is what a piece takes in a backlog's array.
const pieceSize = int(unsafe.Sizeof(piece{}))

// sliceOverhead is about what a piece costs besides its bytes.
const sliceOverhead = 96

// maxAnswers bounds the answers in a backlog that drops the oldest, so that dropping does not have to pass many.
const maxAnswers = 256

// fate is what became of a write.
type fate uint8

const (
	written  fate = iota // the socket has all of it
	kept                 // the backlog refers to it
	overflow             // the backlog is full: the connection has to be closed
	crowded              // all backlogs together are: the same
	lost                 // the socket is broken
	cutOff               // like crowded, but the frame is begun and cannot be ended
)

// write hands p to the socket, or what the socket does not take to the backlog. The loop calls it. *array is what the
// backlogs may keep, made by the first that needs it and released by the caller: a copy of p, if p is only lent.
func (c *Conn) write(p []byte, lent bool, array **shared, k kind) fate {
	n := 0
	if !c.flushing.Load() {
		var err error
		if n, err = c.transport.TryWrite(p); err != nil {
			return lost
		}
		if n == len(p) {
			return written
		}
	}
	if *array == nil {
		if c.hub.crowded(len(p)) {
			if n > 0 {
				return cutOff
			}
			return crowded
		}
		if lent {
			p = bytes.Clone(p)
		}
		*array = c.hub.share(p)
	}
	return c.enqueue(*array, n, k)
}

// enqueue adds what is left of an array to the backlog, behind its first n bytes, and sees to it that there is a
// flusher. What is begun is always taken, for a frame must end.
func (c *Conn) enqueue(array *shared, n int, k kind) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing || n == len(array.bytes) {
		return written
	}
	p := piece{array.bytes[n:], array, k}
	over := c.over(len(p.bytes))
	if c.options.DropOldest {
		if over {
			c.dropOldest(len(p.bytes))
			over = k == answer && c.over(len(p.bytes)) // a message is kept, beside what stays
		}
		over = over || k == answer && c.answers >= maxAnswers
	}
	if over && n == 0 {
		return overflow
	}
	array.refs.Add(1)
	c.append(p)
	c.begun = c.begun || n > 0
	c.ensureFlusher()
	if over {
		return overflow
	}
	return kept
}

// last adds the last piece to the backlog, or writes it if nothing is in the way, and returns what became of it.
// With drop set, only what is being written is left before it.
func (c *Conn) last(p []byte, drop bool) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing {
		return kept
	}
	c.closing = true
	if drop {
		first := c.inFlight()
		c.drop(first, len(c.backlog)-first)
		if pre := c.prelude; pre != nil {
			if c.giveUpReplay(); !pre.begun {
				c.endPrelude()
			}
		}
	}
	n := 0
	if !c.flushing.Load() {
		if len(p) == 0 {
			return written
		}
		var err error
		if n, err = c.transport.TryWrite(p); err != nil {
			return lost
		}
		if n == len(p) {
			return written
		}
		c.begun = n > 0
	}
	if len(p) > 0 {
		c.append(piece{p[n:], c.hub.share(p), answer})
		c.ensureFlusher()
	}
	return kept
}

// The following need c.mu.

// over reports whether n more bytes are too many. One batch always fits, however large.
func (c *Conn) over(n int) bool {
	return len(c.backlog) > 0 && c.size+n+sliceOverhead*(len(c.backlog)+1) > c.options.MaxBacklog
}

// append adds a piece, whose reference becomes the backlog's.
func (c *Conn) append(p piece) {
	if c.backlog == nil {
		c.backlog = c.one[:0]
	}
	grows := len(c.backlog) == cap(c.backlog)
	if c.backlog = append(c.backlog, p); grows {
		c.setSpace(cap(c.backlog))
	}
	if p.kind == answer {
		c.answers++
	}
	c.add(len(p.bytes))
}

// setSpace counts the array of the backlog.
func (c *Conn) setSpace(n int) {
	c.hub.held.Add(int64(n-int(c.space)) * int64(pieceSize))
	c.space = int32(n)
}

// dropOldest makes room for n bytes, as far as it can: what is being written stays, and so do answers. In place of
// what is dropped comes the notice of it, if the format has one.
func (c *Conn) dropOldest(n int) {
	first := c.inFlight()
	excess := c.size + n + sliceOverhead*(len(c.backlog)+1) - c.options.MaxBacklog
	var stay []piece
	told := false // of the gap
	i := first
	for ; excess > 0 && i < len(c.backlog); i++ {
		p := c.backlog[i]
		if p.kind == answer || p.kind == gap && !told {
			told = told || p.kind == gap
			stay = append(stay, p)
			continue
		}
		if !told {
			told = true
			if notice, ok := c.gapNotice(); ok {
				stay = append(stay, notice)
			}
		}
		excess -= len(p.bytes) + sliceOverhead
		c.remove(p)
	}
	k := i - first - len(stay) // places that are free now
	copy(c.backlog[first+k:], stay)
	c.closeUp(first, k)
}

// gapNotice makes the piece that says that messages are missing, if the format has such a thing.
func (c *Conn) gapNotice() (piece, bool) {
	p := c.options.Format.Gap(c.channels())
	if p == nil {
		return piece{}, false
	}
	c.add(len(p))
	c.loop.counts.gaps.Add(1)
	return piece{p, c.hub.share(p), gap}, true
}

// channels returns the names of the connection's channels. The loop calls it.
func (c *Conn) channels() []string {
	names := make([]string, len(c.places))
	for i, at := range c.places {
		names[i] = at.audience.channel.name
	}
	return names
}

// drop takes k pieces out of the backlog that come after the first ones.
func (c *Conn) drop(first, k int) {
	for _, p := range c.backlog[first : first+k] {
		c.remove(p)
	}
	c.closeUp(first, k)
}

// remove counts a piece out of the backlog.
func (c *Conn) remove(p piece) {
	if p.kind == answer {
		c.answers--
	}
	c.add(-len(p.bytes))
	c.hub.unshare(p.array)
}

// closeUp moves the first pieces over k places that are free.
func (c *Conn) closeUp(first, k int) {
	copy(c.backlog[k:], c.backlog[:first])
	clear(c.backlog[:k])
	c.backlog = c.backlog[k:]
}

// add counts n more bytes in the backlog.
func (c *Conn) add(n int) {
	c.size += n
	c.hub.backlog.Add(int64(n))
}

// inFlight returns how many pieces of the backlog cannot be taken back.
func (c *Conn) inFlight() int {
	if c.begun && c.busy == 0 {
		return 1
	}
	return int(c.busy)
}

func (c *Conn) ensureFlusher() {
	if !c.flushing.Load() {
		c.flushing.Store(true)
		c.loop.flush(c)
	}
}

// kill ends the connection's writing for good and returns its transport, if it had one.
func (c *Conn) kill() Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	if c.prelude != nil {
		c.giveUpReplay()
		c.endPrelude()
	}
	c.drop(0, len(c.backlog))
	c.emptied()
	c.hold(-c.input)
	c.flushing.Store(true)
	t := c.transport
	c.transport = nil // history may still refer to the connection
	return t
}

// emptied gives the backlog's array back: a quiet connection holds no buffer.
func (c *Conn) emptied() {
	c.backlog, c.one[0], c.begun, c.busy = nil, piece{}, false, 0
	c.setSpace(0)
}
