package hub

import (
	"maps"
	"slices"
)

// Followed is where a connection is that another hub has had, or this one before.
type Followed struct {
	Channels []string // as far as backends have had it join and leave some

	name     string
	log      *sharedLog
	era      uint32
	since    uint64
	commands int // how many there were for the name
	ons      uint64
}

// Follow returns which channels a connection would be on now that had a name, and was on these channels at a position. If the
// position is empty, it is where the connection of this hub has ended that had the name. c is the connection that goes on with
// it, by Entrance.Follow. ok is false if the hub cannot be sure, or if it has ended for good.
func (c *Conn) Follow(name, position string, channels []string) (f *Followed, ok bool) {
	h := c.hub
	if _, err := c.SharedKeys(); err != nil { // it has the traces begin
		return nil, false
	}
	h.mu.Lock()
	since, ok := h.leftLocked(name, position)
	if !ok || !h.knowTracesLocked(since) {
		h.mu.Unlock()
		return nil, false
	}
	s := h.log
	commands, ended := s.traces.commandsOf(name, since)
	f = &Followed{name: name, log: s, era: s.era, since: since, ons: s.traces.ons}
	if e := s.traces.names[name]; e != nil {
		f.commands = len(e.Value.(*nameTrace).commands)
	}
	h.mu.Unlock()
	if ended {
		return nil, false
	}
	f.Channels, ok = apply(commands, name, channels)
	return f, ok
}

// leftLocked returns the number of a position, or of where the connection of this hub has ended that had a name.
func (h *Hub) leftLocked(name, position string) (seq uint64, ok bool) {
	if position != "" {
		epoch, seq, good := parseID(position)
		return seq, good && epoch == h.epoch
	}
	if n := h.names[name]; n != nil && n.conn == nil && n.origin == h.origin {
		return n.left, true
	}
	return 0, false
}

// apply does to channels what commands do to the connection on them. It returns false if they close it.
func apply(commands []*NameCommand, name string, channels []string) ([]string, bool) {
	slices.SortFunc(commands, byPosition)
	on := make(map[string]bool)
	for _, c := range channels {
		on[c] = true
	}
	excepted := func(except string) bool { return except == name || on[except] }
	for _, k := range commands {
		if k.On != "" && (!on[k.On] || slices.ContainsFunc(k.Except, excepted)) {
			continue
		}
		switch k.Do {
		case DoJoin:
			on[k.Channel] = true
		case DoLeave:
			delete(on, k.Channel)
		case DoClose:
			return nil, false
		}
	}
	return slices.Collect(maps.Keys(on)), true
}

// holdsLocked reports whether what was followed still holds. Without what is kept for the name there may be no private message
// after a position either.
func (f *Followed) holdsLocked(kept bool, seq uint64) bool {
	s := f.log
	if s.hub.log != s || s.era != f.era || s.traces == nil || s.traces.era != f.era || s.traces.from > f.since || s.hub.namesLost > f.since {
		return false
	}
	x := new(nameTrace)
	if e := s.traces.names[f.name]; e != nil {
		x = e.Value.(*nameTrace)
	}
	// Any other command may have changed what it is on: then it begins anew.
	return !x.ended && len(x.commands) == f.commands && s.traces.ons == f.ons && (kept || x.private <= seq)
}
