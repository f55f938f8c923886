package hub

import (
	"container/heap"
	"time"
)

// expiredText is the text of the close frame when a connection's access has ended.
const expiredText = "access has expired"

// expiry is when the access of a connection ends.
type expiry struct {
	at    time.Time
	conn  *Conn
	index int // in expiries.heap
}

// expiries are those of a loop's connections. A heap beside the connections, and not a field or a timer of each, so that
// connections whose access does not end cost nothing, and a tick at which none ends looks at one.
type expiries struct {
	heap expiryHeap
	of   map[*Conn]*expiry // so that a connection that ends before takes its expiry with it
}

// add notes when the access of a connection ends.
func (x *expiries) add(c *Conn, at time.Time) {
	if x.of == nil {
		x.of = make(map[*Conn]*expiry)
	}
	// Without the monotonic clock: tokens are dated by the wall clock, also after the machine has slept.
	e := &expiry{at: at.Round(0), conn: c}
	x.of[c] = e
	heap.Push(&x.heap, e)
}

// remove forgets a connection.
func (x *expiries) remove(c *Conn) {
	if e := x.of[c]; e != nil {
		delete(x.of, c)
		heap.Remove(&x.heap, e.index)
	}
}

// next removes and returns a connection whose access has ended, or nil.
func (x *expiries) next(now time.Time) *Conn {
	if len(x.heap) == 0 || x.heap[0].at.After(now) {
		return nil
	}
	c := x.heap[0].conn
	x.remove(c)
	return c
}

// maxExpired is how many connections are closed before messages have their turn again. Each is a system call, so without
// a limit messages would wait for all of them, when all tokens end at midnight.
const maxExpired = 256

// closeExpired closes the connections whose access has ended, which may have been up to a tick ago. What was published before it
// is still written, as when anything else closes them.
func (l *loop) closeExpired() {
	if len(l.expiries.heap) == 0 {
		return // the clock is read only where somebody needs it
	}
	now := time.Now().Round(0)
	for range maxExpired {
		c := l.expiries.next(now)
		if c == nil {
			return
		}
		l.close(c, ReasonExpired, expiredText, false)
	}
	l.hub.enqueue(l, entry{op: opCall, arg: l.closeExpired}) // after what has come meanwhile
}

// expiryHeap implements heap.Interface: the earliest is first.
type expiryHeap []*expiry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *expiryHeap) Push(x any) {
	e := x.(*expiry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil // the array outlives it
	*h = (*h)[:last]
	return e
}

// expire notes when the access of the connection ends. Only its loop calls it.
func (c *Conn) expire(at time.Time) {
	if c.state == stateOpen {
		c.loop.expiries.add(c, at)
	}
}
