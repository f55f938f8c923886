package nats

import "time"

// clock is what the clock of the stream's leader has shown. The hub needs it to tell how old entries are, because that of this
// node may be hours off.
type clock struct{ shown, at time.Time }

// setClock notes what the leader's clock has shown between asked and now. It was about in the middle.
func (l *log) setClock(shown, asked time.Time) {
	if shown.IsZero() { // a server that does not tell it
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = clock{shown, asked.Add(time.Since(asked) / 2)}
}

// now returns what the clock shows now, or zero if that is not known.
func (c clock) now() time.Time {
	if c.at.IsZero() {
		return time.Time{}
	}
	// time.Since counts by the monotonic clock, so it does not matter if this node's clock is set right meanwhile.
	return c.shown.Add(time.Since(c.at))
}
