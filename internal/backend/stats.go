package backend

import (
	"sync"
	"sync/atomic"
	"time"
)

// result is what became of something that a backend has published.
type result uint8

const (
	done           result = iota // it was given to the hub
	ignored                      // it is for a server of Socket.IO, which would answer
	wrongNamespace               // no route has the namespace
	wrongChannel                 // no option has the channel
	invalid                      // it cannot be decoded, or delivered
	unavailable                  // the hub could not take it
	results
)

// String returns the result as metrics and logs name it.
func (r result) String() string {
	return [...]string{"ok", "ignored", "namespace", "channel", "invalid", "unavailable"}[r]
}

// Stats are the totals of an Intake.
type Stats struct {
	Listens     bool              // there is a server
	Connections int               // of its clients
	Rejected    uint64            // clients that were too many
	Connects    bool              // a Redis is to be subscribed to
	Connected   bool              // it is
	Messages    map[string]uint64 // by result
}

// counts are the counters of an Intake.
type counts struct {
	results [results]atomic.Uint64
	acks    atomic.Bool // people were told of acks

	mu       sync.Mutex
	reported [results]time.Time
}

// Stats returns the totals of now.
func (i *Intake) Stats() Stats {
	s := Stats{Connected: i.connected.Load(), Messages: make(map[string]uint64)}
	for r := range results {
		s.Messages[r.String()] = i.counts.results[r].Load()
	}
	i.mu.Lock()
	current := i.current
	s.Connects = i.source != ""
	i.mu.Unlock()
	if current != nil {
		now := current.resp.Stats()
		s.Listens, s.Connections, s.Rejected = true, now.Connections, now.Rejected
	}
	return s
}

// complainEvery is how often a dropped message is logged for the same reason.
const complainEvery = time.Minute

// note counts a result, and reports whether people should be told of it without having asked.
func (c *counts) note(r result) (tell bool) {
	c.results[r].Add(1)
	if r == done || r == ignored {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.reported[r]) < complainEvery {
		return false
	}
	c.reported[r] = now
	return true
}
