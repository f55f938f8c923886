package hub

import (
	"errors"
	"runtime"
	"slices"
	"time"
)

const (
	// maxBatch bounds the data that a loop joins into one write, so that one batch does not fill a backlog by itself.
	maxBatch = MinBacklog

	// maxSpare bounds the entries of an inbox, and the bytes of a joined batch, that are kept for the next.
	maxSpareEntries = 8 << 10
	maxSpareBytes   = 1 << 20
)

// op is what an entry of an inbox asks for.
type op uint8

const (
	opMessage  op = iota
	opConnect     // place the connection in its audiences
	opJoin        // place the connection in one more audience, and send the bytes
	opLeave       // take it out of one, and send the bytes
	opSend        // send the bytes
	opReply       // send Conn.replies
	opClose       // close it with a code
	opFail        // close it with a code, and do not wait for the answer
	opDone        // its reader has ended
	opFailed      // its flusher gave up with an error
	opFlushed     // its backlog is written, and it is closing
	opCall        // call the function
	opCloseAll    // close every connection with a code
	opStop        // cut off what is left and end the loop
)

// entry is one thing in an inbox.
type entry struct {
	op       op
	code     uint16
	byPeer   bool // the code answers the peer's
	audience *audience
	message  *Message
	conn     *Conn
	bytes    []byte
	text     string
	err      error
	call     func()
}

// loop owns its connections: it alone places, writes, pings and closes them, in the order of its inbox.
type loop struct {
	hub  *Hub
	id   int
	wake chan struct{}

	// Guarded by Hub.mu.
	inbox      []entry
	inboxBytes int
	taken      int // what the batch costs that was taken last
	asleep     bool
	load       int // connections

	// The loop's own.
	batch   []entry     // what was taken from the inbox, kept for its space
	touched []*audience // audiences that the current batch has messages for
	size    int         // bytes in the current batch, about
	gen     uint64      // the current batch
	skips   bool        // some connection must not get all of the current batch
	mixed   []concerned // connections on several channels that the current batch concerns
	merged  []*Message  // what one of them gets
	picked  []*audience // from which audiences, if more than fit in concerned
	last    []*audience // and what the one before it got
	joined  []byte      // the last bytes made, kept for their space
	failed  []failure   // connections that could not be written in the current batch
	toFlush []*Conn     // connections for the flushers
	rings   map[int]*ring
	now     uint64  // ticks, in seconds
	closing []*Conn // those that have a deadline
	stopped bool

	counts                  counts
	delivered, bytes, calls uint64 // not yet added to the counts
}

type failure struct {
	conn *Conn
	fate fate
}

// push adds to the inbox and returns the loop's bit if it has to be woken. The caller holds Hub.mu.
func (l *loop) push(e entry) (wake uint64) {
	l.inbox = append(l.inbox, e)
	if l.asleep {
		l.asleep = false
		return 1 << l.id
	}
	return 0
}

func (l *loop) run() {
	var ticker *time.Ticker
	var tick <-chan time.Time
	defer func() {
		if ticker != nil {
			ticker.Stop()
		}
	}()
	for !l.stopped {
		if d := l.hub.coalesce.Load(); d > 0 && l.waiting() {
			time.Sleep(time.Duration(d))
		}
		// Let the publishers run that are ready to: what they have makes this batch larger, and the write is the same.
		runtime.Gosched()
		batch, loaded := l.take()
		// A loop without connections does not tick, so an idle process sleeps.
		switch {
		case loaded && ticker == nil:
			ticker = time.NewTicker(time.Second)
			tick = ticker.C
		case !loaded && ticker != nil:
			ticker.Stop()
			ticker, tick = nil, nil
		}
		if batch == nil {
			select {
			case <-l.wake:
			case <-tick:
				l.tick()
				l.handOver()
			}
			continue
		}
		select {
		case <-tick: // even a loop that is never out of work
			l.tick()
		default:
		}
		l.process(batch)
		l.counts.deliveries.Add(l.delivered)
		l.counts.written.Add(l.bytes)
		l.counts.writes.Add(l.calls)
		l.delivered, l.bytes, l.calls = 0, 0, 0
		l.hub.checkMemory()
	}
}

// waiting says whether there are messages in the inbox.
func (l *loop) waiting() bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.inboxBytes > 0
}

// take empties the inbox. If there is nothing in it, the loop counts as asleep from then on.
func (l *loop) take() (batch []entry, loaded bool) {
	clear(l.batch)
	empty := spare(l.batch)
	l.batch = nil

	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.taken > 0 && h.waiting > 0 {
		h.room.Broadcast()
	}
	if l.taken = 0; len(l.inbox) == 0 {
		l.batch = empty
		l.asleep = true
		return nil, l.load > 0
	}
	l.batch, l.inbox = l.inbox, empty
	l.taken, l.inboxBytes = l.inboxBytes+entryOverhead*len(l.batch), 0
	if h.waiting > 0 {
		h.room.Broadcast()
	}
	return l.batch, l.load > 0
}

// process does what the entries ask, in order. Messages are gathered and delivered together, but for entries that
// change who gets them.
func (l *loop) process(batch []entry) {
	for i := range batch {
		e := &batch[i]
		if e.op == opMessage {
			l.gather(e.audience, e.message)
			continue
		}
		c := e.conn
		if c == nil || c.awaits() || e.op == opJoin && e.audience.gathers() {
			l.deliver()
		}
		switch e.op {
		case opConnect:
			l.open(c)
		case opJoin:
			l.join(c, e.audience, e.bytes)
		case opLeave:
			l.leave(c, e.audience, e.bytes)
		case opSend:
			l.send(c, e.bytes, answer)
		case opReply:
			l.reply(c)
		case opClose:
			why := reasonOf(e.code)
			if e.byPeer {
				why = ReasonClient
			}
			l.closeFor(why, c, e.code, e.text, false)
		case opFail:
			l.hangUp(c, e.code, e.text)
		case opDone:
			l.done(c)
		case opFailed:
			l.fail(c, e.err)
		case opFlushed:
			l.flushed(c)
		case opCall:
			e.call()
		case opCloseAll:
			l.each(func(c *Conn) { l.close(c, e.code, e.text, false) })
		case opStop:
			l.each(func(c *Conn) { l.end(c, ReasonRestart) })
			l.stopped = true
		}
	}
	l.deliver()
	l.handOver()
}

// flush has a connection flushed, together with others.
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

// awaits says whether the gathered batch concerns the connection.
func (c *Conn) awaits() bool {
	if len(c.loop.touched) == 0 {
		return false
	}
	for _, p := range c.places {
		if p.audience.gathers() {
			return true
		}
	}
	return false
}

// gathers says whether there is something for the audience in the gathered batch.
func (a *audience) gathers() bool { return len(a.batch) > 0 }

// gather adds a message to the current batch.
func (l *loop) gather(a *audience, m *Message) {
	n := m.batchSize()
	if l.size > 0 && l.size+n > maxBatch {
		l.deliver()
	}
	if len(l.touched) == 0 {
		l.gen++
	}
	if len(a.batch) == 0 {
		l.touched = append(l.touched, a)
	}
	a.batch = append(a.batch, m)
	l.size += n
	if c := m.From; m.NoEcho && c.loop == l {
		c.skip = l.gen
		l.skips = true
	}
}

// deliver writes the current batch: to each connection it concerns, once.
func (l *loop) deliver() {
	if len(l.touched) == 0 {
		return
	}
	for _, a := range l.touched {
		for i := range a.groups {
			l.deliverGroup(&a.groups[i], a.batch)
		}
		for _, m := range a.mixed {
			c := m.conn
			if c.gen != l.gen {
				c.gen, c.turn = l.gen, int32(len(l.mixed))
				l.mixed = append(l.mixed, concerned{conn: c})
			}
			l.mixed[c.turn].add(a)
		}
	}
	if len(l.mixed) > 0 {
		l.deliverMixed()
	}

	now := time.Now()
	for _, a := range l.touched {
		l.counts.took(a.batch, now)
		clear(a.batch)
		if a.batch = a.batch[:0]; cap(a.batch) > 64 {
			a.batch = nil
		}
	}
	clear(l.touched)
	l.touched = l.touched[:0]
	l.size, l.skips = 0, false
	for _, f := range l.failed {
		l.failedWith(f.conn, f.fate)
	}
	clear(l.failed)
	l.failed = l.failed[:0]
}

// deliverGroup writes a run to connections that are on its channel alone.
func (l *loop) deliverGroup(g *group, run []*Message) {
	p := g.format.Append(l.joined[:0], run)
	var array *shared
	for _, c := range g.conns {
		if l.skips && c.skip == l.gen {
			l.deliverExcept(c, run)
			continue
		}
		l.write(c, p, true, &array, len(run))
	}
	l.hub.unshare(array)
	l.reuse(p)
}

// concerned is a connection on several channels and those of its audiences that the current batch has messages for, as
// far as they fit: mostly there is one, and nobody has to look for it among a thousand.
type concerned struct {
	conn      *Conn
	n         int
	audiences [3]*audience
}

func (x *concerned) add(a *audience) {
	if x.n < len(x.audiences) {
		x.audiences[x.n] = a
	}
	x.n++
}

// pick returns the audiences of which a connection gets messages.
func (l *loop) pick(x *concerned) []*audience {
	if x.n <= len(x.audiences) {
		return x.audiences[:x.n]
	}
	l.picked = l.picked[:0]
	for _, at := range x.conn.places {
		if at.audience.gathers() {
			l.picked = append(l.picked, at.audience)
		}
	}
	return l.picked
}

// deliverMixed writes to connections on several channels, each of which gets the messages of its own channels, in
// the order of the log. Neighbours who get the same share the bytes.
func (l *loop) deliverMixed() {
	var p []byte
	var array *shared
	var format Format
	most := 0 // messages for one of them
	last := l.last[:0]
	for i := range l.mixed {
		c := l.mixed[i].conn
		picked := l.pick(&l.mixed[i])
		if c.options.Format != format || !slices.Equal(picked, last) {
			l.merged = l.merged[:0]
			for _, a := range picked {
				l.merged = append(l.merged, a.batch...)
			}
			most = max(most, len(l.merged))
			if len(picked) > 1 {
				slices.SortFunc(l.merged, bySeq)
			}
			format = c.options.Format
			last = append(last[:0], picked...)
			l.hub.unshare(array)
			l.reuse(p)
			p, array = format.Append(l.joined[:0], l.merged), nil
		}
		if l.skips && c.skip == l.gen {
			l.deliverExcept(c, l.merged)
			continue
		}
		l.write(c, p, true, &array, len(l.merged))
	}
	l.hub.unshare(array)
	l.reuse(p)
	clear(l.mixed)
	clear(l.merged[:most])
	clear(l.picked[:cap(l.picked)])
	clear(last[:cap(last)])
	l.mixed, l.merged, l.picked, l.last = spare(l.mixed), spare(l.merged), l.picked[:0], last[:0]
}

// spare returns the space of a list for the next one, unless it is much.
func spare[E any](list []E) []E {
	if cap(list) > maxSpareEntries {
		return nil
	}
	return list[:0]
}

// deliverExcept writes a run to a connection that must not get all of it.
func (l *loop) deliverExcept(c *Conn, run []*Message) {
	var rest []*Message
	for _, m := range run {
		if !m.NoEcho || m.From != c {
			rest = append(rest, m)
		}
	}
	if len(rest) > 0 {
		var array *shared
		l.write(c, c.options.Format.Append(nil, rest), false, &array, len(rest))
		l.hub.unshare(array)
	}
}

// reuse keeps the space of bytes that have been written.
func (l *loop) reuse(p []byte) {
	switch {
	case p == nil:
	case cap(p) > maxSpareBytes:
		l.joined = nil
	default:
		l.joined = p
	}
}

// write hands n messages to a connection; see Conn.write. A failure is dealt with after the batch, so that nobody's
// place changes meanwhile.
func (l *loop) write(c *Conn, p []byte, lent bool, array **shared, n int) {
	l.delivered += uint64(n)
	l.bytes += uint64(len(p))
	l.calls++
	c.sent += uint64(len(p))
	if f := c.write(p, lent, array, droppable); f > kept {
		l.failed = append(l.failed, failure{c, f})
	}
}

// place is where a connection is in one of its audiences: in the list of the group, if it is its only one, or else in
// the list of the mixed.
type place struct {
	audience *audience
	index    int
}

// member is a connection in the list of the mixed, and which of its places that is. So who is moved in the list can be
// told without looking at all its places.
type member struct {
	conn  *Conn
	place int
}

// open takes a new connection in. Connect has given it its places.
func (l *loop) open(c *Conn) {
	c.state = stateOpen
	for i := range c.places {
		c.enter(i)
	}
	l.ring(c).add(c, l.now)
	if o := c.options.Observer; o != nil && len(c.places) > 0 {
		o.Subscribed(c, "")
	}
}

// join places a connection in one more audience, which starts with p.
func (l *loop) join(c *Conn, a *audience, p []byte) {
	if c.state != stateOpen {
		return
	}
	if len(c.places) == 1 {
		c.quit(0) // it moves from its group
	}
	c.places = append(c.places, place{audience: a})
	if len(c.places) == 2 {
		c.enter(0)
	}
	c.enter(len(c.places) - 1)
	if o := c.options.Observer; o != nil {
		o.Subscribed(c, a.channel.name)
	}
	l.send(c, p, answer)
}

// leave takes a connection out of an audience, which ends with p.
func (l *loop) leave(c *Conn, a *audience, p []byte) {
	if c.state != stateOpen {
		return
	}
	if o := c.options.Observer; o != nil {
		o.Unsubscribed(c, a.channel.name)
	}
	i := slices.IndexFunc(c.places, func(at place) bool { return at.audience == a })
	c.quit(i)
	last := len(c.places) - 1
	if i < last {
		at := c.places[last]
		c.places[i] = at
		at.audience.mixed[at.index].place = i
	}
	if last == 1 { // it moves to a group
		c.quit(0)
	}
	c.places[last] = place{}
	c.places = c.places[:last]
	if last == 1 {
		c.enter(0)
	}
	l.send(c, p, answer)
}

// enter puts a connection in the list of the audience of its place i.
func (c *Conn) enter(i int) {
	at := &c.places[i]
	a := at.audience
	if len(c.places) > 1 {
		at.index = len(a.mixed)
		a.mixed = append(a.mixed, member{c, i})
		return
	}
	list := a.group(c.options.Format)
	at.index = len(*list)
	*list = append(*list, c)
}

// quit takes a connection out of the list of the audience of its place i. The last of the list comes where it was.
func (c *Conn) quit(i int) {
	at := c.places[i]
	a := at.audience
	if len(c.places) > 1 {
		last := len(a.mixed) - 1
		moved := a.mixed[last]
		a.mixed[at.index] = moved
		moved.conn.places[moved.place].index = at.index
		a.mixed[last] = member{}
		a.mixed = a.mixed[:last]
		return
	}
	list := a.group(c.options.Format)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[at.index] = moved
	moved.places[0].index = at.index
	(*list)[last] = nil
	*list = (*list)[:last]
}

// group returns the list of the connections with a format that are on the channel alone.
func (a *audience) group(f Format) *[]*Conn {
	for i := range a.groups {
		if a.groups[i].format == f {
			return &a.groups[i].conns
		}
	}
	a.groups = append(a.groups, group{format: f})
	return &a.groups[len(a.groups)-1].conns
}

// reply sends what Conn.Reply was given.
func (l *loop) reply(c *Conn) {
	l.hub.mu.Lock()
	replies := c.replies
	c.replies = nil
	l.hub.mu.Unlock()
	if len(replies) == 1 {
		l.send(c, replies[0], droppable)
	} else {
		l.send(c, slices.Concat(replies...), droppable)
	}
}

// send writes what is no message to an open connection. It is not called while a batch is being delivered.
func (l *loop) send(c *Conn, p []byte, k kind) {
	if c.state != stateOpen || len(p) == 0 {
		return
	}
	var array *shared
	f := c.write(p, false, &array, k)
	l.hub.unshare(array)
	l.failedWith(c, f)
}

// failedWith ends a connection for what became of a write.
func (l *loop) failedWith(c *Conn, f fate) {
	switch f {
	case overflow:
		l.close(c, codeTryLater, "too slow", true)
	case crowded:
		l.closeFor(ReasonMemory, c, codeTryLater, "too slow", true)
	case lost:
		l.end(c, ReasonLost)
	case cutOff:
		l.end(c, ReasonMemory)
	}
}

// close takes an open connection out of its channels and sends the close frame: after all that is due, or with drop
// after what is being written alone.
func (l *loop) close(c *Conn, code uint16, text string, drop bool) {
	l.closeFor(reasonOf(code), c, code, text, drop)
}

func (l *loop) closeFor(why Reason, c *Conn, code uint16, text string, drop bool) {
	if c.state != stateOpen {
		return
	}
	c.state = stateClosing
	c.reason = why
	l.depart(c)

	c.deadline = l.now + seconds(c.options.WriteTimeout) + 1
	l.closing = append(l.closing, c)
	p := c.options.Format.Close(code, text)
	if c.options.OneWay {
		c.peerDone = true // there is no answer to wait for
	}
	switch c.last(p, drop) {
	case written:
		l.flushed(c)
	case lost:
		l.end(c, ReasonLost)
	}
}

// done ends a connection whose peer is gone; one that is closing may write its last first.
func (l *loop) done(c *Conn) {
	c.peerDone = true
	switch c.state {
	case stateOpen:
		l.end(c, ReasonClient)
	case stateClosing:
		if !c.flushing.Load() {
			l.end(c, c.reason)
		}
	}
}

// maxLinger is how many seconds the peer has to end a connection of which we have shut our side.
const maxLinger = 3

// hangUp closes a connection for Conn.Fail.
func (l *loop) hangUp(c *Conn, code uint16, text string) {
	c.failing = true
	switch {
	case c.state == stateOpen:
		l.close(c, code, text, false)
	case !c.flushing.Load(): // it was closing already
		l.flushed(c)
	}
}

// flushed ends a closing connection whose peer has answered; else it waits for the answer, or that the peer ends the
// connection, or the deadline.
func (l *loop) flushed(c *Conn) {
	if c.state != stateClosing {
		return
	}
	half, canHalf := c.transport.(HalfCloser)
	switch {
	case c.failing && canHalf && !c.peerDone:
		half.CloseWrite()
		c.deadline = min(c.deadline, l.now+maxLinger)
	case c.failing, c.peerDone:
		l.end(c, c.reason)
	}
}

// fail deals with a flusher that gave up: if only because the peer is stuck, the connection is closed as too slow and
// what it was being sent is tried once more, for the close frame must come after it.
func (l *loop) fail(c *Conn, err error) {
	if c.state == stateOpen && errors.Is(err, ErrStuck) {
		l.close(c, codeTryLater, "too slow", true)
		c.resume()
		return
	}
	l.end(c, reasonFor(err))
}

// end cuts a connection off and forgets it. If it is closing already, that is why.
func (l *loop) end(c *Conn, why Reason) {
	if c.state == stateClosed {
		return
	}
	if c.state == stateClosing {
		why = c.reason
	}
	l.counts.closed[why].Add(1)
	c.state = stateClosed
	l.depart(c)
	l.ring(c).remove(c)
	if t := c.kill(); t != nil {
		t.Close()
	}
	l.hub.forget(c)
	if o := c.options.Observer; o != nil {
		o.Ended(c, why)
	}
}

// depart takes a connection out of its channels for good.
func (l *loop) depart(c *Conn) {
	if o := c.options.Observer; o != nil && len(c.places) > 0 {
		o.Unsubscribed(c, "")
	}
	l.hub.depart(c)
	for i := range c.places {
		c.quit(i)
	}
	c.places = nil
}
