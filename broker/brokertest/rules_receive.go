package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// They are about W: rules 1 to 3 and 5 of package broker.
var receiveRules = []rule{
	{"Epoch comes first and is the same on all nodes", checkEpoch, nil},
	{"every entry after what Open returns comes", checkOpenWhilePublishing, nil},
	{"many channels are opened at once", checkOpenMany, nil},
	{"a released channel ends and can be opened again", checkRelease, nil},
	{"a release while opening ends Open", checkReleaseWhileOpening, nil},
	{"all channels, beside one by name", checkAll, nil},
	{"a barrier waits for what was stored before, on any node", checkBarrier, nil},
	{"a barrier moves W over what is not subscribed to", checkBarrierMovesW, nil},
	{"many barriers at once", checkManyBarriers, nil},
	{"methods may be called inside callbacks", checkInside, nil},
}

// checkEpoch has one node that joins when there already is an entry. The check fails a log that makes an epoch for each
// connection: clients that move to another node would get a gap.
func checkEpoch(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	nodes[0].publish(s.entry("a"))
	nodes = append(nodes, s.join())
	for _, n := range nodes {
		n.barrier()
		n.recorder.mu.Lock()
		if n.epoch != nodes[0].epoch || n.epochs != 1 {
			s.Errorf("node %d: epoch %q, the %d. one, not the first %q", n.number, n.epoch, n.epochs, nodes[0].epoch)
		}
		n.recorder.mu.Unlock()
	}
}

// checkOpenWhilePublishing opens channels on several nodes again and again while others publish. The check fails a log that
// takes the position first and subscribes then: what is stored between the two never comes.
func checkOpenWhilePublishing(s *suite) {
	from := s.join()
	var all []broker.Entry
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			p := from.startPublish(s.entry(fmt.Sprint("c", i%3)))
			<-p.done
			if p.err != nil || len(p.places) != 1 {
				s.Errorf("Publish: %v and %v", p.places, p.err)
				return
			}
			p.entries[0].Seq = p.places[0].Seq
			all = append(all, p.entries[0])
		}
	}()
	type reader struct {
		*node
		channel string
		at      uint64
	}
	var readers []reader
	for i := range 6 {
		n := s.join()
		for j := range 3 {
			// Each node opens them in another order.
			name := fmt.Sprint("c", (i+j)%3)
			readers = append(readers, reader{n, name, n.open(name)})
		}
	}
	close(stop)
	<-stopped
	for _, r := range readers {
		r.barrier()
		want := slices.DeleteFunc(slices.Clone(all), func(e broker.Entry) bool { return e.Channel != r.channel || e.Seq <= r.at })
		r.recorder.mu.Lock()
		got := slices.DeleteFunc(r.of(r.channel), func(e broker.Entry) bool { return e.Seq <= r.at })
		r.recorder.mu.Unlock()
		r.same(got, want)
	}
}

// checkOpenMany opens as many as a node has to after it has connected again. The check fails a log that asks the broker for
// each one by one, or whose request becomes too long.
func checkOpenMany(s *suite) {
	from, other := s.join(), s.join()
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprint("room ", i))
	}
	other.open(names...)
	var es []broker.Entry
	// Some, spread over all, are enough to find a part that was left out.
	for i := 0; i < len(names); i += 37 {
		es = append(es, s.entry(names[i]))
	}
	var want []broker.Entry
	for _, e := range es {
		want = append(want, from.publish(e)...)
	}
	other.expect(0, want)
}

// checkRelease is about a channel that is opened a second time. The check fails a log that answers with the position of the
// first Open, although it received nothing in between.
func checkRelease(s *suite) {
	from, other := s.join(), s.join("a", "b")
	other.release(from, "a")
	kept := from.publish(s.entry("b"))
	missed := from.publish(s.entry("a"))
	other.expect(0, kept)
	at := other.open("a")
	if at < missed[0].Seq {
		s.Fatalf("Open returned %d after %d had been stored", at, missed[0].Seq)
	}
	want := from.publish(s.entry("a"))
	other.expect(at, want)
}

// checkReleaseWhileOpening races Release against the answer of Open. Both outcomes are right, but there must be one: the
// hub's clients wait for it. The last Open shows that an old answer does not end a new subscription.
func checkReleaseWhileOpening(s *suite) {
	from, other := s.join(), s.join()
	for range 50 {
		done, _, err := other.startOpen("a")
		other.log.Release([]string{"a"})
		s.wait(done, "answer to Open after Release")
		if *err != nil && !errors.Is(*err, broker.ErrClosed) {
			s.Fatalf("Open of a released channel returned %v, not ErrClosed", *err)
		}
	}
	at := other.open("a")
	other.expect(at, from.publish(s.entry("a")))
}

// checkAll protects "an entry still comes once", and that ending one of two subscriptions leaves the other. Names like "b.c"
// are in it, because a wildcard may match one level only.
func checkAll(s *suite) {
	from, all, both := s.join(), s.join(""), s.join("a", "")
	publish := func() []broker.Entry {
		return append(from.publish(s.entry("a")), from.publish(s.entry("b.c"), s.entry("a"), s.entry("_tick"))...)
	}
	first := publish()
	all.expect(0, first)
	both.expect(0, first)
	all.release(from, "")
	both.release(from, "")
	after := both.barrier()
	publish()
	last := from.publish(s.entry("a"))
	both.await("the last entry", func() bool { return both.had[last[0].Seq] })
	both.recorder.mu.Lock()
	defer both.recorder.mu.Unlock()
	for _, e := range both.recorder.entries {
		if e.Seq > after && e.Channel != "a" {
			s.Errorf("%d of %q came when only \"a\" was open", e.Seq, e.Channel)
		}
	}
}

// checkBarrier protects rule 3. The check fails a log that answers from its own connection without asking the broker, or
// whose answer overtakes entries that are still in a queue.
func checkBarrier(s *suite) {
	nodes := []*node{s.join("a"), s.join("a"), s.join("a", "b")}
	var others sync.WaitGroup
	stop := make(chan struct{})
	for _, n := range nodes[:2] { // what is published meanwhile makes it harder
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					p := n.startPublish(s.entry("b"))
					<-p.done
				}
			}
		})
	}
	defer others.Wait()
	defer close(stop)
	for i := range 100 {
		e := nodes[i%3].publish(s.entry("a"))[0]
		for _, n := range nodes {
			at := n.barrier()
			n.recorder.mu.Lock()
			had, w := n.had[e.Seq], n.w
			n.recorder.mu.Unlock()
			if !had || at < e.Seq || at > w {
				s.Fatalf("node %d: after %d was stored Barrier returned %d with W at %d, and the entry had come: %v", n.number, e.Seq, at, w, had)
			}
		}
	}
}

// checkBarrierMovesW protects the resume of a client whose node is subscribed to nothing that was published since. The check
// fails a log that moves W by entries only: the client would wait for ever.
func checkBarrierMovesW(s *suite) {
	from, other := s.join(), s.join("a")
	e := from.publish(s.entry("b"))[0]
	for _, n := range []*node{from, other} {
		at := n.barrier()
		n.recorder.mu.Lock()
		if n.w < e.Seq || at < e.Seq {
			s.Errorf("node %d: after %d was stored Barrier returned %d with W at %d", n.number, e.Seq, at, n.w)
		}
		n.recorder.mu.Unlock()
	}
}

// checkManyBarriers has callers that may share an exchange. The check fails a log that answers only one of them.
func checkManyBarriers(s *suite) {
	n := s.join("a")
	e := n.publish(s.entry("a"))[0]
	var done sync.WaitGroup
	for range 100 {
		c := n.callback("Barrier")
		done.Add(1)
		n.log.Barrier(func(at uint64, err error) {
			if c.count.Add(1) > 1 {
				return
			}
			defer done.Done()
			if err != nil || at < e.Seq {
				s.Errorf("Barrier: %d and %v", at, err)
			}
		})
	}
	all := make(chan struct{})
	go func() { done.Wait(); close(all) }()
	s.wait(all, "answer to all of 100 barriers")
}

// checkInside calls each method that may be called there.
func checkInside(s *suite) {
	n := s.join("a")
	c := n.callback("Publish inside of Open inside of Barrier inside of Publish")
	done := make(chan struct{})
	n.log.Publish(s.entries("a", 1), func([]broker.Place, error) {
		n.log.Barrier(func(uint64, error) {
			n.log.Open([]string{"b"}, func(uint64, error) {
				n.log.Release([]string{"a"})
				n.log.Status()
				n.log.Retain(broker.Retention{Messages: 1000})
				n.log.Publish(s.entries("b", 1), func(_ []broker.Place, err error) {
					if c.count.Add(1) == 1 {
						close(done)
					}
					if err != nil {
						s.Errorf("Publish: %v", err)
					}
				})
			})
		})
	})
	s.wait(done, "answer to calls inside callbacks")
}
