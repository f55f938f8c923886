package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// What a log offers beside the log is optional. These rules are skipped if it does not: see broker.Peers. Those about messages
// are in the first half, those about counts in the second one.
var peersRules = []rule{
	{"peers/a message to one node comes to it alone", checkMessageToOne, nil},
	{"peers/a message to all comes to all others", checkMessageToAll, nil},
	{"peers/messages come at most once and unchanged", checkMessageContent, nil},
	{"peers/messages are not kept for a node that comes later", checkMessageNotKept, nil},
	{"peers/messages are not kept while the broker is down", checkMessageDown, canStop},
	{"peers/counts of all nodes come in the order of the argument", checkCounts, nil},
	{"peers/counts change and 0 removes", checkCountsChange, nil},
	{"peers/counts of many channels in one call", checkManyCounts, nil},
	{"peers/counts of a channel keep the order of the calls", checkCountsOrder, nil},
	{"peers/Forget removes the counts of one node", checkForget, nil},
	{"peers/a node that was forgotten counts again", checkForgotten, nil},
	{"peers/errors of counts are true while the broker is down", checkCountsDown, canStop},
	{"peers/calls inside callbacks", checkPeersInside, nil},
	{"peers/Close answers everything and is the end", checkPeersClose, nil},
}

// peers makes nodes and returns what they offer beside the log. It skips the rule if that is nothing.
func (s *suite) peers(n int) (nodes []*node) {
	s.Helper()
	for range n {
		nodes = append(nodes, s.join())
	}
	if _, ok := nodes[0].log.(broker.Peers); !ok {
		s.Skip("the log offers nothing beside the log: see broker.Peers")
	}
	return nodes
}

func (n *node) peers() broker.Peers { return n.log.(broker.Peers) }

// id is the node's number, as other nodes know it.
func (n *node) id() uint64 { return uint64(n.number) }

// marked returns a message that no other of the run is equal to.
func (s *suite) marked(what string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return fmt.Appendf(nil, "%s %d", what, s.serial)
}

// sendAgain is how long a rule waits before it sends again. Messages may be lost, and a node that was just dialed may not be
// known everywhere yet, so each is sent until it comes.
const sendAgain = 50 * time.Millisecond

// reach sends messages until each of some nodes has got one that begins with what, and is otherwise different.
func (n *node) reach(to uint64, what string, nodes ...*node) {
	n.Helper()
	deadline := time.Now().Add(waitAtMost)
	for _, other := range nodes {
		for sent := (time.Time{}); other.mail.from(n.id(), what) == 0; {
			if time.Now().After(deadline) {
				n.Fatalf("after %v: node %d has no message %q of node %d", waitAtMost, other.number, what, n.number)
			}
			changed := other.mail.next()
			if time.Since(sent) >= sendAgain {
				sent = time.Now()
				n.peers().Send(to, n.marked(what))
			}
			// It may have come before changed was asked for.
			if other.mail.from(n.id(), what) > 0 {
				break
			}
			timer := time.NewTimer(sendAgain)
			select {
			case <-changed:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// settle has each node hear from each other one, so that what was sent before has most likely come too.
func (s *suite) settle(nodes []*node) {
	s.Helper()
	what := string(s.marked("fence")) + ","
	for _, from := range nodes {
		for _, to := range nodes {
			if from != to {
				from.reach(to.id(), what, to)
			}
		}
	}
}

// none checks that a node has got no message that begins with what.
func (n *node) none(what string) {
	n.Helper()
	for _, other := range n.nodes {
		if got := n.mail.from(other.id(), what); got > 0 {
			n.Errorf("node %d has got %d messages %q of node %d, and none was for it", n.number, got, what, other.number)
		}
	}
}

func checkMessageToOne(s *suite) {
	nodes := s.peers(3)
	nodes[0].reach(2, "to 2", nodes[1])
	nodes[2].reach(1, "to 1", nodes[0])
	nodes[0].peers().Send(1, []byte("to myself"))
	s.settle(nodes)
	nodes[0].none("to 2")
	nodes[2].none("to 2")
	nodes[1].none("to 1")
	nodes[2].none("to 1")
	nodes[0].none("to myself")
	if got := nodes[1].mail.from(3, "to 2"); got > 0 {
		s.Errorf("a message of node 1 came as one of node 3")
	}
}

func checkMessageToAll(s *suite) {
	nodes := s.peers(3)
	for _, n := range nodes {
		n.reach(0, "to all", others(nodes, n)...)
	}
	s.settle(nodes)
	for _, n := range nodes {
		if got := n.mail.from(n.id(), ""); got > 0 {
			s.Errorf("node %d has got %d of its own messages", n.number, got)
		}
	}
}

func others(nodes []*node, not *node) (all []*node) {
	for _, n := range nodes {
		if n != not {
			all = append(all, n)
		}
	}
	return all
}

// checkMessageContent sends each message once, since a second one could not be told from one that came twice. One that is
// lost is allowed, but not all of a size: then the log cannot take it. The check fails a log that sends again what it is not
// sure of, or whose broker refuses the largest.
func checkMessageContent(s *suite) {
	nodes := s.peers(2)
	s.settle(nodes)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := bytes.Repeat(all, broker.MaxMessage/256)
	for i := range 50 {
		// The first bytes make it different from the others.
		nodes[0].peers().Send(2, append(fmt.Appendf(nil, "small %2d ", i), all...))
		nodes[0].peers().Send(0, append(fmt.Appendf(nil, "large %2d ", i), large[:broker.MaxMessage-len("large 00 ")]...))
		if i%10 == 9 {
			// They are not a test of how much fits at once, which the log may bound.
			s.settle(nodes)
		}
	}
	for what, want := range map[string][]byte{"small": all, "large": large[:broker.MaxMessage-len("large 00 ")]} {
		got := nodes[1].mail.contents(what)
		if len(got) == 0 {
			s.Errorf("none of 50 %s messages has come", what)
		}
		for message, times := range got {
			if times > 1 {
				s.Errorf("message %.9q came %d times", message, times)
			}
			if message[len("large 00 "):] != string(want) {
				s.Errorf("message %.9q came with other content", message)
			}
		}
	}
}

// checkMessageNotKept sends to a node that does not exist yet, by its number and to all.
func checkMessageNotKept(s *suite) {
	nodes := s.peers(2)
	for range 10 {
		nodes[0].peers().Send(3, s.marked("too early"))
		nodes[0].reach(0, string(s.marked("too early"))+",", nodes[1])
	}
	nodes = append(nodes, s.join())
	s.settle(nodes)
	nodes[2].none("too early")
}

// checkMessageDown fails a log that keeps messages until it is connected again: what they ask for is answered with nothing
// by then.
func checkMessageDown(s *suite) {
	nodes := s.peers(2)
	c := s.cluster.(Stopper)
	c.Stop()
	for _, n := range nodes {
		n.await("Broken", func() bool { return n.broken })
	}
	for range 10 {
		nodes[0].peers().Send(2, s.marked("while down"))
		nodes[0].peers().Send(0, s.marked("while down"))
	}
	c.Start()
	for _, n := range nodes {
		n.await("Repaired", func() bool { return !n.broken })
	}
	s.settle(nodes)
	nodes[1].none("while down")
}

// setCounts sets numbers and waits for the answer.
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

func checkPeersInside(s *suite) {
	n := s.peers(1)[0]
	n.setCounts(map[string]int{"a": 1})
	c, done := s.callback("SetCounts inside of Counts inside of SetCounts"), make(chan struct{})
	n.peers().SetCounts(map[string]int{"a": 2}, func(error) {
		n.peers().Counts([]string{"a"}, func([]map[uint64]int, error) {
			n.peers().Send(0, []byte("inside"))
			n.peers().Forget(9)
			n.log.Status()
			n.peers().SetCounts(map[string]int{"a": 3}, func(err error) {
				if err != nil {
					s.Errorf("SetCounts: %v", err)
				}
				if c.count.Add(1) == 1 {
					close(done)
				}
			})
		})
	})
	s.wait(done, "answer to calls inside callbacks")
}

func checkPeersClose(s *suite) {
	nodes := s.peers(2)
	n, other := nodes[0], nodes[1]
	n.setCounts(map[string]int{"a": 1})
	answers := make(chan error, 200)
	for i := range 100 {
		set, get := s.callback("SetCounts before Close"), s.callback("Counts before Close")
		n.peers().SetCounts(map[string]int{"a": i + 1}, func(err error) { set.count.Add(1); answers <- err })
		n.peers().Counts([]string{"a"}, func(_ []map[uint64]int, err error) { get.count.Add(1); answers <- err })
	}
	other.peers().Send(1, []byte("at the end"))
	n.close()
	if len(answers) != 200 {
		s.Fatalf("%d of 200 calls were answered before Close returned", len(answers))
	}
	for range 200 {
		if err := <-answers; err != nil && !errors.Is(err, broker.ErrClosed) && !errors.Is(err, broker.ErrUnknown) {
			s.Errorf("a call that Close interrupted was answered with %v", err)
		}
	}
	if err := n.trySetCounts(map[string]int{"a": 1}); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("after Close SetCounts was answered with %v, not ErrClosed", err)
	}
	if _, err := n.tryCounts("a"); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("after Close Counts was answered with %v, not ErrClosed", err)
	}
	n.peers().Send(0, s.marked("after Close"))
	n.peers().Forget(2)
	other.reach(0, "for a node that comes later", s.join())
	other.none("after Close")
}
