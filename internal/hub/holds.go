package hub

import "time"

// Holds says how long Hub.mu was held, in CPU time.
type Holds struct {
	N, Long int // how often, and how often for more than a millisecond
	Longest time.Duration
	By      string // the function that held it longest, and its callers
}
