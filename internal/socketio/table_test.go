package socketio

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// tableTest is a table whose clients come back at moments that a network cannot choose.
type tableTest struct {
	*testing.T
	*Endpoint
	o *hub.ConnOptions
}

func testTable(t *testing.T, test func(t *tableTest)) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{History: 10})
		table := NewTable()
		test(&tableTest{t, &Endpoint{
			Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: table, Recovery: time.Minute,
		}, &hub.ConnOptions{
			Format: Format{true}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
		}})
		h.Close(hub.ReasonRestart, "", 0, time.Second)
		table.Close()
		if n := len(table.sessions); n > 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// begin begins a session that is in no namespace.
func (t *tableTest) begin() *session {
	s := t.open(&protocol.Request{Subscriber: hub.Subscriber{Channels: []string{"a"}}})
	c, _, err := t.Hub.Connect(hub.Subscriber{}, t.o)
	if err != nil {
		t.Fatal(err)
	}
	s.begin(c, t.o)
	c.Start(new(sink), nil)
	return s
}

// enter takes a session into the main namespace.
func (t *tableTest) enter(s *session) *record {
	if err := s.receive(packet.EnginePacket{Type: packet.EngineMessage, Data: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	return s.records[0]
}

// follow has a session enter in the place of another one, without what comes after that: Table.takeOver.
func (t *tableTest) follow(s *session, r *record) {
	e := hub.Entrance{
		Channels: []string{"a"}, LastID: r.position, Name: r.sid, Keep: true, Whole: true, Frame: func(hub.Welcome, []*hub.Message) []byte { return nil },
	}
	if err := s.conn.Enter(e); err != nil {
		t.Fatal(err)
	}
	s.entered(r)
}

// want: there are as many records, and as many of sessions that have ended.
func (t *tableTest) want(records, ended int) {
	t.Helper()
	synctest.Wait()
	if all, over := t.Table.Records(); all != records || over != ended {
		t.Errorf("%d records, %d of sessions that have ended", all, over)
	}
}

// TestEndsEarly: nothing stays of a client that ends as soon as it has entered a namespace, or has come back to one.
func TestEndsEarly(t *testing.T) {
	testTable(t, func(t *tableTest) {
		s := t.begin()
		r := &record{pid: "pid", sid: newID(), namespace: "/", channels: []string{"a"}, keep: time.Minute}
		frame := func(w hub.Welcome, _ []*hub.Message) []byte { r.position = w.ID; return nil }
		if err := s.conn.Enter(hub.Entrance{Channels: []string{"a"}, Name: r.sid, Keep: true, Frame: frame}); err != nil {
			t.Fatal(err)
		}
		s.entered(r)
		s.conn.Done()
		synctest.Wait()
		t.Table.track(r, s)
		t.want(1, 1)

		again := t.begin()
		t.follow(again, r)
		again.conn.Done()
		synctest.Wait()
		t.Table.takeOver(r, again)
		t.want(1, 1)
		if got, channels := t.Table.recoverable(t.begin(), "/", "pid"); got != r || len(channels) != 1 {
			t.Error("it cannot go on", channels)
		}
		time.Sleep(2 * time.Minute)
		t.want(0, 0)
		if held := t.Hub.Stats().Memory; held != 0 {
			t.Errorf("%d bytes are held", held)
		}
	})
}

// TestTwoComeBack: of two that go on where one was, the one has the session that was later, whatever order they go on in.
func TestTwoComeBack(t *testing.T) {
	for _, swap := range []bool{false, true} {
		testTable(t, func(t *tableTest) {
			old := t.begin()
			r := t.enter(old)
			second, third := t.begin(), t.begin()
			t.follow(second, r)
			t.follow(third, r)
			one, other := second, third
			if swap {
				one, other = third, second
			}
			t.Table.takeOver(r, one)
			t.Table.takeOver(r, other)
			t.want(1, 0)
			old.conn.Done()
			second.conn.Done()
			t.want(1, 0)
			time.Sleep(2 * time.Minute)
			if t.Hub.Named(r.sid) != third.conn {
				t.Error("it has lost its name")
			}
			third.conn.Done()
			t.want(1, 1)
			time.Sleep(2 * time.Minute)
			t.want(0, 0)
		})
	}
}

// TestExpiresMeanwhile: a record that expires while its client comes back leaves it its name.
func TestExpiresMeanwhile(t *testing.T) {
	testTable(t, func(t *tableTest) {
		old := t.begin()
		r := t.enter(old)
		old.conn.Done()
		t.want(1, 1)
		again := t.begin()
		t.follow(again, r)
		time.Sleep(2 * time.Minute)
		t.want(0, 0)
		t.Table.takeOver(r, again)
		t.want(1, 0)
		if t.Hub.Named(r.sid) != again.conn {
			t.Error("it has lost its name")
		}
		again.conn.Done()
		t.want(1, 1)
	})
}

// TestKickedMeanwhile: a client that was kicked while it came back is closed.
func TestKickedMeanwhile(t *testing.T) {
	testTable(t, func(t *tableTest) {
		old := t.begin()
		r := t.enter(old)
		again := t.begin()
		old.conn.Close(hub.ReasonPolicy, "")
		synctest.Wait()
		// As if it had been faster, by a hair: what was kept for the name is gone now.
		frame := func(hub.Welcome, []*hub.Message) []byte { return nil }
		if err := again.conn.Enter(hub.Entrance{Channels: []string{"a"}, Name: r.sid, Keep: true, Frame: frame}); err != nil {
			t.Fatal(err)
		}
		if t.Table.takeOver(r, again) {
			t.Error("it goes on")
		}
		t.want(0, 0)
		if t.Hub.HasName(r.sid) {
			t.Error("its name is kept for ever")
		}
	})
}

// behind is an observer that has the loop wait when a connection joins its first channel.
type behind struct {
	nobody
	once sync.Once
	wait chan struct{}
}

func (b *behind) Subscribed(*hub.Conn, string) { b.once.Do(func() { <-b.wait }) }

// TestLoopIsBehind: a client goes on in all its rooms, also if its connection ends before the loop has come to them.
func TestLoopIsBehind(t *testing.T) {
	testTable(t, func(t *tableTest) {
		o, b := *t.o, &behind{wait: make(chan struct{})}
		old := t.begin()
		r := t.enter(old)
		t.o = &o
		o.Observer = t.Table.Observe(b)
		second := t.begin()
		e := hub.Entrance{
			Channels: []string{"a", "b"}, LastID: r.position, Name: r.sid, Keep: true, Whole: true, Frame: func(hub.Welcome, []*hub.Message) []byte { return nil },
		}
		if err := second.conn.Enter(e); err != nil {
			t.Fatal(err)
		}
		second.entered(r)
		t.Table.takeOver(r, second)
		second.conn.Done()
		found := make(chan []string)
		go func() {
			_, channels := t.Table.recoverable(old, "/", r.pid)
			found <- channels
		}()
		synctest.Wait()
		close(b.wait)
		if got := <-found; len(got) != 2 {
			t.Errorf("it goes on in %q", got)
		}
	})
}

// TestNothingWaits: a client that ends before it is in a namespace leaves nothing, not even a timer.
func TestNothingWaits(t *testing.T) {
	testTable(t, func(t *tableTest) {
		s := t.begin()
		s.conn.Done()
		synctest.Wait()
		if s.early.Stop() {
			t.Error("its timer runs")
		}
		// One that has ended before its session has begun.
		s = t.open(&protocol.Request{})
		c, _, _ := t.Hub.Connect(hub.Subscriber{}, t.o)
		c.Done()
		synctest.Wait()
		s.begin(c, t.o)
		if s.early.Stop() || len(t.Table.sessions) > 0 {
			t.Error("it waits")
		}
	})
}

// TestAssembly: what has come of an event counts as memory until all has come or the client has gone, and leaves no timer.
func TestAssembly(t *testing.T) {
	testTable(t, func(t *tableTest) {
		text := packet.EnginePacket{Type: packet.EngineMessage, Data: []byte(`52-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)}
		attachment := packet.EnginePacket{Binary: true, Data: make([]byte, 300)}
		send := func(s *session, ps ...packet.EnginePacket) {
			t.Helper()
			for _, p := range ps {
				if err := s.receive(p); err != nil {
					t.Fatal(err)
				}
			}
		}
		s := t.begin()
		t.enter(s)
		synctest.Wait()
		before := t.Hub.Memory()
		send(s, text, attachment)
		if n := t.Hub.Memory() - before; n < 300 {
			t.Errorf("%d bytes count", n)
		}
		late := s.late
		send(s, attachment)
		synctest.Wait()
		if late.Stop() || s.late != nil || s.held != 0 {
			t.Error("it waits for more")
		}
		send(s, text, attachment)
		s.conn.Done()
		synctest.Wait()
		if s.late.Stop() {
			t.Error("its timer runs")
		}
		time.Sleep(2 * time.Minute)
		// One that has ended before its timer begins.
		s.assembly = nil
		s.receive(text)
		if s.late.Stop() {
			t.Error("its timer runs")
		}
		if n := t.Hub.Memory(); n != 0 {
			t.Errorf("%d bytes are held", n)
		}
	})
}

// TestExpireMany: records whose time is up at once are forgotten in pieces, because the loops wait for the table.
func TestExpireMany(t *testing.T) {
	testTable(t, func(t *tableTest) {
		for range 2*expireAtOnce + 1 {
			s := t.begin()
			t.enter(s)
			s.conn.Done()
		}
		t.want(2*expireAtOnce+1, 2*expireAtOnce+1)
		time.Sleep(2 * time.Minute)
		t.want(0, 0)
	})
}
