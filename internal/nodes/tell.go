package nodes

import (
	"time"
)

// MaxTell is the size of the largest message that Tell takes: the rest of broker.MaxMessage is for its kind.
const MaxTell = 255_000

// Tell sends a message of a kind to one node, or to all others if the number is 0. Without a broker, or if its nodes cannot
// reach each other, it does nothing. As broker.Peers.Send has it, the message comes once or not at all, and messages may
// overtake each other.
func (c *Cluster) Tell(to uint64, kind string, data []byte) {
	if s := c.current(); s != nil {
		s.peers.Send(to, append(appendText([]byte{messageVersion, kindTold}, kind, maxKind), data...))
	}
}

// Hear sets the function that takes messages of a kind from other nodes. It must return soon, and must not trust them. Each kind
// is set once, before the first session.
func (c *Cluster) Hear(kind string, take func(from uint64, data []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hear[kind] = take
}

// Reunited sets the function that is called when this node can reach the others, at first or again. It must return soon. It is
// set once, before the first session.
func (c *Cluster) Reunited(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reunited = f
}

// Reaches reports whether there is a broker whose nodes can reach each other.
func (c *Cluster) Reaches() bool { return c.current() != nil }

// Standing is whether a node is alive.
type Standing int

// What a node can be.
const (
	Alive  Standing = iota
	Left            // it has said goodbye
	Silent          // nothing was heard from it for too long, or ever
)

// StandingOf returns what a node is. While this node is cut off it cannot tell, and takes all of them to be alive.
func (c *Cluster) StandingOf(id uint64) Standing {
	s := c.current()
	if s == nil {
		return Left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	p := s.table.nodes[id]
	switch {
	case p != nil && p.gone:
		return Left
	case p.alive(now), s.table.cut, now.Sub(s.table.back) < deadAfter*period(len(s.table.nodes)):
		return Alive
	}
	return Silent
}

// told passes a message on.
func (s *Session) told(from uint64, rest []byte) {
	r := reader{rest: rest}
	kind := r.text(maxKind)
	c := s.cluster
	c.mu.Lock()
	take := c.hear[kind]
	c.mu.Unlock()
	if take != nil && !r.bad && s.started() {
		take(from, r.rest)
	}
}

// reunite reports that this node can reach the others.
func (c *Cluster) reunite() {
	c.mu.Lock()
	f := c.reunited
	c.mu.Unlock()
	if f != nil {
		f()
	}
}
