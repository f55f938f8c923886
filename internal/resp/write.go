package resp

import "time"

const (
	// maxHeld is how many answers of a connection may be held back. Beyond it the connection is not read, and TCP holds the
	// client back. With a broker that answers after a millisecond these are a million publications a second.
	maxHeld = 1024

	// maxSubscriber is how many bytes may wait for a subscriber before it is cut off. One message may be longer.
	maxSubscriber = 1 << 20
)

// held is an answer that is held back.
type held struct {
	done  bool
	n     int    // what the answer is; before that, the server's own subscribers
	after []byte // answers that come after it, up to the next that is held back
}

// Held is an answer that Hold holds back.
type Held struct {
	c      *Conn
	number uint64
}

// Hold holds the answer to the next publication, of those that Publish was called with, back until Held.Answer is called. Answers
// to later commands wait for it, because clients know which answer is whose by their order. It is for the goroutine, and the
// time, of the call of Publish.
func (c *Conn) Hold() Held {
	c.startWriter()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queueLocked(c.replies)
	c.replies = c.replies[:0]
	c.held = append(c.held, held{n: c.reached[c.answered]})
	c.answered++
	return Held{c, c.first + uint64(len(c.held)-c.head-1)}
}

// Answer gives the answer: how many subscribers got the message. It does not block, and any goroutine may call it, also before
// Publish returns. Only the first call counts.
func (h Held) Answer(subscribers int) {
	c := h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	i := h.number - c.first // it wraps to a large number if the answer is gone
	if i >= uint64(len(c.held)-c.head) {
		return
	}
	a := &c.held[c.head+int(i)]
	if a.done {
		return
	}
	a.done = true
	a.n += subscribers
	if i == 0 {
		c.releaseLocked()
	}
}

// releaseLocked moves the answers that are there, and for which no other has to come first, to what can be written.
func (c *Conn) releaseLocked() {
	for c.head < len(c.held) && c.held[c.head].done {
		a := &c.held[c.head]
		before := len(c.ready)
		c.ready = append(appendInt(c.ready, a.n), a.after...)
		c.waiting += len(c.ready) - before - len(a.after)
		a.after = nil
		c.head++
		c.first++
	}
	// The rest moves when it is the smaller part, so that each answer moves about once.
	if rest := len(c.held) - c.head; rest <= c.head {
		copy(c.held, c.held[c.head:])
		clear(c.held[rest:])
		c.held, c.head = c.held[:rest], 0
	}
	c.more.Signal()
	c.less.Signal()
}

// queueLocked puts bytes behind all that is waiting.
func (c *Conn) queueLocked(b []byte) {
	if len(b) == 0 || c.broken {
		return
	}
	tail := &c.ready
	if n := len(c.held); n > c.head {
		tail = &c.held[n-1].after
	}
	*tail = append(*tail, b...)
	c.waiting += len(b)
	c.more.Signal()
}

// flush has the answers of the reader written. Without a writer the reader does it.
func (c *Conn) flush() {
	if len(c.replies) == 0 {
		return
	}
	if c.async {
		c.mu.Lock()
		c.queueLocked(c.replies)
		c.mu.Unlock()
	} else if _, err := c.socket.Write(c.replies); err != nil {
		c.quit = true
	}
	if c.replies = c.replies[:0]; cap(c.replies) > 2*maxReplies {
		c.replies = nil
	}
}

// awaitRoom waits until no more is waiting than may be, and reports whether the connection still works.
func (c *Conn) awaitRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.broken && (len(c.held)-c.head >= maxHeld || c.waiting >= maxReplies) {
		c.less.Wait()
	}
	return !c.broken
}

// push puts a message in line for a subscriber, or cuts it off if it has too much waiting.
func (c *Conn) push(message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting > 0 && c.waiting+len(message) > maxSubscriber {
		c.cutLocked()
		return
	}
	c.queueLocked(message)
}

// startWriter starts the goroutine that writes from now on.
func (c *Conn) startWriter() {
	if !c.async {
		c.async = true
		c.written = make(chan struct{})
		go c.write()
	}
}

// write writes what is ready, until the connection ends.
func (c *Conn) write() {
	defer close(c.written)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.ready) == 0 && !c.broken && !(c.ended && c.head == len(c.held)) {
			c.more.Wait()
		}
		if len(c.ready) == 0 || c.broken {
			return
		}
		b := c.ready
		c.ready, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.socket.Write(b)
		c.mu.Lock()
		c.waiting -= len(b)
		if cap(b) <= 2*maxReplies {
			c.spare = b
		}
		if err != nil {
			c.cutLocked()
		}
		c.less.Signal()
	}
}

// drain waits until all answers are written, also those that are held back.
func (c *Conn) drain() {
	c.flush()
	if !c.async {
		return
	}
	c.mu.Lock()
	c.ended = true
	c.more.Signal()
	c.mu.Unlock()
	<-c.written
}

// stop ends reading, after the commands that have been read.
func (c *Conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// setDeadline sets when reading and writing fail.
func (c *Conn) setDeadline(t time.Time) {
	c.setReadDeadline(t)
	c.nc.SetWriteDeadline(t)
}

// setReadDeadline sets when reading fails, unless it has been stopped.
func (c *Conn) setReadDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped {
		c.nc.SetReadDeadline(t)
	}
}

// cut closes the connection at once.
func (c *Conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutLocked()
}

func (c *Conn) cutLocked() {
	c.broken = true
	c.first += uint64(len(c.held) - c.head)
	c.ready, c.held, c.head, c.waiting = nil, nil, 0, 0
	c.nc.Close()
	c.more.Signal()
	c.less.Signal()
}
