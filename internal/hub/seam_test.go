package hub

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// storing is a sink that keeps what it accepts until its peer comes for it.
type storing struct {
	*client
	hub    *Hub
	stored int
}

func (s *storing) TryWrite(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.stored += len(p)
	s.hub.Hold(len(p))
	return len(p), nil
}

func (s *storing) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

func (s *storing) Close() {
	s.mu.Lock()
	s.hub.Hold(-s.stored)
	s.stored = 0
	s.mu.Unlock()
	s.client.Close()
}

// TestBufferedSink: what sinks keep costs the connection that keeps most its place when memory is needed, as backlogs do, and not
// one that keeps little.
func TestBufferedSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{MaxMemory: 4 << 20})
		stores := func(channel string) *storing {
			s := &storing{client: newClient(), hub: h}
			conn, _, err := h.Connect(Subscriber{Channels: []string{channel}}, options())
			if err != nil {
				t.Fatal(err)
			}
			s.conn = conn
			conn.Start(s, nil)
			return s
		}
		most, some, none := stores("most"), stores("some"), connect(t, h, options(), "some")
		h.Publish(&Message{Channel: "some", Data: make([]byte, 1000)})
		for range 80 {
			if err := h.Publish(&Message{Channel: "most", Data: make([]byte, 1000)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			some.TryWrite(make([]byte, 1000)) // what seqs makes of a message is short
			most.TryWrite(make([]byte, 60_000))
		}
		h.Publish(&Message{Channel: "some"})
		time.Sleep(time.Second)
		synctest.Wait()
		if _, why := most.wait(0); why != notClosed || !most.client.closed || h.Stats().Closed["memory"] != 1 {
			t.Errorf("%v, %+v", why, h.Stats().Closed)
		}
		if some.client.closed || none.closed {
			t.Error("one that keeps little is closed")
		}
		closeHub(h)
		synctest.Wait()
		if n := h.Memory(); n > 4096 { // a loop holds what it has taken last
			t.Errorf("%d bytes are left", n)
		}
	})
}

// parting is a format that tells which channels a connection was on.
type parting struct{ seqs }

func (parting) CloseOn(channels []string, why Reason, _ string) []byte {
	slices.Sort(channels)
	return fmt.Appendf(nil, "%s|%d", strings.Join(channels, ","), why)
}

// TestPartingFormat: the last words know the channels that the connection is on, whoever closes it and although it has left them
// in the log already.
func TestPartingFormat(t *testing.T) {
	for name, end := range map[string]func(h *Hub, c *client){
		"closed": func(_ *Hub, c *client) { c.conn.Close(ReasonPolicy, "") },
		"failed": func(_ *Hub, c *client) { c.conn.Fail(ReasonPolicy, "") },
		"kicked": func(h *Hub, _ *client) { h.Kick(Filter{Channel: "a"}, ReasonPolicy, "") },
		"a name": func(h *Hub, _ *client) { h.Command(NameCommand{Do: DoClose, Name: "ann"}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := New(Config{})
			defer closeHub(h)
			o := options()
			o.Format = parting{}
			c := connect(t, h, o, "a")
			enter(t, c, Entrance{Channels: []string{"c", "b"}, Name: "ann"})
			c.conn.Leave("b", nil)
			end(h, c)
			want := fmt.Sprintf("a,c|%d", ReasonPolicy)
			waitFor(t, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.got) >= len(want)
			})
			if string(c.got) != want {
				t.Errorf("%q", c.got)
			}
		})
	}
}

// gapless is a format that may have connections closed that miss something.
type gapless struct {
	seqs
	closes bool
}

func (g gapless) ClosesOnGap() bool { return g.closes }

// TestGaplessFormat: a connection that misses something is closed before it gets what comes after that, if its format wants it.
func TestGaplessFormat(t *testing.T) {
	for _, closes := range []bool{true, false} {
		_, hubs, logs := sharing(t, 1, Config{History: 10})
		h, o := hubs[0], options()
		o.Format = gapless{closes: closes}
		c := connect(t, h, o, "a")
		first := publish(t, h, "a").Seq
		expectAll(t, c, first)
		logs[0].do(func() { logs[0].sink.Broken(nil); logs[0].sink.Lost([]string{"a"}) })
		logs[0].do(func() { logs[0].sink.Advance(100); logs[0].sink.Repaired() })
		logs[0].idle()
		if !closes {
			expectOpen(t, h, c)
			continue
		}
		if got, why := c.wait(2); why != ReasonUnavailable || !slices.Equal(got, []uint64{first}) {
			t.Errorf("%v, %v", got, why)
		}
	}
}

// TestEntranceReplay: a connection that enters channels gets the last messages of all of them together, in order, and none of
// those that it is on already.
func TestEntranceReplay(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c := connect(t, h, options(), "old")
	var want []uint64
	for i, channel := range []string{"a", "b", "old", "a", "b", "a"} {
		m := publish(t, h, channel)
		if i >= 2 {
			want = append(want, m.Seq)
		}
	}
	enter(t, c, Entrance{Channels: []string{"b", "old", "a"}, Replay: 3})
	want = append(want, publish(t, h, "b").Seq, publish(t, h, "old").Seq)
	expectAll(t, c, want...)
	// A position means more than a number of messages.
	d := connect(t, h, options())
	enter(t, d, Entrance{Channels: []string{"a"}, Replay: 3, LastID: h.position()})
	expectAll(t, d, publish(t, h, "a").Seq)
}

// dismisser is asked about names, and says how often it was.
type dismisser struct {
	mu    sync.Mutex
	asked []string
	stays bool
}

func (*dismisser) Subscribed(*Conn, string)   {}
func (*dismisser) Unsubscribed(*Conn, string) {}
func (*dismisser) Ended(*Conn, Reason)        {}

func (d *dismisser) Dismissed(c *Conn, name string) bool {
	c.Channels() // it may call the hub
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, name)
	return d.stays
}

// TestDismisser: a part of a connection is closed by its name, and the connection is if it has no use then.
func TestDismisser(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	d, o := &dismisser{stays: true}, options()
	o.Observer = d
	c := connect(t, h, o, "a")
	enter(t, c, Entrance{Name: "ann"})
	enter(t, c, Entrance{Name: "ben"})
	h.Command(NameCommand{Do: DoClose, Name: "ben"})
	h.Command(NameCommand{Do: DoClose, Name: "nobody"})
	expectOpen(t, h, c)
	d.stays = false
	h.Command(NameCommand{Do: DoClose, Name: "ann"})
	if _, why := c.wait(1); why != ReasonPolicy || !slices.Equal(d.asked, []string{"ben", "ann"}) {
		t.Error(why, d.asked)
	}
}

// TestSwitchTransport: a connection counts as what it has moved to, and once.
func TestSwitchTransport(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	o := options()
	o.Transport, o.Next = "one", "two"
	a, b := connect(t, h, o, "a"), connect(t, h, o, "a")
	a.conn.SwitchTransport()
	a.conn.SwitchTransport()
	list := h.Connections(Filter{}, 2)
	if s := h.Stats().Transports; s["one"] != 1 || s["two"] != 1 || list[0].Transport != "two" || list[1].Transport != "one" {
		t.Errorf("%v %+v", s, list)
	}
	a.conn.Done()
	b.conn.Done()
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	b.conn.SwitchTransport() // too late
	h.Connections(Filter{}, 1)
	if s := h.Stats().Transports; s["one"] != 0 || s["two"] != 0 {
		t.Errorf("%v", s)
	}
}

// TestPrivateInOrder: messages to a name come in the order of all others, also when they are in one batch, and after the
// connection was taken over.
func TestPrivateInOrder(t *testing.T) {
	h := New(Config{History: 1000})
	defer closeHub(h)
	c := connect(t, h, options(), "a", "b")
	enter(t, c, Entrance{Name: "ann", Keep: true})
	start := h.position()
	var want []uint64
	for i := range 100 {
		ms := []*Message{
			{Channel: "a", Data: []byte("x")}, {Channel: "a", Data: []byte("x"), Emit: &Emit{To: "ann"}}, {Channel: "b", Data: []byte("x")},
			{Channel: "a", Data: []byte("x"), Emit: &Emit{To: "ann"}},
		}
		if err := h.Publish(ms[:1+i%4]...); err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:1+i%4] {
			want = append(want, m.Seq)
		}
	}
	expectAll(t, c, want...)
	back := connect(t, h, options())
	enter(t, back, Entrance{Channels: []string{"a", "b"}, Name: "ann", Keep: true, Whole: true, LastID: start})
	want = append(want, private(t, h, "ann").Seq)
	expectAll(t, back, want...)
}

// TestRoomsOnceOnAllLoops: an emit to several rooms comes once to each connection, on whichever loop it is, when it is one of many
// messages that loops take at once, and when it ends a batch.
func TestRoomsOnceOnAllLoops(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	var all []*client
	for range 2 * max(2, len(h.loops)) * smallChannel { // more than stay together
		all = append(all, connect(t, h, options(), "a", "b", "c"))
	}
	loops := map[*loop]bool{}
	for _, c := range all {
		loops[c.conn.loop] = true
	}
	if len(loops) != len(h.loops) {
		t.Errorf("%d loops of %d", len(loops), len(h.loops))
	}
	var want []uint64
	for i := range 300 {
		if i%3 == 0 {
			want = append(want, publish(t, h, "b").Seq)
		}
		want = append(want, emitTo(t, h, nil, "a", "c", "b")[0])
	}
	for i, c := range all {
		if got, _ := c.wait(len(want)); !slices.Equal(got, want) {
			t.Fatalf("%d: %d messages, not %d", i, len(got), len(want))
		}
	}
}
