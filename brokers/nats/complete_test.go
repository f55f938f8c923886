package nats

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// barrier returns the watermark.
func (n *node) barrier(t testing.TB) uint64 {
	t.Helper()
	ch := make(chan uint64, 1)
	n.Barrier(func(seq uint64, err error) {
		if err != nil {
			t.Error(err)
		}
		ch <- seq
	})
	return <-ch
}

func (n *node) read(t testing.TB, channel string, after uint64) (es []broker.Entry, complete bool) {
	t.Helper()
	es, complete, err := n.Read(t.Context(), channel, after, 10_000, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	return es, complete
}

// tick publishes ticks at once that would take minutes.
func (n *node) tick(t testing.TB, times int) {
	t.Helper()
	for range times {
		if err := n.sendTick(0); err != nil {
			t.Fatal(err)
		}
	}
	n.barrier(t)
}

// Nobody is told of a gap because ticks went by: a channel without any entry has lost none.
func TestQuietIsComplete(t *testing.T) {
	for name, replicas := range map[string]int{"one": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			url := ""
			if replicas == 1 {
				url = natstest.Start(t, "").URL()
			} else {
				url = natstest.StartCluster(t, replicas, "")[0].URL()
			}
			n := dialWith(t, testConfig(t, url, replicas), broker.Retention{Messages: 10, Age: 2 * time.Minute})
			after := n.barrier(t)
			n.tick(t, 3*keptMessages)
			if _, complete := n.read(t, "quiet", after); !complete {
				t.Error("a channel without an entry is incomplete")
			}
			n.MustPublish(t, entry("new", "1"))
			n.tick(t, 3*keptMessages)
			if es, complete := n.read(t, "new", after); len(es) != 1 || !complete {
				t.Errorf("a channel that began later: %v, complete %v", es, complete)
			}
		})
	}
}

// What the limits removed is known to be missing, however the limits change.
func TestRemovedIsIncomplete(t *testing.T) {
	s := natstest.Start(t, "")
	few := broker.Retention{Messages: 10}
	n := dialWith(t, testConfig(t, s.URL(), 1), few)
	after := n.barrier(t)
	fill := func(channel string, entries int) {
		for i := range entries {
			n.MustPublish(t, entry(channel, fmt.Sprint(i)))
		}
	}
	fill("over", keptMessages+1)
	fill("under", keptMessages-1)
	check := func(when string) {
		t.Helper()
		n.tick(t, 2*keptMessages)
		if es, complete := n.read(t, "over", after); complete || len(es) != keptMessages {
			t.Errorf("%s, of one more than is kept there are %d, complete %v", when, len(es), complete)
		}
		if es, complete := n.read(t, "under", after); !complete || len(es) != keptMessages-1 {
			t.Errorf("%s, of one less than is kept there are %d, complete %v", when, len(es), complete)
		}
	}
	check("with the first limit")
	raised := dialWith(t, testConfig(t, s.URL(), 1), broker.Retention{Messages: 1000})
	check("with a higher limit")
	raised.settleLimit(t)
	check("with the higher limit noted")
	after = n.barrier(t)
	fill("after", 5*keptMessages)
	if es, complete := n.read(t, "after", after); !complete || len(es) != 5*keptMessages {
		t.Errorf("below the higher limit: %d entries, complete %v", len(es), complete)
	}
	n.Retain(broker.Retention{Messages: 4 * keptMessages})
	n.settleLimit(t)
	if es, complete := n.read(t, "after", after); complete {
		t.Errorf("above the lowered limit: %d entries, complete", len(es))
	}
}

// settleLimit does at once what the keeper does a while after the limit has changed.
func (n *node) settleLimit(t testing.TB) {
	t.Helper()
	for range 2 {
		if _, err := n.ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.noteLimit(t.Context())
	}
}

// What is removed because the stream is full is missing, and so is what is too old.
func TestFullIsIncomplete(t *testing.T) {
	c := testConfig(t, natstest.Start(t, "").URL(), 1)
	c.MaxBytes = 1 << 20
	n := dialTest(t, c)
	after := n.barrier(t)
	n.MustPublish(t, entry("a", "removed"))
	for range 30 {
		n.MustPublish(t, entry("b", strings.Repeat("x", 64<<10)))
	}
	if es, complete := n.read(t, "a", after); len(es) > 0 || complete {
		t.Errorf("%v, complete %v", es, complete)
	}
	if es, complete := n.read(t, "a", n.barrier(t)); len(es) > 0 || !complete {
		t.Errorf("from now on: %v, complete %v", es, complete)
	}
}

// A wildcard does not stumble over what else is in the stream.
func TestAnchorsAreNoEntries(t *testing.T) {
	n := dialTest(t, testConfig(t, natstest.Start(t, "").URL(), 1))
	n.MustOpen(t, "")
	for slot := range int64(20) {
		n.sendAnchor(time.Unix(slot*int64(anchorInterval/time.Second), 0))
	}
	n.MustPublish(t, entry("a", "1"))
	n.Await(t, "the entry", func() bool { return len(n.Came) == 1 })
	if s := n.Status(); s.Foreign > 0 || len(s.Repairs) > 0 {
		t.Errorf("%+v", s)
	}
}
