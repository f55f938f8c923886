package hub

import "time"

// idleTime is how long a channel stays open after its last subscriber has left: a page that is reloaded comes back soon.
const idleTime = 30 * time.Second

// maxIdle is how many channels stay open for that. With more, those that were left first are released at once: clients that
// come for one channel after the other must not make a node receive them all.
const maxIdle = 10_000

// idleChannel is a channel in the list of those that may be released.
type idleChannel struct {
	channel *openChannel
	since   time.Time
}

// idleLocked notes that nobody may need a channel any more. It is released when that is still so after idleTime. All such
// channels share one timer, and each is in its list once.
func (s *sharedLog) idleLocked(name string) {
	h := s.hub
	o := s.open[name]
	if o == nil || ownChannel(name) || o.pins > 0 || s.usedLocked(name) || h.log != s {
		return
	}
	o.idleFrom = time.Now()
	if o.queued {
		return
	}
	o.queued = true
	s.idle = append(s.idle, idleChannel{o, o.idleFrom})
	switch {
	case s.idleTimer == nil:
		s.idleTimer = time.AfterFunc(idleTime, s.releaseIdle)
	case len(s.idle) > maxIdle && !s.idling:
		s.idleTimer.Reset(0)
	}
}

// usedLocked reports whether a channel has subscribers.
func (s *sharedLog) usedLocked(name string) bool {
	if name == "" {
		return s.hub.all != nil
	}
	ch := s.hub.channels[name]
	return ch != nil && ch.subscribers > 0
}

// releaseIdle releases the channels that nobody has needed for idleTime, some at a time, with what is kept of them.
func (s *sharedLog) releaseIdle() {
	h := s.hub
	h.mu.Lock()
	again := s.idling
	s.idling = true
	h.mu.Unlock()
	if again {
		return // it was set again before it had begun
	}
	for more := true; more; {
		var names []string
		h.mu.Lock()
		if names, more = s.takeIdleLocked(); len(names) > 0 {
			s.releasing = make(chan struct{})
		}
		s.idling = more
		h.mu.Unlock()
		if len(names) > 0 {
			// Without Hub.mu, as all calls of the log. No channel is opened meanwhile (releasing), because the log
			// might get the two calls in the other order.
			s.log.Release(names)
			h.mu.Lock()
			close(s.releasing)
			s.releasing = nil
			h.mu.Unlock()
		}
	}
}

// takeIdleLocked forgets some of the channels that are idle for long enough, and returns them. It reports whether there may
// be more; otherwise it sets the timer for the next. While some are being released the timer is not set, so that they are
// released before the next are taken.
func (s *sharedLog) takeIdleLocked() (names []string, more bool) {
	h := s.hub
	now := time.Now()
	dropped := 0
	for range atOnce {
		if len(s.idle) == 0 || !s.currentLocked() {
			if len(names) > 0 {
				return names, true
			}
			s.idle, s.idleTimer = nil, nil
			return nil, false
		}
		o, since := s.idle[0].channel, s.idle[0].since
		if s.open[o.name] == o && o.pins == 0 && !s.usedLocked(o.name) {
			if wait := idleTime - now.Sub(since); wait > 0 && len(s.idle) <= maxIdle {
				if len(names) == 0 {
					s.idleTimer.Reset(wait)
				}
				return names, len(names) > 0
			}
			if o.idleFrom.After(since) { // it was used meanwhile
				s.idle = append(s.idle[1:], idleChannel{o, o.idleFrom})
				continue
			}
			for ch := h.channels[o.name]; ch != nil && ch.history.count > 0; dropped++ {
				// The rest goes with the next piece: the channel is still the first in the list.
				if dropped == atOnce {
					return names, true
				}
				h.dropOldestLocked(ch)
			}
			// From here on nobody finds it, and an entry that still comes only moves the watermark (I1).
			delete(s.open, o.name)
			names = append(names, o.name)
		}
		o.queued = false
		s.idle[0] = idleChannel{}
		s.idle = s.idle[1:]
	}
	return names, true
}
