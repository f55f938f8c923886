package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestScenarios runs all scenarios with few nodes. The day has fewer still, and is an hour.
func TestScenarios(t *testing.T) {
	seed := rand.Uint64() >> 1
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			n := size{30, 10}
			if sc.atMost > 0 {
				n.nodes, sc.lasts = 9, 4*time.Hour
			}
			var report strings.Builder
			simulate(t, &report, sc, n, seed)
			t.Log(report.String())
		})
	}
}
