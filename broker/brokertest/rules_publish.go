package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// equal reports whether an entry that came is one that was published. Key and Digest need not come. The log may keep them to
// itself. The time must be there, and be that of the ack if the ack had one, because clients are told it.
func equal(got, want broker.Entry) bool {
	return got.Seq == want.Seq && got.Channel == want.Channel && got.Event == want.Event && got.Kind == want.Kind &&
		bytes.Equal(got.Data, want.Data) && got.Node == want.Node && got.Conn == want.Conn && got.Time > 0 &&
		(want.Time == 0 || got.Time == want.Time)
}

// show describes an entry for a failure. Names and data are cut, because some rules use long ones.
func show(e broker.Entry) string {
	return fmt.Sprintf("{seq %d time %d channel %.100q event %.100q kind %d data %.100q (%d bytes) node %d conn %d}",
		e.Seq, e.Time, e.Channel, e.Event, e.Kind, e.Data, len(e.Data), e.Node, e.Conn)
}

// They are about rules 6 and 7 of package broker, and about the order and atomicity that Log.Publish promises.
var publishRules = []rule{
	{"every node gets every entry in one order", checkOrder, nil},
	{"publishes without waiting keep the order of the calls", checkPipeline, nil},
	{"entries of one call are next to each other", checkContiguous, nil},
	{"many entries of one call", checkManyAtOnce, nil},
	{"a repeated key is one entry on every node", checkRepeated, nil},
	{"a repeated key among new entries", checkRepeatedAmongNew, nil},
	{"a key of another message is a conflict and nothing is stored", checkConflict, nil},
	{"the same key on all nodes at the same moment", checkSameMoment, nil},
	{"content comes as it was published", checkContent, nil},
	{"channels of all kinds of names are different", checkNames, nil},
	{"data up to MaxData and not more", checkTooBig, nil},
}

// concurrently publishes from several nodes at once, each entry after the one before, and returns what was published. A
// publisher that waits is promised its order, so this is the load that every log has to put in one order.
func concurrently(s *suite, nodes []*node, each int, channels ...string) []broker.Entry {
	s.Helper()
	var mu sync.Mutex
	var all []broker.Entry
	var failed error
	var publishers sync.WaitGroup
	for _, n := range nodes {
		publishers.Go(func() {
			for i := range each {
				p := n.startPublish(s.entry(channels[i%len(channels)]))
				<-p.done // a log that does not answer is found by the tests' own timeout
				mu.Lock()
				if p.err != nil || len(p.places) != 1 {
					failed = fmt.Errorf("%d places, and error %v", len(p.places), p.err)
				} else {
					e := p.entries[0]
					e.Seq, e.Time = p.places[0].Seq, p.places[0].Time
					all = append(all, e)
				}
				mu.Unlock()
			}
		})
	}
	publishers.Wait()
	if failed != nil {
		s.Fatalf("Publish: %v", failed)
	}
	all = sortedBySeq(all)
	if len(all) != each*len(nodes) {
		s.Fatalf("%d publishes were given %d positions", each*len(nodes), len(all))
	}
	return all
}

// checkOrder protects the one order of the log. The check fails a log that delivers its own entries directly and others'
// through the broker: then two nodes see them in different orders. The third node shows that a node gets no channel that it
// did not open.
func checkOrder(s *suite) {
	nodes := []*node{s.join("a", "b"), s.join("a", "b"), s.join("b")}
	all := concurrently(s, nodes, 200, "a", "b")
	for _, n := range nodes[:2] {
		n.expect(0, all)
	}
	nodes[2].expect(0, slices.DeleteFunc(slices.Clone(all), func(e broker.Entry) bool { return e.Channel == "a" }))
}

// checkPipeline publishes without waiting, as the hub does for clients of broadcast.v1. The check fails a log that sends
// calls over several connections or goroutines, or that sends a failed one again after its successors.
func checkPipeline(s *suite) {
	from, other := s.join("a"), s.join("a")
	var ps []*publishing
	for range 500 {
		ps = append(ps, from.startPublish(s.entry("a")))
	}
	var all []broker.Entry
	for _, p := range ps {
		s.wait(p.done, "answer to Publish")
		if p.err != nil {
			s.Fatalf("Publish: %v", p.err)
		}
		all = append(all, from.placed(p.entries, p.places)...)
	}
	for i := range all[1:] {
		if all[i].Seq >= all[i+1].Seq {
			s.Fatalf("the call after the one that got %d got %d", all[i].Seq, all[i+1].Seq)
		}
	}
	from.expect(0, all)
	other.expect(0, all)
}

// checkContiguous protects "next to each other". The check fails a log that publishes the entries of a call one by one, since
// those of other nodes come in between. Entries of one call are on two channels, because a broker may only be able to keep
// one channel together.
func checkContiguous(s *suite) {
	// It is subscribed to all channels, so that it sees the order of the whole log.
	witness := s.join("")
	nodes := []*node{s.join(), s.join(), s.join()}
	var mu sync.Mutex
	var batches [][]broker.Entry
	var publishers sync.WaitGroup
	for _, n := range nodes {
		publishers.Go(func() {
			for i := range 30 {
				// Calls of different sizes: 1 to 7 entries of one channel and none to 2 of the other.
				p := n.startPublish(append(s.entries("a", 1+i%7), s.entries("b", i%3)...)...)
				<-p.done
				mu.Lock()
				if p.err == nil && len(p.places) == len(p.entries) {
					batches = append(batches, n.placed(p.entries, p.places))
				}
				mu.Unlock()
			}
		})
	}
	publishers.Wait()
	if len(batches) != 90 {
		s.Fatalf("%d publishes failed", 90-len(batches))
	}
	slices.SortFunc(batches, func(a, b []broker.Entry) int { return int(a[0].Seq) - int(b[0].Seq) })
	all := slices.Concat(batches...)
	for i := range all[1:] {
		if all[i].Seq >= all[i+1].Seq {
			s.Fatalf("entries of two calls are mixed at %d and %d", all[i].Seq, all[i+1].Seq)
		}
	}
	witness.expect(0, all)
}

// checkManyAtOnce publishes more than a broker may be able to store at once: then it stores the first ones. The check fails a
// log that answers as if all were stored, or with an error that does not say which are.
func checkManyAtOnce(s *suite) {
	from, other := s.join(), s.join("a")
	var all []broker.Entry
	// Below, at and beyond the 1000 that nats-server stores at once by default (streamDefaultMaxAtomicBatchSize,
	// server/stream.go, v2.15.2).
	for _, n := range []int{100, 1000, 3000} {
		es := s.entries("a", n)
		places, err := from.try(es...)
		if partial := (*broker.PartialError)(nil); errors.As(err, &partial) {
			if places = partial.Places; len(places) == 0 || len(places) >= n {
				s.Fatalf("PartialError has %d places for %d entries", len(places), n)
			}
		} else if err != nil {
			s.Fatalf("Publish: %v", err)
		}
		all = append(all, from.placed(es[:len(places)], places)...)
	}
	other.expect(0, all)
}

// checkRepeated protects "one key has one position, on every node". The check fails a log that remembers keys in the process:
// it does not know those of other nodes. The entry that follows shows that nothing was stored by the repetitions.
func checkRepeated(s *suite) {
	first, second := s.join("a"), s.join("a")
	e := withKey(s.entry("a"), 1)
	want := first.publish(e)
	for _, n := range []*node{first, second} {
		places, err := n.try(e)
		if err != nil || len(places) != 1 || places[0].Seq != want[0].Seq || !places[0].Repeated {
			s.Fatalf("the repeated publish returned %v and %v, not %d as repeated", places, err, want[0].Seq)
		}
	}
	want = append(want, first.publish(s.entry("a"))...)
	first.expect(0, want)
	second.expect(0, want)
}

// checkRepeatedAmongNew has known and new entries in one call. The check fails a log that lets the broker refuse the whole
// call because of one known key, or that looks only at keys of earlier calls and not of the same one.
func checkRepeatedAmongNew(s *suite) {
	first, second := s.join("a"), s.join("a")
	known := withKey(s.entry("a"), 1)
	want := first.publish(known)
	twice := withKey(s.entry("a"), 2)
	es := []broker.Entry{s.entry("a"), known, twice, twice, s.entry("a")}
	places, err := second.try(es...)
	if err != nil || len(places) != len(es) {
		s.Fatalf("Publish: %v and %v", places, err)
	}
	if !places[1].Repeated || places[1].Seq != want[0].Seq {
		s.Fatalf("the known entry got %v, not %d as repeated", places[1], want[0].Seq)
	}
	if !places[3].Repeated || places[3].Seq != places[2].Seq || places[2].Repeated {
		s.Fatalf("the same key twice in a call got %v and %v", places[2], places[3])
	}
	placed := second.placed(es, places)
	want = append(want, placed[0], placed[2], placed[4])
	first.expect(0, want)
	second.expect(0, want)
}

// checkConflict protects "all of them or none": the entries around the wrong one must not be stored either. The check fails a
// log that compares keys only, and so acks a message that it did not store.
func checkConflict(s *suite) {
	first, second := s.join("a"), s.join("a")
	e := withKey(s.entry("a"), 1)
	want := first.publish(e)
	other := withKey(s.entry("a"), 1)
	for _, es := range [][]broker.Entry{{other}, {s.entry("a"), other, s.entry("a")}} {
		for _, n := range []*node{first, second} {
			if places, err := n.try(es...); !errors.Is(err, broker.ErrConflict) {
				s.Fatalf("Publish with the key of another message returned %v and %v, not ErrConflict", places, err)
			}
		}
	}
	third := withKey(s.entry("a"), 3)
	changed := withKey(s.entry("a"), 3)
	if places, err := first.try(third, changed); !errors.Is(err, broker.ErrConflict) {
		s.Fatalf("one key for two messages in one call returned %v and %v, not ErrConflict", places, err)
	}
	want = append(want, first.publish(third)...) // the key is not used by what was not stored
	first.expect(0, want)
	second.expect(0, want)
}

// checkSameMoment publishes one key on all nodes before any of them can know of the others. The check fails a log that first
// asks whether a key is known and then stores: both find that it is not.
func checkSameMoment(s *suite) {
	nodes := []*node{s.join("a"), s.join("a"), s.join("a")}
	var want []broker.Entry
	// Often, because the race is not lost every time.
	for key := range byte(50) {
		e := withKey(s.entry("a"), key)
		var ps []*publishing
		for _, n := range nodes {
			ps = append(ps, n.startPublish(e))
		}
		firsts := 0
		for _, p := range ps {
			s.wait(p.done, "answer to Publish")
			if p.err != nil || len(p.places) != 1 || p.places[0].Seq != ps[0].places[0].Seq {
				s.Fatalf("the same key got %v and %v on one node, %v on another", p.places, p.err, ps[0].places)
			}
			if !p.places[0].Repeated {
				firsts++
			}
		}
		if firsts != 1 {
			s.Fatalf("the same key was new %d times", firsts)
		}
		want = append(want, nodes[0].placed([]broker.Entry{e}, ps[0].places)...)
	}
	for _, n := range nodes {
		n.expect(0, want)
	}
}

// checkContent has the contents that a broker of text, of lines or of headers would change: none, every byte, a line of
// NATS's own protocol, the largest numbers, and an event of the greatest length.
func checkContent(s *suite) {
	from, other := s.join(), s.join("a")
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	es := []broker.Entry{
		{Channel: "a"},
		{Channel: "a", Data: []byte{}, Kind: 1},
		{Channel: "a", Data: []byte{0}, Kind: 255, Event: "e"},
		{Channel: "a", Data: everyByte, Event: string(bytes.Repeat([]byte("é"), 127)), Node: 1<<64 - 1, Conn: 1<<64 - 1},
		{Channel: "a", Data: bytes.Repeat(everyByte, 256), Node: 7, Conn: 3},
		{Channel: "a", Data: []byte("\r\nPUB x 1\r\n"), Event: "a b\u2028c"},
	}
	other.expect(0, from.publish(es...))
	last := other.newest("a", 10, 1<<20)
	other.recorder.mu.Lock()
	defer other.recorder.mu.Unlock()
	other.same(last, other.of("a"))
}

// checkNames has names that a broker which puts them in its own could mistake for others. For example "." and "*" separate
// and match parts of a subject in NATS, and "_tick" might be a name of its own.
func checkNames(s *suite) {
	names := []string{
		"\x01", "\x01kick", "kick", ".", "..", "a.b", "a.", ".a", "*", "a.*", ">", "a.>", " ", "a b", "_tick", "_epoch", "_", "=", "=2E", "=2e", "a=2Eb", "%2E", "$JS.API", "A",
		"é", "日本語", "\U0001F600", "\u2028", "/", "\\", "{a}", "[a]", "a?b", "?", "^a", "\"", "'", "a:b", "a,b", "-", "~", "@", "a", "aa", "0", "|", "#", "&", "+", ";",
		string(bytes.Repeat([]byte("a"), 255)), string(bytes.Repeat([]byte("."), 255)), string(bytes.Repeat([]byte("é"), 127)), string(bytes.Repeat([]byte("*"), 254)) + ">",
	}
	// Each printable character at the beginning and at the end, where a broker may have rules of its own.
	for b := byte(' '); b < 127; b++ {
		names = append(names, "x"+string(rune(b)), string(rune(b))+"x")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	from, all := s.join(), s.join(names...)
	var some []*node // each is subscribed to every fourth, so that its neighbors must not come
	for i := range 4 {
		var own []string
		for j := i; j < len(names); j += 4 {
			own = append(own, names[j])
		}
		some = append(some, s.join(own...))
	}
	var want []broker.Entry
	for _, name := range names {
		want = append(want, from.publish(s.entry(name))...)
	}
	all.expect(0, want)
	for i, n := range some {
		var own []broker.Entry
		for j := i; j < len(want); j += 4 {
			own = append(own, want[j])
		}
		n.expect(0, own)
		// Everything that came and not only what was expected: an entry of a neighbor's channel is the mistake that is looked
		// for.
		n.recorder.mu.Lock()
		got := slices.Clone(n.recorder.entries)
		n.recorder.mu.Unlock()
		n.same(got, own)
	}
	for i, name := range names {
		all.same(all.newest(name, 10, 1<<20), want[i:i+1])
	}
}

// checkTooBig protects Status.MaxData. The check fails a log whose envelope takes a part of the broker's own limit, so that
// less fits than it says. The small entry in front must not be stored, since a call is stored as a whole.
func checkTooBig(s *suite) {
	from, other := s.join(), s.join("a")
	limit := from.log.Status().MaxData
	if limit == 0 || limit > 64<<20 {
		return // it does not say, or it takes more than a test should
	}
	es := []broker.Entry{s.entry("a"), {Channel: "a", Data: make([]byte, limit+1)}}
	if places, err := from.try(es...); !errors.Is(err, broker.ErrTooBig) {
		s.Fatalf("Publish of %d bytes returned %v and %v, not ErrTooBig", limit+1, places, err)
	}
	other.expect(0, from.publish(broker.Entry{Channel: "a", Data: make([]byte, limit)}))
}
