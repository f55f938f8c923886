package nats

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/sinktest"
	natsgo "github.com/nats-io/nats.go"
)

// A part of a stream cannot be removed: nothing would show that it is missing.
func TestPurgeIsRefused(t *testing.T) {
	s := natstest.Start(t, "")
	n := dialTest(t, testConfig(t, s.URL(), 1))
	first := n.MustPublish(t, entry("a", "1"))[0].Seq
	second := n.MustPublish(t, entry("a", "2"))[0].Seq
	_, js := admin(t, s)
	for _, request := range []*natsgo.StreamPurgeRequest{{Subject: "bc.s.a"}, {}} {
		if js.PurgeStream("BROADCAST", request) == nil {
			t.Errorf("%+v was purged", request)
		}
	}
	if js.DeleteMsg("BROADCAST", second) == nil {
		t.Error("a message was deleted")
	}
	es, complete, err := n.Read(t.Context(), "a", first, 10, 1000)
	if err != nil || !complete || len(es) != 1 {
		t.Errorf("read %d entries, complete %v, %v", len(es), complete, err)
	}
}

// A stream that an administrator deletes begins anew, in another epoch.
func TestDeleted(t *testing.T) {
	s := natstest.Start(t, "")
	a, b := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, s.URL(), 1))
	for _, n := range []*node{a, b} {
		n.MustOpen(t, "a")
	}
	a.MustPublish(t, entry("a", "1"))
	_, js := admin(t, s)
	if err := js.DeleteStream("BROADCAST"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		n.Await(t, "another epoch", func() bool { return len(n.Epochs) >= 2 && !n.Down })
	}
	b.MustPublish(t, entry("a", "2"))
	for _, n := range []*node{a, b} {
		n.Await(t, "the entry after it", func() bool { return len(n.data("a")) == 2 })
		if len(n.Epochs) != 2 || n.Epochs[1] != a.Epochs[1] || n.Epochs[1] == n.Epochs[0] {
			t.Errorf("epochs %v, of another %v", n.Epochs, a.Epochs)
		}
	}
}

// What comes late is not lost: neither publishing nor catching up needs a fast network.
func TestSlowNetwork(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	n := dialTest(t, testConfig(t, proxy.URL(), 1))
	n.MustOpen(t, "a")
	proxy.Delay(200 * time.Millisecond)
	n.MustPublish(t, entry("a", "1"))
	proxy.Cut()
	n.Await(t, "the end of the connection", func() bool { return n.Down })
	n.Await(t, "repair", func() bool { return n.Repairs >= 2 && !n.Down })
	n.MustPublish(t, entry("a", "2"))
	n.Await(t, "the entries", func() bool { return len(n.data("a")) == 2 })
}

// Names that are long, or look like those that the log uses for itself, are channels like others.
func TestNames(t *testing.T) {
	s := natstest.Start(t, "")
	a, b := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, s.URL(), 1))
	names := []string{
		"_t", "_e", "_", tickName, epochName, anchorName + "0", ">", "*", "a.b", "a.>", ".", "..", " ", "a b", "%", "%41", "=", "=41", "A", "a",
		strings.Repeat("a", 255), strings.Repeat(".", 255), strings.Repeat("é", 127) + "x", "\u2028", "$JS.API.>",
	}
	b.MustOpen(t, names...)
	for _, name := range names {
		e := entry(name, name)
		e.Event = strings.Repeat("e", 255)
		at := a.MustPublish(t, e)[0].Seq
		b.Await(t, fmt.Sprintf("the entry of %q", name), func() bool { return len(b.data(name)) == 1 })
		if es, complete, err := a.Read(t.Context(), name, at-1, 10, 10_000); err != nil || !complete || len(es) != 1 || es[0].Channel != name || string(es[0].Data) != name {
			t.Errorf("%q: read %+v, %v, %v", name, es, complete, err)
		}
	}
	if len(b.Came) != len(names) || b.Status().Foreign != 0 {
		t.Errorf("%d entries, %d foreign", len(b.Came), b.Status().Foreign)
	}
}

// Messages that are not ours, on our subjects, are counted and disturb nothing.
func TestForeign(t *testing.T) {
	s := natstest.Start(t, "")
	n := dialTest(t, testConfig(t, s.URL(), 1))
	n.MustOpen(t, "a")
	conn, js := admin(t, s)
	before := n.MustPublish(t, entry("a", "1"))[0].Seq
	for _, subject := range []string{"bc.s.a", "bc.s.a.b", "bc.s.=", "bc.s.%zz", "bc.s._other"} {
		if _, err := js.Publish(subject, []byte("foreign")); err != nil {
			t.Fatal(err)
		}
	}
	conn.Publish("bc.l.a", []byte("forged"))
	conn.Publish("bc.l._t", []byte("forged"))
	conn.Flush()
	n.MustPublish(t, entry("a", "2"))
	n.Await(t, "the entries", func() bool { return len(n.data("a")) == 2 })
	if es, complete, err := n.Read(t.Context(), "a", before, 10, 1000); err != nil || !complete || len(es) != 1 {
		t.Errorf("read %v, %v, %v", es, complete, err)
	}
	if status := n.Status(); status.Foreign == 0 || n.Down {
		t.Errorf("%+v", status)
	}
}

// Two nodes with the same number, as of a copied virtual machine, get all entries.
func TestSameNode(t *testing.T) {
	s := natstest.Start(t, "")
	var nodes []*node
	for range 2 {
		n := &node{Node: sinktest.New(7)}
		n.log = n.Dial(t, dialing(testConfig(t, s.URL(), 1)), n, keepAll).(*log)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.AwaitUp(t)
		n.MustOpen(t, "a")
	}
	for i := range 200 {
		at := nodes[i%2].MustPublish(t, entry("a", fmt.Sprint(i)))[0].Seq
		came := make(chan uint64, 1)
		nodes[1-i%2].Barrier(func(seq uint64, err error) { came <- seq })
		if seq := <-came; seq < at {
			t.Fatalf("a barrier at %d is before %d, which was stored", seq, at)
		}
		if n := nodes[1-i%2]; n.has(at) == false {
			t.Fatalf("a barrier was passed before the entry at %d came", at)
		}
	}
}

// Close ends everything that the log has started, in whatever phase it is.
func TestCloseInEveryPhase(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dialTest(t, testConfig(t, s.URL(), 1)).Close()
	base := goroutines()
	for i := range 60 {
		l, err := Dial(testConfig(t, proxy.URL(), 1), sinktest.New(uint64(i+1)), broker.Options{Node: uint64(i + 1), Retention: keepAll})
		if err != nil {
			t.Fatal(err)
		}
		l.Open([]string{"a"}, func(uint64, error) {})
		time.AfterFunc(time.Duration(i)*time.Millisecond/2, func() {
			l.Publish([]broker.Entry{entry("a", "1"), entry("a", "2")}, func([]broker.Place, error) {})
			go l.Read(ctx, "a", 0, 10, 100)
			if i%3 == 0 {
				proxy.Cut()
			}
		})
		<-time.After(time.Duration(i) * time.Millisecond)
		l.Close()
		if i%2 == 0 {
			l.Close()
		}
	}
	deadline := time.Now().Add(patience)
	for goroutines() > base+3 {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before it %d:\n%s", goroutines(), base, stacks())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func goroutines() int { return runtime.NumGoroutine() }

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

func (n *node) has(seq uint64) bool {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	return slices.ContainsFunc(n.Came, func(e broker.Entry) bool { return e.Seq == seq })
}

// A server that asks its clients to go away, as before a restart, loses nothing and refuses nobody who may go to another one.
func TestLameDuck(t *testing.T) {
	servers := natstest.StartCluster(t, 3, `lame_duck_grace_period: "100ms"`)
	c := testConfig(t, servers[0].URL(), 3)
	c.Servers = natstest.URLs(servers)
	a, b := dialTest(t, c), dialTest(t, c)
	b.MustOpen(t, "a")
	a.MustPublish(t, entry("a", "0"))
	acked := 1
	server := a.Status().Server
	for _, s := range servers {
		if s.URL() == server {
			s.LameDuck()
		}
	}
	for i := 1; a.Status().Server == server || acked < 200; i++ {
		places, err := a.Try(entry("a", fmt.Sprint(i)))
		switch {
		case err == nil:
			acked++
		case errors.Is(err, broker.ErrDown), errors.Is(err, broker.ErrUnknown):
			a.Await(t, "another server", func() bool { return !a.Down })
		default:
			t.Fatal(places, err)
		}
	}
	b.Await(t, "everything that was acked", func() bool { return !b.Down && len(b.Came) >= acked })
	if len(b.Missing) > 0 || len(b.Epochs) != 1 {
		t.Errorf("lost %v, epochs %v", b.Missing, b.Epochs)
	}
	t.Logf("%d acked, %d entries", acked, len(b.Came))
}
