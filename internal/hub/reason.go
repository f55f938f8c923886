package hub

import "errors"

// Reason is why a connection ended.
type Reason uint8

// Reasons.
const (
	ReasonClient   Reason = iota // it went, or said that it goes
	ReasonSlow                   // its backlog was full, or it took nothing in time
	ReasonSilent                 // it showed no life for two ping intervals
	ReasonLost                   // it could not be written any more
	ReasonPolicy                 // it did what it may not
	ReasonTooBig                 // its message was too big
	ReasonProtocol               // what it sent was wrong
	ReasonRestart                // the hub ended
	ReasonMemory                 // its backlog was the largest when there was no more room for all
	reasons
)

func (r Reason) String() string {
	return [...]string{"client", "slow", "silent", "lost", "policy", "too_big", "protocol", "restart", "memory"}[r]
}

// reasonOf returns what a close code says (RFC 6455, section 7.4).
func reasonOf(code uint16) Reason {
	switch code {
	case codeRestart:
		return ReasonRestart
	case codeTryLater:
		return ReasonSlow
	case 1008:
		return ReasonPolicy
	case 1009:
		return ReasonTooBig
	case 1002, 1003, 1007:
		return ReasonProtocol
	}
	return ReasonClient
}

func reasonFor(err error) Reason {
	if errors.Is(err, ErrStuck) || errors.Is(err, ErrTimeout) {
		return ReasonSlow
	}
	return ReasonLost
}
