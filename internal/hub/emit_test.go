package hub

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// emitTo publishes an emit to rooms, and returns its positions.
func emitTo(t testing.TB, h *Hub, e *Emit, rooms ...string) (seqs []uint64) {
	t.Helper()
	ms := ToRooms(&Message{Data: []byte("x"), Emit: e}, rooms, nil)
	if err := h.Publish(ms...); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		seqs = append(seqs, m.Seq)
	}
	return seqs
}

// private publishes a message to a name.
func private(t testing.TB, h *Hub, name string) *Message {
	t.Helper()
	m := &Message{Channel: "a", Data: []byte("x"), Emit: &Emit{To: name}}
	if err := h.Publish(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// frameSeqs is an Entrance.Frame in the format seqs.
func frameSeqs(_ Welcome, ms []*Message) []byte { return seqs{}.Append(nil, ms) }

// enter gives a client a name.
func enter(t testing.TB, c *client, e Entrance) {
	t.Helper()
	if e.Frame == nil {
		e.Frame = frameSeqs
	}
	if err := c.conn.Enter(e); err != nil {
		t.Fatal(err)
	}
}

// expectAll checks all that clients have got, once the last of it is there.
func expectAll(t testing.TB, c *client, want ...uint64) {
	t.Helper()
	if got, _ := c.wait(len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v, not %v", got, want)
	}
}

// position returns where the hub is now.
func (h *Hub) position() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return FormatID(h.epoch, h.seq)
}

// TestRoomsOnce: who is on several of the rooms of an emit gets it once, live and replayed.
func TestRoomsOnce(t *testing.T) {
	h := New(Config{History: 100})
	defer closeHub(h)
	a, b, both, last := connect(t, h, options(), "a"), connect(t, h, options(), "b"), connect(t, h, options(), "b", "a", "z"), connect(t, h, options(), "c", "b")
	start := h.position()
	e := emitTo(t, h, nil, "a", "b", "c", "a")
	end := publish(t, h, "b").Seq
	endA := publish(t, h, "a").Seq
	expectAll(t, a, e[0], endA)
	expectAll(t, b, e[1], end)
	expectAll(t, both, e[0], end, endA)
	expectAll(t, last, e[1], end)

	late := newClient()
	conn, w, err := h.Connect(Subscriber{Channels: []string{"b", "c"}, LastID: start}, options())
	if err != nil || !w.Resumed {
		t.Fatal(w, err)
	}
	late.conn = conn
	conn.Start(late, nil)
	expectAll(t, late, e[1], end)
	// It gets nothing of the emit by a room that it joins later, unless it is on none.
	if err := conn.Join("a", start, frameSeqs); err != nil {
		t.Fatal(err)
	}
	expectAll(t, late, e[1], end, e[0], endA)
	other := connect(t, h, options(), "a")
	if err := other.conn.Join("c", start, frameSeqs); err != nil {
		t.Fatal(err)
	}
	m := publish(t, h, "c").Seq
	expectAll(t, other, m)
	tail := newClient()
	tail.conn, _, _ = h.Connect(Subscriber{Channels: []string{"a", "b", "c"}, Replay: 4}, options())
	tail.conn.Start(tail, nil)
	expectAll(t, tail, e[0], end, endA, m)
}

// TestExcept: connections with a name, and those on a channel, do not get what excepts these, also when it is replayed.
func TestExcept(t *testing.T) {
	h := New(Config{History: 100})
	defer closeHub(h)
	clients := []*client{connect(t, h, options(), "a"), connect(t, h, options(), "a"), connect(t, h, options(), "a", "b"), connect(t, h, options(), "a", "c")}
	for i, c := range clients {
		enter(t, c, Entrance{Name: "n" + strconv.Itoa(i), Keep: true})
	}
	start := h.position()
	emit := func(except ...string) uint64 {
		m := &Message{Channel: "a", Data: []byte("x"), Emit: &Emit{Except: except}}
		if err := h.Publish(m); err != nil {
			t.Fatal(err)
		}
		return m.Seq
	}
	one, room, all, end := emit("n1", "n9"), emit("b", "n0"), emit("a"), emit()
	expectAll(t, clients[0], one, end)
	expectAll(t, clients[1], room, end)
	expectAll(t, clients[2], one, end)
	expectAll(t, clients[3], one, room, end)
	_ = all
	back := newClient()
	back.conn, _, _ = h.Connect(Subscriber{}, options())
	back.conn.Start(back, nil)
	enter(t, back, Entrance{Channels: []string{"a"}, Name: "n1", Keep: true, Whole: true, LastID: start})
	expectAll(t, back, room, end)
}

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
	if kept := len(h.names["ann"].kept.history); kept != 3 {
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
	if hubs[1].names["ann"].kept.droppedSeq < 50 {
		t.Error("it counts as delivered")
	}
}

// TestEmitBetween: with a shared log a connection may come, join or leave between two messages of an emit. It still gets one.
func TestEmitBetween(t *testing.T) {
	_, hubs, logs := sharing(t, 1, Config{History: 10})
	h, log := hubs[0], logs[0]
	ms := ToRooms(&Message{Data: []byte("x")}, []string{"a", "b", "c"}, nil)
	es := entriesOf(ms, 0)
	open := connect(t, h, options(), "a", "b", "c") // so that the log sends all three
	join, leave, swap, stay := connect(t, h, options(), "b"), connect(t, h, options(), "a", "b"), connect(t, h, options(), "a"), connect(t, h, options(), "b", "c")
	for i := range es {
		es[i].Seq = uint64(i + 1)
	}
	step := func(i int) {
		log.do(func() { log.sink.Entries(es[i : i+1]) })
		log.idle()
	}
	step(0)
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	must(join.conn.Join("a", "", frameSeqs)) // has not got it
	must(leave.conn.Leave("a", nil))
	must(swap.conn.Join("b", "", frameSeqs))
	must(swap.conn.Leave("a", nil))
	back := newClient() // has got it
	back.conn, _, _ = h.Connect(Subscriber{Channels: []string{"a", "b"}, LastID: FormatID("one", 1)}, options())
	back.conn.Start(back, nil)
	step(1)
	must(stay.conn.Leave("b", nil))
	step(2)
	end := entriesOf([]*Message{{Channel: "c"}, {Channel: "b"}}, 0)
	end[0].Seq, end[1].Seq = 4, 5
	log.do(func() { log.sink.Entries(end) })
	expectAll(t, open, 1, 4, 5)
	expectAll(t, join, 2, 5)
	expectAll(t, leave, 1, 5)
	expectAll(t, swap, 1, 5)
	expectAll(t, stay, 2, 4)
	expectAll(t, back, 5)
}

// TestEmitInvalid: what cannot be sent or encoded is refused.
func TestEmitInvalid(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	for _, e := range []Emit{
		{Args: []byte("{}")}, {Args: []byte(" []")}, {Args: []byte("[")}, {Args: []byte{}}, {Attachments: [][]byte{nil}}, {Rooms: []string{"b", "c"}},
		{Rooms: make([]string, maxRooms+1)}, {Except: []string{""}}, {To: "\x01"}, {Args: []byte("[]"), Attachments: make([][]byte, maxAttachments+1)},
	} {
		if h.Publish(&Message{Channel: "a", Emit: &e}) == nil {
			t.Errorf("%+v", e)
		}
	}
}

// TestEmitKey: a message that is repeated with its key has to be the same in all that it says.
func TestEmitKey(t *testing.T) {
	_, hubs, _ := sharing(t, 1, Config{})
	own := New(Config{})
	defer closeHub(own)
	for _, h := range []*Hub{own, hubs[0]} {
		say := func(args string) (*Message, error) {
			m := &Message{Channel: "a", Key: "k", Emit: &Emit{Args: []byte(args)}}
			return m, h.Publish(m)
		}
		first, err := say("[1]")
		again, err2 := say("[1]")
		_, err3 := say("[2]")
		if err != nil || err2 != nil || first.Seq != again.Seq || err3 != ErrKeyReused {
			t.Error(err, err2, err3, first.Seq, again.Seq)
		}
	}
}

// FuzzEmit: an encoded emit is what it was, and what is none is refused or encodes to the same again.
func FuzzEmit(f *testing.F) {
	for _, m := range []*Message{
		{Channel: "a", Emit: &Emit{Args: []byte("[]"), Attachments: [][]byte{{1}, {}}, Rooms: []string{"a", "b"}, Except: []string{"c"}, id: 7}, Data: []byte("x")},
		{Channel: "a", Emit: &Emit{To: "n"}},
	} {
		f.Add("a", m.appendEmit(nil, true))
		f.Add(toChannel, m.appendEmit(nil, true))
	}
	f.Add("a", []byte{tagArgs, 0x80, 0})
	f.Fuzz(func(t *testing.T, channel string, p []byte) {
		m := &Message{Channel: channel}
		if m.parseEmit(p) != nil {
			return
		}
		if again := m.appendEmit(nil, true); !bytes.Equal(again, p) {
			t.Fatalf("%q and %q", p, again)
		}
		e := broker.Entry{Channel: channel, Kind: kindEmit, Data: p}
		if got := messageOf(&e, time.Now()); got != nil {
			if es := entriesOf([]*Message{got}, 0); es[0].Channel != channel || es[0].Kind != kindEmit {
				t.Fatalf("%+v", es[0])
			}
		}
	})
}

// TestOldNode: a node that does not know emits takes none for something else.
func TestOldNode(t *testing.T) {
	e := entriesOf([]*Message{{Channel: "a", Kind: JSON, Data: []byte("1"), Emit: &Emit{Args: []byte("[1]")}}}, 0)[0]
	m := &Message{Channel: e.Channel, Data: e.Data, Kind: Kind(e.Kind)} // as its messageOf
	if err := m.check(); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Error(err)
	}
	to := entriesOf([]*Message{{Channel: "a", Emit: &Emit{To: "n"}}}, 0)[0]
	if (&Message{Channel: to.Channel}).check() == nil {
		t.Error("a private message has a channel that clients can name")
	}
}

type paced struct{ pinging }

func (paced) PingsBusy() bool { return true }

// TestPaced: a connection that messages wait for is pinged too, if its format wants that, but only one ping waits.
func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.Format = paced{}
		o.PingInterval, o.WriteTimeout = 10*time.Second, time.Hour
		c := newClient()
		c.window = 0
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o)
		if err != nil {
			t.Fatal(err)
		}
		c.conn = conn
		conn.Start(c, nil)
		for range 35 {
			publish(t, h, "a")
			time.Sleep(time.Second)
		}
		c.open(1 << 20)
		synctest.Wait()
		if n := bytes.Count(c.got, []byte("pingping")); n != 1 || len(c.got) != 36*8 {
			t.Errorf("%d pings, %d bytes", n, len(c.got))
		}
		conn.Alive()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := bytes.Count(c.got, []byte("pingping")); n != 2 {
			t.Errorf("%d pings", n)
		}
		conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}

// TestEmitCostsNothing: messages and connections without any of this are in the size classes of the allocator that they were in.
func TestEmitCostsNothing(t *testing.T) {
	if m, c := unsafe.Sizeof(Message{}), unsafe.Sizeof(Conn{}); m > 240 || c > 416 {
		t.Errorf("a message has %d bytes, a connection %d", m, c)
	}
}

// BenchmarkEmit is what a message to two rooms costs those who are on both, beside one message to each of two rooms.
func BenchmarkEmit(b *testing.B) {
	for _, once := range []bool{false, true} {
		b.Run(fmt.Sprint("once=", once), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			for range 1000 {
				conn, _, err := h.Connect(Subscriber{Channels: []string{"a", "b"}}, options())
				if err != nil {
					b.Fatal(err)
				}
				conn.Start(null{}, nil)
			}
			data := bytes.Repeat([]byte("x"), 128)
			b.ReportAllocs()
			for range b.N {
				ms := []*Message{{Channel: "a", Data: data}, {Channel: "b", Data: data}}
				if once {
					ms = ToRooms(&Message{Data: data}, []string{"a", "b"}, nil)
				}
				if err := h.PublishWait(ms...); err != nil {
					b.Fatal(err)
				}
			}
			h.Connections(Filter{ID: 1}, 1) // the loops have done all
		})
	}
}
