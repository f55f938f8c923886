package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// broker.Peers is optional: these rules are skipped for a log that does not implement it. The rules about counts are in
// rules_counts.go.
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

// peers makes nodes. It skips the rule if their logs do not implement broker.Peers.
func (s *suite) peers(n int) (nodes []*node) {
	s.Helper()
	for range n {
		nodes = append(nodes, s.join())
	}
	if _, ok := nodes[0].log.(broker.Peers); !ok {
		s.Skip("the log does not implement broker.Peers")
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
