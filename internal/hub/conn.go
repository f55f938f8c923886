package hub

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrStuck is what Sink.Write returns when the peer accepted too little in time, but writing may go on after
	// what was written.
	ErrStuck = errors.New("the peer accepts no data")

	// ErrTimeout is what it returns when the peer accepted too little in time and nothing can be written any more.
	ErrTimeout = errors.New("the peer accepts no data, and what it was being sent is incomplete")
)

// Sink is the sending half of a connection.
type Sink interface {
	// TryWrite writes what can be written without waiting and returns how much that was; 0 is no error. A transport
	// that cannot write without waiting always returns 0. Only the connection's loop calls it, and never during Write.
	TryWrite(p []byte) (int, error)

	// Write writes p, and may take as long as timeout. Only the connection's flusher calls it.
	Write(p []byte, timeout time.Duration) (int, error)

	// Close ends reading and writing. It does not wait.
	Close()
}

// HalfCloser is a Sink that can end writing alone, so that the peer gets what was written and sees that there is
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

// Conn is a connection: the place it has on its loop, and its backlog.
type Conn struct {
	// What a delivery looks at comes first, on one cache line.

	// flushing says that the backlog is in use: the loop adds to it and the flusher empties it. While it is false
	// the backlog is empty and the loop writes by itself. Only the flusher, and Start, reset it.
	flushing atomic.Bool
	alive    atomic.Bool   // has shown life since the last ping
	reading  atomic.Uint32 // nothing, moving or stalled; see Unfinished
	sink     Sink          // set by Start, before flushing is reset
	skip     uint64        // the loop's own: the last batch that holds a message it must not get

	hub     *Hub
	loop    *loop
	options *ConnOptions
	id      ConnID
	user    string
	remote  string
	route   string
	network string // if the route limits the connections of one

	connected int64  // when it came, in milliseconds since 1970
	startSeq  uint64 // the log's last message before it subscribed

	mark int // the reader's own: how much of a message was there when it last moved

	// Guarded by Hub.mu.
	audiences []*audience // that count it, in the order of their channels' names
	left      bool        // it gets no more messages
	replies   [][]byte    // wait to be sent; see Reply

	// The loop's own.
	sent        uint64       // bytes handed to it
	memberships []membership // in its audiences, by the entries of the inbox that the loop has processed
	state       state
	peerDone    bool   // its reader has ended
	failing     bool   // it is not waited for an answer to the close frame; see Fail
	missed      uint8  // pings without a sign of life
	reason      Reason // why it ends; known when it is closing
	turn        int32  // in loop.mixed, of the batch gen
	gen         uint64 // the last batch that it was gathered for
	slot, pos   int32  // its place in the keep-alive ring
	deadline    uint64 // the tick at which a closing connection is cut off

	mu      sync.Mutex
	backlog backlog
	closing bool // the last piece was added
	dead    bool // nothing is written any more
	message int  // bytes that a message takes that the peer has not finished
	input   int  // all that its reader holds: that, and what waits in PublishWait
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

// Remote returns its address, as Subscriber has it.
func (c *Conn) Remote() string { return c.remote }

// ID returns the number of the connection.
func (c *Conn) ID() ConnID { return c.id }

// Since returns the sequence number after which the connection gets messages.
func (c *Conn) Since() uint64 { return c.startSeq }

// Alive notes that the peer has sent something.
func (c *Conn) Alive() {
	if !c.alive.Load() { // mostly set: do not take the cache line
		c.alive.Store(true)
	}
}

// sortReplay puts what is replayed in the order of the log: Connect does not under Hub.mu, for it may be much.
func (c *Conn) sortReplay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.backlog.replay; r != nil {
		slices.SortFunc(r.messages, bySeq)
	}
}

// Start gives the connection its transport and sends what has gathered, after first. If it returns false the connection
// was closed before it started, and the transport is the caller's to close.
func (c *Conn) Start(s Sink, first []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.sink = s
	if len(first) > 0 {
		before := c.backlog.footprint()
		if c.backlog.replay == nil {
			c.backlog.replay = new(replay)
		}
		c.backlog.replay.bytes, c.backlog.replay.space = first, cap(first)
		c.settleLocked(before)
	}
	if c.backlog.empty() {
		c.flushing.Store(false)
	} else {
		c.hub.flushers.flush(c)
	}
	return true
}

// Close says goodbye: the connection gets no more messages, and after those it was due, the close frame.
func (c *Conn) Close(why Reason, text string) {
	c.enqueueFinal(entry{op: opClose, conn: c, why: why, text: text})
}

// Fail is Close for a peer that is not understood any more, not even its answer (RFC 6455, section 7.1.7): after the
// close frame the sending side is shut, which has the peer end the connection (section 7.1.1).
func (c *Conn) Fail(why Reason, text string) {
	c.enqueueFinal(entry{op: opFail, conn: c, why: why, text: text})
}

// ReplyClose is Close for a peer that has sent a close frame. What it is sent last is p, because the reply repeats what
// the peer said (RFC 6455, section 5.5.1). The reason is ReasonClient, whatever the peer gave as its own.
func (c *Conn) ReplyClose(p []byte) {
	c.enqueueFinal(entry{op: opReplyClose, conn: c, bytes: p})
}

// Done says that the peer is gone or has said its last: a connection that is closing ends when all is written,
// any other at once. The reader calls it when it ends.
func (c *Conn) Done() {
	c.enqueueFinal(entry{op: opDone, conn: c})
}

func (c *Conn) enqueueFinal(e entry) {
	h := c.hub
	h.mu.Lock()
	rest := h.unsubscribeAllLocked(c)
	wake := c.loop.pushLocked(e)
	h.mu.Unlock()
	h.wake(wake)
	h.unsubscribeRest(rest)
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
		wake = c.loop.pushLocked(entry{op: opReply, conn: c})
		fallthrough
	default:
		c.replies = append(c.replies, p)
	}
	h.mu.Unlock()
	h.wake(wake)
}

// Send sends p, after what was published before. It waits while the loop has as much waiting as it may.
func (c *Conn) Send(p []byte) {
	h, l := c.hub, c.loop
	n := len(p) + messageOverhead
	h.mu.Lock()
	waited := c.awaitRoomLocked(n, len(p))
	l.inboxBytes += n
	wake := l.pushLocked(entry{op: opSend, conn: c, bytes: p})
	h.mu.Unlock()
	h.wake(wake)
	c.countWaiting(-waited)
}

// awaitRoomLocked waits while the loop, or all together, have too much waiting to queue n more bytes. While it waits the
// reader holds some, which are counted: it returns how many, for the caller to count out when it has queued them.
func (c *Conn) awaitRoomLocked(n, holds int) (waited int) {
	h, l := c.hub, c.loop
	for !h.closed && !c.left && (l.inboxBytes > 0 && l.inboxBytes+n > h.options.MaxInbox || !h.hasRoomLocked(n+entryOverhead)) {
		if waited == 0 {
			h.mu.Unlock()
			waited = c.reserve(waiterCost + holds)
			h.mu.Lock()
			continue // there may be room now
		}
		h.awaitRoomLocked()
	}
	return waited
}
