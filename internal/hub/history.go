package hub

import (
	"cmp"
	"container/heap"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// atOnce is how many channels or messages are handled at a time under Hub.mu, where there may be many. Then the lock is
// released for others: a publisher waits for at most that much.
const atOnce = 128

// history keeps the last messages: of each channel up to a count and an age, and of all together up to a size. The oldest
// are dropped first. Hub.mu guards it; bytes is atomic because publishers look at it without the lock.
type history struct {
	storedList // all that are kept, in the order of the log
	bytes      atomic.Int64
	timer      *time.Timer
	rings      time.Time // when the timer does
	ages       ages      // the channels whose messages are kept for some time only
}

// appendHistoryLocked keeps a message in its channel's history.
func (h *Hub) appendHistoryLocked(ch *channel, m *Message) {
	s := &stored{message: m, channel: ch}
	h.history.append(inAll, s)
	ch.history.append(inChannel, s)
	h.countInLocked(m)
	if m.Conflate.IsSet() {
		h.supersedeLocked(s)
	}
	if count, age := ch.keepLocked(h); ch.history.count > count {
		h.dropOldestLocked(ch)
	} else if age > 0 && ch.keep.inAges == 0 {
		h.ageLocked(ch)
	}
	h.trimLocked(m.Time)
}

// prependHistoryLocked keeps a message that is older than those in its channel's history. The list of all messages then
// begins with it, though others may be older: they are dropped a little later, or earlier, than they would be.
func (h *Hub) prependHistoryLocked(ch *channel, m *Message) {
	s := &stored{message: m, channel: ch}
	h.history.prepend(inAll, s)
	ch.history.prepend(inChannel, s)
	h.countInLocked(m)
	if m.Conflate.IsSet() {
		ch.noteConflatedLocked(s)
	}
	h.ageLocked(ch)
	h.setTimerLocked(time.Now())
}

// countInLocked counts a message that is kept from now on.
func (h *Hub) countInLocked(m *Message) {
	h.history.bytes.Add(int64(m.cost()))
	h.holdHistoryLocked(m)
}

// dropOldestLocked drops the oldest message of a channel.
func (h *Hub) dropOldestLocked(ch *channel) {
	s := ch.history.oldest
	h.removeLocked(s)
	if s.message.Conflate.IsSet() {
		ch.forgetConflatedLocked(s)
	}
	if s.message.origin == h.origin { // a position of another epoch means nothing
		ch.droppedSeq = max(ch.droppedSeq, s.message.Seq)
	}
	if ch.history.count == 0 {
		if ch.keep.inAges > 0 {
			h.ageLocked(ch)
		}
		h.forgetChannelLocked(ch)
	}
}

// removeLocked takes a message out of the history.
func (h *Hub) removeLocked(s *stored) {
	h.history.remove(inAll, s)
	s.channel.history.remove(inChannel, s)
	h.history.bytes.Add(-int64(s.message.cost()))
	// A backlog may still hold it.
	s.message.holders.Add(-inHistory)
	h.letGo([]*Message{s.message})
}

// trimLocked drops what is too old or too much, but at most atOnce messages. The timer drops the rest of what is too old,
// and a publisher the rest of what is too much.
func (h *Hub) trimLocked(now time.Time) {
	h.trimToLocked(h.config.historyBytes(), now)
	h.setTimerLocked(now)
}

// trimToLocked drops what is too old or more than size bytes, but at most atOnce messages, and reports whether that was
// all.
func (h *Hub) trimToLocked(size int, now time.Time) (all bool) {
	hi := &h.history
	for range atOnce {
		if h.dropOldLocked(now) {
			continue
		}
		if hi.oldest == nil || hi.bytes.Load() <= int64(size) {
			return true
		}
		h.dropOldestLocked(hi.oldest.channel)
	}
	return false
}

// trimAll drops all that is too old or more than size bytes.
func (h *Hub) trimAll(size int) {
	h.inPieces(func() bool { return h.trimToLocked(size, time.Now()) })
}

// setTimerLocked schedules the removal of the oldest message, for when nothing is published that would do it.
func (h *Hub) setTimerLocked(now time.Time) {
	hi := &h.history
	if len(hi.ages) == 0 {
		return
	}
	due := hi.ages[0].keep.due
	switch {
	case hi.timer == nil:
		hi.timer = time.AfterFunc(due.Sub(now), h.expire)
	case due.Before(hi.rings): // a channel whose messages are kept for a shorter time
		hi.timer.Reset(due.Sub(now))
	default:
		return
	}
	hi.rings = due
}

// expire drops what has grown old.
func (h *Hub) expire() {
	h.inPieces(func() bool {
		now := time.Now()
		if !h.trimToLocked(h.config.historyBytes(), now) {
			return false
		}
		h.history.timer = nil
		h.setTimerLocked(now)
		return true
	})
}

// inPieces calls f until it reports that it has done all. Each call is under h.mu, and others can have the lock in
// between. In a hub that is closed nothing is left to do.
func (h *Hub) inPieces(f func() (all bool)) {
	for {
		h.mu.Lock()
		all := h.closed || f()
		h.mu.Unlock()
		if all {
			return
		}
		runtime.Gosched() // or this goroutine mostly has the lock again before one that waits for it runs
	}
}

// refit applies other bounds to what is kept already, channel by channel in the order of their names.
func (h *Hub) refit() {
	next := "" // is not done yet
	names := make([]string, 0, atOnce)
	h.inPieces(func() bool {
		names = names[:0]
		for name := range h.index.from(next, "") {
			if names = append(names, name); len(names) == atOnce {
				break
			}
		}
		left := atOnce // messages that may still be dropped
		for _, name := range names {
			ch := h.channels[name]
			count, _ := ch.keepLocked(h)
			for ch.history.count > count {
				if left == 0 {
					next = name
					return false
				}
				h.dropOldestLocked(ch)
				left--
			}
			h.ageLocked(ch)
			next = following(name)
		}
		return len(names) < atOnce
	})
}

// Welcome describes where a connection, or a channel that it joins, starts.
type Welcome struct {
	// ID is the position: who resumes after it gets all that comes from here on, beginning with what is replayed.
	ID string
	// Now is the position after what is replayed. If a channel is joined late, that may be far from its last message: the
	// connection has had later ones of others.
	Now string
	// Resumed says that it goes on where it was, and misses nothing.
	Resumed bool
	// Gaps are the channels of which it may miss messages. Of them nothing is replayed.
	Gaps []string
}

// replayFromLocked returns what a subscriber of the channels starts with: from lastID on, if that is set, or the last n
// messages, within the limit in bytes. Those of one channel are in order.
func (h *Hub) replayFromLocked(x *hearer, channels []string, lastID string, n, limit int) (ms []*Message, w Welcome) {
	seq := h.seq
	if lastID == "" {
		ms = h.tailLocked(x, channels, n, limit)
	} else {
		ms, w.Gaps = h.missedLocked(x, channels, lastID, limit)
		w.Resumed = w.Gaps == nil
	}
	for _, m := range ms {
		seq = min(seq, m.Seq-1)
	}
	w.ID, w.Now = FormatID(h.epoch, seq), FormatID(h.epoch, h.seq)
	return ms, w
}

// bySeq orders messages as the log does.
func bySeq(a, b *Message) int { return cmp.Compare(a.Seq, b.Seq) }

// missedLocked returns all messages of the channels after an ID, except for channels that have lost some, which it
// returns instead. If the messages are more than the limit, all channels that have any count as lost, because a part of
// them would be a hole.
func (h *Hub) missedLocked(x *hearer, channels []string, id string, limit int) (ms []*Message, lost []string) {
	epoch, seq, good := parseID(id)
	// I2: nobody was given a position beyond this one, so it is made up, or of a log that has lost data.
	if !good || epoch != h.epoch || seq > h.seq {
		return nil, channels
	}
	// The timer may be late, and nothing is replayed that is older than history_age.
	h.trimLocked(time.Now())
	size := 0
	var missed []string // the channels that have something
	for _, name := range channels {
		ch := h.channels[name]
		switch {
		case h.droppedSeqLocked(name, ch) > seq:
			lost = append(lost, name)
		case ch != nil && ch.history.count > 0 && ch.newest().Seq > seq:
			missed = append(missed, name)
			ms, size = x.appendMissedLocked(ms, ch, seq, size, limit)
		}
	}
	if size > limit {
		return nil, append(lost, missed...)
	}
	return ms, lost
}

// appendMissedLocked appends what a channel has after a position, in order, and adds it to the size. It stops when that is more than
// the limit: then nothing is replayed.
func (x *hearer) appendMissedLocked(ms []*Message, ch *channel, seq uint64, size, limit int) ([]*Message, int) {
	had := len(ms)
	for s := ch.history.newest; s != nil && s.message.Seq > seq && size <= limit; s = s.older() {
		if s.message.Emit == nil || !x.missesLocked(s.message) {
			ms = append(ms, s.message)
			size += s.message.size()
		}
	}
	slices.Reverse(ms[had:])
	return ms, size
}

// tailLocked returns the last n messages of some channels together, in the order of the log, or fewer if they have more
// than limit bytes.
func (h *Hub) tailLocked(x *hearer, channels []string, n, limit int) (ms []*Message) {
	if n == 0 {
		return nil
	}
	h.trimLocked(time.Now())
	var from newest
	for _, name := range channels {
		if ch := h.channels[name]; ch != nil && ch.history.count > 0 && ch.droppedSeq < ch.newest().Seq {
			from = append(from, ch.history.newest)
		}
	}
	// A heap of the channels, so that the cost depends on n and not on what they keep.
	heap.Init(&from)
	for size := 0; len(from) > 0 && len(ms) < n; {
		s := from[0]
		m := s.message
		if m.Emit == nil || !x.missesLocked(m) {
			if size += m.size(); size > limit && len(ms) > 0 {
				break
			}
			ms = append(ms, m)
		}
		// With a shared log there may be some before the last one that the history does not have: they are not replayed.
		if older := s.older(); older != nil && older.message.Seq > s.channel.droppedSeq {
			from[0] = older
			heap.Fix(&from, 0)
		} else {
			heap.Pop(&from)
		}
	}
	slices.Reverse(ms)
	return ms
}

// newest is a heap of messages, each the last of its channel that is not returned yet. The newest is first.
type newest []*stored

func (x newest) Len() int           { return len(x) }
func (x newest) Less(i, j int) bool { return x[i].message.Seq > x[j].message.Seq }
func (x newest) Swap(i, j int)      { x[i], x[j] = x[j], x[i] }
func (x *newest) Push(any)          {} // none is added
func (x *newest) Pop() any          { *x = (*x)[:len(*x)-1]; return nil }

// newest returns the last message that is kept.
func (ch *channel) newest() *Message { return ch.history.newest.message }
