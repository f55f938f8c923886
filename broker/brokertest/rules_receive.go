package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

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

// checkOpenWhilePublishing opens channels on several nodes again and again while others publish.
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

func checkOpenMany(s *suite) {
	from, other := s.join(), s.join()
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprint("room ", i))
	}
	other.open(names...)
	var es []broker.Entry
	for i := 0; i < len(names); i += 37 {
		es = append(es, s.entry(names[i]))
	}
	var want []broker.Entry
	for _, e := range es {
		want = append(want, from.publish(e)...)
	}
	other.expect(0, want)
}

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
