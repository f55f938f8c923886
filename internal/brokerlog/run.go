// Package brokerlog is what the logs of message brokers have in common: how they give entries to the Sink, what an epoch looks
// like, and how they know the time of the broker's clock.
package brokerlog

import (
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// maxRun is how many entries the Sink gets at once. More would save little, since the cost of a call is spread over 256
// already, and would make one call longer.
const maxRun = 256

// Run gathers entries for the Sink, and how far W has moved. Only the goroutine that calls the Sink uses it.
type Run struct {
	sink    broker.Sink
	entries []broker.Entry
	w       uint64 // that the Sink does not have yet, or 0
}

// NewRun returns an empty run.
func NewRun(sink broker.Sink) Run { return Run{sink: sink} }

// Advance moves W.
func (r *Run) Advance(w uint64) { r.w = w }

// Add adds an entry, to whose position W has moved, and gives the Sink a run that is long enough.
func (r *Run) Add(e broker.Entry) {
	r.entries = append(r.entries, e)
	if len(r.entries) >= maxRun {
		r.Flush()
	}
}

// Flush gives the Sink what was gathered.
func (r *Run) Flush() {
	if len(r.entries) > 0 {
		entries := r.entries
		r.entries = nil // the Sink may keep it
		if r.w == entries[len(entries)-1].Seq {
			r.w = 0
		}
		r.sink.Entries(entries)
	}
	if w := r.w; w > 0 {
		r.w = 0
		r.sink.Advance(w)
	}
}

// Missed gives the Sink entries that were read to catch up, and W. It is given even if nothing was missed, because others may
// wait until W is there: rule 3 of package broker.
func (r *Run) Missed(entries []broker.Entry, w uint64) {
	for part := range slices.Chunk(entries, maxRun) {
		// Cloned, because the Sink may keep a run and all share one array.
		r.sink.Entries(slices.Clone(part))
	}
	r.w = 0
	r.sink.Advance(w)
}
