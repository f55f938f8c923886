package socketio_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// nodes are servers that share a log.
type nodes struct {
	*testing.T
	log *brokertest.Memory
	all []*testNode
}

// testNode is one of them. What its route gives clients can be changed.
type testNode struct {
	*nodes
	*socketio.Endpoint
	*hub.Hub
	protocol protocol.Protocol
	options  *hub.ConnOptions
	channels []string
	user     string
	joins    bool // clients may join rooms
	broker   *brokertest.MemoryBroker
	ended    bool
}

// withNodes runs a test with servers in a bubble of time.
func withNodes(t *testing.T, count int, test func(*nodes)) {
	withNodesTicking(t, count, 500*time.Millisecond, test)
}

// withNodesTicking has them told the newest position at times. A test that takes days has to have that less often.
func withNodesTicking(t *testing.T, count int, tick time.Duration, test func(*nodes)) {
	synctest.Test(t, func(t *testing.T) {
		n := &nodes{T: t, log: brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond, Keep: 10, Tick: tick})}
		for range count {
			n.start()
		}
		defer n.log.Close()
		defer func() {
			for _, x := range n.all {
				x.stop()
			}
		}()
		test(n)
	})
}

// start starts one more server.
func (n *nodes) start() *testNode {
	h, b := hub.New(hub.Config{History: 10}), n.log.Broker()
	err := h.UseLog(func(s broker.Sink) (broker.Log, error) {
		return b.Dial(s, broker.Options{Node: h.Node(), Retention: h.Retention()})
	})
	if err != nil {
		n.Fatal(err)
	}
	table := socketio.NewTable()
	e := &socketio.Endpoint{
		Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: table, Route: "route", Recovery: time.Minute,
		JoinEvent: "join", LeaveEvent: "leave", MayConnect: func(namespace string) bool { return namespace == "/chat" },
	}
	p := socketio.Protocol{Endpoint: e}
	x := &testNode{nodes: n, Endpoint: e, Hub: h, broker: b, protocol: p, channels: []string{"a"}, options: &hub.ConnOptions{
		Format: p.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
	}}
	n.all = append(n.all, x)
	time.Sleep(time.Second)
	return x
}

// stop ends a server as a process does that exits.
func (x *testNode) stop() {
	if !x.ended {
		x.ended = true
		x.Hub.Close(hub.ReasonRestart, "", 0, time.Second)
		x.Table.Close()
	}
}

// guest is a client of a server.
type guest struct {
	*peer
	node     *testNode
	conn     *hub.Conn
	sid, pid string
	seen     int // of what has come
}

// open connects a client, which is in no namespace yet.
func (x *testNode) open() *guest {
	x.Helper()
	r := &protocol.Request{Subscriber: hub.Subscriber{Channels: x.channels, User: x.user}, Publish: x.channels}
	if x.joins {
		r.MayJoin = func(string) bool { return true }
	}
	c := newPeer(x.protocol.Open(x.Endpoint.Endpoint, r))
	conn, w, err := x.Hub.Connect(r.Subscriber, x.options)
	if err != nil {
		x.Fatal(err)
	}
	conn.Start(c, c.Greeting(conn, x.options, w))
	g := &guest{peer: c, node: x, conn: conn}
	g.next("")
	return g
}

// next sends something and returns what has come since the last call.
func (g *guest) next(send string) string {
	all := g.send(send)
	news := all[g.seen:]
	g.seen = len(all)
	return news
}

// field returns a field of an object.
func field(text, name string) string {
	_, rest, _ := strings.Cut(text, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// connect takes a new client into a namespace.
func (x *testNode) connect(namespace string) *guest {
	x.Helper()
	g := x.open()
	got := g.next("40" + namespace)
	if g.sid, g.pid = field(got, "sid"), field(got, "pid"); g.sid == "" || g.pid == "" {
		x.Fatalf("%q", got)
	}
	return g
}

// back has a client go on at a server, after an offset that may be empty. It returns what comes first.
func (x *testNode) back(of *guest, namespace, offset string) (g *guest, got string) {
	x.Helper()
	g = x.open()
	auth := fmt.Sprintf(`{"pid":%q}`, of.pid)
	if offset != "" {
		auth = fmt.Sprintf(`{"pid":%q,"offset":%q}`, of.pid, offset)
	}
	got = g.next("40" + namespace + auth)
	g.sid, g.pid = field(got, "sid"), field(got, "pid")
	return g, got
}

// recovered fails the test unless a client went on at a server, and has got what it has missed. It returns the client.
func (x *testNode) recovered(of *guest, offset string, missed ...string) *guest {
	x.Helper()
	g, got := x.back(of, "", offset)
	if g.sid != of.sid || g.pid != of.pid {
		x.Fatalf("not recovered: %q", got)
	}
	g.has(got, missed...)
	return g
}

// begins fails the test if a client goes on at a server, or gets anything of the time before.
func (x *testNode) begins(of *guest, offset string) *guest {
	x.Helper()
	g, got := x.back(of, "", offset)
	if g.sid == "" || g.sid == of.sid || g.pid == of.pid {
		x.Fatalf("recovered: %q", got)
	}
	g.has(got)
	return g
}

// has fails the test unless these events, and no others, are in what has come.
func (g *guest) has(got string, events ...string) {
	g.node.Helper()
	if n := strings.Count(got, "42["); n != len(events) {
		g.node.Errorf("%d events instead of %q: %q", n, events, got)
	}
	for _, e := range events {
		_, after, ok := strings.Cut(got, "42["+e)
		if !ok {
			g.node.Fatalf("%q lacks %q, or it comes too soon", got, e)
		}
		got = after
	}
}

// emit publishes on channels and names.
func (x *testNode) emit(event string, rooms ...string) (id string) {
	x.Helper()
	ms := hub.ToRooms(&hub.Message{Channel: "a", Event: event, Data: []byte("1"), Kind: hub.JSON}, rooms,
		func(room string) bool { return len(room) == 20 })
	if err := x.Publish(ms...); err != nil {
		x.Fatal(err)
	}
	return ms[0].ID()
}

func (x *testNode) command(do, name, on, channel string) {
	x.Helper()
	if err := x.Command(hub.NameCommand{Do: do, Name: name, On: on, Channel: channel}); err != nil {
		x.Fatal(err)
	}
	time.Sleep(time.Second)
}

// TestEmits: what a backend emits and commands at one server holds for the clients of all: arguments and attachments, several rooms
// once, exceptions, one client alone, joining, leaving, and being disconnected from one namespace or from all.
func TestEmits(t *testing.T) {
	withNodes(t, 3, func(n *nodes) {
		a := n.all[0]
		var all []*guest
		for _, x := range n.all {
			all = append(all, x.connect(""))
		}
		expect := func(what string, want ...string) { // by each client, or "" for nothing
			t.Helper()
			for i, g := range all {
				got := g.next("")
				if want[i] == "" && got != "" || strings.Count(got, want[i]) != 1 || strings.Count(got, `["e"`) > 1 {
					t.Errorf("%s: client %d got %q, and not %q", what, i, got, want[i])
				}
			}
		}
		publish := func(emit hub.Emit, rooms ...string) {
			t.Helper()
			m := &hub.Message{Channel: "a", Event: "e", Data: []byte("1"), Kind: hub.JSON, Emit: &emit}
			if err := a.Publish(hub.ToRooms(m, rooms, func(room string) bool { return len(room) == 20 })...); err != nil {
				t.Fatal(err)
			}
		}
		args := hub.Emit{Args: []byte(`[1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`), Attachments: [][]byte{{1, 2}, []byte("three")}}
		publish(args, "a")
		packet := `452-["e",1,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},"`
		for i, g := range all {
			got := g.next("")
			if !strings.Contains(got, packet) || !strings.HasSuffix(got, "\x82\x02\x01\x02\x82\x05three") {
				t.Errorf("client %d got %q", i, got)
			}
		}
		publish(args, all[2].sid)
		expect("one", "", "", packet)
		a.command(hub.DoJoin, all[1].sid, "", "room")
		a.command(hub.DoJoin, all[2].sid, "", "room")
		publish(hub.Emit{}, "room")
		expect("a room", "", `["e"`, `["e"`)
		publish(hub.Emit{}, "a", "room", all[2].sid)
		expect("rooms and a client", `["e"`, `["e"`, `["e"`)
		publish(hub.Emit{Except: []string{all[2].sid}}, "a", "room")
		expect("all but one", `["e"`, `["e"`, "")
		publish(hub.Emit{Except: []string{"room"}}, "a")
		expect("all but a room", `["e"`, "", "")
		a.command(hub.DoLeave, "", "room", "room")
		publish(hub.Emit{}, "room")
		expect("a closed room", "", "", "")
		other := all[2].next("40/chat")
		a.command(hub.DoClose, "/chat,"+field(other, "sid"), "", "")
		expect("out of a namespace", "", "", "41/chat")
		a.command(hub.DoClose, all[1].sid, "", "")
		expect("disconnected", "", "closed by the administrator", "")
		publish(hub.Emit{}, "a")
		expect("and then", `["e"`, "", `["e"`)
	})
}

// TestElsewhere: a client goes on at another server, which knows it by its pid alone. It gets what it has missed in all its rooms,
// those too that a backend has put it in, and its old connection ends.
func TestElsewhere(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		b.connect("") // it knows of names from here on
		c := a.connect("")
		first := a.emit("one", "a")
		a.command(hub.DoJoin, c.sid, "", "room")
		a.command(hub.DoJoin, c.sid, "", "left")
		a.command(hub.DoLeave, c.sid, "", "left")
		a.emit("two", "room", "a")
		b.emit("three", "left")
		d := b.recovered(c, first, `"two"`)
		if got := c.next(""); !strings.Contains(got, "another server") {
			t.Errorf("%q", got)
		}
		// It is there for all that a backend does.
		a.emit("four", "room")
		a.emit("five", d.sid)
		a.command(hub.DoJoin, d.sid, "", "more")
		last := a.emit("six", "more")
		d.has(d.next(""), `"four"`, `"five"`, `"six"`)
		// And back again.
		b.emit("seven", d.sid)
		a.emit("eight", "more")
		e := a.recovered(d, last, `"seven"`, `"eight"`)
		a.command(hub.DoLeave, "", "more", "more")
		b.emit("nine", "more")
		b.emit("ten", "a")
		e.has(e.next(""), `"ten"`)
		if got := d.next(""); !strings.Contains(got, "another server") {
			t.Errorf("%q", got)
		}
	})
}

// TestElsewhereNot: another server does not have a client go on if something could be missing or wrong. It begins anew and is told.
func TestElsewhereNot(t *testing.T) {
	withNodesTicking(t, 2, time.Minute, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		b.connect("")
		offset := a.emit("one", "a")
		end := func(name string, end func(*guest)) {
			c := a.connect("")
			end(c)
			time.Sleep(time.Second)
			t.Log(name)
			b.begins(c, offset)
		}
		end("41", func(c *guest) { c.next("41") })
		end("kick", func(c *guest) { c.conn.Close(hub.ReasonPolicy, "") })
		end("disconnect", func(c *guest) { b.command(hub.DoClose, c.sid, "", "") })
		end("disconnect all of a room", func(c *guest) { b.command(hub.DoClose, "", "a", "") })
		end("a room of the route was closed", func(c *guest) { b.command(hub.DoLeave, "", "a", "a") })
		end("a private message was missed", func(c *guest) { b.emit("private", c.sid) })
		end("too old", func(c *guest) {
			time.Sleep(25 * time.Hour)
			offset = a.emit("two", "a")
		})
		end("another epoch", func(c *guest) { n.log.Rollback(1) })
		c := a.connect("")
		offset = a.emit("three", "a")
		for range 12 { // more than the history has
			a.emit("four", "a")
		}
		b.begins(c, offset)
	})
}

// TestTicket: a pid is good for the client that got it alone, on the same route, with the same rights.
func TestTicket(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		offset := a.emit("one", "a")
		c := a.connect("")
		t.Log("another user")
		b.user = "ann"
		b.begins(c, offset)
		b.user = ""
		t.Log("other channels")
		b.channels = []string{"a", "b"}
		b.begins(c, offset)
		b.channels = []string{"a"}
		t.Log("another route")
		b.Route = "other"
		b.begins(c, offset)
		b.Route = "route"
		t.Log("changed")
		p, _ := base64.RawURLEncoding.DecodeString(c.pid)
		for i := range p {
			if i%7 == 0 {
				p[i] ^= 1
				b.begins(&guest{sid: c.sid, pid: base64.RawURLEncoding.EncodeToString(p)}, offset)
				p[i] ^= 1
			}
		}
		t.Log("another namespace")
		if g, got := b.back(c, "/chat,", offset); g.sid == c.sid || g.pid == c.pid {
			t.Errorf("%q", got)
		}
		b.recovered(c, offset)
	})
}

// TestJoinedStays: the rooms that clients join by themselves are known to their own server alone, so no other one has them go on.
func TestJoinedStays(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		a.joins, b.joins = true, true
		c := a.connect("")
		c.next(`42["join","room"]`)
		offset := a.emit("one", "room")
		if len(c.pid) != 20 {
			t.Errorf("%q", c.pid)
		}
		b.begins(c, offset)
		b.emit("two", "room")
		a.recovered(c, offset, `"two"`)
	})
}

// TestLateNode: a server that was started after a client had come, and after its own had ended, reads what it has to know.
func TestLateNode(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		c := a.connect("")
		a.command(hub.DoJoin, c.sid, "", "room")
		offset := a.emit("one", c.sid)
		a.stop()
		b.stop()
		x := n.start()
		x.emit("two", "room")
		d := x.recovered(c, offset, `"two"`)
		// From then on what is for names comes too often for the log to have all of it.
		for range 12 {
			offset = x.emit("three", d.sid)
		}
		x.stop()
		n.start().begins(d, offset)
	})
}

// TestAway: what a backend does with a client while it is away holds when it is back, as its server shares a log.
func TestAway(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		c := a.connect("")
		c.conn.Close(hub.ReasonClient, "")
		c.next("")
		b.command(hub.DoJoin, c.sid, "", "room")
		b.emit("one", "room")
		b.emit("two", c.sid)
		d := a.recovered(c, "", `"one"`, `"two"`)
		d.conn.Close(hub.ReasonClient, "")
		d.next("")
		b.command(hub.DoClose, c.sid, "", "")
		a.begins(c, "")
	})
}

// TestCutOff: a server that is cut off from the broker has a client go on only with what it is sure to have, and the rest comes
// when it is back. It learns then too that a client of its own has gone on elsewhere.
func TestCutOff(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		b.connect("")
		c, d, e := a.connect(""), a.connect(""), b.connect("")
		first := a.emit("one", "a")
		time.Sleep(time.Second)
		b.broker.Disconnect()
		second := a.emit("two", "a")
		a.command(hub.DoJoin, d.sid, "", "room")
		a.emit("three", "room")
		b.begins(c, second) // it was at a position that the server does not have
		d = b.recovered(d, first)
		e.next("")
		f := a.recovered(e, first, `"two"`)
		b.broker.Reconnect()
		time.Sleep(10 * time.Second)
		d.has(d.next(""), `"two"`, `"three"`)
		if got := e.next(""); !strings.Contains(got, "another server") {
			t.Errorf("%q", got)
		}
		b.emit("four", "a", f.sid)
		f.has(f.next(""), `"four"`)
	})
}

// TestKeys: servers that begin at the same time have one key, which outlives all of them.
func TestKeys(t *testing.T) {
	withNodes(t, 3, func(n *nodes) {
		var all []*guest
		for _, x := range n.all {
			all = append(all, x.open())
		}
		keys := make(chan [hub.KeySize]byte, 3)
		for _, g := range all {
			go func() {
				k, err := g.conn.SharedKeys()
				if err != nil || len(k) != 1 {
					t.Error(k, err)
					k = make([][hub.KeySize]byte, 1)
				}
				keys <- k[0]
			}()
		}
		key := <-keys
		for range 2 {
			if <-keys != key {
				t.Error("another key")
			}
		}
		for _, x := range n.all {
			x.stop()
		}
		if k, err := n.start().open().conn.SharedKeys(); err != nil || len(k) != 1 || k[0] != key {
			t.Error(k, err)
		}
	})
}
