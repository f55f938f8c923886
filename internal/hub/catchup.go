package hub

import (
	"cmp"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// openSubscribed opens the channels that have subscribers, for a log that takes the place of another one.
func (s *sharedLog) openSubscribed() {
	h := s.hub
	var names []string
	flush := func() {
		if len(names) > 0 {
			s.openChannels(names)
			names = nil
		}
	}
	next := ""
	for more := true; more; {
		n := 0
		h.mu.Lock()
		if !s.currentLocked() {
			h.mu.Unlock()
			return
		}
		ready := make(chan struct{})
		if next == "" && h.all != nil {
			names = append(names, s.resumeLocked("", ready)...)
		}
		more = false
		for name := range h.index.from(next, "") {
			if h.channels[name].subscribers > 0 {
				names = append(names, s.resumeLocked(name, ready)...)
			}
			next = following(name)
			if n++; n == atOnce {
				more = true
				break
			}
		}
		if c := s.catchUp; c != nil && len(names) > 0 {
			c.opening++
		}
		h.mu.Unlock()
		flush()
	}
	h.mu.Lock()
	if c := s.catchUp; c != nil {
		c.listed = true
		s.readCatchUpLocked()
	}
	h.mu.Unlock()
}

// resumeLocked adds a channel that has subscribers already, unless somebody else was faster.
func (s *sharedLog) resumeLocked(name string, ready chan struct{}) []string {
	if s.open[name] != nil {
		return nil
	}
	s.addLocked(name, ready).resume = true
	return []string{name}
}

// startCatchUpLocked begins what follows when the log turns out to have the epoch of the one before. The watermark stays
// where it is until what was published between the two is read.
func (s *sharedLog) startCatchUpLocked(at uint64) {
	s.started = true
	s.catchUp.begun = true
	s.catchUp.at = max(s.catchUp.at, at)
	s.readCatchUpLocked()
}

// readCatchUpLocked reads when all is open.
func (s *sharedLog) readCatchUpLocked() {
	if c := s.catchUp; c.begun && c.listed && c.opening == 0 && s.currentLocked() {
		c.opening = -1 // once
		go s.readCatchUp(c)
	}
}

// readCatchUp reads what the channels have since the log before, and then delivers it together with what has come live, in
// the order of the log.
func (s *sharedLog) readCatchUp(c *catchUp) {
	var missed []broker.Entry
	var lost []string
	ofAll := false
	bytes := 0
	for i, name := range c.names {
		if bytes > maxHeld {
			lost = append(lost, c.names[i:]...)
			break
		}
		if name == "" { // there is no reading of all channels, but those who are on single ones lose nothing
			ofAll = true
			continue
		}
		es, complete, err := s.log.Read(s.ctx, name, c.from, maxCaughtUp, maxHeld-bytes)
		if err != nil || !complete {
			lost = append(lost, name)
			continue
		}
		for _, e := range es {
			if e.Seq <= c.liveAt[i] {
				bytes += len(e.Data) + messageOverhead
				missed = append(missed, e)
			}
		}
	}
	s.order.Lock() // nothing comes live meanwhile
	defer s.order.Unlock()
	h := s.hub
	h.mu.Lock()
	if !s.currentLocked() || s.catchUp != c {
		h.mu.Unlock()
		return
	}
	s.catchUp = nil
	if c.lost {
		missed, lost = nil, c.names
	}
	h.mu.Unlock()
	s.ingest(inOrder(append(missed, c.held...), c.from))

	h.mu.Lock()
	if s.currentLocked() {
		h.seq = max(h.seq, c.at)
	}
	h.mu.Unlock()
	s.lose(append(lost, c.gaps...))
	var wake uint64
	h.mu.Lock()
	if ofAll && s.currentLocked() {
		wake = s.loseLocked("")
	}
	s.settled = true
	s.notifyLocked()
	h.mu.Unlock()
	h.wake(wake)
}

// maxCaughtUp is how many messages of one channel are read when a log follows another one.
const maxCaughtUp = 100_000

// inOrder sorts entries, and drops those that are there twice or come not after a position.
func inOrder(es []broker.Entry, after uint64) []broker.Entry {
	slices.SortStableFunc(es, func(a, b broker.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	es = slices.CompactFunc(es, func(a, b broker.Entry) bool { return a.Seq == b.Seq })
	first, _ := slices.BinarySearchFunc(es, after+1, func(e broker.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	return es[first:]
}
