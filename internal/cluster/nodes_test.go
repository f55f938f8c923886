package cluster

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// names returns what a node shows as the nodes, with a ? after those that are away.
func names(v totals) string {
	var list []string
	for _, n := range v.Nodes {
		if n.Away {
			n.Name += "?"
		}
		list = append(list, n.Name)
	}
	return strings.Join(list, " ")
}

// subscribers waits until the response to a message has this number of subscribers.
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

// TestNodes: each node lists all that are alive, and says which are away, and a publisher is told how many subscribers a
// channel has on all of them. Those of a killed node, and of one that stops, do not count, and nobody counts them again
// when it is started again.
func TestNodes(t *testing.T) {
	t.Parallel()
	t.Run("nats", func(t *testing.T) {
		t.Parallel()
		server := natstest.Start(t, "")
		nodes := startNodes(t, 3, func(int) string { return broker(one, server.URL()) })
		_, js := server.JetStream(t)
		testNodes(t, nodes, func(channel string) int { return countedByNATS(t, js, channel) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		nodes := startNodes(t, 3, func(int) string { return redis("", "redis://"+server.Addr()) })
		testNodes(t, nodes, func(channel string) int { return countedByRedis(server, channel) })
	})
}

// testNodes compares what three nodes say of each other. counted returns of how many nodes the broker has the numbers of
// subscribers of a channel.
func testNodes(t *testing.T, nodes []*node, counted func(channel string) int) {
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

	testNodeGone(t, nodes, counted)
}

// testNodeGone goes on with a, b and c: b is killed and started again, and c leaves.
func testNodeGone(t *testing.T, nodes []*node, counted func(channel string) int) {
	waitCounts := func(channel string, want int) {
		t.Helper()
		for deadline := time.Now().Add(patience); counted(channel) != want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the broker has the numbers of %d nodes, want %d", counted(channel), want)
			}
		}
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	b.kill()
	a.waitState("b is dead", func(v totals) bool { return names(v) == "a b? c" && v.Broker.Nodes == 2 })
	a.subscribers("x", 2)
	waitCounts("x", 2)
	// It might only be cut off, so nobody is told that it has no clients.
	begun := time.Now()
	if status, body := a.Do(http.MethodDelete, a.Admin+"/broadcast/connections?user=nobody", ""); status != http.StatusAccepted || !strings.Contains(body, `"missing":["b"]`) {
		t.Error(status, body)
	}
	if list, _, missing := c.list("/connections?node=b"); len(list) != 0 || missing != "b" {
		t.Errorf("%v, missing %q", list, missing)
	}
	if out, err := a.command("status"); err != nil || !strings.Contains(out, "away") || !strings.Contains(out, "connections on 2 nodes") {
		t.Error(out, err)
	}
	t.Logf("all of that took %v", time.Since(begun))
	b.run(t)
	b.waitUp()
	a.waitState("b is back", func(v totals) bool {
		return slices.Equal(slices.Sorted(strings.FieldsSeq(names(v))), []string{"a", "b", "b?", "c"}) && v.Broker.Nodes == 3
	})
	open(t, b, v1, "", "x")
	a.subscribers("x", 3)

	c.Post(c.Admin+"/stop", "", "")
	<-c.ended
	a.waitState("c has left", func(v totals) bool { return !strings.Contains(names(v), "c") })
	a.subscribers("x", 2)
	waitCounts("x", 2) // a and b
}

func countedByNATS(t *testing.T, js nats.JetStreamContext, channel string) int {
	t.Helper()
	info, err := js.StreamInfo("BROADCAST_COUNTS", &nats.StreamInfoRequest{SubjectsFilter: "bc.n." + channel + ".>"})
	if err != nil {
		t.Fatal(err)
	}
	return len(info.State.Subjects)
}

func countedByRedis(server *redistest.Server, channel string) int {
	n, _ := strconv.Atoi(server.Do("HLEN", "{bc:0}:n:"+channel))
	return n
}
