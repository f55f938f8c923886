package hub

import (
	"maps"
	"sync/atomic"
	"time"
)

// Stats are the hub's totals.
type Stats struct {
	Epoch       string
	Started     time.Time
	Connections int    // open now
	Channels    int    // with subscribers now
	Seq         uint64 // of the last message published, which is how many there were
	Bytes       uint64 // of data published
	Deliveries  uint64 // messages handed to connections
	Written     uint64 // bytes handed to connections
	Writes      uint64 // times a connection was handed bytes
	Backlog     int64  // bytes waiting for connections that do not take them
	Memory      int64  // bytes that Config.MaxMemory bounds
	Keys        int    // idempotency keys that are known
	KeysEvicted uint64 // and those that were forgotten before their time, for want of room
	Kept        int    // messages in history
	KeptBytes   int    // and what they cost
	Gaps        uint64 // that connections were notified of

	Transports map[string]int    // connections by transport
	Published  map[string]uint64 // messages by source
	Closed     map[string]uint64 // connections that have ended, by reason
	Rejected   map[string]uint64 // connections and messages that were over a limit, by limit

	// Fanout counts messages by how long they took from their publishing to the last of their writes on a loop, in
	// seconds: those up to each bound, and in FanoutSum all their seconds together.
	Fanout      map[float64]uint64
	FanoutCount uint64
	FanoutSum   float64
}

// Stats returns the current totals.
func (h *Hub) Stats() Stats {
	// One hold of the lock for what it guards. It is short: the maps have an entry per transport and source, not per connection.
	h.mu.Lock()
	s := Stats{
		Epoch:       h.epoch,
		Started:     h.started,
		Connections: h.connections,
		Channels:    h.subscribed,
		Kept:        h.history.count,
		KeptBytes:   int(h.history.bytes.Load()),
		Seq:         h.seq,
		Bytes:       h.bytes,
		Gaps:        h.gaps,
		Memory:      h.held.Load() + h.queuedLocked(),
		Keys:        len(h.repeats.known),
		KeysEvicted: h.repeats.evicted,
		Transports:  maps.Clone(h.transports),
		Published:   maps.Clone(h.published),
	}
	h.mu.Unlock()
	// The rest is atomic, and a moment newer than what was read under the lock.
	s.Backlog = h.backlog.Load()
	s.Rejected = make(map[string]uint64)
	for r := range limits {
		s.Rejected[r.String()] = h.rejected[r].Load()
	}
	s.Closed = make(map[string]uint64)
	s.Fanout = make(map[float64]uint64)
	for _, l := range h.loops {
		c := &l.counts
		s.Deliveries += c.deliveries.Load()
		s.Written += c.written.Load()
		s.Writes += c.writes.Load()
		s.Gaps += c.gaps.Load()
		for r := range reasons {
			s.Closed[r.String()] += c.closed[r].Load()
		}
		for i := range c.fanout {
			n := c.fanout[i].Load()
			s.FanoutCount += n
			for _, bound := range FanoutBounds[min(i, len(FanoutBounds)):] {
				s.Fanout[bound] += n
			}
		}
		s.FanoutSum += time.Duration(c.fanoutSum.Load()).Seconds()
	}
	return s
}

// Subscribers returns how many connections a channel has.
func (h *Hub) Subscribers(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch := h.channels[name]; ch != nil {
		return ch.subscribers
	}
	return 0
}

// FanoutBounds are the upper bounds, in seconds, of the buckets that count how long messages took.
var FanoutBounds = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// counts are a loop's totals. The loop alone adds to them, and anyone reads them. Each loop has its own, so that loops on
// different cores do not write to the same memory.
type counts struct {
	deliveries atomic.Uint64 // messages handed to connections
	written    atomic.Uint64 // bytes handed to connections
	writes     atomic.Uint64 // times a connection was handed bytes
	gaps       atomic.Uint64 // gaps that connections were notified of after they had started
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
