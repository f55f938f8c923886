package presence_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// page is a client that keeps who is present, as pages do, and notes what it should not have been sent.
type page struct {
	sync.Mutex // for the race detector: the test reads while nothing is written
	rooms      map[string]*known
	left       []leaving
	wrong      string
}

// leaving is that a page was told that a user has left.
type leaving struct {
	channel, user string
	at            time.Time
}

// known is what a page knows of a channel. A list of nil is not known.
type known struct {
	count   int
	members map[string]string
	at      time.Time // of the last change
}

func (p *page) Write(b []byte, _ time.Duration) (int, error) { return p.TryWrite(b) }
func (p *page) Close()                                       {}

func (p *page) TryWrite(b []byte) (int, error) {
	p.Lock()
	defer p.Unlock()
	for line := range bytes.Lines(b) {
		data, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data: "))
		if !ok {
			continue
		}
		var entries []struct{ Presence *notice }
		if err := json.Unmarshal(data, &entries); err != nil {
			p.wrong = err.Error()
		}
		for _, e := range entries {
			if e.Presence != nil {
				p.take(e.Presence)
			}
		}
	}
	return len(b), nil
}

// notice is what clients are sent.
type notice struct {
	Channel      string
	Count        int
	Members      []one
	Joined, Left []one
}

type one struct {
	User string
	Data json.RawMessage
}

func (p *page) take(n *notice) {
	k := p.rooms[n.Channel]
	first := k == nil
	if first {
		k = new(known)
		p.rooms[n.Channel] = k
	}
	now := time.Now()
	if !first && now.Sub(k.at) < time.Second && !k.at.IsZero() {
		p.wrong = fmt.Sprintf("%s: two changes within %s", n.Channel, now.Sub(k.at))
	}
	if !first {
		k.at = now
	}
	k.count = n.Count
	switch {
	case n.Members != nil:
		k.members = make(map[string]string)
		for _, m := range n.Members {
			k.members[m.User] = string(m.Data)
		}
	case n.Joined != nil && k.members == nil:
		p.wrong = "a change without a list"
	case n.Joined != nil:
		for _, m := range n.Joined {
			k.members[m.User] = string(m.Data)
		}
		for _, m := range n.Left {
			if _, ok := k.members[m.User]; !ok {
				p.wrong = m.User + " left, and was not there"
			}
			delete(k.members, m.User)
			p.left = append(p.left, leaving{n.Channel, m.User, now})
		}
	case first || k.members != nil || n.Count > listed:
		k.members = nil
	}
}

const listed, again = 10, 7

// guest is a connection, and what the model has of it.
type guest struct {
	*hub.Conn
	page
	user, data string
	on         map[string]bool
	route      *way
}

// way is a route as one configuration has it. A reload makes another one, and connections keep that with which they came.
type way struct {
	options *hub.ConnOptions
	present bool
	grace   time.Duration
}

// house is a hub, and a model of who is present on two channels.
type house struct {
	*testing.T
	rand   *rand.Rand
	hub    *hub.Hub
	table  *presence.Table
	ways   []*way
	guests []*guest
	until  map[string]map[string]time.Time // when the grace period of a user ends, by channel
	data   map[string]map[string]string    // that came last
}

// reload has new options for a route. The first one always has presence.
func (h *house) reload(i int) {
	w := &way{present: i == 0 || h.rand.IntN(2) == 0, grace: time.Duration(h.rand.IntN(3)) * 3 * time.Second}
	w.options = options(nil)
	w.options.Format = v1.StreamFormat{}
	if w.present {
		w.options.Observer = h.table.Observe(nobody{}, w.grace)
	}
	h.ways[i] = w
}

func (h *house) arrive(g *guest, channel string) {
	g.on[channel] = true
	if !g.route.present {
		return
	}
	if g.user != "" {
		h.data[channel][g.user] = g.data
		delete(h.until[channel], g.user)
	}
}

func (h *house) depart(g *guest, channel string, grace time.Duration) {
	synctest.Wait() // its page is not written to any more
	g.Lock()
	delete(g.rooms, channel)
	g.Unlock()
	delete(g.on, channel)
	if g.route.present && g.user != "" && grace > 0 && !h.isHere(g.user, channel) {
		h.until[channel][g.user] = time.Now().Add(grace)
	}
}

func (h *house) isHere(user, channel string) bool {
	return slices.ContainsFunc(h.guests, func(g *guest) bool { return g.user == user && g.on[channel] && g.route.present })
}

// connect has a user come, or somebody without a user.
func (h *house) connect() {
	g := &guest{
		user: fmt.Sprint("u", h.rand.IntN(14)), data: fmt.Sprint(h.rand.IntN(3)), on: make(map[string]bool),
		route: h.ways[h.rand.IntN(len(h.ways))], page: page{rooms: make(map[string]*known)},
	}
	if h.rand.IntN(6) == 0 {
		g.user, g.data = "", ""
	}
	channels := [][]string{{"a"}, {"b"}, {"a", "b"}}[h.rand.IntN(3)]
	var err error
	if g.Conn, _, err = h.hub.Connect(hub.Subscriber{Channels: channels, User: g.user, Member: g.data}, g.route.options); err != nil {
		h.Fatal(err)
	}
	g.Start(&g.page, nil)
	h.guests = append(h.guests, g)
	for _, channel := range channels {
		h.arrive(g, channel)
	}
}

// step has something happen.
func (h *house) step() {
	n := h.rand.IntN(12)
	if n < 5 || len(h.guests) == 0 {
		h.connect()
		return
	}
	if n == 5 {
		h.reload(h.rand.IntN(len(h.ways)))
		return
	}
	i := h.rand.IntN(len(h.guests))
	g, channel := h.guests[i], []string{"a", "b"}[h.rand.IntN(2)]
	switch {
	case n == 6 && !g.on[channel]: // a backend subscribes it
		h.hub.Change(hub.Change{Do: hub.DoJoin, Connection: g.ID(), Channel: channel})
		h.arrive(g, channel)
	case n == 7 && g.on[channel] && len(g.on) > 1: // it leaves, or a backend unsubscribes it
		if h.rand.IntN(2) == 0 {
			g.Leave(channel, nil)
		} else {
			h.hub.Change(hub.Change{Do: hub.DoLeave, Connection: g.ID(), Channel: channel})
		}
		h.depart(g, channel, 0)
	case n >= 8:
		h.guests = slices.Delete(h.guests, i, i+1)
		grace := g.route.grace
		switch h.rand.IntN(4) {
		case 0:
			g.Conn.Close(hub.ReasonPolicy, "kicked")
			grace = 0
		case 1:
			g.Conn.Close(hub.ReasonExpired, "expired") // it returns with a fresh token
		default:
			g.Done()
		}
		for channel := range maps.Clone(g.on) {
			h.depart(g, channel, grace)
		}
	}
}

// expectStayed checks that no page was told that a user has left whose grace period was not over.
func (h *house) expectStayed() {
	for _, g := range h.guests {
		for _, l := range g.left {
			if end := h.until[l.channel][l.user]; end.After(l.at) {
				h.Fatalf("%s: %s left %s too early", l.channel, l.user, end.Sub(l.at))
			}
		}
		g.Lock()
		g.left = nil
		g.Unlock()
	}
}

// expect compares what each page knows with the model.
func (h *house) expect() {
	for _, channel := range []string{"a", "b"} {
		want, count := make(map[string]string), 0
		for user, data := range h.data[channel] {
			if h.isHere(user, channel) {
				want[user] = data
			}
		}
		count += len(want)
		for _, g := range h.guests {
			if g.user == "" && g.on[channel] && g.route.present {
				count++
			}
		}
		for _, g := range h.guests {
			k := g.rooms[channel]
			switch {
			case g.wrong != "":
				h.Fatal(g.wrong)
			case !g.route.present && len(g.rooms) > 0:
				h.Fatal("a client of a route without presence is told of it")
			case !g.route.present || !g.on[channel]:
			case k == nil || k.count != count:
				h.Fatalf("%s: %+v, want %d", channel, k, count)
			case k.members == nil && count <= again || k.members != nil && count > listed:
				h.Fatalf("%s: %d members, listed: %v", channel, count, k.members != nil)
			case k.members != nil && !maps.Equal(k.members, want):
				h.Fatalf("%s: %v, want %v", channel, k.members, want)
			}
		}
	}
}

// TestTableModel has clients of routes with and without presence connect, join, leave, be kicked, be unsubscribed and return, and
// has the routes change by reloads. Whenever nothing has happened for some seconds, each client knows what a model says.
func TestTableModel(t *testing.T) {
	presence.ShrinkLimits(t, listed, again)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &house{T: t, rand: rand.New(rand.NewPCG(seed, 17)), hub: hub.New(hub.Config{}), ways: make([]*way, 3)}
				defer h.hub.Close(hub.ReasonRestart, "", 0, time.Second)
				h.table = presence.NewTable(h.hub)
				h.until, h.data = make(map[string]map[string]time.Time), make(map[string]map[string]string)
				for _, channel := range []string{"a", "b"} {
					h.until[channel], h.data[channel] = make(map[string]time.Time), make(map[string]string)
				}
				for i := range h.ways {
					h.reload(i)
				}
				for i := range 300 {
					h.step()
					synctest.Wait()
					h.expectStayed()
					time.Sleep(time.Duration(h.rand.IntN(400))*time.Millisecond + time.Microsecond)
					if i%30 == 29 { // more than the longest grace period and two intervals
						time.Sleep(9 * time.Second)
						synctest.Wait()
						h.expect()
					}
				}

			})
		})
	}
}
