package hub

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
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
