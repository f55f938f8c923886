package nodes

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

const (
	// reportInterval is how often a channel's number of subscribers is set, at most.
	reportInterval = time.Second
	// reportSize is how many numbers are set at once: with names of 30 bytes some 20 KB.
	reportSize = 500
	// maxPending bounds the channels that wait while the broker does not answer. Beyond it all are looked at again.
	maxPending = 1 << 16
	// piecesAtOnce is how many times reportSize numbers all nodes together set again in a second, and maxPieces each of
	// them, when all have to: after a restart of the broker a million numbers take at least 20 s.
	piecesAtOnce = 100
	maxPieces    = 10
	// allInterval is the time between two times that everything is set again.
	allInterval = 10 * time.Second
	// auditInterval is how often that is done without a cause. A broker may lose numbers without anybody noticing.
	auditInterval = 10 * time.Minute
)

// reports are this node's numbers of subscribers, as the broker has them. All but wanted and urgent belongs to the loop.
type reports struct {
	session *Session
	wanted  atomic.Bool // that all are set again
	urgent  atomic.Bool // at once

	told    map[string]int      // what the broker has, without 0; unknown if it has not answered
	failed  []string            // the channels that were to be set when the broker did not answer
	pending map[string]struct{} // those that wait for that

	// While all are set again.
	again  bool
	after  string // those up to this name are
	credit float64
	last   time.Time // when it last began
}

const unknown = -1

func (r *reports) init(s *Session) {
	r.session, r.told, r.pending = s, make(map[string]int), make(map[string]struct{})
}

// setAll starts to set all numbers again.
func (r *reports) setAll() { r.wanted.Store(true) }

// setAllNow does the same as soon as possible, because the broker is known to have lost them.
func (r *reports) setAllNow() { r.urgent.Store(true) }

// loop sets what has changed, until the session ends.
func (r *reports) loop() {
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	for {
		r.setChanged()
		r.setSome()
		select {
		case <-r.session.stop:
			return
		case <-ticker.C:
		}
	}
}

// setChanged sets the numbers that have changed.
func (r *reports) setChanged() {
	names, all := r.session.cluster.hub.CountsChanged()
	maps.Copy(r.pending, names)
	if all || len(r.pending) > maxPending {
		// All that may be wrong in the broker is what it has, which follows here, and what the hub has.
		clear(r.pending)
		for name := range r.told {
			r.pending[name] = struct{}{}
		}
		r.begin()
	}
	for _, name := range r.failed {
		delete(r.pending, name)
	}
	// Those that have failed are the first, so what is unknown does not grow while the broker is down.
	order := slices.AppendSeq(r.failed, maps.Keys(r.pending))
	r.failed = nil
	for piece := range slices.Chunk(order, reportSize) {
		counts := make(map[string]int)
		for i, n := range r.session.cluster.hub.SubscribersOf(piece) {
			if r.told[piece[i]] != n {
				counts[piece[i]] = n
			}
		}
		if !r.set(counts) {
			r.failed = slices.Clone(piece)
			return
		}
		for _, name := range piece {
			delete(r.pending, name)
		}
	}
	if len(r.pending) == 0 && len(order) > reportSize {
		r.pending = make(map[string]struct{}) // a map keeps the room that it has had
	}
}

// begin begins to set all again.
func (r *reports) begin() {
	told := make(map[string]int, len(r.told)) // a map keeps the room that it has had
	maps.Copy(told, r.told)
	r.told = told
	// Not the same for all nodes: with many of them it is long until the first has a whole piece.
	r.again, r.after, r.credit, r.last = true, "", rand.Float64(), time.Now()
}

// setSome goes on to set all again. The more nodes there are the slower it does, because mostly all of them do so at the same
// time.
func (r *reports) setSome() {
	s := r.session
	since := time.Since(r.last)
	if r.urgent.Swap(false) || since >= allInterval && r.wanted.Swap(false) || since >= auditInterval {
		r.begin()
	}
	if !r.again || len(r.failed) > 0 {
		return
	}
	n := s.alive()
	for r.credit = min(r.credit+float64(piecesAtOnce)/float64(n), maxPieces); r.credit >= 1; r.credit-- {
		list := s.cluster.hub.Channels("", r.after, reportSize)
		counts := make(map[string]int)
		for _, ch := range list {
			if ch.Subscribers > 0 {
				counts[ch.Name] = ch.Subscribers
			}
		}
		if !r.set(counts) {
			r.failed = slices.Collect(maps.Keys(counts))
			return
		}
		if len(list) < reportSize {
			r.again = false
			return
		}
		r.after = list[len(list)-1].Name
	}
}

// set sets numbers, and reports whether the broker has them.
func (r *reports) set(counts map[string]int) bool {
	if len(counts) == 0 {
		return true
	}
	answer := make(chan error, 1)
	r.session.peers.SetCounts(maps.Clone(counts), func(err error) { answer <- err })
	err := errStopped
	select {
	case err = <-answer:
	case <-r.session.stop:
	}
	for name, n := range counts {
		switch {
		case err != nil:
			r.told[name] = unknown
		case n == 0:
			delete(r.told, name)
		default:
			r.told[name] = n
		}
	}
	return err == nil
}

var errStopped = errors.New("the session has ended")

// end removes all numbers from the broker, and returns when it has answered, or after limit. The loop has ended.
func (r *reports) end(limit time.Duration) {
	peers := r.session.peers
	var asked sync.WaitGroup
	for piece := range slices.Chunk(slices.Collect(maps.Keys(r.told)), reportSize) {
		counts := make(map[string]int, len(piece))
		for _, name := range piece {
			counts[name] = 0
		}
		asked.Add(1)
		peers.SetCounts(counts, func(error) { asked.Done() })
	}
	// A question, because its answer says that the broker has what was sent before, such as the goodbye. The log is closed
	// next, which drops what is still on its way.
	asked.Add(1)
	peers.Counts([]string{hub.DefaultChannel}, func([]map[uint64]int, error) { asked.Done() })
	done := make(chan struct{})
	go func() {
		asked.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
