package presence

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// network is nodes that tell each other shares, with messages that come late, in another order, or not at all.
type network struct {
	mu   sync.Mutex
	rand *rand.Rand
	loss float64

	ordered bool // as those of a broker are

	nodes map[uint64]*peer
	sent  int
	bytes int
}

// peer is a node, as a *nodes.Cluster shows the others.
type peer struct {
	net      *network
	id       uint64
	table    *Table
	take     func(uint64, []byte)
	reunited func()
	standing nodes.Standing
}

func (p *peer) Tell(to uint64, _ string, data []byte) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	for id, other := range p.net.nodes {
		if id == p.id || to != 0 && to != id || other.standing != nodes.Alive || p.standing != nodes.Alive {
			continue
		}
		p.net.sent++
		p.net.bytes += len(data)
		if p.net.rand.Float64() >= p.net.loss {
			late := rand.N(30 * time.Millisecond)
			if p.net.ordered {
				late = time.Duration(p.net.sent) * time.Microsecond
			}
			time.AfterFunc(late, func() { other.take(p.id, slices.Clone(data)) })
		}
	}
}
func (p *peer) Hear(_ string, take func(uint64, []byte)) { p.take = take }
func (p *peer) Reunited(f func())                        { p.reunited = f }
func (p *peer) Alive() int                               { return len(p.net.nodes) }
func (p *peer) Reaches() bool                            { return p.StandingOf(p.id) == nodes.Alive }
func (p *peer) StandingOf(id uint64) nodes.Standing {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	if n := p.net.nodes[id]; n != nil {
		return n.standing
	}
	return nodes.Silent
}

// withNetwork runs a test with n nodes, in the time of testing/synctest.
func withNetwork(t *testing.T, n int, seed uint64, test func(net *network, all []*peer)) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		net := &network{rand: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[uint64]*peer)}
		var all []*peer
		for i := range n {
			p := &peer{net: net, id: uint64(i + 1), table: NewTable(h)}
			p.table.Share(p)
			net.nodes[p.id] = p
			all = append(all, p)
		}
		for _, p := range all {
			p.reunited()
		}
		test(net, all)
		for _, p := range all {
			net.mu.Lock()
			p.standing = nodes.Left
			net.mu.Unlock()
		}
		time.Sleep(time.Minute)
		h.Close(hub.ReasonRestart, "", 0, time.Second)
	})
}

func (p *peer) join(channel, user, data string) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.table.joinLocked(channel, user, data)
}

func (p *peer) leave(channel, user string, grace time.Duration) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.table.leaveLocked(channel, user, grace)
}

// users returns the users of a channel and their data, as the members of this node know them, and the count.
func (p *peer) users(channel string) (string, int) {
	s, _ := p.table.Of(channel)
	var list []string
	for _, m := range s.Members {
		list = append(list, m.User+m.Data)
	}
	return strings.Join(list, " "), s.Count
}

func (p *peer) expect(t *testing.T, users string, count int) {
	t.Helper()
	if got, n := p.users("a"); got != users || n != count {
		t.Errorf("node %d: %d members, %s; want %d, %s", p.id, n, got, count, users)
	}
}

// TestNodes: members on several nodes know each other, also when they move, and leave with a node that dies, within ten seconds
// of its last sign of life, six of which pass until it counts as dead.
func TestNodes(t *testing.T) {
	withNetwork(t, 3, 1, func(net *network, all []*peer) {
		a, b := all[0], all[1]
		a.join("a", "ann", "1")
		a.expect(t, "ann1", 1)
		time.Sleep(2 * time.Second)
		b.join("a", "bob", "")
		b.join("a", "", "")
		time.Sleep(2 * time.Second)
		a.expect(t, "ann1 bob", 3)
		b.expect(t, "ann1 bob", 3)
		// Ann moves to the other node, with other data.
		a.join("a", "eve", "")
		a.leave("a", "ann", 5*time.Second)
		time.Sleep(time.Second)
		b.join("a", "ann", "2")
		time.Sleep(3 * time.Second)
		a.expect(t, "ann2 bob eve", 4)
		time.Sleep(10 * time.Second)
		a.expect(t, "ann2 bob eve", 4)
		net.mu.Lock()
		b.standing = nodes.Silent
		net.mu.Unlock()
		time.Sleep(silentGrace - time.Second)
		a.expect(t, "ann2 bob eve", 4)
		time.Sleep(2*time.Second + time.Millisecond)
		a.expect(t, "eve", 1)
		if len(all[2].table.rooms) > 0 {
			t.Error("a node without members has a room")
		}
	})
}

// TestNodesCounting: a channel that has too many members on all nodes together is counted on all of them, and listed again.
func TestNodesCounting(t *testing.T) {
	withNetwork(t, 2, 2, func(_ *network, all []*peer) {
		for i := range 1200 {
			all[i%2].join("a", fmt.Sprintf("u%04d", i), "")
		}
		time.Sleep(10 * time.Second)
		all[0].expect(t, "", 1200)
		all[1].expect(t, "", 1200)
		for i := range 1000 {
			all[i%2].leave("a", fmt.Sprintf("u%04d", i), 0)
		}
		time.Sleep(20 * time.Second)
		s, _ := all[0].table.Of("a")
		if s.Count != 200 || len(s.Members) != 200 {
			t.Errorf("%d members, %d listed", s.Count, len(s.Members))
		}
		if x, _ := all[1].users("a"); x == "" || x != func() string { x, _ := all[0].users("a"); return x }() {
			t.Error("the nodes have different lists")
		}
	})
}

// TestNodesModel: whatever is lost and in whatever order the rest comes, in the end all nodes that have members know all of them.
func TestNodesModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			withNetwork(t, 4, seed, func(net *network, all []*peer) {
				r := rand.New(rand.NewPCG(seed, 2))
				net.loss = float64(seed%3) * 0.1
				type at struct {
					node *peer
					user string
				}
				conns := make(map[at]int)
				for range 300 {
					where := at{all[r.IntN(4)], fmt.Sprint("u", r.IntN(8))}
					if r.IntN(8) == 0 {
						where.user = ""
					}
					if conns[where] > 0 && r.IntN(5) < 3 {
						conns[where]--
						where.node.leave("a", where.user, time.Duration(r.IntN(3))*time.Second)
					} else {
						conns[where]++
						where.node.join("a", where.user, fmt.Sprint(r.IntN(3)))
					}
					time.Sleep(time.Duration(r.IntN(800)) * time.Millisecond)
				}
				net.mu.Lock()
				net.loss = 0
				net.mu.Unlock()
				time.Sleep(5 * time.Minute)
				users, nobody := make(map[string]bool), 0
				for where, n := range conns {
					if where.user == "" {
						nobody += n
					} else if n > 0 {
						users[where.user] = true
					}
				}
				expectAll(t, all, slices.Sorted(maps.Keys(users)), nobody)
			})
		})
	}
}

// expectAll checks that the nodes that have members know these users, with the same data, and how many others there are.
func expectAll(t *testing.T, all []*peer, want []string, nobody int) {
	t.Helper()
	var first string
	for _, p := range all {
		s, ok := p.table.Of("a")
		if !ok {
			continue
		}
		var got []string
		for _, m := range s.Members {
			got = append(got, m.User)
		}
		if !slices.Equal(got, want) || s.Count != len(want)+nobody {
			t.Errorf("node %d: %d members %v, want %d %v", p.id, s.Count, got, len(want)+nobody, want)
		}
		text, _ := p.users("a")
		if first == "" {
			first = text
		}
		if text != first {
			t.Errorf("node %d has %s, another one %s", p.id, text, first)
		}
	}
}
