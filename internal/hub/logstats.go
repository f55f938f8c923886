package hub

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// LogStats are totals of the log that the hub shares with others.
type LogStats struct {
	Watermark uint64 // the hub has everything of its open channels up to here
	Complete  bool   // it has had everything at least once since this log was attached
	Broken    bool   // it is not certain that everything comes
	Refusing  bool   // new connections are refused, because it was broken for longer than Config.PartitionTimeout

	Received uint64 // entries
	Late     uint64 // those of them that came out of order
	Gaps     uint64 // channels that the log has lost messages of
	Epochs   uint64
	Barriers uint64

	Opens        map[string]uint64 // channels that connections needed: "warm", "cold", or "read" from the log besides
	OpenChannels int
	Published    map[string]uint64 // messages by result: ok, repeated, down, unknown, conflict, too_big, other
	InFlight     int               // messages that the log has not answered for

	Publish Histogram // from publishing messages to the broker's answer, or until it was not waited for any longer
	Open    Histogram // from asking for channels that were cold until they are open
	Delay   Histogram // from storing an entry, by the log's clock, to delivering it here
}

// Histogram counts durations: those up to each bound in seconds, all, and all their seconds together.
type Histogram struct {
	Buckets map[float64]uint64
	Count   uint64
	Sum     float64
}

// histogram is a Histogram that is being counted, with FanoutBounds.
type histogram struct {
	counts [len(FanoutBounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// add counts a duration. Any goroutine may call it, without a lock.
func (x *histogram) add(d time.Duration) {
	d = max(d, 0) // clocks of two machines
	i := 0
	// The bounds are few, so looking at them one after the other costs less than a search.
	for i < len(FanoutBounds) && d.Seconds() > FanoutBounds[i] {
		i++
	}
	x.counts[i].Add(1)
	x.sum.Add(int64(d))
}

// stats returns the counts. They are read one after the other, so one duration may be in Count and not in Sum yet.
func (x *histogram) stats() Histogram {
	s := Histogram{Buckets: make(map[float64]uint64), Sum: time.Duration(x.sum.Load()).Seconds()}
	for i := range x.counts {
		n := x.counts[i].Load()
		s.Count += n
		for _, bound := range FanoutBounds[min(i, len(FanoutBounds)):] {
			s.Buckets[bound] += n
		}
	}
	return s
}

// publishResult is what became of a message that was published to a shared log.
type publishResult uint8

const (
	resultOK publishResult = iota
	resultRepeated
	resultDown
	resultUnknown
	resultConflict
	resultTooBig
	resultOther
	publishResults
)

// String returns the name of the result in metrics.
func (r publishResult) String() string {
	return [...]string{"ok", "repeated", "down", "unknown", "conflict", "too_big", "other"}[r]
}

// resultOf returns what became of a message by the error of its publishing.
func resultOf(err error) publishResult {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, broker.ErrDown), errors.Is(err, broker.ErrClosed): // the publisher gets ErrDown for both
		return resultDown
	case errors.Is(err, broker.ErrUnknown):
		return resultUnknown
	case errors.Is(err, broker.ErrConflict):
		return resultConflict
	case errors.Is(err, broker.ErrTooBig):
		return resultTooBig
	default:
		return resultOther
	}
}

// sent reports whether an answer of the log may be the broker's. Those that come at once because the broker is away would
// make it look fast just then.
func sent(err error) bool {
	r := resultOf(err)
	return r != resultDown && r != resultTooBig
}

// logCounts are a shared log's totals. Hub.mu guards all but the histograms.
type logCounts struct {
	received, late, gaps, epochs, barriers uint64
	warm, cold, read                       uint64
	published                              [publishResults]uint64
	inFlight                               int
	publish, open, delay                   *histogram
}

// newLogCounts returns empty totals. The histograms are apart, because they are added to without Hub.mu.
func newLogCounts() *logCounts {
	return &logCounts{publish: new(histogram), open: new(histogram), delay: new(histogram)}
}

// Log returns the state and the totals of the log that the hub shares with others, and false if it shares none.
func (h *Hub) Log() (broker.Status, LogStats, bool) {
	h.mu.Lock()
	s := h.log
	if s == nil {
		h.mu.Unlock()
		return broker.Status{}, LogStats{}, false
	}
	c := s.counts
	stats := LogStats{
		Watermark: h.seq, Complete: s.complete, Broken: s.broken, Refusing: s.partitioned,
		Received: c.received, Late: c.late, Gaps: c.gaps, Epochs: c.epochs, Barriers: c.barriers,
		Opens:        map[string]uint64{"warm": c.warm, "cold": c.cold, "read": c.read},
		OpenChannels: len(s.open),
		Published:    make(map[string]uint64),
		InFlight:     c.inFlight,
	}
	for _, own := range [...]string{kickChannel, toChannel, keyChannel} { // nobody's
		if s.open[own] != nil {
			stats.OpenChannels--
		}
	}
	for r := range publishResults {
		stats.Published[r.String()] = c.published[r]
	}
	h.mu.Unlock()
	// Without the lock: histograms are atomic, and a log's Status may take locks of its own, under which it may be
	// calling the hub.
	stats.Publish, stats.Open, stats.Delay = c.publish.stats(), c.open.stats(), c.delay.stats()
	return s.log.Status(), stats, true
}
