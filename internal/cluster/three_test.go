package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// TestThreeServers is what fails with three nats-servers that all keep the stream.
func TestThreeServers(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	servers := natstest.StartCluster(t, 3, "")
	nodes := startNodes(t, 3, func(int) string { return broker("publish_timeout 2s", natstest.URLs(servers)...) })
	in := func(t *testing.T) (sub []*node) {
		for _, n := range nodes {
			sub = append(sub, n.In(t))
		}
		return sub
	}
	t.Run("leader killed", func(t *testing.T) { testLeaderKilled(t, servers, in(t)) })
	t.Run("leader killed often", func(t *testing.T) { testTruthOfThree(t, servers, in(t)) })
	t.Run("leader frozen", func(t *testing.T) { testLeaderFrozen(t, servers, in(t)) })
	t.Run("two gone", func(t *testing.T) { testTwoGone(t, servers, in(t)) })
}

// expectOutage checks what publishers were told while there was no leader.
func expectOutage(t *testing.T, told map[int]int, begun time.Time) {
	t.Helper()
	t.Logf("it took %v; publishers were told %v", time.Since(begun).Round(time.Millisecond), told)
	for status := range told {
		if status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout {
			t.Errorf("publishers were told %d", status)
		}
	}
}

// Publishers wait, or are told to try again, until there is another leader. Nobody loses anything, and a key is still known.
func testLeaderKilled(t *testing.T, servers []*natstest.Server, nodes []*node) {
	all := join(t, nodes, "leader")
	id := send(t, nodes[0], "leader", "before", "key of before")
	leader := leaderOf(t, servers)
	begun := time.Now()
	servers[leader].Kill()
	texts, told := insistAll(t, nodes, "leader", "without", 10)
	expectOutage(t, told, begun)
	all.expect(t, append([]string{"before"}, texts...)...)
	for _, n := range nodes {
		again, _, err := insist(t.Context(), []*node{n}, "leader", "before")
		if err != nil || again != id {
			t.Errorf("the key of %s is that of %s, %v", id, again, err)
		}
	}
	servers[leader].Run()
	waitCurrent(t, servers)
	texts, _ = insistAll(t, nodes, "leader", "again", 3)
	all.expect(t, texts...)
}

// A leader that stops answering, and then goes on, is the same: what it had been sent is not stored twice.
func testLeaderFrozen(t *testing.T, servers []*natstest.Server, nodes []*node) {
	all := join(t, nodes, "frozen")
	leader := leaderOf(t, servers)
	begun := time.Now()
	servers[leader].Freeze()
	thawed := make(chan struct{})
	time.AfterFunc(6*time.Second, func() {
		servers[leader].Thaw()
		close(thawed)
	})
	texts, told := insistAll(t, nodes, "frozen", "meanwhile", 10)
	expectOutage(t, told, begun)
	<-thawed
	waitCurrent(t, servers)
	more, _ := insistAll(t, nodes, "frozen", "after", 10)
	all.expect(t, append(texts, more...)...)
}

// With one server of three nothing is stored. Clients stay, and others may join open channels from where the node is. Who
// needs more than it has is told to come back.
func testTwoGone(t *testing.T, servers []*natstest.Server, nodes []*node) {
	all := join(t, nodes, "alone")
	send(t, nodes[0], "alone", "0", "")
	last := send(t, nodes[0], "alone", "1", "")
	all.expect(t, "0", "1")
	leader := leaderOf(t, servers)
	gone := []int{leader, (leader + 1) % 3}
	for _, i := range gone {
		servers[i].Kill()
	}
	for _, n := range nodes {
		n.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
		a, err := post(t.Context(), n.Addr, "alone", "2", "key of 2")
		if err != nil || a.status != http.StatusServiceUnavailable && a.status != http.StatusGatewayTimeout {
			t.Errorf("%+v %v", a, err)
		}
	}
	more := audience{open(t, nodes[1], v1, all[0].lastID, "alone"), open(t, nodes[2], stream, last, "alone")}
	ahead := fmt.Sprint(nodes[0].epoch(), "-", seqOf(last)+1_000_000)
	for name, c := range map[string]struct{ channel, lastID string }{"cold": {"cold", ""}, "ahead": {"alone", ahead}} {
		_, err := connect(t.Context(), nodes[0].Addr, v1, c.lastID, c.channel)
		if code := refused(0); !errors.As(err, &code) || code != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, i := range gone {
		servers[i].Run()
	}
	waitCurrent(t, servers)
	for _, n := range nodes {
		n.waitUp()
	}
	if _, _, err := insist(t.Context(), nodes, "alone", "2"); err != nil {
		t.Fatal(err)
	}
	all.expect(t, "2")
	more.expect(t, "2")
}
