package hub

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrStuck is what Sink.Write returns when the peer accepted too little in time, but writing can continue after what
	// was written. The next Write then begins with the same bytes: the sink may have encrypted them.
	ErrStuck = errors.New("the peer accepts no data")

	// ErrTimeout is what it returns when the peer accepted too little in time and nothing more can be written.
	ErrTimeout = errors.New("the peer accepts no data, and what it was being sent is incomplete")
)

// Sink is the sending half of a connection.
type Sink interface {
	// TryWrite writes what can be written without waiting and returns how much that was; 0 is no error. A sink
	// that cannot write without waiting always returns 0. Only the connection's loop calls it, or its flusher. Never
	// during Write, nor after Close.
	TryWrite(p []byte) (int, error)

	// Write writes p, and may take as long as timeout. Only the connection's flusher calls it.
	Write(p []byte, timeout time.Duration) (int, error)

	// Close ends reading and writing. It does not wait.
	Close()
}

// HalfCloser is a Sink that can close its writing side alone, so that the peer gets what was written and sees that there
// is no more, whatever it still sends. CloseWrite does not wait.
type HalfCloser interface{ CloseWrite() }

// PromptSink is a Sink that can be told to accept no more while that many bytes are not on their way yet. What a sink has
// accepted cannot be replaced by something newer any more.
type PromptSink interface{ LimitUnsent(n int) }

// BufferedSink is a Sink that keeps what it has accepted until its peer comes for it. It counts that with Hub.Hold, and, as a
// backlog, it can cost the connection its place when memory is needed.
type BufferedSink interface {
	Sink
	Buffered() int
}

// MinBacklog is the least that ConnOptions.MaxBacklog may be, in bytes: a batch has to fit.
const MinBacklog = 64 << 10

// ConnOptions are shared by the connections of a route.
type ConnOptions struct {
	Transport    string // its name, to count by
	Next         string // its name after Conn.SwitchTransport
	Format       Format
	PingInterval time.Duration // in whole seconds, at least one
	WriteTimeout time.Duration // how long a peer may accept no data
	MaxBacklog   int           // bytes
	DropOldest   bool          // whether a full backlog drops its oldest messages, instead of closing the connection
	Conflate     bool          // whether messages in a backlog are replaced by newer ones of their conflate key
	DeliverEvery time.Duration // how long messages wait, to be written together; 0 is not at all
	OneWay       bool          // the peer sends nothing, so it replies to no ping and no close
	NoSubscribe  bool          // backends do not subscribe it to channels: it receives nothing, or everything

	Observer Observer // nil if there is none

	retired bool // guarded by Hub.mu; see Retire
}

// Observer is notified of what happens to connections. The connection's loop calls it, in the order in which it happens,
// and waits, so it must not block.
type Observer interface {
	// Subscribed reports that a connection is on one more channel, or, if the name is empty, on its first ones.
	Subscribed(c *Conn, channel string)

	// Unsubscribed reports that it leaves one, or, if the name is empty, all of them.
	Unsubscribed(c *Conn, channel string)

	// Ended reports that it has ended.
	Ended(c *Conn, why Reason)
}

// Conn is a connection: its state on its loop, and its backlog. The comments on groups of fields say who owns them.
type Conn struct {
	// What a delivery reads comes first, on one cache line.

	// flushing reports whether the backlog is in use: the loop adds to it and a flusher empties it. While it is false
	// the backlog is empty, and the loop writes to sink itself. Only the flusher, and Start, make it false.
	flushing atomic.Bool
	alive    atomic.Bool   // has shown life since the last ping
	reading  atomic.Uint32 // nothing, moving or stalled; see Unfinished
	userLen  uint16        // of who; set once
	sink     Sink          // set by Start, before flushing is reset
	skip     uint64        // the loop's own: the last batch that holds a message it must not get

	hub     *Hub
	loop    *loop
	options *ConnOptions
	id      ConnID
	who     string // the user, and behind it, so that it takes no space in others, Subscriber.Member
	remote  string
	route   string
	network string // if the route limits the connections of one

	connected int64  // when it came, in milliseconds since 1970
	startSeq  uint64 // the log's last message before it subscribed

	mark int // the reader's own: how much of a message was there when it last moved

	// Guarded by Hub.mu.
	audiences []*audience // that count it, in the order of their channels' names
	left      bool        // it gets no more messages
	inFlight  uint8       // messages that it has published to a shared log, which has not answered
	replies   [][]byte    // wait to be sent; see Reply

	// The loop's own.
	sent        uint64       // bytes handed to it
	memberships []membership // in its audiences, by the entries of the inbox that the loop has processed
	state       state
	peerDone    bool   // its reader has ended
	failing     bool   // a reply to the close frame may not be recognized; see Fail
	mayReply    bool   // but it has some time for one
	moved       bool   // it has joined or left a channel, so it may have a position that is not of those it is on
	switched    bool   // it counts as ConnOptions.Next
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
	stateClosing              // the close frame is on its way, or the reply to it
	stateClosed
)

// User returns Subscriber.User.
func (c *Conn) User() string { return c.who[:c.userLen] }

// Member returns Subscriber.Member.
func (c *Conn) Member() string { return c.who[c.userLen:] }

// Remote returns Subscriber.Remote.
func (c *Conn) Remote() string { return c.remote }

// ID returns the connection's ID as clients see it.
func (c *Conn) ID() string { return c.hub.ShowID(c.id) }

// Parting reports whether the connection is being closed, and why. Only its Observer may ask.
func (c *Conn) Parting() (why Reason, ok bool) { return c.reason, c.state == stateClosing }

// Gone reports whether the connection has ended. If it has not, its Observer will be told of the end.
func (c *Conn) Gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// Settle waits until the loop has done what was asked of the connection before. Loops must not call it.
func (c *Conn) Settle() { c.hub.onLoop(c.loop, func(*loop) {}) }

// Alive notes that the peer has sent something.
func (c *Conn) Alive() {
	if !c.alive.Load() { // mostly set: do not take the cache line
		c.alive.Store(true)
	}
}

// sortReplay puts what is replayed in the order of the log. Connect does it after it has released Hub.mu, because there
// may be much to sort.
func (c *Conn) sortReplay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.backlog.replay; r != nil {
		slices.SortFunc(r.messages, bySeq)
	}
}

// SwitchTransport has the connection count as one of ConnOptions.Next from now on, because its client has moved there.
func (c *Conn) SwitchTransport() {
	h := c.hub
	// On the loop, so that a connection that has ended is not counted any more.
	h.enqueue(c.loop, entry{op: opCall, arg: func() {
		if c.state == stateClosed || c.switched {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.transports[c.transport()]--
		c.switched = true
		h.transports[c.transport()]++
	}})
}

// transport returns the name of its transport. The loop calls it, once it knows the connection.
func (c *Conn) transport() string {
	if c.switched {
		return c.options.Next
	}
	return c.options.Transport
}

// Start gives the connection its sink, and writes first to it, and then what has been queued. If it returns false the
// connection was closed before it started, and the caller has to close the sink.
func (c *Conn) Start(s Sink, first []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.sink = s
	if p, ok := s.(PromptSink); ok && c.options.Conflate {
		p.LimitUnsent(chunkSize) // which is written at once: less would be smaller writes
	}
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
		c.loop.flushers.flush(c)
	}
	return true
}

// Close closes the connection. It gets no message that is published from now on. After those that were published before
// it gets what its Format.Close returns.
func (c *Conn) Close(why Reason, text string) {
	c.enqueueFinal(entry{op: opClose, conn: c, why: why, arg: text})
}

// Fail is Close for a peer whose reply to the close frame may not be recognized. One that broke the protocol
// (ReasonProtocol, ReasonInvalid) cannot be understood any more (RFC 6455, section 7.1.7): after the close frame the writing side is closed,
// which makes the peer end the connection (section 7.1.1). For other reasons it was stopped in the middle of a frame. It
// may send the rest and then reply, so the writing side stays open for a moment.
func (c *Conn) Fail(why Reason, text string) {
	c.enqueueFinal(entry{op: opFail, conn: c, why: why, arg: text})
}

// ReplyClose is Close for a peer that has sent a close frame. What it is sent last is p, because the reply repeats what
// the peer said (RFC 6455, section 5.5.1). The reason is ReasonClient, whatever the peer gave as its own.
func (c *Conn) ReplyClose(p []byte) {
	c.enqueueFinal(entry{op: opReplyClose, conn: c, arg: p})
}

// Done reports that the peer has disconnected or sent its close frame. A connection that is closing ends when its backlog
// is written, any other ends at once. The reader calls it when it ends.
func (c *Conn) Done() {
	c.enqueueFinal(entry{op: opDone, conn: c})
}

// enqueueFinal queues an entry that ends the connection. The connection leaves its channels under the same lock, so that
// it gets no message that is published afterwards.
func (c *Conn) enqueueFinal(e entry) {
	h := c.hub
	h.mu.Lock()
	rest := h.unsubscribeAllLocked(c)
	wake := c.loop.pushLocked(e)
	h.mu.Unlock()
	h.wake(wake)
	h.unsubscribeRest(rest)
}

// maxReplies is how many replies may wait for the loop.
const maxReplies = 16

// Reply sends p, which replies to a control frame of the peer. When maxReplies wait, p replaces the newest of them, so
// that replies cannot pile up. That is allowed for pongs (RFC 6455, section 5.5.3).
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

// Send sends p, after what was published before. It waits while the loop's inbox is full.
func (c *Conn) Send(p []byte) {
	h, l := c.hub, c.loop
	n := len(p) + messageOverhead
	h.mu.Lock()
	waited := c.awaitRoomLocked(n, len(p))
	wake := l.pushLocked(entry{op: opSend, conn: c, arg: p, cost: int32(n)})
	h.mu.Unlock()
	h.wake(wake)
	c.countWaiting(-waited)
}

// SendNow is Send for what may not wait, such as the answer of a shared log. What is sent in this way is bounded by what the
// peer may have asked for meanwhile.
func (c *Conn) SendNow(p []byte) {
	h, l := c.hub, c.loop
	h.mu.Lock()
	wake := l.pushLocked(entry{op: opSend, conn: c, arg: p, cost: int32(len(p) + messageOverhead)})
	h.mu.Unlock()
	h.wake(wake)
}

// awaitRoomLocked waits while the loop, or all together, have too much waiting to queue n more bytes. While it waits the
// reader holds some, which are counted: it returns how many, for the caller to count out when it has queued them.
func (c *Conn) awaitRoomLocked(n, holds int) (waited int) {
	h, l := c.hub, c.loop
	for !h.closed && !c.left && (!h.fitsInLocked(l.id, n) || !h.hasRoomLocked(n+entryOverhead)) {
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
