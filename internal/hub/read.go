package hub

import (
	"context"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// reading is a read of a channel from the log, which all those wait for that need the channel meanwhile. What is read is put
// in the history, before what is there, so that it is read once for the many that come back after a restart. Then they find
// it as they would find it in a hub of its own.
type reading struct {
	after     uint64 // reads what comes after it,
	last      int    // or, if this is not 0, that many of the last messages
	limit     int    // bytes
	retention uint32 // as era
	era       uint32 // when the read began: what it returns may be of a later one
	floor     uint64 // what came after it was in the history when the read began
	done      chan struct{}

	// Set before done is closed:
	err error
}

// nextReadLocked has the watermark reach the client's position, and has read from the log what the history lacks.
func (s *sharedLog) nextReadLocked(w *want) (wait <-chan struct{}, do func()) {
	h := s.hub
	// Subscribers of all channels begin now: Connect replays nothing to them.
	if w.all {
		return nil, nil
	}
	after := uint64(0)
	if w.lastID != "" {
		epoch, seq, good := parseID(w.lastID)
		if !good || epoch != h.epoch {
			return nil, nil // a gap
		}
		// I3: this node may be behind the one that gave the client its position. One barrier decides: what was stored
		// when the client came is here then.
		if after = seq; seq > h.seq && !w.barred {
			if wait, do := s.barrierLocked(w); !w.barred {
				return wait, do
			}
		}
		if seq > h.seq {
			return nil, nil // nobody was given that position: a gap
		}
	} else if w.replay == 0 {
		return nil, nil
	}
	for n := 0; w.checked < len(w.pinned); w.checked++ {
		if n++; n > atOnce {
			return nil, func() {} // others may have the lock
		}
		o := w.pinned[w.checked]
		count, _ := h.config.keepOf(o.name)
		if r := w.read; r != nil {
			w.read = nil
			switch {
			case r.err != nil:
				w.retry = true
				return nil, nil
			case r.serves(w, after, count):
				continue // what is still lacking is a gap
			}
		}
		if !s.lacksLocked(o, w, after) {
			continue
		}
		// A thousand clients that come back to a channel at once cost one read.
		if o.reading != nil {
			w.read = o.reading
			return o.reading.done, nil
		}
		r := &reading{after: after, limit: w.limit, era: s.era, retention: s.retention,
			floor: h.droppedSeqLocked(o.name, h.channels[o.name]), done: make(chan struct{})}
		if w.lastID == "" {
			r.last = min(w.replay, count)
		}
		o.reading, w.read = r, r
		s.counts.read++
		return r.done, func() { go s.readChannel(o, r) }
	}
	return nil, nil
}

// serves reports whether a read was for at least what a connection needs.
// count is how many messages of the channel are kept.
func (r *reading) serves(w *want, after uint64, count int) bool {
	if w.lastID == "" {
		return r.last >= min(w.replay, count) && r.limit >= w.limit
	}
	return r.last == 0 && r.after <= after && r.limit >= w.limit
}

// lacksLocked reports whether the history lacks something of a channel that the log may have.
func (s *sharedLog) lacksLocked(o *openChannel, w *want, after uint64) bool {
	h := s.hub
	ch := h.channels[o.name]
	if o.retention != s.retention { // what was read before may have been dropped, because less was to be kept
		o.retention, o.asked, o.gone, o.goneLimit = s.retention, 0, 0, 0
	}
	count, _ := h.config.keepOf(o.name)
	if w.lastID == "" {
		n := min(w.replay, count)
		return o.asked < n && (ch == nil || ch.history.count < n)
	}
	if h.droppedSeqLocked(o.name, ch) <= after {
		return false
	}
	if count == 0 && o.loss > after && o.loss > o.at {
		return false // it has certainly missed that, and clients get no history
	}
	// The log was asked before, and did not have it. What is gone does not come back, so it is not asked again for each
	// client.
	return after > o.gone || w.limit > o.goneLimit
}

// barrierLocked has the log send all that is stored, because a client comes with a position that this node has not reached.
func (s *sharedLog) barrierLocked(w *want) (wait <-chan struct{}, do func()) {
	// It was waited for: this is the second time.
	if b := w.barrier; b != nil {
		w.barrier = nil
		if b.err != nil {
			w.retry = true
			return nil, nil
		}
		w.barred = true
		return nil, nil
	}
	b := &barrier{done: make(chan struct{})}
	w.barrier = b
	s.counts.barriers++
	return b.done, func() {
		// Its position is not needed: W has reached it through the Sink, in the order of everything else.
		s.log.Barrier(func(_ uint64, err error) {
			b.err = err
			close(b.done)
		})
	}
}

// barrier is a call of broker.Log.Barrier.
type barrier struct {
	done chan struct{}
	err  error // set before done is closed
}

// readChannel reads a channel, and puts what it has read in the history.
func (s *sharedLog) readChannel(o *openChannel, r *reading) {
	h := s.hub
	// The context of the log and not of whoever asked first, because others wait for the same read.
	ctx, cancel := context.WithTimeout(s.ctx, positionTime)
	defer cancel()
	es, complete, err := s.fetch(ctx, o, r)
	if err == nil {
		s.fill(o, r, es, complete)
	}
	h.mu.Lock()
	// Before done is closed, so that whoever still lacks something can begin another read.
	r.err = err
	o.reading = nil
	h.mu.Unlock()
	close(r.done)
}

// fetch reads from the log when there is a place for one more read: first with room for little, and again if that was not all.
// It also was not all if the log has lost something. That may be read twice, because the log does not say which of the two it is.
func (s *sharedLog) fetch(ctx context.Context, o *openChannel, r *reading) (es []broker.Entry, complete bool, err error) {
	most := s.hub.Retention().Messages
	if r.last > 0 {
		err = takePlace(ctx, s.reads, func() error {
			es, err = s.last(ctx, o.name, r.last, most, r.limit)
			return err
		})
		return es, true, err
	}
	n := max(1, most) // without a history it is enough to know whether there is one
	read := func(limit int) func() error {
		return func() error {
			es, complete, err = s.log.Read(ctx, o.name, r.after, n, limit)
			return err
		}
	}
	err = takePlace(ctx, s.shortReads, read(min(r.limit, shortRead)))
	if err == nil && !complete && r.limit > shortRead && roomHelps(es, n) {
		es = nil // not kept while it waits for a place: thousands may, and a message has any size
		err = takePlace(ctx, s.reads, read(r.limit))
	}
	return es, complete, err
}

// last returns the newest entries of a channel: so many that a client gets count messages of them, or most.
func (s *sharedLog) last(ctx context.Context, name string, count, most, limit int) (es []broker.Entry, err error) {
	for n := count; ; n = min(4*n, most) {
		es, err = s.log.Last(ctx, name, n, limit)
		if err != nil || len(es) < n || n >= most || remaining(es) >= count {
			return es, err
		}
	}
}

// remaining returns how many of some entries a client gets that comes later: not those that are transient, or replaced.
func remaining(es []broker.Entry) (count int) {
	var replaced map[string]bool
	for _, e := range slices.Backward(es) {
		if e.Kind&kindTransient != 0 {
			continue
		}
		if m := (Message{}); e.Kind&kindConflate != 0 && m.parseConflate(e.Data) {
			key := m.Conflate.String()
			if replaced[key] {
				continue
			}
			if replaced == nil {
				replaced = make(map[string]bool)
			}
			replaced[key] = true
		}
		count++
	}
	return count
}

// roomHelps reports whether a read of at most n entries that was not all may be with more room. The first entry comes whatever
// its size, so where nothing has come it was not for lack of room.
func roomHelps(es []broker.Entry, n int) bool { return len(es) > 0 && len(es) < n }

// takePlace does something when there is a place for it.
func takePlace(ctx context.Context, places chan struct{}, do func() error) error {
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-places }()
	return do()
}

// fill puts what was read in the channel's history, newest first, some at a time, so that what the history has is always
// without a hole from channel.droppedSeq on. What has come live since the channel is open is there already. It stops where
// the history has no room, or has lost something meanwhile: then what is missing is a gap, as without a shared log.
func (s *sharedLog) fill(o *openChannel, r *reading, es []broker.Entry, complete bool) {
	h := s.hub
	now := time.Now()
	if !complete {
		h.mu.Lock()
		if o.gone <= r.after && s.era == r.era {
			o.gone, o.goneLimit = r.after, r.limit
		}
		h.mu.Unlock()
		return
	}
	// What comes after the floor is in the history already.
	for len(es) > 0 && es[len(es)-1].Seq > r.floor {
		es = es[:len(es)-1]
	}
	ms := make([]*Message, len(es))
	clock := s.clock(now)
	for i := range es {
		// nil is nothing to any client, or to none that comes back.
		if m := messageOf(&es[i], storedAt(&es[i], clock, now)); m != nil && !m.Transient {
			ms[i] = m
		}
	}
	floor := r.floor
	h.inPieces(func() (all bool) {
		// Only this read sets the floor back. Where it is another one, the history has lost something since the
		// last piece, and what is left to add would leave a hole.
		if !s.currentLocked() || s.era != r.era || h.droppedSeqLocked(o.name, h.channels[o.name]) != floor {
			return true
		}
		if !s.dropStaleLocked(o.name, floor) {
			return false
		}
		for range atOnce {
			if len(ms) == 0 {
				break
			}
			// The newest first: where it stops, what is in the history goes on without a hole from there to now.
			m := ms[len(ms)-1]
			if m != nil && !s.prependLocked(m, now) {
				return true
			}
			floor = es[len(ms)-1].Seq - 1
			ms = ms[:len(ms)-1]
			s.setFloorLocked(o.name, floor)
		}
		if len(ms) > 0 {
			return false
		}
		if r.last > 0 && s.retention != r.retention {
			return true
		} else if r.last > 0 {
			o.asked = max(o.asked, r.last)
		} else {
			s.setFloorLocked(o.name, r.after)
		}
		return true
	})
}

// clock returns what the log's clock shows when that of this node shows now.
func (s *sharedLog) clock(now time.Time) time.Time {
	if clock := s.log.Status().Clock; !clock.IsZero() {
		return clock
	}
	return now // the log cannot say
}

// storedAt returns when an entry was stored, by the clock of this node, whose time is now when the log's clock shows clock.
func storedAt(e *broker.Entry, clock, now time.Time) time.Time {
	// Only a difference of two times of one clock is an age. With those of two clocks, a node that is an hour ahead would keep
	// nothing that it reads, and one that is behind would keep all that it has an hour longer, because the history drops
	// nothing before its oldest message.
	if e.Time == 0 {
		return now // the log cannot say
	}
	return now.Add(-max(0, clock.Sub(time.UnixMilli(e.Time))))
}

// dropStaleLocked drops what a channel has of the time before it was opened last, and reports whether that was all.
func (s *sharedLog) dropStaleLocked(name string, floor uint64) (all bool) {
	for range atOnce {
		ch := s.hub.channels[name]
		if ch == nil || ch.history.count == 0 || ch.history.oldest.message.Seq > floor {
			return true
		}
		s.hub.dropOldestLocked(ch)
	}
	return false
}

// prependLocked puts a message before the history of its channel, if there is room and it is not too old. Among all
// messages it then counts as the oldest.
func (s *sharedLog) prependLocked(m *Message, now time.Time) bool {
	h := s.hub
	c := &h.config
	ch := h.channels[m.Channel]
	// What is read comes from the newest to the oldest. One that is replaced already is not needed.
	if ch != nil && m.Conflate.IsSet() && ch.conflated[m.Conflate] != nil {
		return true
	}
	// It has nothing dropped, unlike a message that comes live: what is newer does not give way to what is older.
	count, age := c.keepOf(m.Channel)
	if ch != nil && ch.history.count >= count || count == 0 ||
		h.history.bytes.Load()+int64(m.cost()) > int64(c.historyBytes()) || age > 0 && now.Sub(m.Time) >= age {
		return false
	}
	if ch == nil {
		ch = h.openChannelLocked(m.Channel)
	}
	m.origin = h.origin
	h.prependHistoryLocked(ch, m)
	return true
}
