package hub

import (
	"context"
	"time"
)

// positionTime is how long a connection, or a join, waits for its position in a shared log.
// It is well below the minute that most proxies wait, so that the client gets our answer, which tells it when to come
// again.
const positionTime = 5 * time.Second

// retryTime is the time between two tries of what the log could not do.
// Short enough for many tries in positionTime, and long enough that thousands of handshakes do not keep Hub.mu
// busy.
const retryTime = 100 * time.Millisecond

// want is what a connection, or a join, needs of a shared log before it can begin: its channels open, the watermark at its
// position or beyond, and what it has missed in the history. What is needed is looked for under Hub.mu, and when all is
// there, that is still so where the caller goes on under the same lock. Channels are looked at some at a time: one that was
// found open is pinned and stays open, and one that was found in the history and is dropped after that becomes a gap.
type want struct {
	ctx      context.Context
	conn     *Conn // that joins
	channels []string
	all      bool
	lastID   string
	replay   int
	limit    int // bytes

	log      *sharedLog // what follows is about it, and its era
	era      uint32
	deadline time.Time
	pinned   []*openChannel
	opened   int      // of these, how many are open
	checked  int      // and of how many nothing more has to be read
	barrier  *barrier // what it waits for
	barred   bool     // the watermark has what was stored when it came
	retry    bool     // the log could not do what was asked, and may a moment later
	read     *reading // what it waits for, of the channel that is checked next
}

// awaitLocked returns when the hub has what a connection needs, or with an error when it does not come. Hub.mu is released
// meanwhile.
func (h *Hub) awaitLocked(w *want) error {
	if w.deadline.IsZero() {
		// Once, so that a log that comes and goes does not let it begin again.
		w.deadline = time.Now().Add(positionTime)
	}
	for {
		s := h.log
		switch {
		case h.closed || h.leaving || w.conn != nil && w.conn.left:
			return ErrClosed
		case s == nil:
			return nil
		// Now and not after positionTime, so that the client can try another node at once.
		case s.partitioned:
			return ErrNotReady
		}
		wait, do := s.nextLocked(w)
		if wait == nil && do == nil && !w.retry {
			return nil
		}
		h.mu.Unlock()
		// Here the log is called, without the lock: it may call back before it returns.
		if do != nil {
			do()
		}
		err := h.waitFor(w, s, wait)
		h.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// waitFor waits for what was asked of the log, but not beyond the deadline.
func (h *Hub) waitFor(w *want, s *sharedLog, wait <-chan struct{}) error {
	left := time.Until(w.deadline)
	if left <= 0 {
		return ErrNotReady
	}
	retry := w.retry
	if retry {
		w.retry = false
		left = min(left, retryTime)
	} else if wait == nil {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	closed := s.ctx.Done() // another log takes its place
	if retry {
		closed = nil // it may be closed already, and until the next log is attached that would not wait at all
	}
	var gone <-chan struct{}
	if w.ctx != nil {
		gone = w.ctx.Done()
	}
	select {
	case <-wait:
		return nil
	case <-timer.C:
		if retry {
			return nil
		}
		return ErrNotReady
	case <-gone:
		return ErrClosed
	case <-h.quit:
		return ErrClosed
	case <-closed:
		w.retry = true
		return nil
	}
}

// nextLocked returns what to wait for next, and what to call before that without the lock. With neither all is there.
func (s *sharedLog) nextLocked(w *want) (wait <-chan struct{}, do func()) {
	// What was found out is of another log or epoch, and says nothing of this one.
	if w.log != s || w.era != s.era {
		w.unpinLocked()
		w.log, w.era, w.opened, w.checked, w.barred, w.barrier, w.read = s, s.era, 0, 0, false, nil, nil
	}
	if !s.settled || s.losing != nil {
		return s.changed, nil
	}
	if wait, do := s.nextOpenLocked(w); wait != nil || do != nil || w.retry {
		return wait, do
	}
	return s.nextReadLocked(w)
}

// name returns a channel that has to be open.
func (w *want) name(i int) string {
	if w.all {
		return ""
	}
	return w.channels[i]
}

// count returns how many channels have to be open. All channels together are one, with the name "".
func (w *want) count() int {
	if w.all {
		return 1
	}
	return len(w.channels)
}

// nextOpenLocked pins the channels, some at a time, and opens those that are not.
func (s *sharedLog) nextOpenLocked(w *want) (wait <-chan struct{}, do func()) {
	var cold []*openChannel
	var ready chan struct{}
	for range atOnce {
		i := len(w.pinned)
		if i == w.count() {
			break
		}
		o := s.findLocked(w.name(i))
		if o == nil {
			if s.releasing != nil {
				return s.releasing, nil // the log would take the release of this channel for the end of what is opened now
			}
			if ready == nil {
				ready = make(chan struct{})
			}
			o = s.addLocked(w.name(i), ready)
			cold = append(cold, o)
			s.counts.cold++
		} else {
			s.counts.warm++
		}
		// Pinned as soon as it is found: while the others are opened, a channel without subscribers could be released.
		o.pins++
		w.pinned = append(w.pinned, o)
	}
	if cold != nil {
		return nil, func() { s.openChannels(cold) }
	}
	if len(w.pinned) < w.count() {
		return nil, func() {} // others may have the lock
	}
	for ; w.opened < len(w.pinned); w.opened++ {
		switch o := w.pinned[w.opened]; {
		// All that were opened together have the error, and opened has taken them out of the table. So it begins
		// again with the first channel.
		case o.err != nil:
			w.unpinLocked()
			w.opened, w.retry = 0, true
			return nil, nil
		case !o.opened:
			return o.ready, nil
		}
	}
	return nil, nil
}

// addLocked adds a channel that is about to be opened.
func (s *sharedLog) addLocked(name string, ready chan struct{}) *openChannel {
	o := &openChannel{name: name, era: s.era, ready: ready}
	// From here on others find it and wait for the same answer, so it is opened once.
	s.open[name] = o
	return o
}

// openChannels asks the log for channels that were added together.
func (s *sharedLog) openChannels(channels []*openChannel) {
	begun := time.Now()
	names := make([]string, len(channels))
	for i, o := range channels {
		names[i] = o.name
	}
	// The answer is one of the calls that come in order: an entry that comes after it is after at.
	s.log.Open(names, func(at uint64, err error) {
		s.call(func() {
			if err == nil && (len(names) > 1 || !ownChannel(names[0])) { // nobody needs that one
				s.counts.open.add(time.Since(begun))
			}
			s.opened(channels, at, err)
		})
	})
}

// opened notes that channels are open, or cannot be. What came of them before is history that is not known: it counts as
// lost until it is read. One that was released meanwhile may be there again, as another openChannel: that has its own answer.
func (s *sharedLog) opened(channels []*openChannel, at uint64, err error) {
	h := s.hub
	var wake uint64
	defer func() { h.wake(wake) }() // without the lock
	h.mu.Lock()
	defer h.mu.Unlock()
	// I1: the log says that W has reached at. While it catches up that is not true of the hub.
	if c := s.catchUp; c == nil && err == nil && s.currentLocked() {
		h.seq = max(h.seq, at)
	}
	var ready chan struct{}
	for i, o := range channels {
		// Others may have the lock. Whatever they change is looked at again for each channel.
		if i > 0 && i%atOnce == 0 {
			h.mu.Unlock()
			h.mu.Lock()
		}
		name := o.name
		if s.findLocked(name) != o || o.opened {
			continue
		}
		ready = o.ready
		if err != nil || !s.currentLocked() {
			o.err = ErrNotReady
			if s.currentLocked() || !o.resume { // otherwise the log that follows looks for where the channel is
				delete(s.open, name)
			}
			continue
		}
		o.opened = true
		if o.resume && s.catchUp != nil { // what comes after at comes live, and is held
			s.catchUp.add(o, at)
			continue
		}
		// The watermark and not at: what came between the two was put nowhere, because the channel was not open here yet,
		// so it is history like the rest. I3: clients that have not seen it are not answered from here.
		o.at, o.last = h.seq, h.seq
		s.setFloorLocked(name, h.seq)
		if o.resume && h.seq > s.began { // its subscribers were told of a gap, but only up to where the epoch began
			wake |= s.tellLostLocked(name)
		}
	}
	// Channels that were added together have one, so it is closed once.
	if ready != nil {
		close(ready)
	}
	if c := s.catchUp; c != nil {
		c.opening--
		s.readCatchUpLocked()
	}
}

// done unpins the channels. The connection is on them now, or has failed.
func (w *want) done(h *Hub) {
	if w.log == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	w.unpinLocked()
}

// unpinLocked lets channels be released again.
func (w *want) unpinLocked() {
	for _, o := range w.pinned {
		if o.pins--; o.pins == 0 {
			w.log.idleLocked(o.name)
		}
	}
	w.pinned = nil
}
