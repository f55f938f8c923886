package nodes

import (
	"slices"
	"time"
)

// table is what a node knows of the others. Session.mu guards it.
type table struct {
	nodes map[uint64]*peer

	// forgot are nodes whose counts this one has removed, and when. They are told if they are heard from again.
	forgot map[uint64]time.Time
	cut    bool      // nothing comes from the others
	back   time.Time // when it last did so again
	swept  time.Time
}

// peer is another node.
type peer struct {
	node  Node
	run   uint64
	until time.Time // it is alive until then, if nothing more comes
	gone  bool      // it has said goodbye
	told  time.Time // when it was last answered

	// How long it has had another epoch than this node, and which two they are.
	own, its string
	since    time.Time
}

const (
	// maxNodes bounds the memory for others, which is at most 1 KB each.
	maxNodes = 10_000
	// rememberTime is how long a node that has ended is remembered. What it has sent may still come.
	rememberTime = 10 * time.Minute
	// graceTime is how long after its end a node's counts are removed: one that only seemed to be dead has to set
	// all of them again.
	graceTime = 2 * basic
	maxForgot = 1000
	// againTime is how long after the counts of a node were removed they may be removed again.
	againTime = time.Minute
	// answerTime is the time between two answers to the beats of a node that asks for them.
	answerTime = time.Second
)

func newTable(now time.Time) table {
	return table{nodes: make(map[uint64]*peer), forgot: make(map[uint64]time.Time), back: now, swept: now}
}

func (p *peer) alive(now time.Time) bool { return p != nil && !p.gone && now.Before(p.until) }

func (t *table) isAlive(id uint64, now time.Time) bool { return t.nodes[id].alive(now) }

// alive counts the other nodes that are alive.
func (t *table) alive(now time.Time) (n int) {
	for _, p := range t.nodes {
		if p.alive(now) {
			n++
		}
	}
	return n
}

// alone reports whether there are none. Unlike alive it is called for each message.
func (t *table) alone(now time.Time) bool {
	for _, p := range t.nodes {
		if p.alive(now) {
			return false
		}
	}
	return true
}

// isAway reports whether a node is silent without a goodbye, for less than a time. While this node is cut off it cannot tell.
func (t *table) isAway(p *peer, now time.Time, limit time.Duration) bool {
	return !p.gone && !p.alive(now) && (t.cut || now.Sub(p.until) < limit)
}

// list returns those that are alive or away, by name.
func (t *table) list(now time.Time, away time.Duration) (list []Node) {
	for _, p := range t.nodes {
		n := p.node
		if n.Away = t.isAway(p, now, away); n.Away || p.alive(now) {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, byName)
	return list
}

// heard takes a beat. It reports whether the sender is to be answered, and whether its counts were removed.
func (t *table) heard(b *beat, now time.Time) (answer, forgot bool) {
	p := t.nodes[b.node.ID]
	switch {
	case p == nil && len(t.nodes) >= maxNodes:
		return false, false
	case p == nil:
		p = new(peer)
		t.nodes[b.node.ID] = p
	// Messages may overtake each other, but a connection that has ended does not come back.
	case b.run < p.run, b.run == p.run && p.gone:
		return false, false
	}
	p.node, p.run, p.gone = b.node, b.run, false
	p.until = now.Add(deadAfter * b.period)
	if answer = b.asks && now.Sub(p.told) >= answerTime; answer {
		p.told = now
	}
	_, forgot = t.forgot[b.node.ID]
	delete(t.forgot, b.node.ID)
	return answer, forgot
}

// goodbye takes the message that a node ends.
func (t *table) goodbye(id, run uint64, now time.Time) {
	if p := t.nodes[id]; p != nil && run >= p.run {
		if p.alive(now) {
			p.until = now
		}
		p.run, p.gone = run, true
	}
}

// differs returns since when a node has had its epoch while this one has had own, or zero if they are the same.
func (t *table) differs(id uint64, own string, now time.Time) time.Time {
	p := t.nodes[id]
	if p == nil {
		return time.Time{}
	}
	its := p.node.Epoch
	switch {
	case own == its || own == "" || its == "":
		p.since = time.Time{}
	case p.since.IsZero() || own != p.own || its != p.its:
		p.since = now
	}
	p.own, p.its = own, its
	return p.since
}

// sweep forgets what is too old. It returns the nodes whose counts are to be removed by this one.
func (t *table) sweep(self uint64, now time.Time, away time.Duration) (forget []uint64) {
	// A process that was stopped for so long has not heard from anybody either.
	if now.Sub(t.swept) >= deadAfter*period(len(t.nodes)) {
		t.back = now
	}
	t.swept = now
	first := true // of those that are alive
	for id, p := range t.nodes {
		first = first && !(p.alive(now) && id < self)
	}
	for id, p := range t.nodes {
		switch {
		case p.alive(now):
			continue
		case now.Sub(p.until) > rememberTime && !t.isAway(p, now, away):
			delete(t.nodes, id)
			continue
		}
		// One node does it, because there may be a thousand. If its call is lost, the node that finds the counts does it.
		if _, done := t.forgot[id]; first && !done && now.Sub(p.until) >= graceTime && t.claim(id, now) {
			forget = append(forget, id)
		}
	}
	for id, at := range t.forgot {
		if now.Sub(at) > rememberTime {
			delete(t.forgot, id)
		}
	}
	return forget
}

// isLongDead reports whether a node is dead and another one should have removed its counts by now. One that was never heard
// from counts as such.
func (t *table) isLongDead(id uint64, now time.Time) bool {
	p := t.nodes[id]
	return p == nil || !p.alive(now) && now.Sub(p.until) >= graceTime+2*period(len(t.nodes))
}

// claim reports whether this node may remove the counts of a node that it does not hear from, and notes that it does.
func (t *table) claim(id uint64, now time.Time) bool {
	// A node that was cut off has not heard from anybody.
	if t.cut || now.Sub(t.back) < deadAfter*period(len(t.nodes)) {
		return false
	}
	at, again := t.forgot[id]
	if again && now.Sub(at) < againTime || !again && len(t.forgot) >= maxForgot {
		return false
	}
	t.forgot[id] = now
	return true
}
