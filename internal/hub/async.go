package hub

import (
	"errors"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// errShared is how admitLocked says that messages have to be published to the shared log.
var errShared = errors.New("the hub shares a log")

const (
	// maxInFlight is how many messages of a connection the shared log may not have answered for. Beyond it the connection
	// is not read, and TCP holds the client back.
	// With answers after 1 ms this allows 64,000 messages per second. Conn.inFlight is a uint8.
	maxInFlight = 64

	// downTime is how long a connection that publishes is not read when the log is broken, before its messages fail.
	downTime = 5 * time.Second

	// postedRetry is how often a publisher without a connection looks whether there is room by now.
	postedRetry = 5 * time.Millisecond
)

// publishShared publishes to the shared log and waits for its answer.
func (h *Hub) publishShared(ms []*Message) error {
	// With room for one, so that a callback never waits for who has called.
	answer := make(chan error, 1)
	h.publishAsync(ms, ms[0].From != nil, func(err error) { answer <- err })
	return <-answer
}

// PublishAsync is PublishWait for a publisher that need not know at once what became of its message: done is called with
// that. If the hub shares a log, PublishAsync does not wait for its answer, but a connection that publishes waits while too
// many of its messages have none. Otherwise done is called before PublishAsync returns. It must not block.
func (h *Hub) PublishAsync(m *Message, done func(error)) {
	h.publishAllAsync([]*Message{m}, m.From != nil, done)
}

// PublishAllAsync is PublishAsync for the messages of one call of PublishWait. It keeps the slice. Publishers without a
// connection wait too while there is no room, or while the log is broken. Unlike clients that use POST, they cannot be told to
// try again.
func (h *Hub) PublishAllAsync(ms []*Message, done func(error)) { h.publishAllAsync(ms, true, done) }

func (h *Hub) publishAllAsync(ms []*Message, patient bool, done func(error)) {
	if !h.Shared() {
		done(h.PublishWait(ms...))
		return
	}
	if err := checkAll(ms); err != nil {
		done(err)
		return
	}
	h.publishAsync(ms, patient, done)
}

// publishAsync publishes checked messages to the shared log. They are all of one publisher, who waits if it is patient.
func (h *Hub) publishAsync(ms []*Message, patient bool, done func(error)) {
	s, size, err := h.beginPublish(ms, patient)
	if err != nil {
		done(err)
		return
	}
	// Only here, because beginPublish may wait: the histogram is about the broker and not about the hub.
	begun := time.Now()
	s.log.Publish(entriesOf(ms, h.node), func(places []broker.Place, err error) {
		if sent(err) {
			s.counts.publish.add(time.Since(begun))
		}
		done(s.published(ms, places, err, size))
	})
}

// beginPublish waits until messages may be published to the shared log, and counts them and what they hold.
func (h *Hub) beginPublish(ms []*Message, patient bool) (s *sharedLog, size int, err error) {
	from := ms[0].From
	size = messageOverhead
	for _, m := range ms {
		size += cap(m.Data) + messageOverhead + m.Emit.cost()
	}
	if from == nil {
		// What a publisher without a connection has in flight is bounded only here: each POST is a request of its own.
		if err := h.awaitPosted(size, patient); err != nil {
			return nil, 0, err
		}
	} else {
		size = from.reserve(size) // or it is closed
	}
	h.mu.Lock()
	s, err = h.awaitLogLocked(from, patient)
	if err == nil {
		s.counts.inFlight += len(ms)
		if from != nil {
			// Once per call and not per message: published counts it down in the same way.
			from.inFlight++
			h.noEchoLocked(ms)
		}
	} else if s != nil && err == ErrDown { // the log was not asked, because it has not begun, but its users see an outage
		s.counts.published[resultDown] += uint64(len(ms))
	}
	h.mu.Unlock()
	if err != nil {
		h.free(from, size)
	}
	return s, size, err
}

// awaitPosted counts what a publisher without a connection holds, when there is room. There is an error if there is none and
// it is not patient.
func (h *Hub) awaitPosted(size int, patient bool) error {
	for !h.holdPosted(size) {
		h.checkMemory()
		if !patient {
			return h.reject(LimitMemory, ErrFull)
		}
		// It looks again now and then, because room comes from answers of the log and from clients that read, and neither tells.
		timer := time.NewTimer(postedRetry)
		select {
		case <-timer.C:
		case <-h.quit:
			timer.Stop()
			return ErrClosed
		}
	}
	return nil
}

// holdPosted counts what a publisher without a connection holds, if there is room. Together they may hold an eighth of
// Config.MaxMemory, though a single message may be larger. They cannot be closed to make room, so while the log does not
// answer, subscribers would have to be closed instead.
func (h *Hub) holdPosted(size int) bool {
	limit := h.maxMemory.Load()
	n := h.posted.Add(int64(size))
	if limit > 0 && n > limit/8 && n > int64(size) || h.crowded(size) {
		h.posted.Add(-int64(size))
		return false
	}
	h.held.Add(int64(size))
	return true
}

// free counts out what a publisher has held.
func (h *Hub) free(from *Conn, size int) {
	if from == nil {
		h.posted.Add(-int64(size))
		h.held.Add(-int64(size))
	} else {
		from.countWaiting(-size)
	}
}

// awaitLogLocked returns the log to publish to, or the one that cannot be published to yet and ErrDown. A connection waits
// while it has too much in flight. If the log is broken, a patient publisher waits a while until it is repaired.
func (h *Hub) awaitLogLocked(from *Conn, patient bool) (*sharedLog, error) {
	for {
		s := h.log
		switch {
		case h.closed || from != nil && from.left:
			return nil, ErrClosed
		case s == nil:
			return nil, ErrDown // it was replaced by the hub's own a moment ago
		case from != nil && from.inFlight >= maxInFlight:
			h.awaitAnswerLocked(from)
			continue
		}
		// The time counts from when the log broke: if that was long ago, nobody waits.
		left := downTime - time.Since(s.brokenSince)
		if !patient || !s.broken || left <= 0 {
			// Without an epoch the position in an answer would mean nothing.
			if !s.started {
				return s, ErrDown
			}
			return s, nil
		}
		changed := s.changed
		h.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-h.quit:
		}
		timer.Stop()
		h.mu.Lock()
	}
}

// awaitAnswerLocked waits for an answer of the log for a connection. Each has a channel of its own, because there may be many
// that wait, and an answer is for one. It releases Hub.mu meanwhile.
func (h *Hub) awaitAnswerLocked(from *Conn) {
	answered := h.awaiting[from]
	if answered == nil {
		answered = make(chan struct{})
		if h.awaiting == nil {
			h.awaiting = make(map[*Conn]chan struct{})
		}
		h.awaiting[from] = answered
	}
	h.mu.Unlock()
	select {
	case <-answered:
	case <-h.quit:
	}
	h.mu.Lock()
}

// noEchoLocked has a connection found that gets no echo, when its messages come back.
func (h *Hub) noEchoLocked(ms []*Message) {
	for _, m := range ms {
		if m.NoEcho && m.From != nil {
			if h.echoes == nil {
				h.echoes = make(map[ConnID]*Conn)
			}
			// It stays until the connection ends (forgetConn), because a connection that publishes mostly does so
			// again.
			h.echoes[m.From.id] = m.From
			// All messages of a call are from one connection.
			return
		}
	}
}

// published notes what became of messages, and returns it for the publisher.
func (s *sharedLog) published(ms []*Message, places []broker.Place, err error, size int) error {
	h, from := s.hub, ms[0].From
	if partial, ok := errors.AsType[*broker.PartialError](err); ok {
		places = partial.Places
	}
	h.mu.Lock()
	s.counts.inFlight -= len(ms)
	if from != nil {
		from.inFlight--
		if answered := h.awaiting[from]; answered != nil {
			delete(h.awaiting, from)
			close(answered)
		}
	}
	for i, m := range ms {
		if i >= len(places) {
			s.counts.published[resultOf(err)]++
			continue
		}
		// I6: the position that the publisher is told is the log's, and not one that this node has made.
		p := places[i]
		m.Seq, m.origin = p.Seq, h.origin
		if m.Time = time.UnixMilli(p.Time); p.Time == 0 {
			m.Time = time.Now()
		}
		// Those of this node: it does not know the subscribers of others.
		if m.private() {
			if h.namedLocked(m.Emit.To) != nil {
				m.Subscribers = 1
			}
		} else if ch := h.channels[m.Channel]; ch != nil {
			m.Subscribers = ch.subscribers
		}
		if p.Repeated {
			s.counts.published[resultRepeated]++
			continue
		}
		s.counts.published[resultOK]++
		h.bytes += uint64(len(m.Data))
		h.published[m.Source]++
	}
	h.mu.Unlock()
	h.free(from, size)
	if errors.Is(err, broker.ErrClosed) && places == nil {
		return ErrDown // it was not published, and may be to the log that follows
	}
	return err
}
