package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// watcher is a client that keeps who is present, as pages do.
type watcher struct {
	t     *testing.T
	ws    *websocket.Conn
	users []string
	count int
}

func watch(t *testing.T, n *node, user string) *watcher {
	t.Helper()
	c := n.Dial("/present/"+strings.ReplaceAll(t.Name(), "/", "")+"?user="+user, &websocket.DialOptions{Subprotocols: []string{v1}})
	c.SetReadLimit(1 << 20)
	return &watcher{t: t, ws: c}
}

// until reads until these users are present.
func (w *watcher) until(want ...string) {
	w.t.Helper()
	for !slices.Equal(w.users, want) {
		_, p, err := w.ws.Read(w.t.Context())
		if err != nil {
			w.t.Fatalf("%v; %v are present, want %v", err, w.users, want)
		}
		var frame []struct {
			Presence *struct {
				Count                 int
				Members, Joined, Left []struct{ User string }
			}
		}
		if err := json.Unmarshal(p, &frame); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range frame {
			if e.Presence == nil {
				continue
			}
			if e.Presence.Members != nil {
				w.users = nil
			}
			for _, m := range slices.Concat(e.Presence.Members, e.Presence.Joined) {
				w.users = append(w.users, m.User)
			}
			w.users = slices.DeleteFunc(w.users, func(user string) bool {
				return slices.ContainsFunc(e.Presence.Left, func(m struct{ User string }) bool { return m.User == user })
			})
			w.count = e.Presence.Count
		}
		slices.Sort(w.users)
	}
	if w.count != len(want) {
		w.t.Fatalf("the count is %d, want %d", w.count, len(want))
	}
}

// Members on all nodes know each other. Those of a node that is killed leave within ten seconds; those of a node that cannot
// reach the broker for a moment stay.
func testPresence(t *testing.T, s *single) {
	waitNodes(s.nodes, 3)
	ann, bob := watch(t, s.nodes[0], "ann"), watch(t, s.nodes[1], "bob")
	ann.until("ann", "bob")
	bob.until("ann", "bob")
	victim := newNode(t, "victim", s.options("", s.server.Addr()))
	victim.run(t)
	victim.waitUp()
	eve := watch(t, victim, "eve")
	eve.until("ann", "bob", "eve")
	ann.until("ann", "bob", "eve")
	bob.until("ann", "bob", "eve")
	victim.kill()
	killed := time.Now()
	ann.until("ann", "bob")
	bob.until("ann", "bob")
	took := time.Since(killed)
	t.Logf("the members of a node that was killed left after %s", took)
	if took > 10*time.Second {
		t.Errorf("the members of a node that was killed left after %s", took)
	}
	s.proxies[0].Refuse()
	s.nodes[0].waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	dan := watch(t, s.nodes[1], "dan")
	dan.until("ann", "bob", "dan")
	s.proxies[0].Accept()
	s.nodes[0].waitUp()
	ann.until("ann", "bob", "dan")
	testPresencePartition(t, s, ann, bob, dan)
	dan.ws.Close(websocket.StatusNormalClosure, "")
	ann.until("ann", "bob")
	bob.until("ann", "bob")
	waitNodes(s.nodes, 3)
}

// testPresencePartition: the members of a node that is cut off for long leave, as far as the others can tell, and those on the node
// keep the list that they have. When it is back, all know each other again, and who has gone meanwhile.
func testPresencePartition(t *testing.T, s *single, ann, bob, dan *watcher) {
	gone := watch(t, s.nodes[0], "gone")
	bob.until("ann", "bob", "dan", "gone")
	ann.until("ann", "bob", "dan", "gone")
	s.proxies[0].Refuse()
	cut := time.Now()
	bob.until("bob", "dan")
	dan.until("bob", "dan")
	if took := time.Since(cut); took > 10*time.Second {
		t.Errorf("the members of a node that was cut off left after %s", took)
	}
	gone.ws.Close(websocket.StatusNormalClosure, "")
	ann.until("ann", "bob", "dan")
	s.proxies[0].Accept()
	s.nodes[0].waitUp()
	bob.until("ann", "bob", "dan")
	dan.until("ann", "bob", "dan")
}
