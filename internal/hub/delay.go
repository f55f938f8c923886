package hub

import (
	"slices"
	"time"
)

// delay is what a loop has for connections whose messages wait for the next delivery (ConnOptions.DeliverEvery). They have
// audiences of their own, whose messages stay pending over many batches, so a message costs what it costs in any audience,
// however many connections wait for it. A connection that must have its messages earlier, because something else happens
// to it that has a place in the order, is given them alone (loop.catchUp) and left out later.
type delay struct {
	every   time.Duration
	due     time.Time           // of the next delivery, if there are audiences in touched
	touched []*audience         // that have messages pending
	size    int                 // bytes pending, about
	last    uint64              // the position of the last message gathered
	ahead   map[*Conn]uint64    // connections that have all that is pending up to a position
	newest  map[conflatedIn]int // where in its audience's pending the newest message of a conflate key is
	holes   int                 // places in pending whose messages were replaced
	live    int                 // the others
	notices []func()            // come after what is pending; see loop.notify
}

// conflatedIn is what messages that replace each other have in common while they wait for an audience, whose channel may be all
// of them.
type conflatedIn struct {
	audience *audience
	conflated
}

// delayFor returns the loop's delay of a duration.
func (l *loop) delayFor(every time.Duration) *delay {
	for _, d := range l.delays { // one for each value of an option, so they are few
		if d.every == every {
			return d
		}
	}
	d := &delay{every: every, newest: make(map[conflatedIn]int)}
	l.delays = append(l.delays, d)
	return d
}

// gatherLater adds a message to what waits for the next delivery. It is delivered earlier when as much waits as is written
// at once.
func (l *loop) gatherLater(a *audience, m *Message) {
	d := l.delayFor(a.every)
	// An emit to several rooms is once for each connection, which is known for one emit at a time.
	if m.several() || m.Emit != nil && len(m.Emit.Except) > 0 {
		l.deliver()
		l.deliverDelayed(d)
		l.gatherNow(a, m)
		l.deliver()
		return
	}
	n := m.batchSize()
	if d.size > 0 && d.size+n > maxBatch {
		l.deliver()
		l.deliverDelayed(d)
	}
	if len(d.touched) == 0 {
		d.due = time.Now().Add(d.every)
		l.setDelayTimer()
	}
	if len(a.pending) == 0 {
		d.touched = append(d.touched, a)
	}
	if m.Conflate.IsSet() {
		key := conflatedIn{a, m.conflated()}
		if i, ok := d.newest[key]; ok {
			d.size -= a.pending[i].batchSize()
			a.pending[i] = nil
			d.holes++
			d.live--
		}
		d.newest[key] = len(a.pending)
	}
	a.pending = append(a.pending, m)
	d.size += n
	d.live++
	d.last = m.Seq
	if d.holes > max(d.live, maxSpareHoles) {
		d.closeHoles()
	}
}

// maxSpareHoles is how many places of replaced messages there may be though they are more than the others.
const maxSpareHoles = 1024

// closeHoles removes the places of messages that were replaced.
func (d *delay) closeHoles() {
	for _, a := range d.touched {
		all := a.pending
		a.pending = slices.DeleteFunc(a.pending, func(m *Message) bool { return m == nil })
		if len(a.pending) == len(all) {
			continue
		}
		for i, m := range a.pending {
			if m.Conflate.IsSet() {
				d.newest[conflatedIn{a, m.conflated()}] = i
			}
		}
	}
	d.holes = 0
}

// deliverDelayed delivers all that waits. The current batch must be empty.
func (l *loop) deliverDelayed(d *delay) {
	if len(d.touched) == 0 {
		return
	}
	d.closeHoles()
	// From here on it is a batch like any other, in which some connections must not get everything: deliverExcept.
	l.gen++
	for _, a := range d.touched {
		for _, m := range a.pending {
			if c := m.From; m.NoEcho && c.loop == l {
				c.skip = l.gen
				l.skips = true
			}
		}
	}
	for c := range d.ahead {
		c.skip = l.gen
		l.skips = true
	}
	l.touched, d.touched = append(l.touched, d.touched...), d.touched[:0]
	l.ahead, d.ahead = d.ahead, nil
	l.size, d.size = d.size, 0
	d.live = 0
	clear(d.newest)
	l.deliver()
	l.ahead = nil
	notices := d.notices
	d.notices = nil
	for _, notify := range notices {
		notify()
	}
}

// deliverAllDelayed delivers whatever waits, for an entry that may be about any connection.
func (l *loop) deliverAllDelayed() {
	for _, d := range l.delays {
		l.deliverDelayed(d)
	}
}

// deliverDue delivers what has waited long enough.
func (l *loop) deliverDue() {
	if len(l.delays) == 0 {
		return
	}
	now := time.Now()
	for _, d := range l.delays {
		if len(d.touched) > 0 && !now.Before(d.due) {
			l.deliverDelayed(d)
		}
	}
	l.setDelayTimer()
}

// setDelayTimer has the loop wake for the next delivery that is due.
func (l *loop) setDelayTimer() {
	var next time.Time
	for _, d := range l.delays {
		if len(d.touched) > 0 && (next.IsZero() || d.due.Before(next)) {
			next = d.due
		}
	}
	switch {
	case next.IsZero():
	case l.delayTimer == nil:
		l.delayTimer = time.NewTimer(time.Until(next))
	default:
		l.delayTimer.Reset(time.Until(next))
	}
}

// delayed returns the channel that tells that a delivery is due.
func (l *loop) delayed() <-chan time.Time {
	if l.delayTimer == nil {
		return nil
	}
	return l.delayTimer.C
}

// passOver has a new connection get nothing of what is pending, because that was published before it came.
func (l *loop) passOver(c *Conn) {
	if every := c.options.DeliverEvery; every > 0 {
		if d := l.delayFor(every); len(d.touched) > 0 {
			d.passOver(c)
		}
	}
}

// passOver notes that a connection has all that is pending.
func (d *delay) passOver(c *Conn) {
	if d.ahead == nil {
		d.ahead = make(map[*Conn]uint64)
	}
	d.ahead[c] = d.last
}

// catchUp gives a connection what waits for it, before something else that has a place in the order of its messages: it
// joins or leaves a channel, is sent a private message, or is closed. What is pending on a channel that it is about to join
// came before it, and so it counts as given too. It may close the connection.
func (l *loop) catchUp(c *Conn) {
	if c.options.DeliverEvery == 0 {
		return
	}
	d := l.delayFor(c.options.DeliverEvery)
	if len(d.touched) == 0 {
		return
	}
	var run []*Message
	for _, at := range c.memberships {
		for _, m := range at.audience.pending {
			if m != nil && m.Seq > d.ahead[c] && !m.withholds(c) {
				run = append(run, m)
			}
		}
	}
	d.passOver(c)
	if len(run) == 0 {
		return
	}
	slices.SortFunc(run, bySeq)
	var array *shared
	l.write(c, c.options.Format.Append(nil, run), false, &array, run)
	array.release()
	l.handleFailed()
}
