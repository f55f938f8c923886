package nats

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func (n *node) data(channel string) (all []string) {
	for _, e := range n.Came {
		if e.Channel == channel {
			all = append(all, string(e.Data))
		}
	}
	return all
}

// A stream that has lost messages gets another epoch, once, which all nodes see.
func TestRollBack(t *testing.T) {
	s := natstest.Start(t, "")
	var nodes []*node
	for range 3 {
		n := dialTest(t, testConfig(t, s.URL(), 1))
		n.MustOpen(t, "a")
		nodes = append(nodes, n)
	}
	nodes[0].MustPublish(t, entry("a", "1"))
	s.Kill()
	rollBack := s.Snapshot()
	s.Run()
	for _, n := range nodes {
		n.Await(t, "repair", func() bool { return n.Repairs >= 2 && !n.Down })
		if len(n.Epochs) != 1 {
			t.Fatal("a restart changes the epoch")
		}
	}
	for i := range 20 {
		nodes[0].MustPublish(t, entry("a", fmt.Sprint("lost ", i)))
	}
	for _, n := range nodes {
		n.Await(t, "the entries", func() bool { return len(n.data("a")) == 21 })
	}
	s.Kill()
	rollBack()
	s.Run()
	for _, n := range nodes {
		n.Await(t, "the new epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
	}
	nodes[1].MustPublish(t, entry("a", "after"))
	for _, n := range nodes {
		n.Await(t, "the entry after it", func() bool { return slices.Contains(n.data("a"), "after") })
		if n.Epochs[1] != nodes[0].Epochs[1] || n.Epochs[1] == n.Epochs[0] || len(n.Epochs) != 2 {
			t.Errorf("epochs %v, of another %v", n.Epochs, nodes[0].Epochs)
		}
	}
	if n := dialTest(t, testConfig(t, s.URL(), 1)); n.Epochs[0] != nodes[0].Epochs[1] {
		t.Errorf("a new node has the epoch %v, the others %v", n.Epochs, nodes[0].Epochs)
	}
}

// What the server republishes and the network loses is found: by the next entry of the channel, or by the audit.
func TestDroppedRepublish(t *testing.T) {
	for name, drop := range map[string]string{"first": "0", "middle": "3", "last": "5"} {
		t.Run(name, func(t *testing.T) {
			s := natstest.Start(t, "")
			proxy := natstest.NewProxy(t, s)
			from, n := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, proxy.URL(), 1))
			n.MustOpen(t, "a", "b")
			proxy.Drop(func(subject string, payload []byte) bool {
				return subject == "bc.l.a" && strings.HasSuffix(string(payload), "data "+drop+"\r\n")
			})
			var want []string
			for i := range 6 {
				want = append(want, fmt.Sprint("data ", i))
				from.MustPublish(t, entry("a", want[i]))
				from.MustPublish(t, entry("b", want[i]))
			}
			n.Await(t, "all of b", func() bool { return len(n.data("b")) == 6 })
			if name == "last" {
				// Nothing shows it. The audit does not come by itself within a test's time.
				n.log.audit()
			}
			n.Await(t, "all of a", func() bool { return len(n.data("a")) == 6 && !n.Down })
			if got := n.data("a"); !slices.Equal(got, want) || !slices.Equal(n.data("b"), want) {
				t.Errorf("a: %v, b: %v", got, n.data("b"))
			}
			cause := map[string]string{"first": "chain", "middle": "chain", "last": "audit"}[name]
			if status := n.Status(); status.Repairs[cause] != 1 || proxy.Dropped() != 1 || len(n.Missing) > 0 {
				t.Errorf("%+v, %d dropped, lost %v", status, proxy.Dropped(), n.Missing)
			}
		})
	}
}

// What was acked is there after the server is killed, and no key is there twice.
func TestKill(t *testing.T) {
	s := natstest.Start(t, "")
	a, b := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, s.URL(), 1))
	b.MustOpen(t, "a")
	var mu sync.Mutex
	acked := map[string]uint64{}
	var publishers sync.WaitGroup
	stop := make(chan struct{})
	for p := range 4 {
		publishers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				e := entry("a", fmt.Sprintf("%d-%d", p, i))
				e.Key, e.Digest = [16]byte{1, byte(p), byte(i), byte(i >> 8), byte(i >> 16)}, 7
				for {
					places, err := a.Try(e)
					if err == nil {
						mu.Lock()
						acked[string(e.Data)] = places[0].Seq
						mu.Unlock()
						break
					}
					a.Await(t, "the server", func() bool { return !a.Down })
				}
			}
		})
	}
	for range 3 {
		n := 0
		b.Await(t, "more entries", func() bool { n = len(b.Came); return n > 0 })
		b.Await(t, "more entries", func() bool { return len(b.Came) >= n+200 })
		s.Kill()
		s.Run()
	}
	close(stop)
	publishers.Wait()
	b.Await(t, "everything that was acked", func() bool { return len(b.Came) >= len(acked) })
	had, order := map[string]uint64{}, uint64(0)
	for _, e := range b.Came {
		if had[string(e.Data)] != 0 || e.Seq <= order {
			t.Fatalf("%q came twice, or not in order: %d after %d", e.Data, e.Seq, order)
		}
		had[string(e.Data)], order = e.Seq, e.Seq
	}
	for data, seq := range acked {
		if had[data] != seq {
			t.Errorf("%q was acked at %d and came at %d", data, seq, had[data])
		}
	}
	t.Logf("%d acked, %d entries, lost %v, repairs %v", len(acked), len(b.Came), b.Missing, b.Status().Repairs)
}
