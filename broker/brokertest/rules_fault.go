package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

var faultRules = []rule{
	{"nothing acked is lost when the broker restarts", checkRestart, canStop},
	{"errors are true while the broker is down", checkDown, canStop},
	{"Open and Dial while the broker is down wait for it", checkOpenWhileDown, canStop},
	{"nothing acked is lost when the broker is frozen", checkFreeze, canFreeze},
}

// Faults are optional, because a broker that somebody else runs cannot be killed by a test.
func canStop(c Cluster) bool   { _, ok := c.(Stopper); return ok }
func canFreeze(c Cluster) bool { _, ok := c.(Freezer); return ok }

// load is publishers who go on while something happens to the broker. Its publishers do not fail the rule when a publish
// fails. They note what they were told, and check compares that with what readers got.
type load struct {
	*suite
	readers []*node
	stop    chan struct{}
	done    sync.WaitGroup

	mu sync.Mutex
	// Closed at each ack and replaced, as recorder.changed.
	changed chan struct{}
	acked   []broker.Entry  // with their positions
	refused map[string]bool // data that was answered with ErrDown
}

// startLoad has two nodes that publish, one of them with keys and until it is acked, and two that are subscribed. One insists
// and one gives up, because a key and no key are two promises: stored once whatever happens, and stored at most once.
func startLoad(s *suite) *load {
	l := &load{
		suite: s, readers: []*node{s.join("a", "b"), s.join("a", "b")},
		stop: make(chan struct{}), changed: make(chan struct{}), refused: make(map[string]bool),
	}
	for i, n := range []*node{s.join(), s.join()} {
		l.done.Go(func() {
			for serial := byte(0); ; serial++ {
				select {
				case <-l.stop:
					return
				default:
				}
				// Two channels in turn, so that a hole in one is not found by the next entry of the other.
				e := s.entry(string(rune('a' + int(serial)%2)))
				if i == 0 {
					l.insist(n, e)
				} else {
					l.once(n, e)
				}
			}
		})
	}
	return l
}

// insist publishes an entry with a key until it is acked. It is what a publisher does that wants rule 6: the same key again
// until there is a position.
func (l *load) insist(n *node, e broker.Entry) {
	// Padded in front, so that the serial number, which differs, is not cut off.
	copy(e.Key[:], fmt.Sprintf("%16s", e.Data))
	// The same for all, since each key has only one content here.
	e.Digest = 1
	for !l.once(n, e) {
		select {
		case <-l.stop:
			return
		default:
		}
	}
}

// once publishes an entry, and notes the answer.
func (l *load) once(n *node, e broker.Entry) (acked bool) {
	p := n.startPublish(e)
	<-p.done
	l.mu.Lock()
	switch {
	case p.err == nil && len(p.places) == 1:
		e.Seq = p.places[0].Seq
		l.acked = append(l.acked, e)
		close(l.changed)
		l.changed = make(chan struct{})
	case errors.Is(p.err, broker.ErrDown):
		// With a key it is tried again, and may be stored by a later try.
		if e.Digest == 0 {
			l.refused[string(e.Data)] = true
		}
	case !errors.Is(p.err, broker.ErrUnknown):
		l.Errorf("Publish was answered with %v, which is neither ErrDown nor ErrUnknown", p.err)
	}
	l.mu.Unlock()
	if p.err != nil {
		n.tryBarrier() // a pause, at most until it is connected
		time.Sleep(time.Millisecond)
	}
	return p.err == nil
}

// awaitAcks waits for so many acks more. It is how a rule knows that the log works again after a fault, without a time that
// would be too short for some broker.
func (l *load) awaitAcks(more int) {
	l.Helper()
	l.mu.Lock()
	enough := len(l.acked) + more
	l.mu.Unlock()
	for {
		l.mu.Lock()
		n, changed := len(l.acked), l.changed
		l.mu.Unlock()
		if n >= enough {
			return
		}
		l.wait(changed, "ack")
	}
}

// check ends the load, and checks that each reader has what was acked, once and in order. It protects rules 4 to 6 of package
// broker: what was acked is there at its position, what was refused is not, and nothing is there twice. The check fails a log
// that sends again without a key, that says ErrDown about something that it has sent, or that goes on after a reconnect
// without reading what it missed.
func (l *load) check() {
	l.Helper()
	close(l.stop)
	l.done.Wait()
	// The last that was acked need not be the last in the log, but the barrier that follows is after all of them.
	last := l.acked[len(l.acked)-1]
	for _, n := range l.readers {
		n.await("the last entry", func() bool { return (n.had[last.Seq] || n.epochs > 1) && !n.broken })
		n.barrier()
		n.recorder.mu.Lock()
		defer n.recorder.mu.Unlock()
		if n.epochs > 1 {
			return // the log tells that it has lost something: it need not have the rest
		}
		if len(n.lost) > 0 {
			l.Errorf("node %d lost messages of %q", n.number, n.lost)
		}
		have, times := make(map[uint64]string), make(map[string]int)
		for _, e := range n.recorder.entries {
			have[e.Seq] = string(e.Data)
			times[string(e.Data)]++
		}
		for _, e := range l.acked {
			if have[e.Seq] != string(e.Data) {
				l.Fatalf("node %d has %q at %d, where %q was acked", n.number, have[e.Seq], e.Seq, e.Data)
			}
		}
		for data, count := range times {
			if count > 1 {
				l.Errorf("%q was stored %d times", data, count)
			}
			if l.refused[data] {
				l.Errorf("%q was stored, although it was answered with ErrDown", data)
			}
		}
	}
}

// checkRestart stops the broker twice, because a log may repair its first connection only, or keep state of the first repair
// that spoils the second.
func checkRestart(s *suite) {
	c := s.cluster.(Stopper)
	l := startLoad(s)
	for range 2 {
		l.awaitAcks(50)
		c.Stop()
		c.Start()
	}
	l.awaitAcks(50)
	l.check()
}

// checkDown is about a node whose broker is away and that is asked for something. A caller must get an answer, and it must be
// true: ErrDown promises that nothing was stored. The check fails a log that keeps the publish to send it later and says
// ErrDown meanwhile.
func checkDown(s *suite) {
	c := s.cluster.(Stopper)
	n := s.join("a")
	want := n.publish(s.entries("a", 3)...)
	c.Stop()
	n.await("Broken", func() bool { return n.broken })
	if status := n.log.Status(); status.Up || status.Problem == "" {
		s.Errorf("while the broker is down the status is %+v", status)
	}
	// ErrUnknown is allowed too: a log may have sent it before it noticed.
	refused, err := s.entry("a"), error(nil)
	if _, err = n.try(refused); !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
		s.Errorf("Publish: %v", err)
	}
	if _, err := n.tryBarrier(); !errors.Is(err, broker.ErrDown) {
		s.Errorf("Barrier: %v", err)
	}
	// Read may wait for the broker, so it ends by its context here. Only an answer is wrong.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := n.log.Read(ctx, "a", 0, 10, manyBytes); err == nil {
		s.Errorf("Read had an answer while the broker was down")
	}
	c.Start()
	n.await("Repaired", func() bool { return !n.broken })
	n.recorder.mu.Lock()
	again := n.epochs > 1
	n.recorder.mu.Unlock()
	if again {
		return // what was published is of another epoch
	}
	want = append(want, n.publish(s.entry("a"))...)
	if errors.Is(err, broker.ErrDown) {
		n.expect(0, want) // without what was refused
		n.same(n.newest("a", 10, manyBytes), want)
	}
}

// checkOpenWhileDown is about a hub that starts before its broker, as after a power failure. Dial and Open then wait, because
// the hub has no other time to call them again. The check fails a log that forgets an Open for which it has no connection, or
// answers it with a position that it has made up.
func checkOpenWhileDown(s *suite) {
	c := s.cluster.(Stopper)
	from, other := s.join(), s.join()
	c.Stop()
	other.await("Broken", func() bool { return other.broken })
	opened, at, err := other.startOpen("a")
	late := s.dial()
	lateOpened, lateAt, lateErr := late.startOpen("a")
	select {
	case <-opened:
		s.Fatalf("Open was answered while the broker was down: %d and %v", *at, *err)
	case <-lateOpened:
		s.Fatalf("Open was answered while the broker was down: %d and %v", *lateAt, *lateErr)
	default:
	}
	c.Start()
	s.wait(opened, "answer to Open after the broker has started")
	s.wait(lateOpened, "answer to Open of a node that was dialed while the broker was down")
	if *err != nil || *lateErr != nil {
		s.Fatalf("Open: %v, %v", *err, *lateErr)
	}
	from.await("Repaired", func() bool { return !from.broken })
	want := from.publish(s.entry("a"))
	other.expect(*at, want)
	late.expect(*lateAt, want)
}

// checkFreeze is about a broker that keeps its connections and does nothing, such as a process on a machine that swaps. No
// connection breaks, so only a timeout ends the publish. The check fails a log that waits for the connection to break, or
// that acks what it has only sent.
func checkFreeze(s *suite) {
	c := s.cluster.(Freezer)
	l := startLoad(s)
	l.awaitAcks(50)
	c.Freeze()
	// On a channel that nobody reads: whether it is stored later is open, and must not disturb check.
	p := l.readers[0].startPublish(s.entry("c"))
	l.wait(p.done, "answer to Publish while the broker is frozen")
	if p.err == nil {
		l.Errorf("a publish was acked while the broker was frozen")
	}
	c.Thaw()
	l.awaitAcks(50)
	l.check()
}
