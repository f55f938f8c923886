package nats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// exchanges returns how many requests and ticks a node has sent.
func (n *node) exchanges() (requests, ticks uint64) {
	n.requests.mu.Lock()
	requests = n.requests.last
	n.requests.mu.Unlock()
	for _, j := range []*joint{&n.barriers, &n.marks} {
		j.mu.Lock()
		ticks += j.nonce
		j.mu.Unlock()
	}
	return requests, ticks
}

// TestHerd: many who come at once, each with a channel of its own to open and to read, share a few exchanges with the broker.
// How many is counted with the broker frozen until all have asked, so it does not depend on how fast anything is.
func TestHerd(t *testing.T) {
	s := natstest.Start(t, "")
	for _, herd := range []int{250, 1000} {
		t.Run(fmt.Sprint(herd), func(t *testing.T) {
			n := dialWith(t, testConfig(t, s.URL(), 1), broker.Retention{Messages: 10})
			after := n.barrier(t)
			requests, ticks := n.exchanges()
			s.Freeze()
			var opened, all sync.WaitGroup
			for i := range herd {
				opened.Add(1)
				n.Open([]string{fmt.Sprint("channel ", i)}, func(uint64, error) { opened.Done() })
			}
			s.Thaw()
			opened.Wait()
			r, o := n.exchanges()
			// One that the first has sent and one for all who came meanwhile, and the node's own sign of life. The second one is
			// sent again if the machine is so slow that it is not there after a second.
			if r-requests > 1 || o-ticks > 6 {
				t.Errorf("%d opens took %d requests and %d ticks", herd, r-requests, o-ticks)
			}

			requests, ticks = n.exchanges()
			s.Freeze()
			var failed atomic.Int64
			for i := range herd {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					if es, complete, err := n.Read(ctx, fmt.Sprint("channel ", i), after, 10, 1000); err != nil || !complete || es != nil {
						failed.Add(1)
					}
				})
			}
			n.Await(t, "all have asked", func() bool {
				n.lookups.mu.Lock()
				defer n.lookups.mu.Unlock()
				// Those of the first exchange do not wait any more, and are at most a group.
				go n.Change(func() {})
				return len(n.lookups.waiting) >= herd-groupSize
			})
			s.Thaw()
			all.Wait()
			r, o = n.exchanges()
			// A look-up for each group, and meanwhile some answers about the whole stream for those of the group before: each is
			// for all who have come until then. Alone, each would take two requests and a tick.
			most := uint64(herd / 10)
			if failed.Load() > 0 || r-requests > most || o-ticks > most {
				t.Errorf("%d reads, of which %d failed, took %d requests and %d ticks, and not %d", herd, failed.Load(), r-requests, o-ticks, most)
			}
		})
	}
}

// TestQuietReadIsCheap: a channel of which nothing is new is read with two requests, however much is published on others
// between them. With more, and each of them about the whole stream, a full restart of a busy cluster would be the broker's end.
func TestQuietReadIsCheap(t *testing.T) {
	n := dialWith(t, testConfig(t, natstest.Start(t, "").URL(), 1), broker.Retention{Messages: 10})
	at := n.MustPublish(t, entry("quiet", "one"))[0].Seq
	ask := n.infos.fetch
	n.infos.fetch = func(ctx context.Context, questions []struct{}) ([]*streamInfo, error) {
		for range 3 * keptMessages {
			n.MustPublish(t, entry("busy", "x"))
		}
		return ask(ctx, questions)
	}
	for _, name := range []string{"quiet", "empty"} {
		before, _ := n.exchanges()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		es, complete, err := n.Read(ctx, name, at, 10, 1000)
		cancel()
		if after, _ := n.exchanges(); err != nil || !complete || es != nil || after-before != 2 {
			t.Errorf("%s: %v, complete %v, %v, after %d requests", name, es, complete, err, after-before)
		}
	}
}
