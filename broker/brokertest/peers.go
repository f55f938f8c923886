package brokertest

import (
	"maps"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// This file is broker.Peers of a memoryLog. What nodes send each other goes through the same sessions as entries, so it has
// their delays and is lost by the same faults. Its callbacks have a goroutine of their own: a hub that waits in the Sink
// must not keep a node from hearing of others.

// counts is the numbers that nodes have set, by channel and node. None of them is 0.
type counts map[string]map[uint64]int

func (c counts) set(node uint64, numbers map[string]int) {
	for channel, n := range numbers {
		switch {
		case n != 0 && c[channel] == nil:
			c[channel] = map[uint64]int{node: n}
		case n != 0:
			c[channel][node] = n
		default:
			c.remove(channel, node)
		}
	}
}

func (c counts) remove(channel string, node uint64) {
	delete(c[channel], node)
	if len(c[channel]) == 0 {
		delete(c, channel)
	}
}

func (c counts) forget(node uint64) {
	for channel := range c {
		c.remove(channel, node)
	}
}

// of returns copies, because the broker's own change later.
func (c counts) of(channels []string) []map[uint64]int {
	all := make([]map[uint64]int, len(channels))
	for i, channel := range channels {
		all[i] = maps.Clone(c[channel])
	}
	return all
}

// peerCall is a call of SetCounts or Counts without an answer.
type peerCall struct {
	fail func(error)
	lost error // if no answer comes
}

// Send implements broker.Peers.
func (l *memoryLog) Send(to uint64, message []byte) {
	l.memory.clock.mu.Lock()
	defer l.memory.clock.mu.Unlock()
	s, from := l.session, l.node
	if s == nil {
		return
	}
	s.toBroker(func() {
		for _, other := range l.memory.logsLocked() {
			if other.node != from && (to == 0 || other.node == to) && other.session != nil {
				other.session.message(from, slices.Clone(message))
			}
		}
	})
}

// message sends the node what another one has sent, or loses it.
func (s *session) message(from uint64, message []byte) {
	if b := s.log.broker; b.loseMessages > 0 {
		b.loseMessages--
		return
	}
	s.log.broker.traffic.Message.add(1, len(message))
	s.toNode(func() {
		s.log.fromPeers.add(func(closed bool) {
			if receive := s.log.receiveMessage; !closed && receive != nil {
				receive(from, message)
			}
		})
	})
}

// SetCounts implements broker.Peers.
func (l *memoryLog) SetCounts(numbers map[string]int, done func(error)) {
	l.callPeers(&peerCall{done, broker.ErrUnknown}, func() func() {
		l.memory.counts.set(l.node, numbers)
		l.broker.traffic.Counts.add(len(numbers), 0)
		return func() { done(nil) }
	})
}

// Counts implements broker.Peers.
func (l *memoryLog) Counts(channels []string, done func([]map[uint64]int, error)) {
	// Nothing has happened, so a call that gets no answer may be made again: ErrDown.
	l.callPeers(&peerCall{func(err error) { done(nil, err) }, broker.ErrDown}, func() func() {
		all := l.memory.counts.of(channels)
		return func() { done(all, nil) }
	})
}

// Forget implements broker.Peers. It is lost without a connection, and the node that calls it sees the numbers again.
func (l *memoryLog) Forget(node uint64) {
	l.memory.clock.mu.Lock()
	defer l.memory.clock.mu.Unlock()
	if s := l.session; s != nil {
		s.toBroker(func() { l.memory.counts.forget(node) })
	}
}

// callPeers has the broker do something, whose result is called at the node.
func (l *memoryLog) callPeers(c *peerCall, do func() (answer func())) {
	if err := l.sendCall(c, do); err != nil {
		c.fail(err)
	}
}

// sendCall sends a call, or says why it cannot.
func (l *memoryLog) sendCall(c *peerCall, do func() (answer func())) error {
	m := l.memory
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	s := l.session
	switch {
	case l.closed:
		return broker.ErrClosed
	case s == nil:
		return broker.ErrDown
	}
	l.peerCalls = append(l.peerCalls, c)
	s.toBroker(func() {
		answer := do()
		s.toNode(func() { l.settleLocked(c, answer) })
	})
	m.clock.after(m.config.PublishTimeout, func() { l.settleLocked(c, func() { c.fail(c.lost) }) })
	return nil
}

// settleLocked answers a call, unless it was answered already.
func (l *memoryLog) settleLocked(c *peerCall, answer func()) {
	if i := slices.Index(l.peerCalls, c); i >= 0 {
		l.peerCalls = slices.Delete(l.peerCalls, i, i+1)
		l.fromPeers.add(func(bool) { answer() })
	}
}

// failPeersLocked answers all calls, because the connection is lost or the log is closed.
func (l *memoryLog) failPeersLocked(closed bool) {
	for _, c := range slices.Clone(l.peerCalls) {
		err := c.lost
		if closed {
			err = broker.ErrClosed
		}
		l.settleLocked(c, func() { c.fail(err) })
	}
}

// ForgetCounts loses all numbers that nodes have set, as a broker does that keeps them in memory and restarts.
func (m *Memory) ForgetCounts() {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	clear(m.counts)
}

// LoseMessages loses the next n messages that other nodes send to this one with broker.Peers.
func (b *MemoryBroker) LoseMessages(n int) { b.set(func() { b.loseMessages = n }) }
