package hub

import (
	"slices"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestPrivate: a private message comes to the one that has the name, in the order of all else, and to nobody else.
func TestPrivate(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c, other := connect(t, h, options(), "a"), connect(t, h, options(), "a")
	everything := newClient()
	everything.conn, _, _ = h.Connect(Subscriber{All: true}, options())
	everything.conn.Start(everything, nil)
	enter(t, c, Entrance{Name: "ann"})
	if err := other.conn.Enter(Entrance{Name: "ann", Frame: frameSeqs}); err != ErrNameTaken {
		t.Error(err)
	}
	first := publish(t, h, "a")
	m := private(t, h, "ann")
	nobody := private(t, h, "ben")
	last := publish(t, h, "a")
	if m.Subscribers != 1 || nobody.Subscribers != 0 || m.Seq != 2 || nobody.Seq != 3 {
		t.Error(m.Subscribers, nobody.Subscribers, m.Seq, nobody.Seq)
	}
	expectAll(t, c, first.Seq, m.Seq, last.Seq)
	expectAll(t, other, first.Seq, last.Seq)
	expectAll(t, everything, first.Seq, last.Seq)
	if kept := h.Stats().Kept; kept != 2 {
		t.Errorf("%d messages are kept", kept)
	}
	// An emit to a name and a room comes once, whichever is first.
	isName := func(s string) bool { return s == "ann" }
	var want []uint64
	for _, rooms := range [][]string{{"a", "ann"}, {"ann", "a", "ann"}, {"ann"}} {
		ms := ToRooms(&Message{Channel: "a"}, rooms, isName)
		if err := h.Publish(ms...); err != nil {
			t.Fatal(err)
		}
		want = append(want, ms[0].Seq)
	}
	expectAll(t, c, append([]uint64{first.Seq, m.Seq, last.Seq}, append(want, publish(t, h, "a").Seq)...)...)
	h.Forget("ann")
	if m := private(t, h, "ann"); m.Subscribers != 0 || len(h.names) != 0 || len(h.namesOf) != 0 {
		t.Error("it is not forgotten")
	}
}

// TestTakeOver: a client that comes back, before it is noticed that it has gone, misses nothing, gets nothing twice, and its old
// connection ends.
func TestTakeOver(t *testing.T) {
	h := New(Config{History: 100})
	defer closeHub(h)
	old := connect(t, h, options(), "a", "b")
	enter(t, old, Entrance{Name: "ann", Keep: true})
	first := private(t, h, "ann")
	seen := h.position()
	want := []uint64{private(t, h, "ann").Seq, publish(t, h, "b").Seq}
	back := connect(t, h, options())
	e := Entrance{Channels: []string{"b", "a"}, Name: "ann", Keep: true, Whole: true, LastID: seen, Frame: frameSeqs}
	enter(t, back, e)
	want = append(want, private(t, h, "ann").Seq, publish(t, h, "a").Seq)
	expectAll(t, back, want...)
	if got, why := old.wait(4); !slices.Equal(got, []uint64{first.Seq, want[0], want[1]}) || why != ReasonClient {
		t.Error(got, why)
	}
	old.conn.Done()

	// Once more, when nobody has the name: what comes meanwhile is kept.
	seen = h.position()
	back.conn.Done()
	waitFor(t, func() bool { return h.Named("ann") == nil })
	want = []uint64{private(t, h, "ann").Seq}
	third := connect(t, h, options())
	e.LastID = seen
	enter(t, third, e)
	expectAll(t, third, want...)

	fourth := connect(t, h, options(), "c")
	for range 101 {
		private(t, h, "ann")
	}
	e.LastID = seen
	if err := fourth.conn.Enter(e); err != ErrNotResumed || h.Named("ann") != third.conn || fourth.conn.On("a") {
		t.Error("it resumes though messages are missing", err)
	}
	e.Name, e.LastID = "nobody", h.position()
	if err := fourth.conn.Enter(e); err != ErrNotResumed {
		t.Error(err)
	}
	h.Configure(Config{History: 3})
	if kept := h.names["ann"].kept.history.count; kept != 3 {
		t.Errorf("%d are kept", kept)
	}
	before := h.history.bytes.Load()
	h.Forget("ann")
	if now := h.history.bytes.Load(); now >= before || h.Named("ann") != nil {
		t.Error("it is not forgotten")
	}
}

// TestCommand: a backend has connections join, leave and closed, by their names and by channels.
func TestCommand(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	a, b := connect(t, h, options(), "a"), connect(t, h, options(), "a")
	enter(t, a, Entrance{Name: "ann"})
	enter(t, b, Entrance{Name: "ben"})
	do := func(k NameCommand) {
		t.Helper()
		if err := h.Command(k); err != nil {
			t.Fatal(err)
		}
	}
	do(NameCommand{Do: DoJoin, Name: "ann", Channel: "r"})
	do(NameCommand{Do: DoJoin, Name: "nobody", Channel: "r"})
	expectAll(t, a, publish(t, h, "r").Seq)
	do(NameCommand{Do: DoJoin, On: "a", Channel: "s", Except: []string{"ann"}})
	if a.conn.On("s") || !b.conn.On("s") || !slices.Equal(a.conn.Channels(), []string{"a", "r"}) {
		t.Error(a.conn.Channels(), b.conn.Channels())
	}
	do(NameCommand{Do: DoLeave, On: "r", Channel: "r"})
	if a.conn.On("r") {
		t.Error("it is still on r")
	}
	do(NameCommand{Do: DoClose, Name: "ann"})
	if _, why := a.wait(2); why != ReasonPolicy {
		t.Error(why)
	}
	expectOpen(t, h, b)
	for _, k := range []NameCommand{{}, {Do: DoClose}, {Do: DoClose, Name: "a", On: "a"}, {Do: DoJoin, Name: "a"}, {Do: "x", Name: "a"}} {
		if h.Command(k) == nil {
			t.Errorf("%+v", k)
		}
	}
}

// TestNamesInCluster: names are known to all hubs that share a log, and what is for them comes in its order.
func TestNamesInCluster(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	c := connect(t, hubs[1], options(), "a")
	enter(t, c, Entrance{Name: "ann", Keep: true})
	both := connect(t, hubs[1], options(), "a", "b")
	m := private(t, hubs[0], "ann")
	if err := hubs[0].Command(NameCommand{Do: DoJoin, Name: "ann", Channel: "new"}); err != nil {
		t.Fatal(err)
	}
	n := publish(t, hubs[0], "new")
	e := emitTo(t, hubs[0], &Emit{Except: []string{"ann"}}, "a", "b")
	last := publish(t, hubs[0], "a")
	expectAll(t, both, e[0], last.Seq)
	got, _ := c.wait(3)
	slices.Sort(got) // it joins in a goroutine
	if !slices.Equal(got, []uint64{m.Seq, n.Seq, last.Seq}) {
		t.Error(got)
	}
	logs[1].idle()
	seen := hubs[1].position()
	next := private(t, hubs[0], "ann")
	back := connect(t, hubs[1], options())
	logs[1].idle()
	enter(t, back, Entrance{Channels: []string{"a", "new"}, Name: "ann", Keep: true, Whole: true, LastID: seen})
	expectAll(t, back, next.Seq)

	// Where private messages are lost, nobody goes on from before.
	logs[1].do(func() { logs[1].sink.Broken(nil); logs[1].sink.Lost([]string{toChannel}) })
	logs[1].do(func() { logs[1].sink.Advance(100); logs[1].sink.Repaired() })
	logs[1].idle()
	third := connect(t, hubs[1], options())
	err := third.conn.Enter(Entrance{Channels: []string{"new"}, Name: "ann", Keep: true, Whole: true, LastID: seen, Frame: frameSeqs})
	if err != ErrNotResumed {
		t.Error(err)
	}
	// One that comes late is not delivered, because it is not in order.
	late := &Message{Channel: "a", Seq: 50, Emit: &Emit{To: "ann"}}
	entry := entriesOf([]*Message{late}, 0)[0]
	entry.Seq = 50
	logs[1].do(func() { logs[1].sink.Entries([]broker.Entry{entry}) })
	logs[1].idle()
	after := private(t, hubs[0], "ann")
	_ = after
	hubs[1].mu.Lock() // the message after it may come just now
	defer hubs[1].mu.Unlock()
	if hubs[1].names["ann"].kept.droppedSeq < 50 {
		t.Error("it counts as delivered")
	}
}
