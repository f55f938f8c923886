package presence

import (
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// event is the name of the notices: the member of an object in broadcast.v1, and the type of an event elsewhere.
const event = "presence"

// Table has the rooms of a hub. Loops of the hub call it, through observers, and timers.
type Table struct {
	hub   *hub.Hub
	start time.Time // rooms count time from then, which takes less memory than a time.Time

	mu    sync.Mutex // taken before that of the hub, by Notify and Listen
	rooms map[string]*live

	spread *spread // nil if there can be no other nodes

	full      bool    // the rooms take more than their share of max_memory
	listed    []*live // rooms that keep the list for new members
	listBytes int     // of these lists
}

// live is a room, and what wakes it. A room in which nothing happens has no timer.
type live struct {
	room
	timer *time.Timer
	due   time.Duration // when the timer runs, or never
	held  int           // bytes that count in max_memory
}

// NewTable returns the table of a hub.
func NewTable(h *hub.Hub) *Table {
	return &Table{hub: h, start: time.Now(), rooms: make(map[string]*live)}
}

func (t *Table) now() time.Duration { return time.Since(t.start) }

// join adds a connection to a channel, and has it told who is there.
func (t *Table) join(c *hub.Conn, channel string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := 0
	if l := t.rooms[channel]; l != nil {
		before = l.held
	}
	c.Listen(t.joinLocked(channel, c.User(), c.Member()))
	if t.full && t.rooms[channel].held > before {
		c.Close(hub.ReasonMemory, "too many members")
	}
}

// joinLocked adds a connection of a user to a channel, and returns what it has to be told.
func (t *Table) joinLocked(channel, user, data string) *hub.Notice {
	l := t.rooms[channel]
	if l == nil {
		l = &live{room: *newRoom(channel), due: never}
		t.rooms[channel] = l
		if x := t.spread; x != nil && x.on {
			l.begin(x)
		}
	}
	l.join(user, data, time.Now().UnixMilli())
	// First the others, as the connection does not listen yet: what they are told now is in its list.
	t.step(l)
	if l.list == nil {
		t.keepList(l, &hub.Notice{Name: event, Channel: channel, Data: l.told().JSON()})
	}
	return l.list
}

// maxLists is how many bytes of lists are kept. A room whose members do not change would otherwise keep its list for ever, though
// only the next ones of a burst need it.
const maxLists = 2 << 20

// keepList keeps the list of a room for its next members.
func (t *Table) keepList(l *live, list *hub.Notice) {
	n := len(list.Data) + roomCost // the room may be empty by now, and be kept for its list only
	if t.listBytes += n; t.listBytes > maxLists {
		for _, other := range t.listed {
			other.list = nil
		}
		clear(t.listed)
		t.listed, t.listBytes = t.listed[:0], n
	}
	l.list = list
	t.listed = append(t.listed, l)
}

// holdLocked counts what a room takes now.
func (t *Table) holdLocked(l *live, n int) {
	t.full = !t.hub.HoldMembers(n - l.held)
	l.held = n
}

// leave takes a connection from a channel.
func (t *Table) leave(c *hub.Conn, channel string, grace time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked(channel, c.User(), grace)
}

// leaveLocked takes a connection of a user from a channel.
func (t *Table) leaveLocked(channel, user string, grace time.Duration) {
	if l := t.rooms[channel]; l != nil {
		if t.full {
			grace = 0 // others need the room
		}
		l.leave(user, t.now(), grace)
		t.step(l)
	}
}

// wake is called by the timer of a room.
func (t *Table) wake(l *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rooms[l.channel] == l {
		l.due = never
		t.step(l)
	}
}

// step does what a room has to do now, and sets its timer for what it has to do later.
func (t *Table) step(l *live) {
	now := t.now()
	l.expire(now)
	if l.isEmpty() {
		if l.timer != nil {
			l.timer.Stop()
		}
		delete(t.rooms, l.channel)
		t.endedLocked(l)
		t.holdLocked(l, 0)
		return
	}
	if s, ok := l.tell(now); ok {
		t.hub.Notify(&hub.Notice{Name: event, Channel: l.channel, Data: s.JSON()})
	}
	t.changedLocked(l)
	t.holdLocked(l, l.memory())
	switch at := l.next(); {
	case at >= l.due: // it wakes too early at worst, which costs less than moving the timer each time
	case l.timer == nil:
		l.due = at
		l.timer = time.AfterFunc(at-now, func() { t.wake(l) })
	default:
		l.due = at
		l.timer.Reset(at - now)
	}
}

// Of returns who is on a channel, as its members know it. It reports false if the channel has no presence.
func (t *Table) Of(channel string) (State, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.rooms[channel]
	if l == nil {
		return State{}, false
	}
	return l.told(), true
}
