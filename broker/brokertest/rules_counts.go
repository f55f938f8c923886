package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// This file is what SetCounts, Counts and Forget of broker.Peers promise.

// trySetCounts sets numbers and waits for the answer.
func (n *node) trySetCounts(counts map[string]int) (err error) {
	n.Helper()
	c, done := n.callback("SetCounts"), make(chan struct{})
	n.peers().SetCounts(maps.Clone(counts), func(e error) {
		if c.count.Add(1) == 1 {
			err = e
			close(done)
		}
	})
	n.wait(done, "answer to SetCounts")
	return err
}

// setCounts sets numbers until that succeeds. A broker may need a moment for the first ones.
func (n *node) setCounts(counts map[string]int) {
	n.Helper()
	deadline := time.Now().Add(waitAtMost)
	for {
		err := n.trySetCounts(counts)
		if err == nil {
			return
		}
		if !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) || time.Now().After(deadline) {
			n.Fatalf("SetCounts: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) tryCounts(channels ...string) (counts []map[uint64]int, err error) {
	n.Helper()
	c, done := n.callback("Counts"), make(chan struct{})
	n.peers().Counts(channels, func(got []map[uint64]int, e error) {
		if c.count.Add(1) == 1 {
			counts, err = got, e
			close(done)
		}
	})
	n.wait(done, "answer to Counts")
	return counts, err
}

// expectCounts asks until the numbers are those. They may be a second old, but a wrong one stays.
func (n *node) expectCounts(channels []string, want ...map[uint64]int) {
	n.Helper()
	deadline := time.Now().Add(waitAtMost)
	// Longer each time, since a log that is wrong would be asked for all of a minute.
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		got, err := n.tryCounts(channels...)
		if err == nil && sameCounts(got, want) {
			return
		}
		if time.Now().After(deadline) {
			n.Fatalf("node %d: the counts of %.300s are %.300s and %v, not %.300s", n.number,
				fmt.Sprintf("%q", channels), fmt.Sprint(got), err, fmt.Sprint(want))
		}
		time.Sleep(pause)
	}
}

func sameCounts(got, want []map[uint64]int) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !maps.Equal(got[i], want[i]) {
			return false
		}
	}
	return true
}

// countNames are channels whose names are a trouble for some broker. "" stands for all channels.
var countNames = []string{"a", "b.c", "", "\x01kick", "_", "*", ">", "ä ö", "=", "a{b}c", "A", "a:b", "_all", strings.Repeat("\U0001F600", 63) + "abc"}

func checkCounts(s *suite) {
	nodes := s.peers(3)
	want := make([]map[uint64]int, len(countNames))
	for i := range want {
		want[i] = map[uint64]int{}
	}
	for k, n := range nodes {
		counts := map[string]int{}
		for i, name := range countNames {
			// Each node has some of them, and no number is there twice.
			if i == 0 || (i+k)%3 > 0 {
				counts[name] = 1 + i*1000 + k
				want[i][n.id()] = counts[name]
			}
		}
		n.setCounts(counts)
	}
	for _, n := range nodes {
		n.expectCounts(countNames, want...)
		n.expectCounts([]string{"nobody", "b.c", "a", "b.c"}, nil, want[1], want[0], want[1])
		n.expectCounts(nil)
	}
}

func checkCountsChange(s *suite) {
	nodes := s.peers(2)
	nodes[0].setCounts(map[string]int{"a": 1, "b": 2, "never": 0})
	nodes[1].setCounts(map[string]int{"a": 1 << 30})
	both := []string{"a", "b", "never"}
	nodes[1].expectCounts(both, map[uint64]int{1: 1, 2: 1 << 30}, map[uint64]int{1: 2}, nil)
	nodes[0].setCounts(map[string]int{"b": 3})
	nodes[1].expectCounts(both, map[uint64]int{1: 1, 2: 1 << 30}, map[uint64]int{1: 3}, nil)
	nodes[0].setCounts(map[string]int{"a": 0, "b": 4})
	nodes[1].expectCounts(both, map[uint64]int{2: 1 << 30}, map[uint64]int{1: 4}, nil)
	nodes[1].setCounts(map[string]int{"a": 0})
	nodes[0].setCounts(map[string]int{"a": 5, "b": 0})
	nodes[1].expectCounts(both, map[uint64]int{1: 5}, nil, nil)
	nodes[0].setCounts(nil)
}

func checkManyCounts(s *suite) {
	nodes := s.peers(2)
	const many = 3000
	var channels []string
	counts := []map[string]int{{}, {}}
	var want []map[uint64]int
	for i := range many {
		name := fmt.Sprint("channel.", i)
		channels = append(channels, name)
		counts[0][name], counts[1][name] = i+1, many+i
		want = append(want, map[uint64]int{1: i + 1, 2: many + i})
	}
	nodes[0].setCounts(counts[0])
	nodes[1].setCounts(counts[1])
	nodes[0].expectCounts(channels, want...)
	// A log that asks for several at once must not take the order of the answer for that of the question.
	rand.Shuffle(many, func(i, j int) {
		channels[i], channels[j], want[i], want[j] = channels[j], channels[i], want[j], want[i]
	})
	nodes[1].expectCounts(channels, want...)
}

// checkCountsOrder does not wait for one call before the next, so that a log which sends them by two ways, or joins them, has
// to keep the last.
func checkCountsOrder(s *suite) {
	nodes := s.peers(2)
	nodes[0].setCounts(map[string]int{"a": 1})
	for round := range 3 {
		var calls []chan error
		for i := range 200 {
			c, done := s.callback("SetCounts"), make(chan error, 1)
			counts := map[string]int{"a": 1000*round + i, fmt.Sprint("b", i%7): i + 1, "gone": i % 2}
			if i == 199 {
				counts["gone"] = 0
			}
			nodes[0].peers().SetCounts(counts, func(err error) {
				if c.count.Add(1) == 1 {
					done <- err
				}
			})
			calls = append(calls, done)
		}
		for _, done := range calls {
			if err := <-done; err != nil {
				s.Fatalf("SetCounts: %v", err)
			}
		}
		nodes[1].expectCounts([]string{"a", "b0", "b3", "gone"}, map[uint64]int{1: 1000*round + 199},
			map[uint64]int{1: 197}, map[uint64]int{1: 200}, nil)
	}
}

func checkForget(s *suite) {
	nodes := s.peers(3)
	channels := []string{"a", "b.c", ""}
	for _, n := range nodes {
		n.setCounts(map[string]int{"a": 1, "b.c": 2, "": 3})
	}
	nodes[1].close()
	want := func(counts ...int) (all []map[uint64]int) {
		for _, count := range counts {
			all = append(all, map[uint64]int{1: count, 3: count})
		}
		return all
	}
	nodes[0].peers().Forget(2)
	nodes[2].peers().Forget(2)
	nodes[0].expectCounts(channels, want(1, 2, 3)...)
	nodes[2].expectCounts(channels, want(1, 2, 3)...)
	// It has nothing any more.
	nodes[2].peers().Forget(2)
	nodes[0].setCounts(map[string]int{"b.c": 4})
	nodes[2].setCounts(map[string]int{"b.c": 4})
	nodes[2].expectCounts(channels, want(1, 4, 3)...)
}

// checkForgotten is about a node that was away for so long that others took it for dead. The check fails a log that goes on
// removing what the node sets.
func checkForgotten(s *suite) {
	nodes := s.peers(2)
	for i := range 3 {
		nodes[1].setCounts(map[string]int{"a": 1, "b": 2})
		nodes[0].expectCounts([]string{"a", "b"}, map[uint64]int{2: 1}, map[uint64]int{2: 2})
		nodes[0].peers().Forget(2)
		nodes[0].expectCounts([]string{"a", "b"}, nil, nil)
		nodes[1].setCounts(map[string]int{"a": 3 + i})
		for range 3 {
			nodes[0].expectCounts([]string{"a", "b"}, map[uint64]int{2: 3 + i}, nil)
		}
	}
}

// checkCountsDown fails a log that says that numbers are stored which are not. Those that were stored before may be lost.
func checkCountsDown(s *suite) {
	nodes := s.peers(2)
	nodes[0].setCounts(map[string]int{"a": 1, "b": 1})
	nodes[1].setCounts(map[string]int{"a": 1})
	c := s.cluster.(Stopper)
	c.Stop()
	for _, n := range nodes {
		n.await("Broken", func() bool { return n.broken })
	}
	if err := nodes[0].trySetCounts(map[string]int{"a": 2}); !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
		s.Errorf("while the broker is down SetCounts was answered with %v", err)
	}
	if _, err := nodes[0].tryCounts("a"); !errors.Is(err, broker.ErrDown) {
		s.Errorf("while the broker is down Counts was answered with %v", err)
	}
	nodes[0].peers().Forget(2)
	c.Start()
	for _, n := range nodes {
		n.await("Repaired", func() bool { return !n.broken })
	}
	for i, n := range nodes {
		n.setCounts(map[string]int{"a": 5 + i, "c": 7})
	}
	for _, n := range nodes {
		n.expectCounts([]string{"a", "c"}, map[uint64]int{1: 5, 2: 6}, map[uint64]int{1: 7, 2: 7})
		if got, err := n.tryCounts("b"); err == nil && len(got[0]) > 0 && got[0][1] != 1 {
			s.Errorf("after the broker has started again a count is %v, and 1 was set", got[0])
		}
	}
}
