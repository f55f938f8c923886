package hub

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// An entry goes to its loops in two steps, so that what is done under Hub.mu does not grow with the loops:
//
//	under Hub.mu                     after Hub.mu was released
//	pushLocked: outbox, in the order ──► Hub.wake: one goroutine at a time ──► inbox of loop 0: batch, batch
//	of the log, each entry once          takes all that is in the outbox       inbox of loop 1: batch, batch
//
// A batch is shared by all loops that it has something for, and each passes over what is for others. Whoever comes while
// another goroutine hands out leaves it to that one, which so gets more batches at a time, the more it has to do.

const (
	// batchEntries is how many entries of a batch there may be. It bounds what growing one copies under Hub.mu, and what a slow
	// loop keeps in memory that the others are done with.
	batchEntries = 64

	// maxRounds is how often a goroutine looks for more to hand out. Then another one goes on, so that no publisher is
	// kept by the messages of others.
	maxRounds = 16
)

// batch is entries that loops share. Outside of the outbox it does not change.
type batch struct {
	entries []entry
	loops   uint64       // bits of those that it has entries for
	cost    int64        // of the entries, each once
	left    atomic.Int32 // loops that are not done with it
	first   [1]entry     // the space of most batches: there is one entry, and it takes one allocation
}

// outbox has what was pushed and not handed out. Its lock is taken for moments: under Hub.mu, and without it.
type outbox struct {
	mu      sync.Mutex
	batches []*batch
	busy    bool     // a goroutine hands out, and looks here again before it stops
	spare   []*batch // space
}

// inbox is what a loop will take. Its owner is the loop, and whoever hands out adds to it.
type inbox struct {
	mu      sync.Mutex
	batches []*batch
	asleep  bool // the loop has found nothing, and has to be woken
}

// inboxes count what is on its way to each loop. Hub.mu guards all of it. Loops do not take that lock: they count in loop.done
// and Hub.freed, which are read here only where there seems to be no room.
type inboxes struct {
	put    [maxLoops]int64 // bytes that were ever put in the inbox of a loop
	done   [maxLoops]int64 // those that the loop was done with, when somebody last looked
	queued int64           // bytes that were ever queued: each entry counts once, and its overhead
	freed  int64           // those that no loop needed any more, when somebody last looked
}

// pushLocked queues an entry for the loop. It returns the loop's bit, for Hub.wake.
func (l *loop) pushLocked(e entry) (wake uint64) {
	e.loops = l.bit
	l.hub.inboxes.put[l.id] += int64(e.cost)
	l.hub.pushLocked(&e)
	return e.loops
}

// pushToLocked queues a message for the audiences of a channel, as one entry.
func (h *Hub) pushToLocked(s *spread, m *Message) (wake uint64) {
	e := entry{op: opMessage, loops: s.loops, audiences: s.audiences, message: m, cost: m.cost()}
	for rest := s.loops; rest != 0; rest &= rest - 1 {
		h.inboxes.put[bits.TrailingZeros64(rest)] += int64(e.cost)
	}
	h.pushLocked(&e)
	return e.loops
}

// pushLocked puts an entry in the outbox.
func (h *Hub) pushLocked(e *entry) {
	cost := int64(e.cost + entryOverhead)
	h.inboxes.queued += cost
	h.outbox.push(e, cost)
}

func (o *outbox) push(e *entry, cost int64) {
	o.mu.Lock()
	n := len(o.batches)
	if n == 0 || len(o.batches[n-1].entries) == batchEntries {
		b := new(batch)
		b.entries = b.first[:0]
		o.batches = append(o.batches, b)
		n++
	}
	b := o.batches[n-1]
	b.entries = append(b.entries, *e)
	b.loops |= e.loops
	b.cost += cost
	o.mu.Unlock()
}

// wake hands out what is in the outbox, if loops got something, and wakes them. It is called without Hub.mu, because it
// may cost system calls.
func (h *Hub) wake(loops uint64) {
	if loops == 0 {
		return
	}
	o := &h.outbox
	o.mu.Lock()
	if o.busy {
		o.mu.Unlock()
		return
	}
	o.busy = true
	o.handOutLocked(h.loops)
	o.mu.Unlock()
}

// handOutLocked hands out until there is nothing more, or another goroutine goes on. The caller has set busy. It releases the
// lock meanwhile.
func (o *outbox) handOutLocked(loops []*loop) {
	for range maxRounds {
		batches := o.batches
		if len(batches) == 0 {
			o.busy = false
			return
		}
		o.batches, o.spare = o.spare, nil
		o.mu.Unlock()
		var all uint64
		for _, b := range batches {
			b.left.Store(int32(bits.OnesCount64(b.loops)))
			all |= b.loops
		}
		for ; all != 0; all &= all - 1 {
			loops[bits.TrailingZeros64(all)].accept(batches)
		}
		clear(batches)
		o.mu.Lock()
		o.spare = spare(batches)
	}
	go func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.handOutLocked(loops)
	}()
}

// accept adds to the inbox those of the batches that have something for the loop, and wakes it.
func (l *loop) accept(batches []*batch) {
	in := &l.inbox
	in.mu.Lock()
	for _, b := range batches {
		if b.loops&l.bit != 0 {
			in.batches = append(in.batches, b)
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
func (l *loop) take() []*batch {
	in := &l.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.batches) == 0 {
		// Only here, under the lock that batches are added under, so that it cannot be missed that the loop has to be woken.
		in.asleep = true
		return nil
	}
	batches := in.batches
	in.batches, l.taken = l.taken, nil
	return batches
}

// release counts out what the loop is done with, and notifies those that wait for room.
func (l *loop) release(batches []*batch, cost int64) {
	h := l.hub
	freed := int64(0)
	for _, b := range batches {
		if b.left.Add(-1) == 0 {
			freed += b.cost
		}
	}
	// What they refer to, messages and connections, would stay in memory until the next inbox is as long.
	clear(batches)
	l.taken = spare(batches)
	l.done.Add(cost)
	if freed > 0 {
		h.freed.Add(freed)
	}
	if h.waiting.Load() > 0 { // after the counting: see awaitRoomLocked
		h.mu.Lock()
		h.hasSpace.Broadcast()
		h.mu.Unlock()
	}
}

// fitsInLocked reports whether the loop's inbox has room for n bytes. If nothing is in it, it always has, so that a message
// larger than the limit can be delivered.
func (h *Hub) fitsInLocked(loop, n int) bool {
	in := &h.inboxes
	if queued := in.put[loop] - in.done[loop]; queued == 0 || queued+int64(n) <= int64(h.config.MaxInbox) {
		return true
	}
	in.done[loop] = h.loops[loop].done.Load()
	queued := in.put[loop] - in.done[loop]
	return queued == 0 || queued+int64(n) <= int64(h.config.MaxInbox)
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

// queuedLocked returns the bytes that are on their way to loops, or are about to be, or that a loop is at work on.
func (h *Hub) queuedLocked() int64 {
	h.inboxes.freed = h.freed.Load()
	return int64(h.promised) + h.inboxes.queued - h.inboxes.freed
}

// movedLocked reports whether a loop has made room since somebody last looked.
func (h *Hub) movedLocked() (moved bool) {
	in := &h.inboxes
	if n := h.freed.Load(); n != in.freed {
		in.freed, moved = n, true
	}
	for i, l := range h.loops {
		if n := l.done.Load(); n != in.done[i] {
			in.done[i], moved = n, true
		}
	}
	return moved
}
