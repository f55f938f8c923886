package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Cluster is a log that is empty at first, and its nodes.
type Cluster interface {
	// Broker returns what one more node dials.
	Broker() broker.Broker
}

// Stopper is a Cluster whose broker can be stopped, such as a server process that is killed. It keeps what is stored. Start
// returns when it can be connected to. If a Cluster is a Stopper, then Run checks what happens meanwhile.
type Stopper interface {
	Cluster
	Stop()
	Start()
}

// Freezer is a Cluster whose broker can be halted in the midst of its work, such as a process that gets SIGSTOP, and go on.
type Freezer interface {
	Cluster
	Freeze()
	Thaw()
}

// waitAtMost is how long a rule waits for something that has to happen. It only matters to a log that fails: all waiting is
// for events. It is longer than a log may take to connect again, or to give up a publish.
const waitAtMost = time.Minute

// Run checks a broker. start is called once for each subtest and returns a log that nothing was published to yet; it may be
// another name on the same server. The rules run one after the other, and wait for events only.
func Run(t *testing.T, start func(t *testing.T) Cluster) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			c := start(t)
			if r.needs != nil && !r.needs(c) {
				t.Skip("the cluster cannot do that: see Stopper, Freezer, Forgetter and Roller")
			}
			s := &suite{tb: t, cluster: c}
			defer s.finish()
			r.check(s)
		})
	}
}

// rule is one thing that a log promises. Its name is that of the subtest, so it says what holds and not how it is checked. A
// rule whose needs is not nil is skipped for clusters that it returns false for.
type rule struct {
	name  string
	check func(*suite)
	needs func(Cluster) bool
}

// The order is from the simple to the hard: a log that fails the first rules fails most of the others too, and the first
// failure is the one to read.
var rules = slices.Concat(publishRules, receiveRules, readRules, endRules, faultRules, epochRules, peersRules)

// tb is what a rule needs of a *testing.T, so that the suite can be tested with logs that break it.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// suite is one run of one rule.
type suite struct {
	tb
	cluster Cluster
	// Numbers the data, so that each entry of a run is different and a repeated or exchanged one is found.
	serial uint64

	// Guards serial, nodes and callbacks, because rules publish from several goroutines.
	mu        sync.Mutex
	nodes     []*node
	callbacks []*callback
}

// callback is one that has to be called exactly once.
type callback struct {
	what  string
	count atomic.Int64
}

// callback registers a callback, so that finish can find one that was never called. A rule itself would not: it stops at the
// first failure, and most of them wait for one answer only.
func (s *suite) callback(what string) *callback {
	c := &callback{what: what}
	s.mu.Lock()
	s.callbacks = append(s.callbacks, c)
	s.mu.Unlock()
	return c
}

// finish closes the nodes, and reports what went wrong on the way. The nodes come first, because Close has to answer what is
// open, and only after it can a callback that was not called be called missing.
func (s *suite) finish() {
	s.Helper()
	for _, n := range s.nodes {
		n.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.callbacks {
		if n := c.count.Load(); n != 1 {
			s.Errorf("the callback of %s was called %d times, not once", c.what, n)
		}
	}
	for _, n := range s.nodes {
		for _, problem := range n.problemsOf() {
			s.Errorf("node %d: %s", n.number, problem)
		}
		if late := n.mail.lateOnes(); late > 0 {
			s.Errorf("node %d: %d messages came after Close had returned", n.number, late)
		}
	}
}

// wait waits until a channel is closed.
func (s *suite) wait(done <-chan struct{}, format string, args ...any) {
	s.Helper()
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.Fatalf("after %v: no %s", waitAtMost, fmt.Sprintf(format, args...))
	}
}

// dial makes one more node. It keeps 1000 messages, as all nodes do, so that the rules that read what they have published
// find it whatever the broker's own default is.
func (s *suite) dial() *node {
	s.Helper()
	n := &node{suite: s, number: len(s.nodes) + 1, recorder: newRecorder(), mail: newMailbox()}
	log, err := s.cluster.Broker().Dial(n.recorder, broker.Options{
		Node: n.id(), Retention: broker.Retention{Messages: 1000}, Message: n.mail.receive,
	})
	if err != nil {
		s.Fatalf("Dial: %v", err)
	}
	n.log = log
	s.nodes = append(s.nodes, n)
	return n
}

// join makes one more node, waits until it has caught up, and opens channels. Most rules begin with it. Before Repaired a log
// may answer nothing but ErrDown, which would be right and would fail a rule that is about something else.
func (s *suite) join(channels ...string) *node {
	s.Helper()
	n := s.dial()
	n.await("Epoch and Repaired", func() bool { return n.epoch != "" && !n.broken })
	if len(channels) > 0 {
		n.open(channels...)
	}
	return n
}

// entries returns n entries of a channel, with different data.
func (s *suite) entries(channel string, n int) (es []broker.Entry) {
	for range n {
		es = append(es, s.entry(channel))
	}
	return es
}

// entry returns an entry whose data no other of the run has.
func (s *suite) entry(channel string) broker.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return broker.Entry{Channel: channel, Data: fmt.Appendf(nil, "data %d", s.serial)}
}

// withKey returns the entry with a key, and with a digest of what it is.
func withKey(e broker.Entry, key byte) broker.Entry {
	// The first byte keeps key 0 from being the zero Key, which means none. The last one differs, so that a log that compares
	// only a part of the digest is found.
	e.Key = [16]byte{0: 1, 15: key}
	e.Digest = 1
	for _, b := range e.Data {
		e.Digest = e.Digest*31 + uint64(b)
	}
	return e
}
