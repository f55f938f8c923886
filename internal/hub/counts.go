package hub

import (
	"errors"
	"sync/atomic"
	"time"
)

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

// Refusal is a limit that a connection or a message was over.
type Refusal uint8

// Refusals.
const (
	RefusedConnections Refusal = iota // Options.MaxConnections
	RefusedRoute                      // Subscriber.MaxConnections
	RefusedAddress                    // Subscriber.MaxPerRemote
	RefusedChannels                   // Options.MaxChannels
	RefusedMemory                     // Options.MaxMemory: a connection or a message
	RefusedFull                       // ErrFull
	RefusedRate                       // how fast a client may publish
	RefusedOrigin                     // where a page may come from
	refusals
)

func (r Refusal) String() string {
	return [...]string{"connections", "route", "address", "channels", "memory", "full", "rate", "origin"}[r]
}

// Refused counts what the hub does not refuse itself.
func (h *Hub) Refused(r Refusal) { h.refused[r].Add(1) }

func (h *Hub) refuse(r Refusal, err error) error {
	h.Refused(r)
	return err
}

func reasonFor(err error) Reason {
	if errors.Is(err, ErrStuck) || errors.Is(err, ErrTimeout) {
		return ReasonSlow
	}
	return ReasonLost
}

// FanoutBounds are the upper bounds, in seconds, of the buckets that count how long messages took.
var FanoutBounds = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// counts are a loop's, added to by it alone and read by anyone.
type counts struct {
	deliveries atomic.Uint64 // messages handed to connections
	written    atomic.Uint64 // bytes handed to connections
	writes     atomic.Uint64 // times a connection was handed bytes
	gaps       atomic.Uint64 // gaps that connections were told of, when they had started
	closed     [reasons]atomic.Uint64
	fanout     [len(FanoutBounds) + 1]atomic.Uint64 // messages, by how long they took
	fanoutSum  atomic.Int64                         // nanoseconds
}

// took counts how long a run took, from each message's publishing to the last of its writes on this loop.
func (c *counts) took(run []*Message, now time.Time) {
	for _, m := range run {
		d := now.Sub(m.Time)
		i := 0
		for i < len(FanoutBounds) && d.Seconds() > FanoutBounds[i] {
			i++
		}
		c.fanout[i].Add(1)
		c.fanoutSum.Add(int64(d))
	}
}
