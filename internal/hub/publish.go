package hub

import (
	"slices"
	"time"
)

// Publish appends the messages to the log, and leaves it to the loops to deliver them. Either all of them are published,
// contiguously, or none is and it returns an error: an *InvalidError if one of them could not be sent to every client. Only
// a broker may publish the first ones and not the rest: that is a *broker.PartialError. It
// never waits for subscribers. Afterwards the messages belong to the hub, and only what Publish has set may be read.
func (h *Hub) Publish(ms ...*Message) error { return h.publish(ms, false) }

// PublishWait is Publish for a publisher that can be slowed down. Instead of returning ErrFull it waits for room.
func (h *Hub) PublishWait(ms ...*Message) error { return h.publish(ms, true) }

// publish is Publish, or PublishWait. All of it runs in the publisher's goroutine, which goes as far as the
// inboxes.
func (h *Hub) publish(ms []*Message, wait bool) error {
	if len(ms) == 0 {
		return nil
	}
	if err := checkAll(ms); err != nil {
		return err
	}
	h.Start()
	// Before the lock is taken, because it hashes what is published.
	keys, err := h.repeats.keysOf(ms)
	if err != nil {
		return err
	}
	from, now := ms[0].From, time.Now()
	h.mu.Lock()
	waited, err := h.admitLocked(ms, wait)
	if waited > 0 {
		defer from.countWaiting(-waited)
		now = time.Now()
	}
	var wake uint64
	if err == nil {
		wake, err = h.appendLocked(ms, keys, now)
	}
	historyBytes := h.config.historyBytes()
	h.mu.Unlock()
	if err == errShared {
		return h.publishShared(slices.Clone(ms)) // which keeps it; otherwise every call's own list would be allocated
	}
	if err != nil {
		return err
	}
	h.wake(wake)
	// keepLocked drops only a piece of what is too much, so that nobody waits long for the lock.
	if h.history.bytes.Load() > int64(historyBytes) {
		h.trimAll(historyBytes)
	}
	h.checkMemory()
	return nil
}

// admitLocked returns when there is room for the messages, or an error if there is none and it must not wait. A
// connection that waited holds bytes while it does: waited is how many, for the caller to count out.
func (h *Hub) admitLocked(ms []*Message, wait bool) (waited int, err error) {
	from := ms[0].From // all messages of a call are one publisher's
	for {
		if h.closed || from != nil && from.left {
			return waited, ErrClosed
		}
		if h.log != nil { // also while it waited
			return waited, errShared
		}
		limit, ok := h.fitsLocked(ms)
		if ok {
			return waited, nil
		}
		if !wait {
			h.CountRejected(limit)
			h.checkMemory()
			return waited, ErrFull
		}
		if waited == 0 && from != nil {
			h.mu.Unlock()
			waited = from.reserve(waiterCost + cap(ms[0].Data) + ms[0].Emit.cost()) // or from.left is true now
			h.mu.Lock()
			continue // there may be room now
		}
		h.awaitRoomLocked()
	}
}

// fitsLocked reports whether every loop that ms go to has room for them, and all together, or else which limit they are
// over.
func (h *Hub) fitsLocked(ms []*Message) (limit Limit, ok bool) {
	need := 0
	for _, m := range ms {
		need += m.cost()
		if m.private() {
			if c := h.namedLocked(m.Emit.To); c != nil && !h.fitsInLocked(c.loop.id, need) {
				return LimitFull, false
			}
			continue
		}
		for _, ch := range [...]*channel{h.channels[m.Channel], h.all} {
			for s := range ch.spreads() {
				if !h.fitLocked(s.loops, need) {
					return LimitFull, false
				}
			}
		}
	}
	if h.config.MaxMemory > 0 && !h.hasRoomLocked(h.memoryForLocked(ms)) {
		return LimitMemory, false
	}
	return 0, true
}

// appendLocked appends messages that fit to the hub's own log, all of them or none. With a broker their positions come
// from its log: see publishShared, and for what comes after ingestLocked.
func (h *Hub) appendLocked(ms []*Message, keys []keyed, now time.Time) (wake uint64, err error) {
	if now.Before(h.seqTime) {
		now = h.seqTime // another publisher was faster to get the lock: times are in the order of the log
	}
	h.seqTime = now
	// All keys come before the first position, because a call is published as a whole or not at all.
	if !h.repeats.look(keys, now) {
		return 0, ErrKeyReused
	}
	for i, m := range ms {
		var k *keyed
		if m.Key != "" {
			k = &keys[i]
		}
		if !h.assignLocked(m, ms, k, now) {
			continue
		}
		if m.Emit != nil {
			h.resolveLocked(m.Emit)
			if m.Emit.id == 0 {
				m.Emit.id = m.Seq // that of the first, and the others follow it
			}
			if m.private() {
				wake |= h.sendPrivateLocked(m)
				if k != nil {
					h.recordKeyLocked(m, k)
				}
				continue
			}
		}
		ch := h.channels[m.Channel]
		if ch != nil {
			m.Subscribers = ch.subscribers
		}
		h.keepLocked(ch, m, k) // before loops may have it too: see outbox
		wake |= h.fanOutLocked(ch, m)
	}
	return wake, nil
}

// assignLocked gives a message its position in the log. It reports false for a message that repeats another one, whose
// position it is given; k is its key, or nil.
func (h *Hub) assignLocked(m *Message, ms []*Message, k *keyed, now time.Time) bool {
	m.origin = h.origin
	if !m.NoEcho {
		m.From = nil // only the echo needs it, and history would hold the connection
	}
	if k != nil {
		// It repeats one of the same call. keysOf has found that both say the same.
		if first := ms[k.first]; first != m {
			m.Seq, m.Subscribers, m.Time = first.Seq, first.Subscribers, first.Time
			return false
		}
		if k.seq != 0 {
			m.Seq, m.Subscribers, m.Time = k.seq, k.subscribers, k.at
			return false
		}
	}
	h.seq++
	h.bytes += uint64(len(m.Data))
	h.published[m.Source]++
	m.Seq, m.Time = h.seq, now
	return true
}

// fanOutLocked puts a message in the inboxes of the loops that have subscribers of its channel, if that exists, or of
// all channels. It returns the loops that have to be woken.
func (h *Hub) fanOutLocked(ch *channel, m *Message) (wake uint64) {
	if h.all != nil {
		wake = h.deliverLocked(h.all, m)
	}
	if ch != nil {
		wake |= h.deliverLocked(ch, m)
	}
	return wake
}

// deliverLocked queues a message for each loop that has a subscriber, as one entry, or one for each DeliverEvery.
func (h *Hub) deliverLocked(ch *channel, m *Message) (wake uint64) {
	for s := range ch.spreads() {
		wake |= h.pushToLocked(s, m)
	}
	return wake
}

// keepLocked keeps what is needed of a message later: its key, and the message itself in the history. Without a history
// it notes that the channel has lost one, so that a client that resumes is notified of the gap.
func (h *Hub) keepLocked(ch *channel, m *Message, k *keyed) {
	if k != nil {
		h.recordKeyLocked(m, k)
	}
	switch {
	case m.Transient:
	case h.keepsLocked(m.Channel, ch):
		if ch == nil {
			ch = h.openChannelLocked(m.Channel)
		}
		h.appendHistoryLocked(ch, m)
	case ch == nil:
		h.droppedSeq = m.Seq
	default:
		ch.droppedSeq = m.Seq
	}
}
