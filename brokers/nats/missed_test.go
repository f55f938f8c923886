package nats

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// away has a node lose its connection while something happens.
func away(t *testing.T, n *node, proxy *natstest.Proxy, do func()) {
	t.Helper()
	proxy.Refuse()
	n.Await(t, "the loss of the connection", func() bool { return n.Down })
	do()
	proxy.Accept()
	n.Await(t, "repair", func() bool { return !n.Down })
}

// What comes after a repair is in order, on many channels, of which each has news.
func TestRepairMany(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	from, n := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, proxy.URL(), 1))
	var channels []string
	for i := range 600 {
		channels = append(channels, fmt.Sprint("channel ", i))
	}
	n.MustOpen(t, channels...)
	away(t, n, proxy, func() {
		for round := range 3 {
			var es []broker.Entry
			for _, channel := range channels {
				es = append(es, entry(channel, fmt.Sprint(round)))
			}
			from.MustPublish(t, es...)
		}
	})
	n.Await(t, "all entries", func() bool { return len(n.Came) == 3*len(channels) })
	if !slices.IsSortedFunc(n.Came, func(a, b broker.Entry) int { return int(int64(a.Seq) - int64(b.Seq)) }) || len(n.Missing) > 0 {
		t.Errorf("not in order, or lost: %v", n.Missing)
	}
}

// A node that misses more than it may hold says what is lost, and goes on.
func TestRepairIsBounded(t *testing.T) {
	for name, open := range map[string][]string{"one channel": {"a", "b"}, "all channels": {"", "b"}} {
		t.Run(name, func(t *testing.T) {
			s := natstest.Start(t, "")
			proxy := natstest.NewProxy(t, s)
			from, n := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, proxy.URL(), 1))
			n.MustOpen(t, open...)
			data := strings.Repeat("x", 512<<10)
			away(t, n, proxy, func() {
				for range maxMissed/len(data) + 2 {
					from.MustPublish(t, entry("a", data))
				}
				from.MustPublish(t, entry("b", "small"))
			})
			want := []string{"a"}
			if open[0] == "" {
				want = []string{""}
			}
			if !slices.Equal(n.Missing, want) {
				t.Errorf("lost %q, want %q", n.Missing, want)
			}
			from.MustPublish(t, entry("b", "after"))
			n.Await(t, "what comes after", func() bool { return len(n.Came) > 0 && string(n.Came[len(n.Came)-1].Data) == "after" })
			for _, e := range n.Came {
				if e.Channel == "a" {
					t.Fatal("a part of a is there")
				}
			}
		})
	}
}

// With all channels open, a channel that had more entries than are kept is lost, and no other.
func TestRepairOfAllKnowsWhatWent(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	few := broker.Retention{Messages: 10}
	from, n := dialWith(t, testConfig(t, s.URL(), 1), few), dialWith(t, testConfig(t, proxy.URL(), 1), few)
	n.MustOpen(t, "")
	away(t, n, proxy, func() {
		for range keptMessages + 1 {
			from.MustPublish(t, entry("a", "x"))
		}
		from.MustPublish(t, entry("b", "x"))
		from.tick(t, 2*keptMessages)
	})
	if !slices.Equal(n.Missing, []string{"a"}) {
		t.Errorf("lost %q", n.Missing)
	}
}

// slow is a Sink that waits in Entries until it may go on.
type slow struct {
	*node
	goOn chan struct{}
}

func (s slow) Entries(run []broker.Entry) { <-s.goOn; s.node.Entries(run) }

// A Sink that does not keep up makes the queue overflow. Nothing is lost: it is read later.
func TestOverflow(t *testing.T) {
	server := natstest.Start(t, "")
	from := dialTest(t, testConfig(t, server.URL(), 1))
	goOn := make(chan struct{})
	n := dialSink(t, testConfig(t, server.URL(), 1), keepAll, func(n *node) broker.Sink { return slow{n, goOn} })
	n.AwaitUp(t)
	n.MustOpen(t, "a", "b")
	data := strings.Repeat("x", 256<<10)
	var want int
	for !n.overflowed() {
		from.MustPublish(t, entry("a", data))
		want++
		if want > 3*maxQueue/len(data) {
			t.Fatal("the queue does not overflow")
		}
	}
	from.MustPublish(t, entry("b", "after"))
	close(goOn)
	n.Await(t, "the last entry, and repair", func() bool { return slices.Contains(n.data("b"), "after") && !n.Down })
	if got := len(n.data("a")); got != want || len(n.Missing) > 0 {
		t.Errorf("%d of %d, lost %v", got, want, n.Missing)
	}
	if status := n.Status(); status.Repairs["overflow"] == 0 {
		t.Errorf("repairs: %v", status.Repairs)
	}
}

// overflowed tells whether the queue has overflowed.
func (n *node) overflowed() bool {
	n.queue.mu.Lock()
	defer n.queue.mu.Unlock()
	return n.queue.overflow
}
