package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// TestSwitch: nodes that are reloaded with another broker, or none, find each other there, and count, list and kick what is
// there and nothing else.
func TestSwitch(t *testing.T) {
	t.Parallel()
	ofNATS := broker(one, natstest.Start(t, "").URL())
	ofRedis := redis("", redistest.Start(t).URL())
	nodes := startNodes(t, 3, func(int) string { return ofNATS })
	a, b, c := nodes[0], nodes[1], nodes[2]
	waitNodes(nodes, 3)
	var clients [][]*websocket.Conn
	var ids []string
	for i, n := range nodes {
		conns, of := n.of("ann", "switch", 1+i)
		clients, ids = append(clients, conns), append(ids, of...)
	}
	left := []int{1, 2, 3}
	checkSwitch(t, nodes, left, true)
	for i, options := range []string{ofRedis, "", ofNATS, ofRedis, ofNATS} {
		for _, n := range nodes {
			n.reload(options)
		}
		if options != "" {
			for _, n := range nodes {
				n.waitUp()
			}
			waitNodes(nodes, 3)
		}
		checkSwitch(t, nodes, left, options != "")
		switch i {
		case 0: // on Redis: what ends here must not count when all are back
			clients[2][0].CloseNow()
			left[2]--
			b.waitState("one has left", func(v totals) bool {
				list, _, _ := b.list("/connections?channel=switch")
				return len(list) == left[0]+left[1]+left[2]
			})
			checkSwitch(t, nodes, left, true)
		case 1: // an ID of a cluster is known to its node alone
			if status, body := a.Do("DELETE", a.Admin+"/broadcast/connections/"+ids[1], ""); status != 404 {
				t.Errorf("%d %s", status, body)
			}
			if status, body := b.Do("DELETE", b.Admin+"/broadcast/connections/"+ids[1], ""); status != 200 || body != "{\"closed\":1}\n" {
				t.Errorf("%d %s", status, body)
			}
			left[1]--
			checkSwitch(t, nodes, left, false)
		}
	}
	begun := time.Now()
	status, body := c.Do("DELETE", c.Admin+"/broadcast/connections?user=ann", "")
	if want := fmt.Sprintf(`{"closed":%d,"nodes":3,"missing":[]}`+"\n", left[0]+left[1]+left[2]); status != 200 || body != want {
		t.Errorf("%d %s, want %s", status, body, want)
	}
	t.Logf("a kick took %v", time.Since(begun))
	checkSwitch(t, nodes, []int{0, 0, 0}, true)
}

// checkSwitch checks that each node counts and lists the clients that are left, those of all nodes or its own.
func checkSwitch(t *testing.T, nodes []*node, left []int, shared bool) {
	t.Helper()
	for i, n := range nodes {
		want := left[0] + left[1] + left[2]
		if !shared {
			want = left[i]
		}
		n.subscribers("switch", want)
		list, _, missing := n.list("/connections?channel=switch&limit=2")
		if len(list) != want || missing != "" {
			t.Errorf("%s lists %d, want %d; missing %q", n.name, len(list), want, missing)
		}
	}
}
