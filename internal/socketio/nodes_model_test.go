package socketio_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestNodesModel has clients come, move between servers, and be put in rooms and addressed by backends, while servers end and
// others begin. A client that is told that it was recovered has got everything once, in order; one that is not begins anew.
func TestNodesModel(t *testing.T) {
	rounds := 20
	if os.Getenv("CI") != "" {
		rounds = 200
	}
	recovered, elsewhere := 0, 0
	for seed := range rounds {
		withNodes(t, 3, func(n *nodes) {
			m := &model{nodes: n, rand: rand.New(rand.NewPCG(uint64(seed), 0))}
			defer func() {
				if t.Failed() {
					t.Logf("seed %d:\n%s", seed, strings.Join(m.story, "\n"))
				}
			}()
			for range 4 {
				m.clients = append(m.clients, &modelClient{})
			}
			for range 60 {
				m.step()
				if t.Failed() {
					return
				}
			}
			for i, c := range m.clients {
				m.check(i, c)
			}
			recovered += m.recovered
			elsewhere += m.elsewhere
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("recovered %d times, %d of them at another server", recovered, elsewhere)
	if elsewhere < rounds {
		t.Error("clients were seldom recovered at another server")
	}
}

type model struct {
	*nodes
	rand      *rand.Rand
	clients   []*modelClient
	events    []modelEvent
	story     []string
	recovered int
	elsewhere int
}

type modelEvent struct {
	rooms  []string
	except string
}

type modelClient struct {
	*guest  // nil before it has come
	rooms   []string
	since   int   // it gets events from here on
	got     []int // since it came, or was recovered
	due     []int
	offsets map[int]string
}

func (m *model) note(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

func pick[T any](r *rand.Rand, some []T) T { return some[r.IntN(len(some))] }

// step does one thing. All publishing and commanding is done by one goroutine, and returns when the log has it, so the order of
// the log is that of the steps.
func (m *model) step() {
	switch i := m.rand.IntN(len(m.clients)); m.rand.IntN(10) {
	case 0, 1, 2, 3:
		m.publish()
	case 4, 5:
		m.order(i, m.clients[i])
	case 6, 7, 8:
		m.move(i, m.clients[i])
	case 9:
		if m.rand.IntN(2) == 0 {
			m.replace()
		}
	}
	time.Sleep(time.Duration(m.rand.IntN(4)) * time.Millisecond)
	if m.rand.IntN(3) == 0 {
		time.Sleep(time.Second)
	}
}

// alive returns a server.
func (m *model) alive() *testNode {
	return pick(m.rand, slices.DeleteFunc(slices.Clone(m.all), func(x *testNode) bool { return x.ended }))
}

// publish publishes an event to some rooms and names.
func (m *model) publish() {
	names := []string{"a", "r1", "r2"}
	var sids []string
	for _, c := range m.clients {
		if c.guest != nil {
			sids = append(sids, c.sid)
		}
	}
	e := modelEvent{}
	if len(sids) > 0 && m.rand.IntN(6) == 0 {
		names = append(names, pick(m.rand, sids))
	}
	if len(sids) > 0 && m.rand.IntN(4) == 0 {
		e.except = pick(m.rand, sids)
	}
	for range 1 + m.rand.IntN(3) {
		if room := pick(m.rand, names); !slices.Contains(e.rooms, room) {
			e.rooms = append(e.rooms, room)
		}
	}
	x := m.alive()
	msg := &hub.Message{Channel: "a", Event: fmt.Sprint("e", len(m.events)), Data: []byte("1"), Kind: hub.JSON}
	if e.except != "" {
		msg.Emit = &hub.Emit{Except: []string{e.except}}
	}
	err := x.Publish(hub.ToRooms(msg, e.rooms, func(room string) bool { return len(room) == 20 })...)
	if err != nil {
		m.Fatal(err)
	}
	m.note("event %d to %q except %q", len(m.events), e.rooms, e.except)
	m.events = append(m.events, e)
	for _, c := range m.clients {
		if c.guest != nil && c.gets(e) {
			c.due = append(c.due, len(m.events)-1)
		}
	}
}

func (c *modelClient) gets(e modelEvent) bool {
	return e.except != c.sid && slices.ContainsFunc(e.rooms, func(room string) bool {
		return room == c.sid || slices.Contains(c.rooms, room)
	})
}

// order has a backend put a client in a room, or take it out.
func (m *model) order(i int, c *modelClient) {
	if c.guest == nil {
		return
	}
	room, x := pick(m.rand, []string{"r1", "r2"}), m.alive()
	if at := slices.Index(c.rooms, room); at >= 0 {
		time.Sleep(time.Second) // what is under way still comes
		m.note("client %d leaves %s", i, room)
		x.command(hub.DoLeave, c.sid, "", room)
		c.rooms = slices.Delete(c.rooms, at, at+1)
		return
	}
	m.note("client %d joins %s", i, room)
	if err := x.Command(hub.NameCommand{Do: hub.DoJoin, Name: c.sid, Channel: room}); err != nil {
		m.Fatal(err)
	}
	c.rooms = append(c.rooms, room)
}

// take reads what has come.
func (c *modelClient) take() {
	text := c.next("")
	for {
		_, rest, ok := strings.Cut(text, `42["e`)
		if !ok {
			return
		}
		number, rest, _ := strings.Cut(rest, `"`)
		i, _ := strconv.Atoi(number)
		c.got = append(c.got, i)
		c.offsets[i] = strings.SplitN(rest, `"`, 3)[1]
		text = rest
	}
}

// check fails the test if a client lacks an event, or has one twice or too soon.
func (m *model) check(i int, c *modelClient) {
	m.Helper()
	if c.guest == nil || c.node.ended {
		return
	}
	time.Sleep(time.Second)
	c.take()
	if !slices.Equal(c.got, c.due) {
		m.Errorf("client %d has got %v, and not %v", i, c.got, c.due)
	}
}

// move has a client go to a server. It may not have got the last of what it was sent.
func (m *model) move(i int, c *modelClient) {
	x := m.alive()
	if c.guest == nil {
		*c = modelClient{guest: x.connect(""), rooms: []string{"a"}, since: len(m.events), offsets: map[int]string{}}
		m.note("client %d comes to %p", i, x)
		return
	}
	if m.rand.IntN(2) == 0 {
		m.check(i, c)
	}
	c.take()
	kept := c.got[:len(c.got)-m.rand.IntN(len(c.got)+1)]
	if !slices.Equal(kept, c.due[:min(len(kept), len(c.due))]) && !c.node.ended {
		m.Errorf("client %d has got %v, and not %v", i, kept, c.due)
	}
	offset, from := "", c.since
	if len(kept) > 0 {
		from = kept[len(kept)-1] + 1
		offset = c.offsets[from-1]
	}
	if m.rand.IntN(2) == 0 {
		c.conn.Close(hub.ReasonClient, "")
		time.Sleep(time.Duration(m.rand.IntN(2)) * time.Second)
	}
	g, _ := x.back(c.guest, "", offset)
	m.note("client %d moves from %p to %p with %q", i, c.node, x, offset)
	if g.sid != c.sid || g.pid != c.pid {
		m.note("it begins anew")
		*c = modelClient{guest: g, rooms: []string{"a"}, since: len(m.events), offsets: map[int]string{}}
		return
	}
	m.recovered++
	if x != c.node {
		m.elsewhere++
	}
	g.seen = 0
	c.guest, c.got, c.due = g, slices.Clone(kept), slices.Clone(kept)
	// A room is recovered with what it had before the client was in it, and not after it has left it.
	for n := from; n < len(m.events); n++ {
		if c.gets(m.events[n]) {
			c.due = append(c.due, n)
		}
	}
}

// replace ends a server, and starts another one.
func (m *model) replace() {
	x := m.alive()
	m.note("%p ends", x)
	for i, c := range m.clients {
		if c.guest != nil && c.node == x {
			m.check(i, c)
		}
	}
	x.stop()
	m.note("%p begins", m.start())
}
