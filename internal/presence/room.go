// Package presence knows who is on the channels of routes that have the option presence, and tells their members: a new one
// who is there, and the others what has changed, at most once per second.
//
// A room has the members of one channel. It is a pure type: it is told the time, and returns what is to be sent. A Table has
// the rooms of a hub, and is what observes the connections.
//
// A member is a user, however many connections it has, or a connection without a user. Those without a user cannot be told
// apart, so they are only counted.
package presence

import (
	"container/heap"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// maxListed is how many members a channel may have so that they are listed. Beyond that only their count is sent: each of n
// members would be sent each of n arrivals. Members are listed again when they are listedAgain, so that a channel whose count moves
// around the limit does not send a list to everybody each time. They are variables so that tests need fewer members.
var maxListed, listedAgain = 1000, 900

const (
	// maxListBytes limits the size of a list in the same way. MinBacklog is twice that, so that it fits a backlog.
	maxListBytes     = 256 << 10
	listedAgainBytes = maxListBytes - maxListBytes/8

	minInterval        = time.Second
	maxInterval        = 10 * time.Second
	membersEachSecond  = 1000 // a room sends at most about that many notices per second, down to one each maxInterval
	memberOverhead     = 24   // bytes in a list in addition to the user and the data
	never              = time.Duration(1<<63 - 1)
	unknown            = -1 * time.Hour // before all times
	maxForgottenGraces = 64             // of members who came back, before the heap is cleaned

	// What counts in max_memory, as measured by BenchmarkRoom, and in addition the texts.
	roomCost      = 512
	memberCost    = 192 // with its place in the maps
	elsewhereCost = 48
	graceCost     = 24
)

// MinBacklog is the smallest max_backlog of a route with presence, so that a list fits.
const MinBacklog = 2 * maxListBytes

// member is a user in a room.
type member struct {
	data string // what others may know, a JSON value; empty is nothing
	told string // the data that the members were told, if isTold
	at   int64  // when the data came, in milliseconds since 1970

	conns     int32         // here
	until     time.Duration // without connections here: when the grace period ends, or 0
	elsewhere []elsewhere   // other nodes that have it

	isTold  bool
	changed bool // it is in room.changed
}

// elsewhere is that another node has a user.
type elsewhere struct {
	node uint64
	at   int64
	data string
}

// isPresent reports whether a member is there, or in its grace period.
func (m *member) isPresent() bool { return m.conns > 0 || m.until > 0 || len(m.elsewhere) > 0 }

// isHere reports whether this node has it.
func (m *member) isHere() bool { return m.conns > 0 || m.until > 0 }

// size returns about what a member takes in a list.
func size(user, data string) int { return len(user) + len(data) + memberOverhead }

// textSize returns what the texts of a member take. What the members were told may be a text of its own.
func (m *member) textSize(user string) int {
	n := len(user) + 2*len(m.data)
	for _, e := range m.elsewhere {
		n += elsewhereCost + len(e.data)
	}
	return n
}

// room is the members of a channel.
type room struct {
	channel string
	members map[string]*member // by user
	present int                // of members
	here    int                // of those, on this node
	bytes   int                // of a list of those that are present, about
	texts   int                // bytes of the texts of members

	anonymous int // connections here without a user
	absent    int // of those that have ended, how many are in their grace period
	returned  int // of the entries without a user in graces, how many do not count, because one has come back
	graces    graces
	stale     int // entries of users in graces that do not count

	others  map[uint64]*other // what other nodes have
	sharing *sharing          // what they are told; nil without a broker

	changed  []string // users that may differ from what was told
	counting bool     // members are only counted
	wasTold  int      // the count that was told
	began    bool     // something was told
	toldAt   time.Duration
	list     *hub.Notice // what a new member is sent, until something changes; the Table makes it
}

func newRoom(channel string) *room {
	return &room{channel: channel, members: make(map[string]*member), toldAt: unknown}
}

// count returns how many members there are.
func (r *room) count() int {
	n := r.present + r.anonymous + r.absent
	for _, o := range r.others {
		n += o.anonymous + o.users
	}
	return n
}

// memory returns about how many bytes the room takes.
func (r *room) memory() int {
	return roomCost + memberCost*len(r.members) + r.texts + graceCost*cap(r.graces)
}

// remove forgets a user.
func (r *room) remove(user string) {
	r.texts -= r.members[user].textSize(user)
	delete(r.members, user)
}

// isEmpty reports whether the room can be forgotten: no connection here is on the channel, and none is awaited.
func (r *room) isEmpty() bool { return r.here == 0 && r.anonymous == 0 && r.absent == 0 }

// join adds a connection of a user, or of nobody. Its data replaces that of the user's other connections.
func (r *room) join(user, data string, at int64) {
	r.touch(user)
	if user == "" {
		r.anonymous++
		if r.absent > 0 { // nobody can tell whether it is the same one, and the count is right either way
			r.absent--
			r.returned++
		}
		return
	}
	r.update(user, func(m *member) {
		m.conns++
		if m.until > 0 {
			m.until = 0
			r.stale++
		}
		m.data, m.at = data, at
	})
	r.clean()
}

// leave takes a connection away. Its user stays for the grace period, if it has no other connection.
func (r *room) leave(user string, now, grace time.Duration) {
	if user == "" || grace == 0 { // with a grace period, a user changes when that ends
		r.touch(user)
	}
	if user == "" {
		r.anonymous--
		if grace > 0 {
			r.absent++
			heap.Push(&r.graces, graceEnd{now + grace, ""})
		}
		return
	}
	r.update(user, func(m *member) {
		if m.conns--; m.conns == 0 && grace > 0 {
			m.until = now + grace
			heap.Push(&r.graces, graceEnd{m.until, user})
		}
	})
}

// update changes a member, and notes that it has changed.
func (r *room) update(user string, change func(*member)) {
	m := r.members[user]
	if m == nil {
		m = new(member)
		r.members[user] = m
		r.texts += len(user)
	}
	r.texts -= m.textSize(user)
	if m.isPresent() {
		r.present--
		r.bytes -= size(user, m.shown())
	}
	if m.isHere() {
		r.here--
	}
	change(m)
	r.texts += m.textSize(user)
	if m.isHere() {
		r.here++
	}
	if m.isPresent() {
		r.present++
		r.bytes += size(user, m.shown())
	}
	switch {
	case r.counting:
		// Nothing was told of a member, so nothing of it need be remembered.
		if !m.isPresent() {
			r.remove(user)
		}
	case !m.changed:
		m.changed = true
		r.changed = append(r.changed, user)
	}
}

// shown returns the data of a member that came last, on whichever node. All nodes choose the same.
func (m *member) shown() string {
	data, at := "", int64(-1)
	if m.isHere() {
		data, at = m.data, m.at
	}
	for _, e := range m.elsewhere {
		if e.at > at || e.at == at && e.data > data {
			data, at = e.data, e.at
		}
	}
	return data
}

// expire ends the grace periods that are over.
func (r *room) expire(now time.Duration) {
	for len(r.graces) > 0 && r.graces[0].at <= now {
		g := heap.Pop(&r.graces).(graceEnd)
		r.touch(g.user)
		switch m := r.members[g.user]; {
		case g.user == "" && r.returned > 0:
			r.returned--
		case g.user == "":
			r.absent--
		case m != nil && m.until == g.at:
			r.update(g.user, func(m *member) { m.until = 0 })
		default:
			r.stale--
		}
	}
}

// clean removes entries of graces that do not count, once they are most of them. Otherwise a user who comes and goes within
// the grace period would add one each time.
func (r *room) clean() {
	if r.stale < maxForgottenGraces || 2*r.stale < len(r.graces) {
		return
	}
	kept := r.graces[:0]
	for _, g := range r.graces {
		if m := r.members[g.user]; g.user == "" || m != nil && m.until == g.at {
			kept = append(kept, g)
		}
	}
	clear(r.graces[len(kept):])
	r.graces, r.stale = kept, 0
	heap.Init(&r.graces)
}

// graceEnd is when a grace period ends.
type graceEnd struct {
	at   time.Duration
	user string
}

// graces is a heap of them, the next one first. Routes with different grace periods may share a channel, so they do not end
// in the order in which they began.
type graces []graceEnd

func (g graces) Len() int           { return len(g) }
func (g graces) Less(i, j int) bool { return g[i].at < g[j].at }
func (g graces) Swap(i, j int)      { g[i], g[j] = g[j], g[i] }
func (g *graces) Push(x any)        { *g = append(*g, x.(graceEnd)) }
func (g *graces) Pop() any {
	last := len(*g) - 1
	x := (*g)[last]
	(*g)[last] = graceEnd{}
	*g = (*g)[:last]
	return x
}
