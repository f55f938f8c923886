package hub

import (
	"runtime"
	"time"
)

// op is what an entry of an inbox asks for.
type op uint8

const (
	opMessage     op = iota
	opConnect        // attach the connection to its audiences
	opJoin           // attach the connection to one more audience, and send the bytes
	opLeave          // detach it from one, and send the bytes
	opTo             // deliver the message to the connection alone
	opLate           // deliver the message, or tell of a gap where it would not be in order; see late
	opGap            // tell of a gap: the audience, or, if there is none, all connections
	opSend           // send the bytes
	opReply          // send Conn.replies
	opClose          // close it
	opReplyClose     // close it with the bytes, as its peer has closed it
	opFail           // close it, and do not wait for a reply
	opEvict          // close it, because there is no room for what it would hold
	opDone           // its reader has ended
	opWriteFailed    // its flusher gave up with an error
	opFlushed        // its backlog is written, and it is closing
	opCall           // call the function
	opCloseAll       // close every connection
	opStop           // cut off what is left and end the loop
)

// entry is one thing in an inbox.
type entry struct {
	op       op
	why      Reason
	audience *audience
	message  *Message
	conn     *Conn
	bytes    []byte
	text     string
	err      error
	call     func()
}

// loop owns its connections. It alone attaches, writes to, pings and closes them, in the order of its inbox.
type loop struct {
	hub  *Hub
	id   int
	wake chan struct{}

	// Guarded by Hub.mu.
	inbox      []entry
	inboxBytes int
	taken      int // what the entries cost that were taken last, until the next are
	asleep     bool
	load       int // connections

	// The loop's own.
	entries    []entry          // what was taken from the inbox last, kept for its space
	touched    []*audience      // audiences that the current batch has messages for
	size       int              // bytes in the current batch, about
	gen        uint64           // the current batch
	emit       emitted          // the emit to several rooms that came last
	excepts    []*Emit          // those of the current batch that except channels
	sorts      bool             // the current batch has something of it, or excepts channels
	skips      bool             // some connection must not get all of the current batch
	mixed      []concerned      // connections on several channels that the current batch concerns
	picked     []*audience      // the audiences of one of them, if more than fit in concerned
	cache      encodeCache      // what the one before it got
	encoded    []byte           // the last bytes encoded, kept for their space
	delays     []*delay         // for connections whose messages wait
	ahead      map[*Conn]uint64 // those that have some of the current batch already: up to a position
	failed     []failure        // connections that could not be written in the current batch
	toFlush    []*Conn          // connections for the flushers
	rings      map[int]*ring
	delayTimer *time.Timer // wakes the loop for delays
	now        uint64      // ticks, in seconds
	closing    []*Conn     // those that have a deadline
	expiries   expiries    // of connections whose access ends
	stopped    bool

	counts                  counts
	delivered, bytes, calls uint64 // not yet added to the counts
}

// failure is a connection that could not be written to. It stays in its lists until the batch is delivered.
type failure struct {
	conn   *Conn
	result writeResult
}

// pushLocked adds an entry to the inbox. If the loop has to be woken for it, it returns the loop's bit, for Hub.wake.
func (l *loop) pushLocked(e entry) (wake uint64) {
	l.inbox = append(l.inbox, e)
	// Only the first entry of a burst has to wake the loop.
	if l.asleep {
		l.asleep = false
		return 1 << l.id
	}
	return 0
}

// run is the loop. It ends after opStop.
func (l *loop) run() {
	var ticker *time.Ticker
	var tick <-chan time.Time
	defer func() {
		if ticker != nil {
			ticker.Stop()
		}
		if l.delayTimer != nil {
			l.delayTimer.Stop()
		}
	}()
	for !l.stopped {
		if d := l.hub.coalesce.Load(); d > 0 && l.waiting() {
			// Nothing is missed meanwhile: the loop takes all that is there afterwards.
			time.Sleep(time.Duration(d))
		}
		// Let publishers run that are ready to. What they publish makes this batch larger, and it is written with the same
		// number of system calls.
		runtime.Gosched()
		entries, loaded := l.take()
		// A loop without connections does not tick, so an idle process sleeps.
		switch {
		case loaded && ticker == nil:
			ticker = time.NewTicker(time.Second)
			tick = ticker.C
		case !loaded && ticker != nil:
			ticker.Stop()
			ticker, tick = nil, nil
		}
		if entries == nil {
			select {
			case <-l.wake:
			case <-tick:
				l.tick()
				l.handOver()
			case <-l.delayed():
				l.deliverDue()
				l.addCounts()
				l.handOver()
				l.hub.checkMemory()
			}
			continue
		}
		select {
		case <-tick: // even a loop that always has work
			l.tick()
		default:
		}
		l.process(entries)
		l.addCounts()
		l.hub.checkMemory()
	}
}

// addCounts counts what was delivered. Once for many entries and not with each write, because these counters are atomic.
func (l *loop) addCounts() {
	l.counts.deliveries.Add(l.delivered)
	l.counts.written.Add(l.bytes)
	l.counts.writes.Add(l.calls)
	l.delivered, l.bytes, l.calls = 0, 0, 0
}

// waiting reports whether there is something in the inbox.
func (l *loop) waiting() bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.inboxBytes > 0
}

// take empties the inbox. If there is nothing in it, the loop counts as asleep from then on.
func (l *loop) take() (entries []entry, loaded bool) {
	// What they refer to, messages and connections, would stay in memory until the next inbox is as long.
	clear(l.entries)
	empty := spare(l.entries)
	l.entries = nil

	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.taken > 0 && h.waiting > 0 {
		h.hasSpace.Broadcast()
	}
	if l.taken = 0; len(l.inbox) == 0 {
		l.entries = empty
		// Only here, under the lock that publishers push under, so that none of them can miss that the loop has to be
		// woken.
		l.asleep = true
		return nil, l.load > 0
	}
	l.entries, l.inbox = l.inbox, empty
	l.taken, l.inboxBytes = l.inboxBytes+entryOverhead*len(l.entries), 0
	if h.waiting > 0 {
		h.hasSpace.Broadcast()
	}
	return l.entries, l.load > 0
}

// process handles entries in their order, but gathers messages until a barrier, to deliver them together.
func (l *loop) process(entries []entry) {
	for i := range entries {
		e := &entries[i]
		if e.op == opMessage {
			l.gather(e.audience, e.message)
			continue
		}
		if l.barrier(e) {
			l.deliver()
		}
		switch e.op {
		case opLate, opGap, opCloseAll, opStop:
			l.deliverAllDelayed()
		}
		l.handle(e)
	}
	l.deliver()
	l.deliverDue() // even in a loop that always has work
	l.handOver()
}

// barrier reports whether the messages gathered so far have to be delivered before an entry is handled. The invariant
// is: what changes who is in an audience, or writes to a connection, comes after the messages gathered for them. An
// entry that is not about one connection may be about any of them.
func (l *loop) barrier(e *entry) bool {
	switch {
	case e.conn == nil:
		return true
	case e.op == opJoin && e.audience.gathers():
		return true // not yet in the connection's places
	default:
		return e.conn.gathers()
	}
}

// handle does what an entry other than a message asks for.
func (l *loop) handle(e *entry) {
	c := e.conn
	switch e.op {
	case opConnect:
		l.open(c)
	case opJoin:
		l.join(c, e.audience, e.bytes)
	case opLeave:
		l.leave(c, e.audience, e.bytes)
	case opTo:
		l.deliverTo(c, e.message)
	case opLate:
		l.late(e.audience, e.message)
	case opGap:
		l.gap(e.audience, e.text)
	case opSend:
		l.send(c, e.bytes, required)
	case opReply:
		l.reply(c)
	case opClose:
		l.close(c, e.why, e.text, false)
	case opReplyClose:
		l.closeWith(c, ReasonClient, e.bytes, false)
	case opFail:
		l.fail(c, e.why, e.text)
	case opEvict:
		l.evict(c)
	case opDone:
		l.readerEnded(c)
	case opWriteFailed:
		l.writeFailed(c, e.err)
	case opFlushed:
		l.flushed(c)
	case opCall:
		e.call()
	case opCloseAll:
		l.each(func(c *Conn) { l.close(c, e.why, e.text, false) })
	case opStop:
		l.each(func(c *Conn) { l.finish(c, ReasonRestart) })
		l.stopped = true
	}
}

// flush has a flusher write a connection's backlog. Connections are handed over together, because each handover may
// wake a flusher.
func (l *loop) flush(c *Conn) {
	if l.toFlush = append(l.toFlush, c); len(l.toFlush) == cap(l.toFlush) {
		l.handOver()
	}
}

// handOver gives the connections that have to be flushed to the flushers.
func (l *loop) handOver() {
	if len(l.toFlush) > 0 {
		l.hub.flushers.flush(l.toFlush...)
		clear(l.toFlush)
		l.toFlush = l.toFlush[:0]
	}
}
