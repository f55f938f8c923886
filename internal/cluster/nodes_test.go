package cluster

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// names returns what a node shows as the nodes that are alive.
func names(v totals) string {
	var list []string
	for _, n := range v.Nodes {
		list = append(list, n.Name)
	}
	return strings.Join(list, " ")
}

// subscribers waits until the response to a message has so many subscribers.
func (n *node) subscribers(channel string, want int) {
	n.T.Helper()
	var v struct{ Subscribers int }
	// Polled, because other nodes tell their numbers once a second.
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		status, body := n.Post(n.Admin+"/broadcast/publish?channel="+channel, "", "x")
		if err := json.Unmarshal([]byte(body), &v); status != http.StatusOK || err != nil {
			n.T.Fatal(status, body, err)
		}
		if v.Subscribers == want {
			return
		}
		if time.Now().After(deadline) {
			n.T.Fatalf("node %s: a message has %d subscribers, want %d", n.name, v.Subscribers, want)
		}
	}
}

// TestNodes: each node lists all that are alive, and a publisher is told how many subscribers a channel has on all of them. Those
// of a killed node, and of one that stops, do not count, and nobody keeps counting them when it starts again.
func TestNodes(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	nodes := startNodes(t, 3, func(int) string { return broker(one, server.URL()) })
	a, b, c := nodes[0], nodes[1], nodes[2]
	for i, want := range []string{"a b c", "b a c", "c a b"} {
		nodes[i].waitState(want, func(v totals) bool { return names(v) == want && v.Broker.Nodes == 3 })
	}
	open(t, a, v1, "", "x")
	open(t, b, stream, "", "x")
	open(t, b, raw, "", "x")
	open(t, c, v1, "", "x", "y")
	a.subscribers("x", 4)
	b.subscribers("x", 4)
	a.subscribers("y", 1)
	c.subscribers("z", 0)
	a.ExpectMetrics("broker_nodes 3")
	b.waitState("connections of others", func(v totals) bool {
		return slices.ContainsFunc(v.Nodes, func(n caddytest.Node) bool {
			return n.Name == "a" && n.Connections == 1 && n.Epoch == a.epoch() && len(n.ID) == 6
		})
	})
	status, body := a.Do(http.MethodPost, a.Admin+"/broadcast/publish", "{\"channel\":\"x\",\"data\":1}\n{\"channel\":\"y\",\"data\":1}\n", "Content-Type", "application/x-ndjson")
	if status != http.StatusOK || strings.Count(body, `"subscribers":4`) != 1 || strings.Count(body, `"subscribers":1`) != 1 {
		t.Error(status, body)
	}

	before := a.Totals().Nodes[1].ID
	b.kill()
	a.waitState("b is dead", func(v totals) bool { return names(v) == "a c" })
	a.subscribers("x", 2)
	waitCounts(t, server, "x", 2)
	b.run(t)
	b.waitUp()
	a.waitState("b is back", func(v totals) bool { return names(v) == "a b c" && v.Nodes[1].ID != before })
	open(t, b, v1, "", "x")
	a.subscribers("x", 3)

	c.Post(c.Admin+"/stop", "", "")
	<-c.ended
	a.waitState("c has left", func(v totals) bool { return names(v) == "a b" })
	a.subscribers("x", 2)
	waitCounts(t, server, "x", 2) // a and b
}

// waitCounts waits until the broker has the numbers of so many nodes for a channel.
func waitCounts(t *testing.T, server *natstest.Server, channel string, want int) {
	t.Helper()
	conn, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		info, err := js.StreamInfo("BROADCAST_COUNTS", &nats.StreamInfoRequest{SubjectsFilter: "bc.n." + channel + ".>"})
		if err != nil {
			t.Fatal(err)
		}
		if len(info.State.Subjects) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the broker has %v, want those of %d nodes", info.State.Subjects, want)
		}
	}
}
