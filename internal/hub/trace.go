package hub

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// traces is what a hub knows of names that other hubs have given, from the channel of a shared log that has what is for names:
// so a connection can take the place of one of another hub, and know what backends have had that join and leave. It costs the log
// nothing, because commands are there anyway. It begins with the first connection that needs it.
//
// Hub.mu guards it.
type traces struct {
	era     uint32
	from    uint64 // all after this position is known
	gone    uint64 // the log does not have all after this position, or it is too much
	names   map[string]*list.Element
	recent  list.List      // of *nameTrace, the one with the newest entry last
	on      []*NameCommand // those for all on a channel
	ons     uint64         // how many of these there were
	size    int            // what they take in memory
	limit   int            // the most
	reads   int            // how many there were
	reading chan struct{}  // closed when the read that is under way has ended
}

// nameTrace is what there was for a name.
type nameTrace struct {
	name     string
	last     uint64 // the newest entry
	commands []*NameCommand
	private  uint64 // where the last private message is
	ended    bool   // nobody can go on with the name
	size     int
}

// Bounds of what a hub knows of names. What has had nothing for the longest time is forgotten first.
const (
	maxTraces        = 64 << 10
	maxTraceBytes    = 16 << 20
	maxTraceCommands = 256 // of one name. A client that comes back after more begins anew
	maxOnCommands    = 1024
	traceCost        = 256 // about what a trace or a command takes besides its texts
	traceRead        = 4096
	traceReadBytes   = 1 << 20

	// A thousand clients that come back to a new node in any order cause some ten reads. More of them are somebody's who tries
	// to cause reads.
	maxTraceReads = 64
)

// cost returns about what a command takes in memory.
func (k *NameCommand) cost() int {
	n := traceCost + len(k.Name) + len(k.On) + len(k.Channel)
	for _, name := range k.Except {
		n += len(name) + partOverhead
	}
	return n
}

// tracesLocked returns the traces, which begin now if there are none, or begin again in another epoch.
func (s *sharedLog) tracesLocked() *traces {
	if s.traces != nil && s.traces.era == s.era {
		return s.traces
	}
	s.dropTracesLocked()
	s.traces = &traces{era: s.era, from: s.hub.seq, limit: maxTraceBytes, names: make(map[string]*list.Element)}
	return s.traces
}

func (s *sharedLog) dropTracesLocked() {
	if s.traces != nil {
		s.hub.held.Add(-int64(s.traces.size))
		s.traces = nil
	}
}

// traceLocked notes an entry for names: a command, or a private message to a name.
func (s *sharedLog) traceLocked(seq uint64, k *NameCommand, to string) {
	if s.traces == nil {
		return // nobody needs it
	}
	t := s.tracesLocked()
	t.limit = maxTraceBytes
	if all := s.hub.maxMemory.Load(); all > 0 {
		t.limit = min(t.limit, int(all/16)) // nobody who holds much can be closed for it
	}
	before := t.size
	t.note(seq, k, to)
	s.hub.held.Add(int64(t.size - before))
}

func (t *traces) note(seq uint64, k *NameCommand, to string) {
	switch {
	case k == nil:
		x := t.touch(to, seq)
		x.private = max(x.private, seq)
	case k.On != "":
		t.on = append(t.on, k)
		t.ons++
		t.size += k.cost()
	case k.Do == DoMove: // it changes nothing
	default:
		x := t.touch(k.Name, seq)
		if k.Do == DoEnd || k.Do == DoClose || len(x.commands) == maxTraceCommands {
			x.ended = true
			for _, k := range x.commands {
				t.size -= k.cost()
				x.size -= k.cost()
			}
			x.commands = nil
		} else if !x.ended {
			x.commands = append(x.commands, k)
			t.size += k.cost()
			x.size += k.cost()
		}
	}
	for len(t.names) > maxTraces || t.size > t.limit && len(t.names) > 0 {
		oldest := t.recent.Remove(t.recent.Front()).(*nameTrace)
		delete(t.names, oldest.name)
		t.size -= oldest.size
		t.from = max(t.from, oldest.last)
	}
	for len(t.on) > maxOnCommands || t.size > t.limit && len(t.on) > 0 {
		oldest := slices.MinFunc(t.on, byPosition) // after a read it is not the first
		t.on = slices.DeleteFunc(t.on, func(k *NameCommand) bool { return k == oldest })
		t.size -= oldest.cost()
		t.from = max(t.from, oldest.seq)
	}
}

// touch returns the trace of a name, which has an entry at a position.
func (t *traces) touch(name string, seq uint64) *nameTrace {
	e := t.names[name]
	if e == nil {
		e = t.recent.PushFront(&nameTrace{name: name, size: traceCost + len(name)})
		t.names[name] = e
		t.size += traceCost + len(name)
	}
	x := e.Value.(*nameTrace)
	if seq > x.last { // not one of a read, which is older than all that came live
		x.last = seq
		t.recent.MoveToBack(e)
	}
	return x
}

func byPosition(a, b *NameCommand) int { return cmp.Compare(a.seq, b.seq) }

// commandsOf returns the commands that may be for a name after a position, in no order, and whether the name has ended.
func (t *traces) commandsOf(name string, since uint64) (commands []*NameCommand, ended bool) {
	if e := t.names[name]; e != nil {
		x := e.Value.(*nameTrace)
		commands, ended = slices.Clone(x.commands), x.ended
	}
	commands = append(commands, t.on...)
	return slices.DeleteFunc(commands, func(k *NameCommand) bool { return k.seq <= since }), ended
}

// knowTracesLocked reports whether everything after a position is known. It may release Hub.mu, to read what is not.
func (h *Hub) knowTracesLocked(since uint64) bool {
	deadline := time.Now().Add(positionTime)
	for {
		s := h.log
		if s == nil || s.traces == nil || s.traces.era != s.era {
			return false
		}
		t := s.traces
		first := t.reading == nil
		switch {
		case t.from <= since:
			return true
		case t.gone >= since || first && t.reads == maxTraceReads || time.Now().After(deadline):
			return false
		case first:
			t.reading = make(chan struct{})
			t.reads++
		}
		wait := t.reading
		h.mu.Unlock()
		read := true
		if first {
			read = s.readTraces(t, since)
		} else {
			<-wait // it has a limit of its own
		}
		h.mu.Lock()
		if !read {
			return false
		}
	}
}

// readTraces reads what was for names after a position and is not known yet, and reports false if it cannot. Few connections cause
// a read: what is known reaches back further each time.
func (s *sharedLog) readTraces(t *traces, since uint64) bool {
	h := s.hub
	ctx, cancel := context.WithTimeout(s.ctx, positionTime)
	defer cancel()
	var es []broker.Entry
	complete := false
	err := takePlace(ctx, s.shortReads, func() (err error) {
		es, complete, err = s.log.Read(ctx, toChannel, since, traceRead, traceReadBytes)
		return err
	})
	type read struct {
		seq uint64
		k   *NameCommand
		to  string
	}
	var all []read
	for i := range es {
		e := &es[i]
		if k := s.commandOf(e); k != nil {
			all = append(all, read{e.Seq, k, ""})
		} else if m := messageOf(e, time.Time{}); m != nil && m.private() {
			all = append(all, read{e.Seq, nil, m.Emit.To})
		}
	}
	h.mu.Lock()
	floor := t.from
	h.mu.Unlock()
	h.inPieces(func() bool {
		for range atOnce {
			// What is after the floor came live too. Where that has risen, what is read had to be forgotten at once.
			if !complete || len(all) == 0 || all[0].seq > floor || t.from != floor || s.traces != t {
				return true
			}
			before := t.size
			t.note(all[0].seq, all[0].k, all[0].to)
			h.held.Add(int64(t.size - before))
			all = all[1:]
		}
		return false
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	close(t.reading)
	t.reading = nil
	switch {
	case err != nil:
		return false
	case complete && t.from == floor:
		t.from = since
	default:
		t.gone = max(t.gone, since)
	}
	return true
}
