package brokertest

import (
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// session is a connection between a node and the broker. What is sent over it arrives in order, later, or not at all. A
// reconnect makes a new one. What is under way in the old one is dropped by its cut, as TCP does with what a closed
// connection still had to send. All of it is guarded by clock.mu.
type session struct {
	memory   *Memory
	log      *memoryLog
	up, down time.Time // when what was sent last arrives
	cut      bool
	lossy    bool // something was lost: see MemoryBroker.Mute

	// The broker's half.
	attached bool
	channels map[string]bool
	due      uint64 // how many entries were sent since it was attached, with those that faults have lost
}

// send has do called when what is sent now arrives. It looks at the faults twice, when it is sent and when it arrives, so
// that a fault that begins in between also loses what is under way.
func (s *session) send(last *time.Time, do func()) {
	m, b := s.memory, s.log.broker
	delay := b.latency
	if j := m.config.Jitter; j > 0 {
		delay += time.Duration(m.random.Int64N(int64(j)))
	}
	at := time.Now().Add(delay)
	// A connection keeps order, whatever the delays are: TCP does.
	if at.Before(*last) {
		at = *last
	}
	*last = at
	// A connection that has lost bytes cannot go on: TCP would have sent them again, or ended. So everything after the
	// first loss is lost too.
	s.lossy = s.lossy || b.muted
	m.clock.at(at, func() {
		if s.lossy = s.lossy || b.muted; !s.lossy && !s.cut {
			do()
		}
	})
}

// toBroker has do called when it arrives at the broker, which may be frozen.
func (s *session) toBroker(do func()) {
	s.send(&s.up, func() { s.memory.arrive(do) })
}

// toNode has do called when it arrives at the node. A node cannot be frozen, only muted.
func (s *session) toNode(do func()) { s.send(&s.down, do) }

// close cuts the connection.
func (s *session) close() {
	s.cut = true
	s.memory.sessions = slices.DeleteFunc(s.memory.sessions, func(o *session) bool { return o == s })
}

// attach subscribes the node to its channels and answers with what it may lack.
func (s *session) attach(subs map[string]*subscription) {
	m, l := s.memory, s.log
	if s.cut {
		return
	}
	if !s.attached {
		s.attached = true
		m.sessions = append(m.sessions, s)
	}
	// Replaced and not added to: a repair attaches a second time, and channels may have been released since the first.
	s.channels = make(map[string]bool, len(subs))
	for name := range subs {
		s.channels[name] = true
	}
	s.due = 0
	// Position and content are taken at one moment, and what comes after it is sent behind: that makes the position one
	// from which everything comes live.
	epoch, asked, at := m.store.epoch, l.epoch, m.store.seq
	var es []broker.Entry
	var lost []string
	if epoch == asked {
		es, lost = m.store.missed(subs, l.certain)
	}
	l.broker.traffic.CatchUp.add(1, size(es))
	s.toNode(func() { l.attachedLocked(subs, epoch, asked, at, es, lost) })
}

// subscribe subscribes the node to channels, and a moment later tells it since when: meanwhile some entries may have gone
// there, as with a broker that subscribes first and then asks for a position.
func (s *session) subscribe(subs map[string]*subscription) {
	if s.cut || !s.attached {
		return
	}
	for name := range subs {
		s.channels[name] = true
	}
	m := s.memory
	var wait time.Duration
	if j := m.config.Jitter; j > 0 {
		wait = time.Duration(m.random.Int64N(int64(j)))
	}
	position := func() {
		// A barrier has a position of its own, as with JetStream, so that the hub never can count on positions without
		// gaps.
		m.store.seq++
		at, due := m.store.seq, s.due
		s.toNode(func() { s.log.openedLocked(subs, at, due) })
	}
	m.clock.after(wait, func() {
		if !s.cut {
			m.arrive(position)
		}
	})
}

// deliver sends the node what it is subscribed to of entries that were stored together. The entries of one publish go in one
// message, so they arrive at one moment and in one run.
func (s *session) deliver(es []chained) {
	var run []chained
	for _, e := range es {
		if !s.channels[e.Channel] && !s.channels[""] {
			continue
		}
		// Faults count too. The node finds by that number that something did not come, even if nothing more is published
		// on the channel.
		s.due++
		if b := s.log.broker; b.loseLive > 0 {
			b.loseLive--
			continue
		}
		run = append(run, e)
	}
	if len(run) > 0 {
		for i := range run {
			s.log.broker.traffic.Entry.add(1, sizeOf(&run[i].Entry))
		}
		s.toNode(func() { s.log.receiveLocked(run) })
	}
}

// tick tells the node the newest position, and then calls done at its Barrier's callers. The answer takes the same way as
// entries. That is the whole proof of a barrier: when it has arrived, so has everything that was stored before.
func (s *session) tick(barriers []func(uint64, error)) {
	if s.cut {
		return
	}
	if barriers == nil {
		s.log.broker.traffic.Tick.add(1, 0)
	}
	at, due := s.memory.store.seq, s.due
	s.toNode(func() { s.log.tickLocked(at, due, barriers) })
}
