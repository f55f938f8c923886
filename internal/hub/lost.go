package hub

import "slices"

// Lost implements broker.Sink. The subscribers of the channels are told of a gap before what comes after it, so that none
// of them goes with a position beyond what it misses. Where that ends is only known when the log is repaired. Until then
// nobody is given a position, and from then on nobody resumes from before it.
func (s *sharedLog) Lost(channels []string) {
	// A kick that is lost is nothing that a client has missed. Whoever asked for it is told that this node has not answered.
	channels = slices.DeleteFunc(slices.Clone(channels), func(name string) bool { return name == kickChannel })
	if len(channels) == 0 {
		return
	}
	s.call(func() {
		s.hub.mu.Lock()
		current, catchingUp := s.currentLocked(), s.catchUp != nil
		if current {
			s.losing = append(s.losing, channels...)
		}
		s.hub.mu.Unlock()
		if current && !catchingUp { // otherwise it is told before what the log catches up with
			s.tellLost(channels)
		}
	})
}

// tellLost tells the subscribers of channels that they miss messages.
func (s *sharedLog) tellLost(channels []string) {
	s.eachLost(channels, func(name string) (wake uint64) { return s.tellLostLocked(name) })
}

// endLosing has the channels that have lost something begin at the watermark.
func (s *sharedLog) endLosing() {
	h := s.hub
	h.mu.Lock()
	channels := s.losing
	all := slices.Contains(channels, "")
	if all { // first, so that a channel that comes into the hub meanwhile begins there too
		s.lostAll, h.namesLost = h.seq, h.seq
	}
	h.mu.Unlock()
	if channels == nil {
		return
	}
	if all {
		h.eachChannel(func(ch *channel) { ch.droppedSeq = h.seq })
	}
	s.eachLost(channels, func(name string) uint64 {
		switch name {
		case toChannel:
			h.namesLost = h.seq
		case "":
		default:
			s.setFloorLocked(name, h.seq)
		}
		return 0
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	// From here on handshakes go on, which nextLocked has had wait.
	s.losing = nil
	s.notifyLocked()
}

// eachLost calls f for channels, some at a time, under Hub.mu, and wakes the loops that it says.
func (s *sharedLog) eachLost(channels []string, f func(name string) (wake uint64)) {
	h := s.hub
	for some := range slices.Chunk(channels, atOnce) {
		h.mu.Lock()
		if !s.currentLocked() {
			h.mu.Unlock()
			return
		}
		var wake uint64
		for _, name := range some {
			wake |= f(name)
		}
		h.mu.Unlock()
		h.wake(wake)
	}
}

// tellLostLocked has the subscribers of a channel told that they miss messages, or, if the name is empty, all
// connections.
func (s *sharedLog) tellLostLocked(name string) (wake uint64) {
	h := s.hub
	if name == kickChannel { // what a log could not catch up with: see Lost
		return 0
	}
	s.counts.gaps++
	if name == toChannel {
		return h.tellNamesLocked()
	}
	if name == "" { // all connections, on all of their channels
		for _, l := range h.loops {
			wake |= l.pushLocked(entry{op: opGap})
		}
		return wake
	}
	if h.all != nil { // whoever is on all channels is on this one
		wake = h.all.gapLocked()
	}
	if ch := h.channels[name]; ch != nil {
		wake |= ch.gapLocked()
	}
	return wake
}
