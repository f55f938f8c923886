package hub

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// ErrStuck is what Transport.Write returns when the peer took nothing in time, but what was written is whole and
// writing may go on.
var ErrStuck = errors.New("the peer takes nothing")

// Transport is the sending half of a connection.
type Transport interface {
	// TryWrite writes what can be written without waiting and returns how much that was; 0 is no error. A transport
	// that cannot write without waiting always returns 0. Only the connection's loop calls it, and never during Write.
	TryWrite(p []byte) (int, error)

	// Write writes p, and may take as long as timeout. Only the connection's flusher calls it.
	Write(p []byte, timeout time.Duration) (int, error)

	// Close ends reading and writing. It does not wait.
	Close()
}

// HalfCloser is a Transport that can end writing alone, so that the peer gets what was written and sees that there is
// no more, whatever it still sends. CloseWrite does not wait.
type HalfCloser interface{ CloseWrite() }

// MinBacklog is the least that ConnOptions.MaxBacklog may be, in bytes: a batch has to fit.
const MinBacklog = 64 << 10

// ConnOptions are shared by the connections of a route.
type ConnOptions struct {
	Transport    string // its name, to count by
	Format       Format
	PingInterval time.Duration // in whole seconds, at least one
	WriteTimeout time.Duration // how long a peer that takes nothing is borne
	MaxBacklog   int           // bytes
	DropOldest   bool          // what a full backlog does: drop the oldest, or close (the default)
	OneWay       bool          // the peer sends nothing: it answers no ping and no close

	Observer Observer // nil if there is none

	retired bool // guarded by Hub.mu; see Retire
}

// Observer is told what becomes of connections. The loop calls it, in the order in which it happens, and waits.
type Observer interface {
	// Subscribed says that a connection is on one more channel, or on its first ones, if the name is empty.
	Subscribed(c *Conn, channel string)

	// Unsubscribed says that it leaves one, or all.
	Unsubscribed(c *Conn, channel string)

	// Ended says that it has ended.
	Ended(c *Conn, why Reason)
}

// Close codes of RFC 6455, section 7.4, that the hub itself uses.
const (
	codeRestart  = 1012
	codeTryLater = 1013
)

// Conn is a connection: the place it has on its loop, and its backlog.
type Conn struct {
	// What a delivery looks at comes first, on one cache line.

	// flushing says that the backlog is in use: the loop adds to it and the flusher empties it. While it is false
	// the backlog is empty and the loop writes by itself. Only the flusher, and Start, reset it.
	flushing  atomic.Bool
	alive     atomic.Bool // has shown life since the last ping
	transport Transport   // set by Start, before flushing is reset
	skip      uint64      // the loop's own: the last batch that holds a message it must not get

	hub     *Hub
	loop    *loop
	options *ConnOptions
	id      uint64
	user    string
	remote  string
	route   string
	network string // if the route limits the connections of one

	connected int64  // when it came, in milliseconds since 1970
	since     uint64 // the log's last message before it subscribed

	// Guarded by Hub.mu.
	audiences []*audience // that count it
	left      bool        // no audience counts it any more
	replies   [][]byte    // wait to be sent; see Reply

	// The loop's own.
	sent      uint64  // bytes handed to it
	places    []place // in its audiences, by the entries of the inbox that the loop has processed
	state     state
	peerDone  bool   // its reader has ended
	failing   bool   // it is not waited for an answer to the close frame; see Fail
	missed    uint8  // pings without a sign of life
	reason    Reason // why it ends; known when it is closing
	gen       uint64 // the last batch that it was gathered for; see loop.mixed
	slot, pos int32  // its place in the keep-alive ring
	deadline  uint64 // the tick at which a closing connection is cut off

	mu      sync.Mutex
	prelude *prelude  // what is written before the backlog, if there is something
	backlog [][]byte  // not yet written, oldest first
	one     [1][]byte // backlog's space when it is short, as on TLS it always is
	size    int       // bytes in backlog
	gap     *byte     // the first of the last gap notice in backlog
	busy    int       // how many of backlog's slices the flusher is writing
	begun   bool      // part of the first slice is written already
	closing bool      // the last slice was added
	dead    bool      // nothing is written any more
}

// prelude is what a connection starts with: its first bytes, and messages of the history, which the flusher encodes
// when it comes to them. Conn.mu guards it.
type prelude struct {
	bytes  []byte
	begun  bool // some of bytes is written, or being written
	replay []*Message
}

// state of a connection, as its loop sees it.
type state uint8

const (
	stateNew     state = iota // its subscription is still in the inbox
	stateOpen                 // gets messages
	stateClosing              // the close frame is on its way, or its answer
	stateClosed
)

// User returns who the connection said it is, if it did.
func (c *Conn) User() string { return c.user }

// ID returns the number of the connection. No other of its hub has had it.
func (c *Conn) ID() uint64 { return c.id }

// Since returns the sequence number after which the connection gets messages.
func (c *Conn) Since() uint64 { return c.since }

// Alive notes that the peer has sent something.
func (c *Conn) Alive() {
	if !c.alive.Load() { // mostly set: do not take the cache line
		c.alive.Store(true)
	}
}

// Start gives the connection its transport and sends what has gathered, after first. If it returns false the connection
// was closed before it started, and the transport is the caller's to close.
func (c *Conn) Start(t Transport, first []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.transport = t
	if len(first) > 0 {
		if c.prelude == nil {
			c.prelude = new(prelude)
		}
		c.setPrelude(first)
	}
	if c.prelude == nil && len(c.backlog) == 0 {
		c.flushing.Store(false)
	} else {
		c.hub.flushers.flush(c)
	}
	return true
}

// Close says goodbye: the connection gets no more messages, and after those it was due, the close frame.
func (c *Conn) Close(code uint16, text string) {
	c.postLeave(entry{op: opClose, conn: c, code: code, text: text})
}

// Fail is Close for a peer that is not understood any more, not even its answer (RFC 6455, section 7.1.7): after the
// close frame the sending side is shut, which has the peer end the connection (section 7.1.1).
func (c *Conn) Fail(code uint16, text string) {
	c.postLeave(entry{op: opFail, conn: c, code: code, text: text})
}

// Done says that the peer is gone or has said its last: a connection that is closing ends when all is written,
// any other at once. The reader calls it when it ends.
func (c *Conn) Done() {
	c.postLeave(entry{op: opDone, conn: c})
}

func (c *Conn) postLeave(e entry) {
	h := c.hub
	h.mu.Lock()
	h.leave(c)
	wake := c.loop.push(e)
	h.mu.Unlock()
	h.wake(wake)
}

// maxReplies is how many replies wait for the loop at most.
const maxReplies = 16

// Reply sends p, which answers something the peer sent. Where too many wait the newest takes the place of the one before
// it, so a peer cannot heap them up.
func (c *Conn) Reply(p []byte) {
	h := c.hub
	var wake uint64
	h.mu.Lock()
	switch n := len(c.replies); n {
	case maxReplies:
		c.replies[n-1] = p
	case 0:
		wake = c.loop.push(entry{op: opReply, conn: c})
		fallthrough
	default:
		c.replies = append(c.replies, p)
	}
	h.mu.Unlock()
	h.wake(wake)
}

// fate is what became of a write.
type fate uint8

const (
	written  fate = iota // the socket has all of it
	kept                 // the backlog refers to it
	overflow             // the backlog is full: the connection has to be closed
	lost                 // the socket is broken
)

// write hands p to the socket, or what the socket does not take to the backlog. The loop calls it, and uses p again:
// *own is a copy that the backlogs may keep, made by the first that needs it.
func (c *Conn) write(p []byte, own *[]byte) fate {
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
	if *own == nil {
		*own = bytes.Clone(p)
	}
	return c.enqueue((*own)[n:], n > 0)
}

// enqueue adds p to the backlog and sees to it that there is a flusher. What is begun is always taken, for a frame
// must end.
func (c *Conn) enqueue(p []byte, begun bool) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.closing {
		return written
	}
	over := c.over(len(p))
	if over && c.options.DropOldest {
		c.dropOldest(len(p))
		over = false // the newest is kept, beside what is being written
	}
	if over && !begun {
		return overflow
	}
	c.append(p)
	c.begun = c.begun || begun
	c.ensureFlusher()
	if over {
		return overflow
	}
	return kept
}

// last adds the last slice to the backlog, or writes it if nothing is in the way, and returns what became of it.
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
		if c.prelude != nil {
			if c.prelude.replay = nil; !c.prelude.begun {
				c.setPrelude(nil)
				c.prelude = nil
			}
		}
	}
	if !c.flushing.Load() {
		if len(p) == 0 {
			return written
		}
		n, err := c.transport.TryWrite(p)
		if err != nil {
			return lost
		}
		if n == len(p) {
			return written
		}
		c.begun = n > 0
		p = p[n:]
	}
	if len(p) > 0 {
		c.append(p)
		c.ensureFlusher()
	}
	return kept
}

// The following need c.mu.

// sliceOverhead is about what a slice of the backlog costs besides its bytes.
const sliceOverhead = 64

// over says whether n more bytes are too many. One batch always fits, however large.
func (c *Conn) over(n int) bool {
	return len(c.backlog) > 0 && c.size+n+sliceOverhead*(len(c.backlog)+1) > c.options.MaxBacklog
}

func (c *Conn) append(p []byte) {
	if c.backlog == nil {
		c.backlog = c.one[:0]
	}
	c.backlog = append(c.backlog, p)
	c.add(len(p))
}

// dropOldest makes room for n bytes, as far as it can: what is being written stays. In place of what is dropped comes
// the notice of it, if the format has one.
func (c *Conn) dropOldest(n int) {
	first := c.inFlight()
	if first < len(c.backlog) && c.gap != nil && c.gap == unsafe.SliceData(c.backlog[first]) {
		first++ // what is dropped now is in the same gap
	}
	excess := c.size + n + sliceOverhead*(len(c.backlog)+1) - c.options.MaxBacklog
	k := 0
	for excess > 0 && first+k < len(c.backlog) {
		excess -= len(c.backlog[first+k]) + sliceOverhead
		k++
	}
	if k == 0 {
		return
	}
	if first == c.inFlight() {
		if p := c.options.Format.Gap(c.channels()); p != nil {
			c.add(len(p) - len(c.backlog[first]))
			c.backlog[first], c.gap = p, unsafe.SliceData(p)
			c.loop.counts.gaps.Add(1)
			first, k = first+1, k-1
		}
	}
	c.drop(first, k)
}

// channels returns the names of the connection's channels. The loop calls it.
func (c *Conn) channels() []string {
	names := make([]string, len(c.places))
	for i, at := range c.places {
		names[i] = at.audience.channel.name
	}
	return names
}

// drop takes k slices out of the backlog that come after the first ones. It costs no more than these and those.
func (c *Conn) drop(first, k int) {
	n := 0
	for _, p := range c.backlog[first : first+k] {
		n += len(p)
	}
	copy(c.backlog[k:], c.backlog[:first])
	clear(c.backlog[:k])
	c.backlog = c.backlog[k:]
	c.add(-n)
}

// add counts n more bytes in the backlog.
func (c *Conn) add(n int) {
	c.size += n
	c.hub.backlog.Add(int64(n))
}

// setPrelude sets what of the prelude is written next.
func (c *Conn) setPrelude(p []byte) {
	c.hub.backlog.Add(int64(len(p) - len(c.prelude.bytes)))
	c.prelude.bytes, c.prelude.begun = p, false
}

// inFlight returns how many slices of the backlog cannot be taken back.
func (c *Conn) inFlight() int {
	if c.begun && c.busy == 0 {
		return 1
	}
	return c.busy
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
		c.setPrelude(nil)
	}
	c.hub.backlog.Add(-int64(c.size))
	c.prelude, c.backlog, c.size, c.one[0] = nil, nil, 0, nil
	c.flushing.Store(true)
	t := c.transport
	c.transport = nil // history may still refer to the connection
	return t
}

// resume lets a flusher go on where one gave up.
func (c *Conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.hub.flushers.flush(c)
	}
}

// chunkSize is what a flusher writes at once: a TLS record at most, and what a slow peer must take within the write
// timeout. maxBusy bounds the slices in it, so that dropping others does not have to move many.
const (
	chunkSize = 16 << 10
	maxBusy   = 256
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// flush writes the prelude and the backlog until they are empty. On an error it leaves flushing set, and the rest to
// the loop.
func (c *Conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.dead && (c.prelude != nil || len(c.backlog) > 0) {
		if pre := c.prelude; pre != nil && len(pre.bytes) == 0 {
			c.nextOfReplay(pre)
			continue
		}
		p, lent := c.take()
		t := c.transport
		c.mu.Unlock()
		n, err := t.Write(p, c.options.WriteTimeout)
		if lent != nil {
			chunks.Put(lent)
		}
		c.mu.Lock()
		c.consume(n)
		if err != nil {
			if err == ErrStuck && n > 0 {
				continue // slow, but it moves
			}
			c.hub.post(c.loop, entry{op: opFailed, conn: c, err: err})
			return
		}
	}
	if c.dead {
		return
	}
	c.backlog = nil // a quiet connection holds no buffer
	c.flushing.Store(false)
	if c.closing {
		c.hub.post(c.loop, entry{op: opFlushed, conn: c})
	}
}

// nextOfReplay encodes as much of the replay as is written at once, or ends the prelude.
func (c *Conn) nextOfReplay(pre *prelude) {
	ms := pre.replay
	if len(ms) == 0 {
		c.prelude = nil
		return
	}
	n, size := 1, ms[0].size()
	for n < len(ms) && size+ms[n].size() <= chunkSize {
		size += ms[n].size()
		n++
	}
	c.mu.Unlock()
	p := c.options.Format.Append(nil, ms[:n])
	c.mu.Lock()
	if c.prelude != pre {
		return // it was given up meanwhile
	}
	if pre.replay != nil {
		pre.replay = ms[n:]
	}
	c.setPrelude(p)
	l := c.loop
	l.counts.deliveries.Add(uint64(n))
	l.counts.written.Add(uint64(len(p)))
	l.counts.writes.Add(1)
}

// take returns what to write next: a piece of the prelude, or of the backlog's first slice if that is large or alone,
// else as many as fit a chunk, joined, which is lent.
func (c *Conn) take() (p []byte, lent *[chunkSize]byte) {
	if pre := c.prelude; pre != nil {
		pre.begun = true
		return pre.bytes[:min(len(pre.bytes), chunkSize)], nil
	}
	if first := c.backlog[0]; len(c.backlog) == 1 || len(first) >= chunkSize {
		c.busy = 1
		return first[:min(len(first), chunkSize)], nil
	}
	lent = chunks.Get().(*[chunkSize]byte)
	n := 0
	c.busy = 0
	for _, p := range c.backlog[:min(len(c.backlog), maxBusy)] {
		n += copy(lent[n:], p)
		c.busy++
		if n == chunkSize {
			break
		}
	}
	return lent[:n], lent
}

// consume takes what was written off the prelude or the backlog.
func (c *Conn) consume(n int) {
	c.busy = 0
	if c.dead {
		return
	}
	c.hub.backlog.Add(-int64(n))
	if pre := c.prelude; pre != nil {
		pre.bytes = pre.bytes[n:]
		return
	}
	c.size -= n
	for n > 0 {
		first := c.backlog[0]
		if n < len(first) {
			c.backlog[0] = first[n:]
			c.begun = true
			return
		}
		n -= len(first)
		c.backlog[0] = nil
		c.backlog = c.backlog[1:]
		c.begun = false
	}
}
