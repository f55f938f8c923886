package hub

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrStuck is what Transport.Write returns when the peer accepted too little in time, but writing may go on after
	// what was written.
	ErrStuck = errors.New("the peer accepts no data")

	// ErrTimeout is what it returns when the peer accepted too little in time and nothing can be written any more.
	ErrTimeout = errors.New("the peer accepts no data, and what it was being sent is incomplete")
)

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
	alive     atomic.Bool   // has shown life since the last ping
	reading   atomic.Uint32 // nothing, moving or stalled; see Unfinished
	transport Transport     // set by Start, before flushing is reset
	skip      uint64        // the loop's own: the last batch that holds a message it must not get

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

	mark int // the reader's own: how much of a message was there when it last moved

	// Guarded by Hub.mu.
	audiences []*audience // that count it, in the order of their channels' names
	left      bool        // it gets no more messages
	replies   [][]byte    // wait to be sent; see Reply

	// The loop's own.
	sent      uint64  // bytes handed to it
	places    []place // in its audiences, by the entries of the inbox that the loop has processed
	state     state
	peerDone  bool   // its reader has ended
	failing   bool   // it is not waited for an answer to the close frame; see Fail
	missed    uint8  // pings without a sign of life
	reason    Reason // why it ends; known when it is closing
	turn      int32  // in loop.mixed, of the batch gen
	gen       uint64 // the last batch that it was gathered for
	slot, pos int32  // its place in the keep-alive ring
	deadline  uint64 // the tick at which a closing connection is cut off

	mu      sync.Mutex
	prelude *prelude // what is written before the backlog, if there is something
	backlog []piece  // not yet written, oldest first
	one     [1]piece // backlog's space when it is short, as on TLS it always is
	size    int      // bytes in backlog
	space   int32    // pieces that backlog's array has room for, unless that is one
	answers int32    // pieces that dropOldest keeps
	busy    int32    // how many of backlog's pieces the flusher is writing
	begun   bool     // part of the first piece is written already
	closing bool     // the last piece was added
	dead    bool     // nothing is written any more
	message int      // bytes that a message takes that the peer has not finished
	input   int      // all that its reader holds: that, and what waits in PublishWait
}

// prelude is what a connection starts with: its first bytes, and messages of the history, which the flusher encodes
// when it comes to them. Conn.mu guards it.
type prelude struct {
	bytes   []byte
	begun   bool // some of bytes is written, or being written
	replay  []*Message
	counted int // what of bytes, and of replay's array, counts in Hub.held
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

// sortReplay puts what is replayed in the order of the log: Connect does not under Hub.mu, for it may be much.
func (c *Conn) sortReplay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prelude != nil {
		slices.SortFunc(c.prelude.replay, bySeq)
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

// Answer is Close for a peer that has sent a close frame: the code is the peer's own, and is sent back.
func (c *Conn) Answer(code uint16) {
	c.postLeave(entry{op: opClose, conn: c, code: code, byPeer: true})
}

// Done says that the peer is gone or has said its last: a connection that is closing ends when all is written,
// any other at once. The reader calls it when it ends.
func (c *Conn) Done() {
	c.postLeave(entry{op: opDone, conn: c})
}

func (c *Conn) postLeave(e entry) {
	h := c.hub
	h.mu.Lock()
	rest := h.leave(c)
	wake := c.loop.push(e)
	h.mu.Unlock()
	h.wake(wake)
	h.partAll(rest)
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
