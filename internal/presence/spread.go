package presence

import (
	"encoding/json"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// Peers are the nodes that share a log. It is a *nodes.Cluster, except in tests.
type Peers interface {
	Tell(to uint64, kind string, data []byte)
	Hear(kind string, take func(from uint64, data []byte))
	Reunited(func())
	Reaches() bool
	StandingOf(node uint64) nodes.Standing
	Alive() int
}

// kindShares is what the nodes tell each other: a JSON array of shares.
const kindShares = "presence"

const (
	soon        = 50 * time.Millisecond // after which a new room is announced, together with others that are new
	spreadEvery = time.Second           // how often changes are sent

	// versionsEvery is how often a node tells all others its versions, in case that a message was lost; with more than
	// manyNodes nodes it is longer, so that what each node receives does not grow with their number.
	versionsEvery = 30 * time.Second
	manyNodes     = 100

	// What a node has stays for a while after its end, because its clients are on their way to other nodes. A node that is
	// silent counts as dead after 6 s (package nodes), so its members leave within 10 s too.
	leftGrace   = 8 * time.Second
	silentGrace = 2 * time.Second

	// atOnce is how many rooms are looked at without letting others have the lock.
	atOnce = 256
)

// spread is what the rooms of other nodes need. Table.mu guards it.
type spread struct {
	peers   Peers
	on      bool // there is a broker
	version uint64
	dirty   map[*live]struct{} // rooms that have something to tell
	ends    map[string][]uint64
	timer   *time.Timer
	due     time.Duration
	told    time.Duration            // when the versions were told last
	nodes   map[uint64]time.Duration // those that have something here: when they are forgotten, or never
}

// Share has the rooms have the members of other nodes too. It is called once, before there are connections.
func (t *Table) Share(p Peers) {
	t.spread = &spread{
		peers: p, due: never, dirty: make(map[*live]struct{}), ends: make(map[string][]uint64), nodes: make(map[uint64]time.Duration),
	}
	p.Hear(kindShares, t.hear)
	p.Reunited(t.reunited)
}

// reunited is called when the node can reach the others: all rooms are announced, as others may have missed anything.
func (t *Table) reunited() {
	t.mu.Lock()
	t.spread.on = true
	t.mu.Unlock()
	t.eachRoom(func(l *live) {
		l.begin(t.spread)
		l.sharing.version = 0
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spreadIn(soon)
}

// begin has the room tell other nodes what it has.
func (l *live) begin(x *spread) {
	if l.sharing == nil {
		l.sharing = &sharing{changed: make(map[string]struct{})}
	}
	l.sharing.dirty = true
	x.dirty[l] = struct{}{}
}

// eachRoom calls f for all rooms, some of them at a time.
func (t *Table) eachRoom(f func(*live)) {
	t.mu.Lock()
	all := make([]*live, 0, len(t.rooms))
	for _, l := range t.rooms {
		all = append(all, l)
	}
	t.mu.Unlock()
	for len(all) > 0 {
		t.mu.Lock()
		n := min(atOnce, len(all))
		for _, l := range all[:n] {
			if t.rooms[l.channel] == l {
				f(l)
			}
		}
		all = all[n:]
		t.mu.Unlock()
	}
}

// changedLocked notes that a room may have something to tell.
func (t *Table) changedLocked(l *live) {
	x := t.spread
	if x == nil || !x.on || l.sharing == nil {
		return
	}
	if l.sharing.version > 0 && l.lists() != l.sharing.listed {
		l.sharing.dirty = true
	}
	if l.sharing.dirty {
		x.dirty[l] = struct{}{}
		if l.sharing.version == 0 {
			t.spreadIn(soon)
		} else {
			t.spreadIn(spreadEvery)
		}
	}
}

// endedLocked notes that a room is empty here.
func (t *Table) endedLocked(l *live) {
	x := t.spread
	if x == nil || l.sharing == nil {
		return
	}
	delete(x.dirty, l)
	for node := range l.others {
		x.ends[l.channel] = append(x.ends[l.channel], node)
	}
	t.spreadIn(soon)
}

// spreadIn has the timer run after a time, or sooner.
func (t *Table) spreadIn(d time.Duration) {
	x := t.spread
	at := t.now() + d
	if at >= x.due {
		return
	}
	x.due = at
	if x.timer == nil {
		x.timer = time.AfterFunc(d, t.tick)
	} else {
		x.timer.Reset(d)
	}
}

// tick tells others what has changed, and forgets nodes that have ended.
func (t *Table) tick() {
	x := t.spread
	if !x.peers.Reaches() {
		t.alone()
		return
	}
	t.mu.Lock()
	x.due = never
	out := make(outbox)
	for channel, to := range x.ends {
		if t.rooms[channel] == nil { // otherwise it has members again, which are announced
			for _, node := range to {
				out.add(node, share{Channel: channel, End: true})
			}
		}
	}
	clear(x.ends)
	dirty := make([]*live, 0, len(x.dirty))
	for l := range x.dirty {
		dirty = append(dirty, l)
	}
	clear(x.dirty)
	for i, l := range dirty {
		if i%atOnce == atOnce-1 {
			t.mu.Unlock()
			t.mu.Lock()
		}
		if t.rooms[l.channel] == l {
			t.shareLocked(l, out)
		}
	}
	versions := t.now()-x.told >= t.versionsEvery()
	if versions {
		x.told = t.now()
	}
	if len(t.rooms) > 0 {
		t.spreadIn(spreadEvery)
	}
	t.mu.Unlock()
	if versions {
		t.tellVersions(out)
	}
	out.send(x.peers)
	t.forgetNodes()
}

// shareLocked adds what a room has to tell.
func (t *Table) shareLocked(l *live, out outbox) {
	t.spread.version++
	first := l.sharing.version == 0
	shares := l.shareChange(t.spread.version)
	if first {
		// To all, as others with members there are not known.
		shares[0].Ask = true
		out.add(0, shares...)
		return
	}
	for node := range l.others {
		out.add(node, shares...)
	}
}

// versionsEvery returns how often versions are told.
func (t *Table) versionsEvery() time.Duration {
	return versionsEvery * time.Duration(max(manyNodes, t.spread.peers.Alive())) / manyNodes
}

// tellVersions tells all nodes the versions of all rooms, and asks for what was not heard of for too long.
func (t *Table) tellVersions(out outbox) {
	t.eachRoom(func(l *live) {
		if l.sharing == nil || l.sharing.version == 0 {
			return
		}
		out.add(0, share{Channel: l.channel, Version: l.sharing.version, Bare: true})
		for node, o := range l.others {
			if t.now()-o.heard > 2*t.versionsEvery()+2*spreadEvery {
				out.add(node, share{Channel: l.channel, Check: true})
			}
		}
	})
}

// hear takes what another node tells.
func (t *Table) hear(from uint64, data []byte) {
	var shares []share
	if json.Unmarshal(data, &shares) != nil {
		return
	}
	out := make(outbox)
	for i := range shares {
		if s := &shares[i]; s.isValid() {
			t.hearOne(from, s, out)
		}
	}
	out.send(t.spread.peers)
}

// hearOne takes one share.
func (t *Table) hearOne(from uint64, s *share, out outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.rooms[s.Channel]
	if l == nil || l.sharing == nil {
		if s.Check {
			out.add(from, share{Channel: s.Channel, End: true})
		}
		return
	}
	if !l.take(from, s, t.now()) {
		out.add(from, share{Channel: s.Channel, Check: true})
	}
	if _, known := t.spread.nodes[from]; !known && l.others[from] != nil {
		t.spread.nodes[from] = never
	}
	if (s.Ask || s.Check) && l.sharing.version > 0 {
		out.add(from, l.shareAll()...)
	}
	t.step(l)
}

// forgetNodes takes the members of nodes that have ended out of the rooms, after their clients had time to return.
func (t *Table) forgetNodes() {
	x := t.spread
	t.mu.Lock()
	now := t.now()
	gone := make(map[uint64]bool)
	for node, at := range x.nodes {
		switch standing := x.peers.StandingOf(node); {
		case standing == nodes.Alive:
			x.nodes[node] = never
		case at == never && standing == nodes.Left:
			x.nodes[node] = now + leftGrace
		case at == never:
			x.nodes[node] = now + silentGrace
		case now >= at:
			gone[node] = true
			delete(x.nodes, node)
		}
	}
	t.mu.Unlock()
	t.forget(func(node uint64) bool { return gone[node] }, len(gone) > 0)
}

// alone ends what the table has of other nodes, as there is no broker any more.
func (t *Table) alone() {
	x := t.spread
	t.mu.Lock()
	x.on, x.due = false, never
	clear(x.nodes)
	clear(x.dirty)
	clear(x.ends)
	t.mu.Unlock()
	t.forget(func(uint64) bool { return true }, true)
	t.eachRoom(func(l *live) { l.sharing = nil })
}

// forget takes nodes out of all rooms.
func (t *Table) forget(isGone func(node uint64) bool, some bool) {
	if !some {
		return
	}
	t.eachRoom(func(l *live) {
		for node := range l.others {
			if isGone(node) {
				l.dropNode(node)
			}
		}
		t.step(l)
	})
}

// outbox is shares for nodes; 0 is all of them.
type outbox map[uint64][]share

func (o outbox) add(to uint64, s ...share) { o[to] = append(o[to], s...) }

// send sends them in messages of at most nodes.MaxTell bytes.
func (o outbox) send(p Peers) {
	for to, shares := range o {
		var message []byte
		for i := range shares {
			data := shares[i].json()
			if len(data) == 0 || len(data)+2 > nodes.MaxTell {
				continue
			}
			if len(message)+len(data)+2 > nodes.MaxTell {
				p.Tell(to, kindShares, append(message, ']'))
				message = nil
			}
			if message == nil {
				message = append(message, '[')
			} else {
				message = append(message, ',')
			}
			message = append(message, data...)
		}
		if message != nil {
			p.Tell(to, kindShares, append(message, ']'))
		}
	}
}
