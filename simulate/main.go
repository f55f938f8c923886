// Simulate runs up to a thousand real hubs in one process, on a log in memory, in virtual time, while nodes, links and the log
// fail. It checks what every client and publisher was told, and prints what goes over the link between each node and the
// log. Ten connections of a node stand for ten thousand.
//
//	go run ./simulate                                     # all scenarios with 1000 nodes, but some with fewer: some minutes
//	go run ./simulate -nodes 30 -scenarios loss -seed 7   # one of them, and what is random as in an earlier run
//
// It needs no network and no other program. With the same seed the same faults hit the same nodes, but goroutines may run
// in another order.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func main() {
	testing.Init() // virtual time is made for tests, so a run is one
	nodes := flag.Int("nodes", 1000, "how many nodes")
	connections := flag.Int("connections", 10, "of each node")
	names := flag.String("scenarios", "", "which, separated by commas; all of them without")
	seed := flag.Uint64("seed", rand.Uint64()>>1, "what is random")
	flag.Parse()
	var tests []testing.InternalTest
	for _, sc := range scenarios {
		if *names != "" && !strings.Contains(","+*names+",", ","+sc.name+",") {
			continue
		}
		n := size{*nodes, *connections}
		if sc.atMost > 0 {
			n.nodes = min(n.nodes, sc.atMost)
		}
		tests = append(tests, testing.InternalTest{Name: sc.name, F: func(t *testing.T) { simulate(t, os.Stdout, sc, n, *seed) }})
	}
	if len(tests) == 0 {
		fmt.Fprintf(os.Stderr, "there is no scenario %q\n", *names)
		os.Exit(2)
	}
	testing.Main(func(string, string) (bool, error) { return true, nil }, tests, nil, nil) // it exits
}

// simulate runs a scenario, writes its report, and fails the test if a rule was broken.
func simulate(t *testing.T, w io.Writer, sc scenario, n size, seed uint64) {
	begun := time.Now() // outside of the bubble it is the real time
	var c *cluster
	synctest.Test(t, func(t *testing.T) {
		c = newCluster(sc, n, seed)
		c.run()
	})
	c.report.write(w, c, time.Since(begun))
	if len(c.problems) > 0 {
		t.Errorf("%d problems, of which the first are:\n%s\nRepeat it: go run ./simulate -scenarios %s -nodes %d -connections %d -seed %d",
			len(c.problems), strings.Join(c.problems[:min(5, len(c.problems))], "\n"), sc.name, n.nodes, n.connections, seed)
	}
}
