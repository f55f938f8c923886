package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Roller is a Cluster whose broker can lose what it has stored last, although that was acked, such as a server whose machine
// dies before it has written it. Positions are then given a second time, so the log has to begin another epoch.
type Roller interface {
	Cluster
	RollBack()
}

// Forgetter is a Cluster that can cut off the node that was dialed last, and let it connect again. Meanwhile its broker can
// drop all but the newest entry of a channel.
type Forgetter interface {
	Cluster
	CutOff()
	Forget(channel string)
	Restore()
}

func canForget(c Cluster) bool   { _, ok := c.(Forgetter); return ok }
func canRollBack(c Cluster) bool { _, ok := c.(Roller); return ok }

var epochRules = []rule{
	{"what is lost is named before what comes after it", checkLost, canForget},
	{"answers are of the epoch that the Sink was told", checkAnswersOfEpoch, canRollBack},
}

// checkLost checks the order of Lost and Entries by what the recorder finds. It protects rule 5 of package broker. The check
// fails a log that gives a node what is left of a channel and only then finds that some is gone, or that names every channel
// as lost although one is.
func checkLost(s *suite) {
	c := s.cluster.(Forgetter)
	from, reader := s.join(), s.join("a", "b")
	reader.expect(0, from.publish(s.entries("a", 3)...))
	c.CutOff()
	reader.await("Broken", func() bool { return reader.broken })
	lost := from.publish(s.entries("a", 10)...)
	want := from.publish(s.entry("b"))
	// Only of one channel, so that the other one shows whether the log can tell them apart.
	c.Forget("a")
	c.Restore()
	reader.await("Repaired", func() bool { return !reader.broken })
	reader.recorder.mu.Lock()
	defer reader.recorder.mu.Unlock()
	if !slices.Equal(reader.lost, []string{"a"}) {
		s.Errorf("%q were lost, not %q", reader.lost, []string{"a"})
	}
	if !reader.had[lost[9].Seq] || !reader.had[want[0].Seq] {
		s.Errorf("what is not lost did not come")
	}
}

// checkAnswersOfEpoch has nodes read and publish while the log is rolled back. What is published after that is of a new
// epoch, so no node may hear of it, in whatever way, before it was told that epoch. It protects rule 8. The check fails a log
// that answers from the connection while the calls of its Sink still wait in a queue.
func checkAnswersOfEpoch(s *suite) {
	from, reader := s.join("a"), s.join("b")
	last := from.publish(s.entries("a", 20)...)[19].Seq
	from.barrier()
	began := from.inEpoch()
	stop := make(chan struct{})
	var reads sync.WaitGroup
	var mu sync.Mutex
	later := make(map[string]bool) // data that is published after the log was rolled back
	for _, n := range []*node{from, reader} {
		check := func(what string, es []broker.Entry, err error) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range es {
				if err == nil && later[string(e.Data)] && n.inEpoch() == began {
					s.Errorf("%s on node %d returned %d of the epoch that comes next", what, n.number, e.Seq)
				}
			}
		}
		reads.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				es, _, err := n.log.Read(ctx, "a", last-10, 100, manyBytes)
				check("Read", es, err)
				es, err = n.log.Last(ctx, "a", 100, manyBytes)
				check("Last", es, err)
				cancel()
				if err != nil {
					time.Sleep(time.Millisecond) // it may be connecting
				}
			}
		})
	}
	s.cluster.(Roller).RollBack()
	// Five, since the first may be answered when the change is already over.
	for acked := 0; acked < 5; {
		e := s.entry("a")
		mu.Lock()
		later[string(e.Data)] = true
		mu.Unlock()
		if from.publishIn(e, began) {
			acked++
		}
	}
	for _, n := range []*node{from, reader} {
		n.await("another epoch", func() bool { return n.epoch != began })
	}
	close(stop)
	reads.Wait()
}

// publishIn publishes an entry that is of a later epoch than one, and reports whether it was acked. It looks at the epoch
// inside the callback, because that is the moment which the contract speaks of. After it the Sink may be told at any time.
func (n *node) publishIn(e broker.Entry, past string) (acked bool) {
	n.Helper()
	c := n.callback("Publish")
	done := make(chan struct{})
	n.log.Publish([]broker.Entry{e}, func(places []broker.Place, err error) {
		if acked = err == nil; acked && n.inEpoch() == past {
			n.Errorf("%q was acked at %d of the epoch that comes next", e.Data, places[0].Seq)
		}
		if c.count.Add(1) == 1 {
			close(done)
		}
	})
	n.wait(done, "answer to Publish")
	if !acked {
		time.Sleep(time.Millisecond)
	}
	return acked
}

// inEpoch returns the epoch that the Sink was told last.
func (n *node) inEpoch() string {
	n.recorder.mu.Lock()
	defer n.recorder.mu.Unlock()
	return n.epoch
}
