package socketio_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// connect connects a WebSocket, and takes it into the main namespace. It returns the ID there, and the secret that recovers it.
func (s *server) connect(payload string) (c *socket, sid, pid string) {
	s.Helper()
	c = s.dial("EIO=4&transport=websocket")
	c.read()
	c.send("40" + payload)
	sid, pid = ids(s.T, c.read())
	return c, sid, pid
}

// ids returns the IDs in the answer to a Connect.
func ids(t *testing.T, text string) (sid, pid string) {
	t.Helper()
	_, rest, ok := strings.Cut(text, `{"sid":"`)
	sid, rest, _ = strings.Cut(rest, `"`)
	if !ok || len(sid) != 20 {
		t.Fatalf("%q is no answer to a Connect", text)
	}
	if _, rest, ok = strings.Cut(rest, `"pid":"`); ok {
		pid, _, _ = strings.Cut(rest, `"`)
	}
	return sid, pid
}

// recovers is for routes whose sessions can be recovered.
func recovers(e *socketio.Endpoint) { e.Recovery = time.Minute }

// TestPackets: what is wrong closes the client, and what is just refused does not.
func TestPackets(t *testing.T) {
	s := newServer(t, nil)
	for _, c := range []struct{ send, want string }{
		{`42["x"`, "closed 1002"}, {"42", "closed 1002"}, {"42[]", "closed 1002"}, {`42["connect"]`, "closed 1002"}, {"40", "closed 1002"},
		{"41/chat,", "closed 1002"}, {`42/chat,["x"]`, "closed 1002"}, {"44{}", "closed 1002"}, {"2", "closed 1002"}, {"", "closed 1002"},
		{`450-["x"]`, "closed 1002"}, {`4511-["x"]`, "closed 1002"}, {`451-["x"]`, "closed 1002"}, {`42["x",NaN]`, "closed 1002"}, {"1", "closed 1000"},
		{"40/none,", `44/none,{"message":"Invalid namespace"}`}, {"40/custom?x=1,", `44/custom?x=1,{"message":"Invalid namespace"}`},
		{`421["` + strings.Repeat("x", 300) + `"]`, `431[{"error":{"code":"invalid"`},
		{`421["x","` + strings.Repeat("x", 1001) + `"]`, `431[{"error":{"code":"too_big"`},
		{`421["join"]`, `431[{"error":{"code":"invalid"`}, {`421["join","other"]`, `431[{"error":{"code":"forbidden"`},
		{`421["join","room:1"]`, `431[{"id":"`}, {`421["leave",{"room":"room:1"}]`, `431[{"id":"`},
		{`431[1]`, ""}, {"3", ""}, {"5", ""}, {"6", ""}, {"41", ""},
	} {
		c1, _, _ := s.connect("")
		c1.send(c.send)
		if c.want == "" {
			c1.send("40/chat")
			c.want = `40/chat,{"sid":"`
		}
		if got := c1.read(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%.40s: got %s", c.send, got)
		}
	}
}

// TestRate: a client that is too fast is told so with each event that wants an ack, and is closed if it goes on, by both
// transports.
func TestRate(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.Rate = ratelimit.Limit{PerSecond: 1e-6, Burst: 1} })
	c, _, _ := s.connect("")
	const tooFast = `431[{"error":{"code":"rate","message":"too many events"}}]`
	for range 20 {
		c.send(`421["x"]`)
		c.wants(tooFast)
	}
	c.send(`42["x"]`)
	c.wants("41", "closed 1008")
	p := s.open()
	p.enter("40")
	s.want(p.post(strings.TrimSuffix(strings.Repeat("421[\"x\"]\x1e", 20), "\x1e")), answer{200, "ok"})
	s.want(p.get(), answer{200, strings.TrimSuffix(strings.Repeat(tooFast+"\x1e", 20), "\x1e")})
	s.want(p.post(`42["x"]`), bad)
	s.want(p.get(), unknown)
}

// TestLongNamespace: with the ID of a client a namespace is a name in the hub, so there is none that is too long for that.
func TestLongNamespace(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) {
		e.MayConnect = func(string) bool { return true }
		e.NoEcho, e.Recovery = true, time.Minute
	})
	longest := "/" + strings.Repeat("x", socketio.MaxNamespace-1)
	c, _, _ := s.connect("")
	c.send("40" + longest + "x")
	c.wants("44" + longest + `x,{"message":"Invalid namespace"}`)
	c.send("40" + longest)
	c.read()
	c.send("42" + longest + `,1["x"]`)
	if got := c.read(); !strings.HasPrefix(got, "43"+longest+`,1[{"id":`) {
		t.Error(got)
	}
}

// TestTooManyRooms: a page that wants to be in more rooms than a connection can be in is told so, whether at once or in the end.
func TestTooManyRooms(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.MaxMessage = 1 << 20 })
	c, _, _ := s.connect("")
	join := func(n int) string {
		var rooms strings.Builder
		for i := range n {
			fmt.Fprintf(&rooms, `"room:%d",`, i)
		}
		c.send(`421["join",[` + strings.TrimSuffix(rooms.String(), ",") + `]]`)
		return c.read()
	}
	const tooMany = `431[{"error":{"code":"limit",`
	for n, want := range map[int]string{1001: tooMany, 1000: tooMany, 999: `431[{"id":"`} { // with the route's
		if got := join(n); !strings.HasPrefix(got, want) {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// TestPublishOff: a page that emits all the same lives, and is told.
func TestPublishOff(t *testing.T) {
	s := newServer(t, nil)
	s.silent = true
	c, _, _ := s.connect("")
	c.send(`42["x"]`)
	c.send(`427["x"]`)
	c.wants(`437[{"error":{"code":"forbidden","message":"publishing is off on this route"}}]`)
	c.send(`428["join",["room:1","room:2"]]`)
	if got := c.read(); !strings.HasPrefix(got, `438[{"id":`) {
		t.Error(got)
	}
}

// TestRelay: all clients of a namespace get an event as it was sent, with attachments, and those of others do not.
func TestRelay(t *testing.T) {
	s := newServer(t, nil)
	a, _, _ := s.connect("")
	b := s.dial("EIO=4&transport=websocket")
	b.read()
	b.send("40/chat,")
	ids(t, b.read())
	p := s.open()
	p.enter("40")
	for _, c := range []struct{ send, attached, want string }{
		{`42["x",{"a":1}]`, "", `42["x",{"a":1}]`},
		{`42["x"]`, "", `42["x"]`},
		{`42["x",1,"y",null]`, "", `42["x",1,"y",null]`},
		{`42[5,1]`, "", `42["5",1]`},
		{`451-["x",{"_placeholder":true,"num":0}]`, "abc", `451-["x",{"_placeholder":true,"num":0}]`},
		{`451-["x",{"y":{"_placeholder":true,"num":0}},2]`, "abc", `451-["x",{"y":{"_placeholder":true,"num":0}},2]`},
	} {
		a.send(c.send)
		if c.attached != "" {
			a.WriteMessage(2, []byte(c.attached))
			a.wants(c.want, "b"+c.attached)
			s.want(p.get(), answer{200, c.want + "\x1ebYWJj"})
			continue
		}
		a.wants(c.want)
		s.want(p.get(), answer{200, c.want})
	}
	b.send(`42/chat,["y"]`)
	b.wants(`42/chat,["y"]`)
	s.want(p.post("451-[\"z\",{\"_placeholder\":true,\"num\":0}]\x1ebYWJj"), answer{200, "ok"})
	a.wants(`451-["z",{"_placeholder":true,"num":0}]`, "babc")
}

// TestNames: a backend reaches a client by its ID, has it join and leave rooms, and takes it out of a namespace.
func TestNames(t *testing.T) {
	s := newServer(t, nil)
	a, sid, _ := s.connect("")
	b, other, _ := s.connect("")
	a.send("40/chat,")
	chat, _ := ids(t, a.read())
	if chat == sid || other == sid {
		t.Fatal("two have one ID")
	}
	publish := func(ms ...*hub.Message) {
		t.Helper()
		if err := s.Hub.Publish(ms...); err != nil {
			t.Error(err)
		}
	}
	publish(&hub.Message{Channel: "main", Data: []byte("1"), Emit: &hub.Emit{To: sid}})
	publish(&hub.Message{Channel: "/chat", Data: []byte("2"), Emit: &hub.Emit{To: "/chat," + chat}})
	publish(&hub.Message{Channel: "main", Data: []byte("3"), Emit: &hub.Emit{Except: []string{sid}}})
	a.wants(`42["message","1"]`, `42/chat,["message","2"]`)
	b.wants(`42["message","3"]`)
	s.Hub.Command(hub.NameCommand{Do: hub.DoJoin, Name: other, Channel: "secret"})
	publish(&hub.Message{Channel: "secret", Data: []byte("4")})
	b.wants(`42["message","4"]`)
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, Name: sid})
	publish(&hub.Message{Channel: "main", Data: []byte("5")})
	a.wants("41")
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, Name: "/chat," + chat})
	a.wants("41/chat,", "41", "closed 1008")
	b.wants(`42["message","5"]`)
}

// TestDismissedByRoom: clients that a backend selects by a room are taken out of the namespace of the room, whatever others they
// are in, unless it wants their connections closed.
func TestDismissedByRoom(t *testing.T) {
	s := newServer(t, nil)
	a, _, _ := s.connect("")
	a.send("40/chat,")
	chat, _ := ids(t, a.read())
	a.send("42/chat,1[\"join\",\"room:1\"]")
	a.read()
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, On: "/chat,room:1", Except: []string{"/chat," + chat}})
	s.Hub.Command(hub.NameCommand{Do: hub.DoJoin, Name: "/chat," + chat, Channel: "/chat,room:2"})
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, On: "/chat,room:2"})
	a.wants("41/chat,")
	a.send(`421["x"]`)
	a.wants(`42["x"]`)
	a.read() // the ack
	b, _, _ := s.connect("")
	b.send("40/chat,")
	b.read()
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, On: "/chat", Whole: true})
	b.wants("41", "41/chat,", "closed 1008")
	s.Hub.Command(hub.NameCommand{Do: hub.DoClose, On: "main"})
	a.wants("41", "41", "closed 1008") // the second for the connection
}

// offset returns the ID at the end of an event.
func offset(text string) string {
	text = strings.TrimSuffix(text, `"]`)
	return text[strings.LastIndexByte(text, '"')+1:]
}

// TestRecovery: a client goes on where it was, whether or not its end was noticed, in its rooms, with the messages to it alone,
// and with the same ID.
func TestRecovery(t *testing.T) {
	for _, gone := range []bool{true, false} {
		s := newServer(t, recovers)
		a, sid, pid := s.connect("")
		b, _, _ := s.connect("")
		a.send(`421["join","room:1"]`)
		a.read()
		b.send(`42["x",1]`)
		at := offset(a.read())
		b.read()
		if gone {
			a.Close()
			for s.Hub.Named(sid) != nil {
			}
		}
		for i, channel := range []string{"main", "room:1", "room:2"} {
			s.Hub.Publish(&hub.Message{Channel: channel, Data: fmt.Append(nil, i)})
		}
		s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("alone"), Emit: &hub.Emit{To: sid}})
		s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("others"), Emit: &hub.Emit{Except: []string{sid}}})
		again, sid2, pid2 := s.connect(fmt.Sprintf(`{"pid":%q,"offset":%q}`, pid, at))
		if sid2 != sid || pid2 != pid {
			t.Fatalf("gone %v: not recovered", gone)
		}
		s.Hub.Publish(&hub.Message{Channel: "room:1", Data: []byte("live")})
		for _, want := range []string{"0", "1", "alone", "live"} {
			if got := again.read(); !strings.HasPrefix(got, `42["message","`+want+`","`) {
				t.Errorf("gone %v: %s, want %s", gone, got, want)
			}
		}
		if all, _ := s.Table.Records(); all != 2 {
			t.Errorf("%d records of two clients", all)
		}
		// It ends for good.
		again.send("41")
		again.send("40" + fmt.Sprintf(`{"pid":%q,"offset":%q}`, pid, at))
		if sid3, pid3 := ids(t, again.read()); sid3 == sid || pid3 == pid {
			t.Error("recovered after it had left")
		}
	}
}

// TestOwnEvents: without echo a client does not get its own events when it goes on either.
func TestOwnEvents(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.NoEcho, e.Recovery = true, time.Minute })
	a, sid, pid := s.connect("")
	b, _, _ := s.connect("")
	a.send(`42["x","mine",1]`)
	b.send(`42["x","yours"]`)
	for _, want := range []string{`42["x","mine",1,"`} {
		if got := b.read(); !strings.HasPrefix(got, want) {
			t.Error(got)
		}
	}
	again, same, _ := s.connect(fmt.Sprintf(`{"pid":%q}`, pid))
	if got := again.read(); same != sid || !strings.HasPrefix(got, `42["x","yours","`) {
		t.Error(got)
	}
}

// TestNotRecovered: a client that cannot have all that it has missed begins anew, with other IDs, and gets nothing of it.
func TestNotRecovered(t *testing.T) {
	s := newServer(t, recovers)
	_, sid, pid := s.connect("")
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("1")})
	for _, payload := range []string{
		`{"pid":"none","offset":"x-1"}`, fmt.Sprintf(`{"pid":%q,"offset":"x-1"}`, pid), fmt.Sprintf(`{"pid":%q,"offset":""}`, pid[1:]),
		fmt.Sprintf(`{"pid":%q,"offset":"nonsense"}`, pid), `{"pid":5,"offset":{}}`, `{"token":"x"}`,
	} {
		c, sid2, pid2 := s.connect(payload)
		if sid2 == sid || pid2 == pid {
			t.Errorf("%s: recovered", payload)
		}
		s.Hub.Publish(&hub.Message{Channel: "main", Event: "e", Data: []byte("2")})
		if got := c.read(); !strings.HasPrefix(got, `42["e","2","`) {
			t.Errorf("%s: %s", payload, got)
		}
	}
	// Without an offset it has got nothing since it came.
	c, sid2, _ := s.connect(fmt.Sprintf(`{"pid":%q}`, pid))
	if got := c.read(); sid2 != sid || !strings.HasPrefix(got, `42["message","1","`) {
		t.Error(got)
	}
}
