package presence

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// client applies what a member is sent, as docs/protocol.md says.
type client struct {
	count   int
	members map[string]string // nil while only the count is known
}

func (c *client) apply(t *testing.T, s State) {
	t.Helper()
	c.count = s.Count
	switch {
	case s.Listed:
		c.members = make(map[string]string)
		for _, m := range s.Members {
			c.members[m.User] = m.Data
		}
	case s.Changes:
		if c.members == nil {
			t.Fatal("a change without a list")
		}
		for _, m := range s.Joined {
			if data, ok := c.members[m.User]; ok && data == m.Data {
				t.Fatalf("%s has joined twice", m.User)
			}
			c.members[m.User] = m.Data
		}
		for _, m := range s.Left {
			if _, ok := c.members[m.User]; !ok {
				t.Fatalf("%s has left, and was not there", m.User)
			}
			delete(c.members, m.User)
		}
	default:
		c.members = nil
	}
}

// model is who is there: nothing but the last time that each connection was.
type model struct {
	conns  map[string][]string // by user, the data of each connection
	data   map[string]string
	until  map[string]time.Duration
	nobody int
}

func (m *model) present(now time.Duration) map[string]string {
	p := make(map[string]string)
	for user, data := range m.data {
		if len(m.conns[user]) > 0 || m.until[user] > now {
			p[user] = data
		}
	}
	return p
}

// trial is a room, a client of it and the model.
type trial struct {
	*testing.T
	rand      *rand.Rand
	room      *room
	client    *client
	model     *model
	now, last time.Duration
	started   bool
}

// say has the room say what it has to, and compares what the client then knows.
func (t *trial) say() {
	t.room.expire(t.now)
	s, ok := t.room.tell(t.now)
	if !ok {
		return
	}
	if t.now-t.last < minInterval {
		t.Fatalf("told after %s", t.now-t.last)
	}
	t.last = t.now
	if !t.started { // as for a new member, after the others were told
		t.started, s = true, t.room.told()
	}
	t.client.apply(t.T, s)
	want := t.model.present(t.now)
	if s.Count < len(want)+t.model.nobody {
		t.Fatalf("%d members, want at least %d", s.Count, len(want)+t.model.nobody)
	}
	if t.client.members != nil && !maps.Equal(t.client.members, want) {
		t.Fatalf("members %v, want %v", t.client.members, want)
	}
	if t.client.members == nil && s.Count <= listedAgain {
		t.Fatalf("%d are not listed", s.Count)
	}
}

// step has somebody come or go.
func (t *trial) step(i int, user string, growing bool) {
	m, grace := t.model, time.Duration(t.rand.IntN(3))*2*time.Second
	switch n := t.rand.IntN(10); {
	case n < 4 || n < 7 && growing:
		data := fmt.Sprint(t.rand.IntN(2))
		m.conns[user] = append(m.conns[user], data)
		m.data[user], m.until[user] = data, 0
		t.room.join(user, data, int64(i))
	case n < 8:
		if k := len(m.conns[user]); k > 0 {
			if m.conns[user] = m.conns[user][:k-1]; k == 1 {
				m.until[user] = t.now + grace
			}
			t.room.leave(user, t.now, grace)
		}
	case n == 8:
		m.nobody++
		t.room.join("", "", 0)
	case m.nobody > 0:
		m.nobody--
		t.room.leave("", t.now, grace)
	}
}

// end checks that the client knows everything when nothing more is to be said, and that nothing is left of who has gone.
func (t *trial) end() {
	for at := t.room.next(); at != never; at = t.room.next() {
		t.now = max(t.now, at)
		t.say()
	}
	c, room, want := t.client, t.room, t.model.present(t.now)
	if c.count != len(want)+t.model.nobody || c.members != nil && !maps.Equal(c.members, want) {
		t.Errorf("at the end: %d members %v, want %d %v", c.count, c.members, len(want)+t.model.nobody, want)
	}
	fresh := new(client)
	fresh.apply(t.T, room.told())
	if fresh.count != c.count || (fresh.members == nil) != (c.members == nil) || !maps.Equal(fresh.members, c.members) {
		t.Errorf("a new member knows %v, the others %v", fresh, c)
	}
	if room.stale != 0 || room.returned != 0 || len(room.graces) != 0 || len(room.changed) != 0 {
		t.Errorf("something is left: %d stale, %d returned, %d graces, %d changed", room.stale, room.returned, len(room.graces), len(room.changed))
	}
	checkSums(t.T, room)
}

// TestModel has members come and go at random, and compares what a client knows with a model, at each moment at which the
// room says something, and at the end, when nothing more is to be said.
func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{conns: make(map[string][]string), data: make(map[string]string), until: make(map[string]time.Duration)}
			x := &trial{
				T: t, rand: rand.New(rand.NewPCG(seed, 17)), room: newRoom("a"), client: new(client), model: m,
				now: time.Second, last: -maxInterval,
			}
			users := 1 + x.rand.IntN(12)
			if seed%10 == 0 {
				users = 1300 // around the limit of what is listed
			}
			steps := 400 + 3*users
			for i := range steps {
				x.step(i, fmt.Sprint("u", x.rand.IntN(users)), users < 100 || i < steps/2)
				x.say()
				if d := time.Duration(x.rand.IntN(500)) * time.Millisecond; users < 100 || i%20 == 0 {
					x.now += d
				}
			}
			x.end()
		})
	}
}

// checkSums compares what the room counts with a count.
func checkSums(t *testing.T, r *room) {
	t.Helper()
	present, here, bytes, texts := 0, 0, 0, 0
	for user, m := range r.members {
		texts += m.textSize(user)
		if m.isPresent() {
			present++
			bytes += size(user, m.shown())
		}
		if m.isHere() {
			here++
		}
	}
	if present != r.present || here != r.here || bytes != r.bytes || texts != r.texts {
		t.Errorf("%d present, %d here, %d bytes, %d of texts; counted %d, %d, %d, %d", present, here, bytes, texts, r.present, r.here, r.bytes, r.texts)
	}
}
