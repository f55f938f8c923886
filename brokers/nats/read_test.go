package nats

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// asked returns how many requests there were so far.
func (n *node) asked() int {
	n.requests.mu.Lock()
	defer n.requests.mu.Unlock()
	return int(n.requests.last)
}

func contents(es []broker.Entry) (all []string) {
	for _, e := range es {
		all = append(all, string(e.Data))
	}
	return all
}

// The newest n entries take about n requests or fewer, however many are kept, on a channel alone and among others.
func TestLastCosts(t *testing.T) {
	n := dialTest(t, testConfig(t, natstest.Start(t, "").URL(), 1))
	want := map[string][]string{}
	fill := func(entries int, channels ...string) {
		var es []broker.Entry
		for i := range entries {
			channel := channels[i%len(channels)]
			es = append(es, entry(channel, fmt.Sprint("entry ", i)))
			want[channel] = append(want[channel], fmt.Sprint("entry ", i))
		}
		n.MustPublish(t, es...)
	}
	fill(1000, "dense")
	fill(3, "few")
	fill(5000, "among others", "a", "b", "c", "d")
	fill(100, "rare", "a", "b", "c", "d", "e", "f", "g", "h", "i")
	fill(3000, "after")
	for _, channel := range []string{"dense", "few", "among others", "rare", "after"} {
		for _, last := range []int{1, 2, 10, 100, 999, 5000} {
			before := n.asked()
			es, err := n.Last(t.Context(), channel, last, 64<<20)
			if err != nil {
				t.Fatal(err)
			}
			all := want[channel]
			if got := contents(es); !slices.Equal(got, all[max(0, len(all)-last):]) {
				t.Errorf("the last %d of %s are %d: %v", last, channel, len(got), got)
			}
			if asked := n.asked() - before; asked > min(last, len(all))+10 {
				t.Errorf("the last %d of %s took %d requests", last, channel, asked)
			}
		}
	}
}

// Reading what is next to each other takes a few requests.
func TestReadCosts(t *testing.T) {
	n := dialTest(t, testConfig(t, natstest.Start(t, "").URL(), 1))
	after := n.barrier(t)
	for range 3 {
		es := make([]broker.Entry, 500)
		for i := range es {
			es[i] = entry([]string{"a", "b"}[i%2], "x")
		}
		n.MustPublish(t, es...)
	}
	before := n.asked()
	if es, complete := n.read(t, "a", after); len(es) != 750 || !complete {
		t.Fatalf("%d entries, complete %v", len(es), complete)
	}
	if asked := n.asked() - before; asked > 10 {
		t.Errorf("%d requests", asked)
	}
}

// The newest messages of many channels do not fit into one answer when they are large, and all are there.
func TestLargeAnswers(t *testing.T) {
	n := dialTest(t, testConfig(t, natstest.Start(t, "").URL(), 1))
	var subjects []string
	for i := range 20 {
		channel := fmt.Sprint("channel ", i)
		n.MustPublish(t, entry(channel, strings.Repeat("x", 200<<10)))
		subjects = append(subjects, n.store+encodeChannel(channel))
	}
	fs, err := n.lasts(t.Context(), subjects, 0, n.barrier(t), nil)
	if err != nil || len(fs) != len(subjects) {
		t.Errorf("%d of %d, %v", len(fs), len(subjects), err)
	}
}
