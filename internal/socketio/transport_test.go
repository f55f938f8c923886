package socketio_test

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// number returns the number that an event of flood has.
func number(t *testing.T, packet string) int {
	t.Helper()
	text, ok := strings.CutPrefix(packet, `42["message","`)
	n, err := strconv.Atoi(strings.TrimRight(text, `x"]`))
	if !ok || err != nil {
		t.Fatalf("%.40q", packet)
	}
	return n
}

// flood publishes messages that are too many for what a client that polls is kept.
func (s *server) flood(from, to int) {
	filler := strings.Repeat("x", 500)
	for n := from; n < to; n++ {
		if err := s.Hub.PublishWait(&hub.Message{Channel: "main", Data: fmt.Append(nil, n, filler)}); err != nil {
			s.Error(err)
		}
	}
}

// TestSlowPolls: a client that comes later than there is room for gets all from its backlog.
func TestSlowPolls(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.MaxMessage = 100_000 })
	p := s.open()
	p.enter("40")
	const all = 220 // 110 KB: 64 KiB and a batch for the next GET, and less than the backlog besides
	s.flood(0, all)
	for next := 0; next < all; {
		got := p.get()
		if got.status != 200 {
			t.Fatalf("after %d: %+v", next, got)
		}
		for packet := range strings.SplitSeq(got.body, "\x1e") {
			if n := number(t, packet); n != next {
				t.Fatalf("%d after %d", n, next-1)
			}
			next++
		}
	}
	// What is longer than all that is kept is one answer.
	text := strings.Repeat("y", 90_000)
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte(text)})
	s.want(p.get(), answer{200, `42["message","` + text + `"]`})
}

// TestUpgradeInOrder: a client that moves to a WebSocket while messages come gets each of them once, and in order, whether it
// still polls after its probe or not.
func TestUpgradeInOrder(t *testing.T) {
	s := newServer(t, nil)
	for _, polls := range []bool{true, false} {
		p := s.open()
		p.enter("40")
		const all = 200
		var packets []string
		published := make(chan struct{})
		go func() {
			defer close(published)
			s.flood(0, all)
		}()
		c := s.dial(strings.Replace(p.query, "polling", "websocket", 1))
		packets = append(packets, strings.Split(p.get().body, "\x1e")...)
		c.send("2probe")
		c.wants("3probe")
		if polls {
			packets = append(packets, strings.Split(p.get().body, "\x1e")...)
		}
		c.send("5")
		next := 0
		take := func(packet string) {
			if packet == "6" {
				return
			}
			if n := number(t, packet); n != next {
				t.Fatalf("%d after %d", n, next-1)
			}
			next++
		}
		for _, packet := range packets {
			take(packet)
		}
		for next < all {
			take(c.read())
		}
		<-published
		c.Close()
	}
}

// TestKicked: a client that has to stay away is taken out of all its namespaces, by both transports, and what told it so is kept
// for a while for a client that does not come.
func TestKicked(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40\x1e40/chat,")
	c, _, _ := s.connect("")
	c.send("40/chat")
	c.read()
	s.Hub.Kick(hub.Filter{Channel: "main"}, hub.ReasonPolicy, "")
	a, b := c.read(), c.read()
	c.wants("closed 1008")
	if got := p.get(); got != (answer{200, a + "\x1e" + b}) || a == b || !strings.HasPrefix(a, "41") || !strings.HasPrefix(b, "41") {
		t.Errorf("%s %s %+v", a, b, got)
	}
	s.want(p.get(), answer{200, "1"})
}

// TestParting: of what a client has not come for only the end is kept, as the messages before it may be incomplete.
func TestParting(t *testing.T) {
	for _, c := range []struct{ payload, want string }{
		{"", ""}, {"42[1]", ""}, {"1", "1"}, {"42[1]\x1e1", "1"}, {"2\x1e41\x1e41/chat,\x1e1", "41\x1e41/chat,\x1e1"}, {"41\x1eb1\x1e1", "1"},
	} {
		if got := socketio.Parting(c.payload); got != c.want {
			t.Errorf("%q: %q", c.payload, got)
		}
	}
}

// TestGreeting: a client is greeted in each namespace, and in a way that does not spoil its offset.
func TestGreeting(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.GreetingEvent = "my response" })
	s.greeting = "hello"
	c, _, _ := s.connect("")
	c.wants(`42["my response","hello"]`)
	c.send("40/chat")
	c.read()
	c.wants(`42/chat,["my response","hello"]`)
	s = newServer(t, func(e *socketio.Endpoint) { e.GreetingEvent, e.Recovery = "my response", time.Minute })
	s.greeting = `{"data":"Connected"}`
	c, _, _ = s.connect("")
	if got := c.read(); !strings.HasPrefix(got, `42["my response",{"data":"Connected"},"`) {
		t.Error(got)
	}
}

// TestReplay: a client that is new in a namespace gets the last messages, and after them what comes.
func TestReplay(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.NoEcho = true })
	s.replay = 2
	for _, text := range []string{"1", "2", "3"} {
		s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte(text)})
	}
	c, _, _ := s.connect("")
	c.send(`42["x","mine"]`)
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("4")})
	c.wants(`42["message","2"]`, `42["message","3"]`, `42["message","4"]`)
}

// TestHeld: what is kept for clients counts as memory as long as it is, and no longer.
func TestHeld(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	s.Hub.Configure(hub.Config{}) // without a history, which counts too
	before := s.Hub.Stats().Memory
	s.flood(0, 10)
	s.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "") // waits for the loops
	if s.Hub.Stats().Memory < before+5000 {
		t.Error("what is kept is not counted")
	}
	p.get()
	for s.Hub.Stats().Memory != before { // what a loop has taken last counts until it takes something else
		s.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "")
	}
	// The session itself counts too.
	p.post("1")
	for s.Hub.Stats().Connections > 0 {
		runtime.Gosched()
	}
	for s.Hub.Stats().Memory != 0 {
		s.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "")
	}
}
