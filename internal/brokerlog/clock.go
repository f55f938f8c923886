package brokerlog

import "time"

// Clock is what the clock of a broker has shown. The hub needs it to tell how old entries are, because the clock of this node
// may be hours off.
type Clock struct{ shown, at time.Time }

// NewClock returns a clock that has shown something at a time of this node's clock.
func NewClock(shown, at time.Time) Clock { return Clock{shown, at} }

// Now returns what the clock shows now, or zero if that is not known.
func (c Clock) Now() time.Time {
	if c.at.IsZero() {
		return time.Time{}
	}
	// time.Since counts by the monotonic clock, so it does not matter if this node's clock is set right meanwhile.
	return c.shown.Add(time.Since(c.at))
}
