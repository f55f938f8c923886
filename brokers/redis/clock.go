package redis

import "time"

// clock is the last known time of the server's clock. The hub needs it to tell how old entries are, because the clock of
// this node may be hours off.
type clock struct{ shown, at time.Time }

// setClock notes what the server's clock shows now, in milliseconds since 1970.
func (l *log) setClock(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = clock{time.UnixMilli(now), time.Now()}
}

// now returns what the clock shows now, or zero if that is not known.
func (c clock) now() time.Time {
	if c.at.IsZero() {
		return time.Time{}
	}
	// time.Since counts by the monotonic clock, so it does not matter if this node's clock is set right meanwhile.
	return c.shown.Add(time.Since(c.at))
}
