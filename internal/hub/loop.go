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

// entry is one thing in an inbox. It is small, because a message is copied to each loop.
type entry struct {
	op       op
	why      Reason
	cost     int32 // bytes that it counts
	audience *audience
	message  *Message
	conn     *Conn
	arg      any // what else the op needs: bytes, a text, an error, or a function
}

// bytes, text and err return the arg of ops that have such a one.
func (e *entry) bytes() []byte { p, _ := e.arg.([]byte); return p }
func (e *entry) text() string  { s, _ := e.arg.(string); return s }
func (e *entry) err() error    { err, _ := e.arg.(error); return err }

// loop owns its connections. It alone attaches, writes to, pings and closes them, in the order of its inbox.
type loop struct {
	hub  *Hub
	id   int
	bit  uint64 // 1 << id
	wake chan struct{}

	load int // connections; guarded by Hub.mu

	inbox inbox
	done  doneAmount // see inboxes

	flushers flushers // their lock is a leaf

	// The loop's own.
	spare      []entry          // space for the inbox
	conns      int              // in its rings
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
		entries, loaded := l.take(), l.conns > 0
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

// waiting reports whether there are messages on their way to the loop.
func (l *loop) waiting() bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.hub.inboxes.put[l.id].bytes > l.done.bytes.Load()
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
	l.release(entries)
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
		l.join(c, e.audience, e.bytes())
	case opLeave:
		l.leave(c, e.audience, e.bytes())
	case opTo:
		l.deliverTo(c, e.message)
	case opLate:
		l.late(e.audience, e.message)
	case opGap:
		l.gap(e.audience, e.text())
	case opSend:
		l.send(c, e.bytes(), required)
	case opReply:
		l.reply(c)
	case opClose:
		l.close(c, e.why, e.text(), false)
	case opReplyClose:
		l.closeWith(c, ReasonClient, e.bytes(), false)
	case opFail:
		l.fail(c, e.why, e.text())
	case opEvict:
		l.evict(c)
	case opDone:
		l.readerEnded(c)
	case opWriteFailed:
		l.writeFailed(c, e.err())
	case opFlushed:
		l.flushed(c)
	case opCall:
		e.arg.(func())()
	case opCloseAll:
		l.each(func(c *Conn) { l.close(c, e.why, e.text(), false) })
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

// handOver gives the connections that have to be flushed to the loop's flushers.
func (l *loop) handOver() {
	if len(l.toFlush) > 0 {
		l.flushers.flush(l.toFlush...)
		clear(l.toFlush)
		l.toFlush = l.toFlush[:0]
	}
}
