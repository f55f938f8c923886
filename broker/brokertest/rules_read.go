package brokertest

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

var readRules = []rule{
	{"Read returns what came after a position", checkRead, nil},
	{"Read and Last keep to their limits", checkReadLimits, nil},
	{"Read of a channel without entries", checkReadEmpty, nil},
	{"Read is not complete if something is gone", checkRetention, nil},
	{"Read and Last end with their context", checkReadContext, nil},
}

var endRules = []rule{
	{"Status tells that all is well", checkStatus, nil},
	{"Close answers everything and is the end", checkClose, nil},
}

// manyBytes is more than any rule stores, for reads whose limit is the number of entries.
const manyBytes = 1 << 30

// checkRead is what a client relies on that resumes: everything after its position and nothing else. The check fails a log
// that counts entries of other channels, or that includes the position itself. It reads on both nodes, because a log may
// answer for its own entries only.
func checkRead(s *suite) {
	from, other := s.join(), s.join()
	var want []broker.Entry
	for i := range 60 {
		want = append(want, from.publish(append(s.entries("a", 1+i%2), s.entry("b"))...)...)
	}
	a, b := sorted(want, "a"), sorted(want, "b")
	for _, n := range []*node{from, other} {
		for i := 0; i < len(a); i += 7 {
			got, complete := n.read("a", a[i].Seq, 1000, manyBytes)
			if n.same(got, a[i+1:]); !complete {
				s.Errorf("Read from %d on was not complete", a[i].Seq)
			}
		}
		n.same(n.newest("b", 1000, manyBytes), b)
	}
	// A client that has everything must not be told of a gap.
	got, complete := other.read("b", want[len(want)-1].Seq, 1000, manyBytes)
	if len(got) != 0 || !complete {
		s.Errorf("Read from the newest on returned %d entries, complete: %v", len(got), complete)
	}
}

// sorted returns those of a channel.
func sorted(es []broker.Entry, channel string) []broker.Entry {
	return (&recorder{entries: es}).of(channel)
}

// checkReadLimits protects complete. The check fails a log that says complete because it has filled its limit, or that
// returns the newest of what is too much: the hub reads on after the last one that it got, and would skip the rest.
func checkReadLimits(s *suite) {
	n := s.join()
	var es []broker.Entry
	for range 20 {
		e := s.entry("a")
		e.Data = append(make([]byte, 1000), e.Data...)
		es = append(es, n.publish(e)...)
	}
	got, complete := n.read("a", es[0].Seq, 5, manyBytes)
	if n.same(got, es[1:6]); complete {
		s.Errorf("Read of 5 of 19 entries was complete")
	}
	// Exactly as many as there are is not "more than n".
	got, complete = n.read("a", es[0].Seq, 19, manyBytes)
	if n.same(got, es[1:]); !complete {
		s.Errorf("Read of 19 of 19 entries was not complete")
	}
	got, complete = n.read("a", es[0].Seq, 1000, 5000)
	// The bytes are a rough limit, so twice as many are allowed. None would be a read that never gets on.
	if len(got) == 0 || len(got) > 10 || complete {
		s.Errorf("Read of about 5000 bytes returned %d entries of 1000, complete: %v", len(got), complete)
	}
	n.same(got, es[1:1+len(got)])
	// One comes whatever its size: a hub that reads with little room takes none for a loss.
	if got, complete = n.read("a", es[0].Seq, 1000, 1); complete {
		s.Errorf("Read of 1 byte of 19 entries was complete")
	}
	n.same(got, es[1:2])
	n.same(n.newest("a", 1000, 1), es[19:])
	n.same(n.newest("a", 5, manyBytes), es[15:])
	got = n.newest("a", 1000, 5000)
	if len(got) == 0 || len(got) > 10 {
		s.Errorf("Last of about 5000 bytes returned %d entries of 1000", len(got))
	}
	n.same(got, es[20-len(got):])
}

// checkReadEmpty is about a channel that the broker does not know. That is not an error, and nothing is missing.
func checkReadEmpty(s *suite) {
	n := s.join()
	e := n.publish(s.entry("a"))[0]
	if es, complete := n.read("never", e.Seq, 10, manyBytes); len(es) != 0 || !complete {
		s.Errorf("Read returned %d entries, complete: %v", len(es), complete)
	}
	if es := n.newest("never", 10, manyBytes); len(es) != 0 {
		s.Errorf("Last returned %d entries", len(es))
	}
}

// checkRetention publishes more than has to be kept. A log may keep all of it. The check fails a log that says complete about
// a channel whose oldest entries are gone: the client would lose messages without a gap.
func checkRetention(s *suite) {
	n := s.join()
	n.log.Retain(broker.Retention{Messages: 10})
	for _, other := range s.nodes {
		other.log.Retain(broker.Retention{Messages: 10})
	}
	var es []broker.Entry
	for range 100 {
		es = append(es, n.publish(s.entries("a", 10)...)...)
	}
	first, newest := es[0].Seq, es[len(es)-10:]
	got, complete := n.read("a", first, 2000, manyBytes)
	if complete && len(got) != len(es)-1 {
		s.Errorf("Read returned %d of %d entries, and that they are complete", len(got), len(es)-1)
	}
	if len(got) < 10 {
		s.Fatalf("Read returned %d entries, although 10 have to be kept", len(got))
	}
	n.same(got[len(got)-10:], newest)
	got, complete = n.read("a", newest[0].Seq, 2000, manyBytes)
	if n.same(got, newest[1:]); !complete {
		s.Errorf("Read of what has to be kept was not complete")
	}
	n.same(n.newest("a", 10, manyBytes), newest)
}

// checkReadContext has a context that is done already. A log may answer nevertheless, but it must not wait, and an error has
// to be the context's.
func checkReadContext(s *suite) {
	n := s.join()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := n.log.Read(ctx, "a", 0, 1, 1); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Read returned %v", err)
	}
	if _, err := n.log.Last(ctx, "a", 1, 1); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Last returned %v", err)
	}
}

func checkStatus(s *suite) {
	began := time.Now().Add(-time.Second) // clocks may be coarse
	n := s.join("a")
	n.barrier()
	status := n.log.Status()
	if !status.Up || status.Problem != "" || status.Server == "" || status.Heard.Before(began) || status.QueueBytes != 0 {
		s.Errorf("the status is %+v", status)
	}
}

func checkClose(s *suite) {
	n, other := s.join("a"), s.join("a")
	var pending []*publishing
	for range 100 {
		pending = append(pending, n.startPublish(s.entry("a")))
	}
	opened, _, _ := n.startOpen("b", "c")
	c := n.callback("Barrier")
	n.log.Barrier(func(uint64, error) { c.count.Add(1) })
	n.close()
	for _, p := range pending { // all were answered before Close returned
		select {
		case <-p.done:
		default:
			s.Fatalf("a publish was not answered before Close returned")
		}
		if p.err != nil && !errors.Is(p.err, broker.ErrUnknown) {
			s.Errorf("a publish that Close interrupted was answered with %v", p.err)
		}
	}
	select {
	case <-opened:
	default:
		s.Errorf("Open was not answered before Close returned")
	}
	n.log.Close() // does nothing
	checkClosed(s, n.log)
	from := s.join()
	last := from.publish(s.entry("a"))[0]
	other.await("an entry after another node has closed", func() bool { return other.had[last.Seq] })
}

// checkClosed checks that all that can be called has ErrClosed.
func checkClosed(s *suite, log broker.Log) {
	s.Helper()
	closed := func(what string, err error) {
		if !errors.Is(err, broker.ErrClosed) {
			s.Errorf("after Close %s was answered with %v, not ErrClosed", what, err)
		}
	}
	answers := make(chan func(), 3)
	log.Publish(s.entries("a", 1), func(_ []broker.Place, err error) { answers <- func() { closed("Publish", err) } })
	log.Open([]string{"d"}, func(_ uint64, err error) { answers <- func() { closed("Open", err) } })
	log.Barrier(func(_ uint64, err error) { answers <- func() { closed("Barrier", err) } })
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	for range 3 {
		select {
		case check := <-answers:
			check()
		case <-timer.C:
			s.Fatalf("a call after Close was not answered")
		}
	}
	_, _, err := log.Read(context.Background(), "a", 0, 1, 1)
	closed("Read", err)
	_, err = log.Last(context.Background(), "a", 1, 1)
	closed("Last", err)
}
