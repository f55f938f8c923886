package hub

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// TestCountsChanged: with a log, each channel whose number of subscribers has changed is noted once, also if it is gone by
// then. What is noted is bounded. Without a log nothing is.
func TestCountsChanged(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	expect := func(all bool, want ...string) {
		t.Helper()
		names, any := h.CountsChanged()
		if got := slices.Sorted(maps.Keys(names)); any != all || !slices.Equal(got, want) {
			t.Errorf("changed: %v, all %v; want %v, %v", got, any, want, all)
		}
	}
	leave := func(c *Conn, channel string) {
		t.Helper()
		if err := c.Leave(channel, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.WatchCounts(true)
	connect(t, h, options(), "before")
	expect(true)
	connect(t, h, options(), "no log")
	expect(false)

	newFakeCluster().join(t, h)
	h.CountsChanged()
	a := connect(t, h, options(), "a", "b").conn
	connect(t, h, options(), "b")
	connectAs(t, h, options(), Subscriber{All: true})
	expect(false, "a", "b")
	if got := h.SubscribersOf([]string{"b", "nobody", "a"}); !slices.Equal(got, []int{2, 0, 1}) {
		t.Errorf("subscribers %v", got)
	}
	expect(false)
	leave(a, "a")
	expect(false, "a")
	if err := a.Join("c", "", func(Welcome, []*Message) []byte { return nil }); err != nil {
		t.Fatal(err)
	}
	leave(a, "c")
	expect(false, "c") // and not twice

	h.mu.Lock()
	for i := range 3 * maxMarks {
		h.markLocked(&channel{name: fmt.Sprint(i)})
	}
	if n := len(h.marks.names); n != 0 {
		t.Errorf("%d names are noted beside all", n)
	}
	h.mu.Unlock()
	expect(true)
	h.WatchCounts(false)
	connect(t, h, options(), "d")
	expect(false)
}

// BenchmarkJoin is what joining and leaving a channel costs: of the hub's own log, of one that it shares, and of that when
// the numbers of subscribers are watched.
func BenchmarkJoin(b *testing.B) {
	for _, kind := range []string{"own", "shared", "watched"} {
		b.Run(kind, func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			if kind != "own" {
				newFakeCluster().join(b, h)
			}
			if kind == "watched" {
				h.WatchCounts(true)
				h.CountsChanged()
			}
			c, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options())
			if err != nil {
				b.Fatal(err)
			}
			c.Start(&sink{client: newClient()}, nil)
			b.ReportAllocs()
			for i := range b.N {
				name := [...]string{"b", "c", "d", "e"}[i%4]
				if err := c.Join(name, "", func(Welcome, []*Message) []byte { return nil }); err != nil {
					b.Fatal(err)
				}
				if err := c.Leave(name, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
