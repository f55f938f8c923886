package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestScenarios runs all scenarios with few nodes. The day is two hours.
func TestScenarios(t *testing.T) {
	seed := rand.Uint64() >> 1
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			n := size{30, 10}
			if sc.atMost > 0 {
				n.nodes = 9
				if sc.lasts > time.Hour {
					sc.lasts = 2 * time.Hour
				}
			}
			var report strings.Builder
			simulate(t, &report, sc, n, seed)
			t.Log(report.String())
		})
	}
}

// A client that is not given something, and is not told, is a problem that the simulation finds.
func TestLossIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := scenario{room: 10, rate: 5, lasts: time.Minute}
		sc.events = []event{{after: time.Second, what: func(c *cluster) {
			k := c.clients[7]
			c.mu.Lock()
			defer c.mu.Unlock()
			k.wire.mu.Lock()
			defer k.wire.mu.Unlock()
			k.wire.loses = true
		}}}
		c := newCluster(sc, size{3, 10}, 1)
		c.run()
		if len(c.problems) != 1 || !strings.Contains(c.problems[0], "client 7: misses") {
			t.Errorf("%q", c.problems)
		}
	})
}
