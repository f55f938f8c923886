package cluster

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// TestRouteFlap: the routes between three nats-servers are held for less than 100 ms, or closed, which takes the servers a
// second to mend. What one of them has sent to the nodes of the others meanwhile is lost, and nothing but that tells. The nodes
// notice, and their clients miss nothing.
func TestRouteFlap(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	servers, routes := natstest.StartRouted(t, 3, "")
	// Each node on a server of its own, so that what two of them get comes over a route. On a busy machine the servers may need
	// longer to find each other again than nodes keep their clients by default.
	nodes := startNodes(t, 3, func(i int) string { return "partition_timeout 1m\n" + broker("publish_timeout 2s", servers[i].URL()) })
	waitCurrent(t, servers)
	all := join(t, nodes, "flap")
	texts := publishUntil(t, nodes, "flap", flap(routes, rounds(6, 20)))
	for _, n := range nodes {
		n.waitUp()
	}
	insistAll(t, nodes, "flap", "end", 1)
	want := sorted(texts)
	var order []string
	for _, c := range all {
		got := c.until(t, "end 0")
		if order == nil {
			order = got
		}
		if !slices.Equal(got, order) {
			t.Errorf("%s got %d messages, and another client %d, or in another order", c.kind, len(got), len(order))
		}
		if !slices.Equal(sorted(got), want) {
			t.Errorf("%s got %d of %d", c.kind, len(got), len(want))
		}
	}
	var repairs float64
	for _, n := range nodes {
		repairs += n.metric("broker_repairs_total")
	}
	t.Logf("%d messages, %v repairs", len(order), repairs)
}

// flap holds all routes a number of times, and then closes those to one server. What it returns is closed at the end.
func flap(routes []*natstest.Proxy, times int) (ended chan struct{}) {
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for i := range times {
			for _, r := range routes {
				r.Hold()
			}
			time.Sleep(80 * time.Millisecond) // the flap
			for _, r := range routes {
				r.Pass()
			}
			// Those to one server are closed: the others store meanwhile, and what they send past it is lost. Without any
			// routes nothing would be stored.
			routes[i%len(routes)].Cut()
			time.Sleep(2 * time.Second) // the servers dial again after one
		}
	}()
	return ended
}

// publishUntil publishes at all nodes at once, and returns what.
func publishUntil(t *testing.T, nodes []*node, channel string, end chan struct{}) []string {
	texts := make([][]string, len(nodes))
	var publishing sync.WaitGroup
	for i, n := range nodes {
		publishing.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-end:
					return
				default:
				}
				text := fmt.Sprint("node ", i, " ", k)
				if _, _, err := insist(t.Context(), []*node{n}, channel, text); err != nil {
					t.Error(err)
					return
				}
				texts[i] = append(texts[i], text)
			}
		})
	}
	publishing.Wait()
	return slices.Concat(texts...)
}
