package hub

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// An entry goes to its loops in two steps, so that what is done under Hub.mu hardly grows with the loops:
//
//	under Hub.mu                          after Hub.mu was released
//	pushLocked ──► outbox: each entry once, ──► Hub.wake: one goroutine at a time ──┬─► inbox of loop 0
//	               in the order of the log      empties the outbox, piece by piece  └─► inbox of loop 1
//
// Whoever comes while a goroutine hands out leaves its entries to that one. The more there is to do, the more of it is so done
// with one turn at each inbox.

const (
	// outboxChunk is how many entries the outbox has in one piece. It bounds what making room for more costs under Hub.mu.
	outboxChunk = 1024

	// maxRounds is how many pieces a goroutine hands out. Then another one goes on, so that no publisher is kept for long
	// by the messages of others.
	maxRounds = 16
)

// addressed is an entry in the outbox, and who gets it.
type addressed struct {
	loops     uint64      // bits of those that it is for
	audiences []*audience // of a message: one on each of these loops, in their order
	entry     entry
}

// outbox has what was pushed and not handed out. Its lock is taken for moments, under Hub.mu or alone. Loops may get an entry while
// whoever has pushed it still holds Hub.mu, so what they read of it without that lock is set before.
type outbox struct {
	mu      sync.Mutex
	entries []addressed   // the newest
	full    [][]addressed // those before them, if there are many
	busy    bool          // a goroutine hands out, and looks here again before it stops
	spare   []addressed   // space for entries
}

// inbox is what a loop will take. The loop and whoever hands out share it.
type inbox struct {
	mu      sync.Mutex
	entries []entry
	asleep  bool // the loop has found nothing, and has to be woken
}

// amount is how many entries, and the bytes that they count.
type amount struct{ bytes, entries int64 }

// inboxes count what is on its way to each loop. Hub.mu guards all of it. Loops do not take that lock to count: they do it in
// loop.done, which is read here only where there seems to be no room.
type inboxes struct {
	put  [maxLoops]amount // for each loop, all that was ever pushed
	done [maxLoops]amount // what the loop was done with, when somebody last looked
}

// pushLocked queues an entry for the loop. It returns the loop's bit, for Hub.wake.
func (l *loop) pushLocked(e entry) (wake uint64) {
	h := l.hub
	put := &h.inboxes.put[l.id]
	put.bytes += int64(e.cost)
	put.entries++
	h.outbox.push(addressed{loops: l.bit, entry: e})
	return l.bit
}

// pushToLocked queues a message for audiences of a channel. It returns the bits of their loops, for Hub.wake.
func (h *Hub) pushToLocked(s *spread, m *Message) (wake uint64) {
	cost := m.cost()
	for rest := s.loops; rest != 0; rest &= rest - 1 {
		put := &h.inboxes.put[bits.TrailingZeros64(rest)]
		put.bytes += int64(cost)
		put.entries++
	}
	h.outbox.push(addressed{s.loops, s.audiences, entry{op: opMessage, message: m, cost: int32(cost)}})
	return s.loops
}

// push adds an entry. The caller holds Hub.mu, which gives the entries their order.
func (o *outbox) push(e addressed) {
	o.mu.Lock()
	if n := len(o.entries); n >= outboxChunk && n == cap(o.entries) {
		o.full = append(o.full, o.entries)
		o.entries, o.spare = o.spare, nil
	}
	o.entries = append(o.entries, e)
	o.mu.Unlock()
}

// wake hands out what is in the outbox, if some loops get something, and wakes them. It is called without Hub.mu, because it
// may cost system calls.
func (h *Hub) wake(loops uint64) {
	if loops == 0 {
		return
	}
	o := &h.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.busy {
		o.busy = true
		o.handOutLocked(h.loops)
	}
}

// handOutLocked hands out until there is nothing more, or another goroutine goes on. The caller has set busy. The lock is
// released meanwhile.
func (o *outbox) handOutLocked(loops []*loop) {
	for range maxRounds {
		entries := o.nextLocked()
		if len(entries) == 0 {
			o.busy = false
			return
		}
		o.mu.Unlock()
		handOut(loops, entries)
		clear(entries) // what it refers to would stay in memory
		o.mu.Lock()
		o.spare = entries[:0]
	}
	go func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.handOutLocked(loops)
	}()
}

// nextLocked takes the oldest piece out. It is one, however many there are, because more are pushed while they are handed out: each
// turn at all of them would take longer than the one before.
func (o *outbox) nextLocked() (entries []addressed) {
	if len(o.full) == 0 {
		entries, o.entries, o.spare = o.entries, o.spare, nil
		return entries
	}
	entries, o.full[0] = o.full[0], nil
	if o.full = o.full[1:]; len(o.full) == 0 {
		o.full = nil
	}
	return entries
}

// handOut puts entries in the inboxes that they are for. Each inbox is locked once, however many there are.
func handOut(loops []*loop, entries []addressed) {
	var all uint64
	for i := range entries {
		all |= entries[i].loops
	}
	for ; all != 0; all &= all - 1 {
		loops[bits.TrailingZeros64(all)].accept(entries)
	}
}

// accept adds to the inbox what is for the loop, and wakes it.
func (l *loop) accept(entries []addressed) {
	in := &l.inbox
	in.mu.Lock()
	for i := range entries {
		a := &entries[i]
		if a.loops&l.bit == 0 {
			continue
		}
		in.entries = append(in.entries, a.entry)
		if a.audiences != nil {
			in.entries[len(in.entries)-1].audience = a.audiences[bits.OnesCount64(a.loops&(l.bit-1))]
		}
	}
	asleep := in.asleep
	in.asleep = false
	in.mu.Unlock()
	if asleep { // only the first of a burst has to wake it
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// take empties the inbox. If there is nothing in it, the loop counts as asleep from then on.
func (l *loop) take() []entry {
	in := &l.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.entries) == 0 {
		// Only here, under the lock that entries are added under, so that it cannot be missed that the loop has to be woken.
		in.asleep = true
		return nil
	}
	taken := in.entries
	in.entries, l.spare = l.spare, nil
	return taken
}

// release counts out entries that the loop is done with, and notifies those that wait for room.
func (l *loop) release(taken []entry) {
	bytes := int64(0)
	for i := range taken {
		bytes += int64(taken[i].cost)
	}
	// What they refer to, messages and connections, would stay in memory until the next inbox is as long.
	clear(taken)
	l.spare = spare(taken)
	l.done.bytes.Add(bytes)
	l.done.entries.Add(int64(len(taken)))
	h := l.hub
	if h.waiting.Load() > 0 { // after the counting: see awaitRoomLocked
		h.mu.Lock()
		h.hasSpace.Broadcast()
		h.mu.Unlock()
	}
}

// fitsInLocked reports whether the inbox of a loop has room for n bytes. If nothing is in it, it always has, so that a message
// larger than the limit can be delivered.
func (h *Hub) fitsInLocked(loop, n int) bool {
	in := &h.inboxes
	fits := func() bool {
		queued := in.put[loop].bytes - in.done[loop].bytes
		return queued == 0 || queued+int64(n) <= int64(h.config.MaxInbox)
	}
	if fits() {
		return true
	}
	in.done[loop] = h.loops[loop].done.load()
	return fits()
}

// fitLocked is fitsInLocked for several loops.
func (h *Hub) fitLocked(loops uint64, n int) bool {
	for ; loops != 0; loops &= loops - 1 {
		if !h.fitsInLocked(bits.TrailingZeros64(loops), n) {
			return false
		}
	}
	return true
}

// queuedLocked returns the bytes that are on their way to loops, or are about to be, or that loops are at work on.
func (h *Hub) queuedLocked() int64 {
	n := int64(h.promised)
	for i, l := range h.loops {
		put, done := h.inboxes.put[i], l.done.load()
		n += put.bytes - done.bytes + entryOverhead*(put.entries-done.entries)
		h.inboxes.done[i] = done
	}
	return n
}

// movedLocked reports whether a loop has made room since somebody last looked.
func (h *Hub) movedLocked() (moved bool) {
	for i, l := range h.loops {
		if done := l.done.load(); done != h.inboxes.done[i] {
			h.inboxes.done[i], moved = done, true
		}
	}
	return moved
}

// doneAmount is the amount that a loop is done with. Only the loop adds to it.
type doneAmount struct{ bytes, entries atomic.Int64 }

// load returns the amount. What was counted meanwhile may be in one of the two only, so that for a moment more seems queued
// than is.
func (t *doneAmount) load() amount { return amount{t.bytes.Load(), t.entries.Load()} }
