package hub

import "time"

// Publish gives the messages their places in the log and leaves them to the loops: all of them, next to each other,
// or none and an error, an *InvalidError where one of them could not be sent to every client. It never waits for
// subscribers. Afterwards the messages are the hub's: only what Publish has set may be read.
func (h *Hub) Publish(ms ...*Message) error { return h.publish(ms, false) }

// PublishWait is Publish for one who can be held back: where Publish returns ErrFull it waits for room instead.
func (h *Hub) PublishWait(ms ...*Message) error { return h.publish(ms, true) }

func (h *Hub) publish(ms []*Message, wait bool) error {
	if len(ms) == 0 {
		return nil
	}
	if err := checkAll(ms); err != nil {
		return err
	}
	keys, err := h.repeats.keysOf(ms)
	if err != nil {
		return err
	}
	now := time.Now()
	from := ms[0].From
	h.mu.Lock()
	waited, err := h.awaitFit(ms, from, wait)
	if waited > 0 {
		defer from.waits(-waited)
		now = time.Now()
	}
	if err != nil {
		h.mu.Unlock()
		return err
	}
	if now.Before(h.seqTime) {
		now = h.seqTime // another was faster: times are in the order of the log
	}
	h.seqTime = now
	if !h.repeats.look(keys, now) {
		h.mu.Unlock()
		return ErrKeyReused
	}
	wake := h.enter(ms, keys, now)
	most := h.options.historyBytes()
	h.mu.Unlock()
	h.wake(wake)
	if h.history.bytes.Load() > int64(most) { // see trim
		h.trimAll(most)
	}
	h.checkMemory()
	return nil
}

// awaitFit returns when there is room for the messages, or an error if there is not and it must not wait. A connection
// that waited holds bytes, which the caller counts out later. The caller holds h.mu.
func (h *Hub) awaitFit(ms []*Message, from *Conn, wait bool) (waited int, err error) {
	for {
		if h.closed || from != nil && from.left {
			return waited, ErrClosed
		}
		limit, ok := h.fits(ms)
		if ok {
			return waited, nil
		}
		if !wait {
			h.Refused(limit)
			h.checkMemory()
			return waited, ErrFull
		}
		if waited == 0 && from != nil {
			n := waiterCost + cap(ms[0].Data)
			h.mu.Unlock()
			if h.crowded(n) {
				from.cut()
			} else {
				waited = n
				from.waits(n)
			}
			h.mu.Lock()
			continue // there may be room now
		}
		h.awaitRoom()
	}
}

// fits reports whether every loop that ms go to has room for them, and all together, or else which limit they are
// over. A loop with nothing waiting always has room.
func (h *Hub) fits(ms []*Message) (limit Refusal, ok bool) {
	need := 0
	for _, m := range ms {
		need += m.cost()
		for _, ch := range [...]*channel{h.channels[m.Channel], h.all} {
			if ch == nil {
				continue
			}
			for _, a := range ch.audiences {
				if n := a.loop.inboxBytes; n > 0 && n+need > h.options.MaxInbox {
					return RefusedFull, false
				}
			}
		}
	}
	if h.options.MaxMemory > 0 && !h.hasRoom(h.memoryFor(ms)) {
		return RefusedMemory, false
	}
	return 0, true
}

// enter gives messages that fit their places, and puts them in inboxes and the history. The caller holds h.mu.
func (h *Hub) enter(ms []*Message, keys []keyed, now time.Time) (wake uint64) {
	for i, m := range ms {
		m.hub = h
		if !m.NoEcho {
			m.From = nil // history would hold the connection
		}
		if m.Key != "" {
			k := &keys[i]
			if first := ms[k.first]; first != m {
				m.Seq, m.Subscribers, m.Time = first.Seq, first.Subscribers, first.Time
				continue
			}
			if k.seq != 0 {
				m.Seq, m.Subscribers, m.Time = k.seq, k.subscribers, k.at
				continue
			}
		}
		h.seq++
		h.bytes += uint64(len(m.Data))
		h.published[m.Source]++
		m.Seq, m.Time = h.seq, now
		ch := h.channels[m.Channel]
		if ch != nil {
			m.Subscribers = ch.subscribers
		}
		if h.all != nil {
			wake |= h.deliver(h.all, m)
		}
		if m.Key != "" {
			h.rememberKey(m, &keys[i])
		}
		if ch == nil {
			if h.options.History == 0 {
				h.lost = m.Seq
				continue
			}
			ch = h.open(m.Channel)
		}
		wake |= h.deliver(ch, m)
		if h.options.History > 0 {
			h.remember(ch, m)
		} else {
			ch.lost = m.Seq
		}
	}
	return wake
}

// deliver puts a message in the inboxes of a channel's subscribers. The caller holds h.mu.
func (h *Hub) deliver(ch *channel, m *Message) (wake uint64) {
	for _, a := range ch.audiences {
		a.loop.inboxBytes += m.cost()
		wake |= a.loop.push(entry{op: opMessage, audience: a, message: m})
	}
	return wake
}
