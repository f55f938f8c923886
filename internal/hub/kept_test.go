package hub

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeptShared: administrators read from a shared log what a channel's rule keeps, on a node without subscribers too.
func TestKeptShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hubs, logs := sharing(t, 2, Config{History: 5, Histories: []HistoryRule{
			{Matches: func(name string) bool { return name == "quiet" }}, {Matches: func(name string) bool { return name == "few" }, Count: 2},
		}})
		for range 3 {
			for _, m := range []*Message{
				{Channel: "quiet"}, {Channel: "few"}, {Channel: "a"}, {Channel: "a", Transient: true}, {Channel: "rows", Conflate: NewConflateKey("row")},
			} {
				if err := hubs[0].Publish(m); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, q := range []struct {
			name, after string
			last        bool
			limit       int
			want        string
		}{
			{"quiet", "", false, 9, "[] false"},
			{"few", "", false, 9, "[7 12] false"},
			{"rows", "", false, 9, "[15] false"},
			{"unknown", "", false, 9, "[] false"},
			{"", "", false, 9, "[] false"},
			{toChannel, "", false, 9, "[] false"},
			{"few", "one-7", false, 9, "[12] false"},
			{"few", "", false, 1, "[7] true"},
			{"few", "", true, 1, "[12] false"},
			{"few", "two-7", false, 9, ErrNoPosition.Error()},
			{"few", "?", false, 9, ErrNoPosition.Error()},
		} {
			ms, more, err := hubs[1].KeptMessages(t.Context(), q.name, q.after, q.last, q.limit, 1000)
			got := fmt.Sprint(seqsOf(ms), more)
			if err != nil {
				got = err.Error()
			}
			if got != q.want {
				t.Errorf("%q after %q: %s, not %s", q.name, q.after, got, q.want)
			}
		}
		if n := hubs[1].Stats().Kept; n != 0 {
			t.Errorf("%d messages are in the history", n)
		}
		// What is read while an epoch begins has positions of one that has ended.
		c.reading = func() { logs[1].do(func() { logs[1].sink.Epoch("two", 0) }); synctest.Wait() }
		if _, _, err := hubs[1].KeptMessages(t.Context(), "few", "", false, 9, 1000); !errors.Is(err, ErrNotReady) {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// TestReplayShared: of a shared log too, a subscriber is replayed as many messages as it asks for, if so many are kept: those that
// are transient, or replaced by newer ones, do not count.
func TestReplayShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hubs, _ := sharing(t, 2, Config{History: 100})
		row := NewConflateKey("row")
		for i := range 60 {
			ms := []*Message{{Channel: "a"}, {Channel: "b", Conflate: row}}
			if i > 2 {
				ms[0].Transient = true
			}
			if i == 0 {
				ms[1].Conflate = ConflateKey{}
			}
			if err := hubs[0].Publish(ms...); err != nil {
				t.Fatal(err)
			}
		}
		for channel, want := range map[string][]uint64{"a": {3, 5}, "b": {2, 120}} {
			c, _ := connectAs(t, hubs[1], options(), Subscriber{Channels: []string{channel}, Replay: 2})
			expect(t, c, want...)
		}
		synctest.Wait()
	})
}

// TestReplayOfOld: what is too old is read from a shared log once, although a subscriber asks for more than is kept.
func TestReplayOfOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hubs, _ := sharing(t, 2, Config{History: 2, HistoryAge: time.Second})
		publish(t, hubs[0], "a")
		time.Sleep(2 * time.Second)
		c.reading = func() { time.Sleep(time.Millisecond) }
		_, w := connectAs(t, hubs[1], options(), Subscriber{Channels: []string{"a"}, Replay: 5})
		if c.reads != 1 || w.ID != "one-1" {
			t.Errorf("%d reads, %+v", c.reads, w)
		}
	})
}

// seqsOf returns the positions of messages.
func seqsOf(ms []*Message) []uint64 {
	seqs := make([]uint64, len(ms))
	for i, m := range ms {
		seqs[i] = m.Seq
	}
	return seqs
}
