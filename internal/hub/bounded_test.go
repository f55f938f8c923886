package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestChannelsByPage lists channels page by page while others are opened and closed: those that stay are listed once, in
// order, and with a prefix nothing else.
func TestChannelsByPage(t *testing.T) {
	h := New(Config{History: 1})
	defer closeHub(h)
	if _, _, err := h.Connect(Subscriber{All: true}, options()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 5 * atOnce {
		name := fmt.Sprint("room:", i)
		publish(t, h, name)
		publish(t, h, fmt.Sprint("other:", i))
		want = append(want, name)
	}
	slices.Sort(want)
	for _, limit := range []int{1, atOnce - 1, atOnce, atOnce + 1, 10 * atOnce} {
		t.Run(fmt.Sprint(limit, " at a time"), func(t *testing.T) {
			if got := listPages(t, h, limit); !slices.Equal(got, want) {
				t.Errorf("got %d channels, not %d", len(got), len(want))
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		if list := h.Channels("", "", 1000*atOnce); len(list) < 10*atOnce || list[0].Name != "other:0" {
			t.Errorf("got %d, %+v first", len(list), list[0])
		}
	})
	t.Run("after all with the prefix", func(t *testing.T) {
		if list := h.Channels("other:", "p", 10); list != nil {
			t.Errorf("%+v", list)
		}
	})
}

// listPages lists rooms by pages of this size, opens or closes another channel after each page, and returns the names of
// those that have a message.
func listPages(t *testing.T, h *Hub, limit int) (got []string) {
	c := connect(t, h, options())
	defer func() { c.conn.Done() }()
	for after, n := "", 0; ; n++ {
		list := h.Channels("room:", after, limit)
		for _, ch := range list {
			if ch.History == 1 {
				got = append(got, ch.Name)
			}
			if ch.History+ch.Subscribers != 1 || ch.History == 1 != (ch.LastID != "") {
				t.Fatalf("%+v", ch)
			}
		}
		if len(list) < limit {
			return got
		}
		after = list[len(list)-1].Name
		name := fmt.Sprint(after, n%3, "x")
		if err := c.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil }); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			if err := c.conn.Leave(name, nil); err != nil {
				t.Fatal(err)
			}
		}
		if n > 900 {
			c.conn.Done()
			c = connect(t, h, options())
			n = 0
		}
	}
}

// TestManyExpireAtOnce: where thousands of messages grow too old at the same instant, a publish drops no more than a
// piece of them, and none is left for long.
func TestManyExpireAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{History: 10, HistoryAge: time.Minute})
		const n = 20 * atOnce
		for i := range n {
			publish(t, h, fmt.Sprint(i))
		}
		h.mu.Lock()
		h.trimLocked(time.Now().Add(time.Minute))
		if got := h.history.count; got != n-atOnce {
			t.Errorf("%d are left of %d", got, n)
		}
		h.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := h.Stats(); s.Kept != 0 || len(h.channels) != 0 {
			t.Errorf("%d are left in %d channels", s.Kept, len(h.channels))
		}
		closeHub(h)
	})
}

// TestLargeMessageDropsManySmall: once Publish has returned, the history is within its bytes, however many had to go.
func TestLargeMessageDropsManySmall(t *testing.T) {
	const limit = 20 * atOnce * messageOverhead
	h := New(Config{History: 10, HistoryBytes: limit})
	defer closeHub(h)
	for i := range 20 * atOnce {
		if err := h.Publish(&Message{Channel: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Publish(&Message{Channel: "large", Data: make([]byte, limit/2)}); err != nil {
		t.Fatal(err)
	}
	if s := h.Stats(); s.KeptBytes > limit || s.Kept < 5*atOnce || len(h.channels) != s.Kept {
		t.Errorf("%d bytes are kept, more than %d, in %d messages", s.KeptBytes, limit, s.Kept)
	}
}

// TestConfigureShortens: when Configure returns the history is as short as the new options say, in thousands of channels
// and in one channel that has thousands of messages.
func TestConfigureShortens(t *testing.T) {
	h := New(Config{History: 10 * atOnce})
	defer closeHub(h)
	for i := range 5 * atOnce {
		for range 1 + i%3 {
			publish(t, h, fmt.Sprint(i))
		}
		publish(t, h, "long")
	}
	h.Configure(Config{History: 2})
	for _, ch := range h.Channels("", "", 10*atOnce) {
		if ch.History > 2 {
			t.Fatalf("%+v", ch)
		}
	}
	if ch, _ := h.Channel("long"); ch.History != 2 {
		t.Errorf("%+v", ch)
	}
	h.Configure(Config{})
	if s := h.Stats(); s.Kept != 0 || s.KeptBytes != 0 || len(h.channels) != 0 || h.index.leaves != nil {
		t.Errorf("left behind: %+v", s)
	}
}

// TestResumeTooMuch: of a resume that does not fit, no more is looked at than fits, and all channels that have
// something are lost, each once and in the order asked for.
func TestResumeTooMuch(t *testing.T) {
	h := New(Config{History: 100})
	defer closeHub(h)
	id := FormatID(h.epoch, 0)
	for i := range 300 {
		if err := h.Publish(&Message{Channel: fmt.Sprint("c", i%3), Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	channels := []string{"c2", "quiet", "c0", "c1"}
	h.mu.Lock()
	ms, w := h.replayFromLocked(&hearer{}, channels, id, 0, 150_000)
	h.mu.Unlock()
	if len(ms) != 0 || w.Resumed || !slices.Equal(w.Gaps, []string{"c2", "c0", "c1"}) {
		t.Errorf("too much: %d messages, lost %q", len(ms), w.Gaps)
	}
	_, w, err := h.Connect(Subscriber{Channels: channels, LastID: id}, options())
	if err != nil || len(w.Gaps) != 3 {
		t.Errorf("lost %q, %v", w.Gaps, err)
	}
	h.mu.Lock()
	ms, w = h.replayFromLocked(&hearer{}, channels, id, 0, 10<<20)
	h.mu.Unlock()
	if len(ms) != 300 || !w.Resumed || w.ID != id {
		t.Errorf("what fits: %d messages from %s, lost %q", len(ms), w.ID, w.Gaps)
	}
}

// TestPlaces has connections of two formats join, leave and go at random, and looks at the lists of the loops: each
// connection is once in the list of each of its audiences that it belongs in, where its place says.
func TestPlaces(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	h := New(Config{})
	defer closeHub(h)
	names := channelNames("c", 12)
	var conns []*Conn
	for round := range 3000 {
		switch k := r.IntN(10); {
		case k == 0 || len(conns) == 0:
			o := options()
			o.Format = seqs{name: names[r.IntN(2)]}
			var channels []string
			for _, i := range r.Perm(len(names))[:r.IntN(4)] {
				channels = append(channels, names[i])
			}
			conns = append(conns, connect(t, h, o, channels...).conn)
		case k == 1:
			i := r.IntN(len(conns))
			conns[i].Done()
			conns = slices.Delete(conns, i, i+1)
		case k < 6:
			if err := conns[r.IntN(len(conns))].Join(names[r.IntN(len(names))], "", func(Welcome, []*Message) []byte { return nil }); err != nil {
				t.Fatal(err)
			}
		default:
			c := conns[r.IntN(len(conns))]
			name := names[r.IntN(len(names))]
			if on := c.On(name); (c.Leave(name, nil) == nil) != on || c.On(name) {
				t.Fatalf("seed %d: on %q: %v, and then %v", seed, name, on, c.On(name))
			}
		}
		if round%50 == 0 {
			h.onLoops(func(l *loop) { checkPlaces(t, l, seed) })
		}
	}
	if t.Failed() {
		return
	}
	for _, c := range conns {
		c.Done()
	}
	h.onLoops(func(l *loop) { checkPlaces(t, l, seed) })
	if len(h.channels) != 0 || h.index.leaves != nil {
		t.Errorf("seed %d: left behind: %v", seed, h.channels)
	}
}

func checkPlaces(t *testing.T, l *loop, seed uint64) {
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	members := make(map[*audience]int) // by the places of the connections
	l.each(func(c *Conn) {
		if !slices.IsSortedFunc(c.audiences, func(a, b *audience) int {
			if a.channel.name < b.channel.name {
				return -1
			}
			return 1
		}) {
			t.Errorf("seed %d: audiences are not in order", seed)
		}
		for i, at := range c.memberships {
			a := at.audience
			members[a]++
			if len(c.memberships) > 1 {
				if a.mixed[at.index] != (member{c, i}) {
					t.Errorf("seed %d: place %d is not in the mixed", seed, i)
				}
			} else if (*a.group(c.options.Format))[at.index] != c {
				t.Errorf("seed %d: the place is not in the group", seed)
			}
		}
	})
	for a, n := range members {
		in := len(a.mixed)
		for _, g := range a.groups {
			in += len(g.conns)
		}
		if in != n {
			t.Errorf("seed %d: %d are in the lists of %q, not %d", seed, in, a.channel.name, n)
		}
	}
}

// TestSpaceOfABatch: what one large batch for connections on several channels took is not kept, and not cleared again
// for each small one.
func TestSpaceOfABatch(t *testing.T) {
	h := New(Config{MaxInbox: 1 << 30})
	defer closeHub(h)
	c := connect(t, h, options(), "a", "b")
	var ms []*Message
	for i := range 4 * maxSpareEntries {
		ms = append(ms, &Message{Channel: []string{"a", "b"}[i%2]})
	}
	l := c.conn.loop
	h.onLoop(l, func(l *loop) {
		a := c.conn.memberships[0].audience
		b := c.conn.memberships[1].audience
		for i, m := range ms {
			m.Seq = uint64(i + 1)
			a, b = b, a
			a.pending = append(a.pending, m)
		}
		l.touched = append(l.touched, a, b)
		l.gen++
		l.deliver()
		if n := max(cap(l.cache.run), cap(l.mixed)); n > maxSpareEntries {
			t.Errorf("space for %d is kept", n)
		}
		for _, m := range l.cache.run[:cap(l.cache.run)] {
			if m != nil {
				t.Fatal("a message is kept")
			}
		}
	})
	if got, _ := c.wait(len(ms)); len(got) != len(ms) || !slices.IsSorted(got) {
		t.Errorf("got %d of %d", len(got), len(ms))
	}
}

// TestConnectToMany connects on 1,000 channels, which takes several pieces, while there are publishers: a connection gets
// all that is published after Connect, and nothing of what was before.
func TestConnectToMany(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	names := channelNames("c", MaxJoined)
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	for w := range 2 {
		publishers.Go(func() {
			for i := w; ; i += 2 {
				select {
				case <-stop:
					return
				default:
					if err := h.PublishWait(&Message{Channel: names[i*377%len(names)]}); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 20 {
		o := options()
		o.MaxBacklog = 1 << 30
		c := connect(t, h, o, names...)
		got, _ := c.wait(50)
		c.conn.Done()
		for i, seq := range got {
			if seq != c.conn.startSeq+1+uint64(i) {
				t.Errorf("since %d: got %d as number %d", c.conn.startSeq, seq, i)
				break
			}
		}
	}
	close(stop)
	publishers.Wait()
}

// TestConnectToManyIsRefused: limits hold, and nothing is left behind, where several connect on 1,000 channels at once
// and the hub is closed, or their options retired, before they are on all of them.
func TestConnectToManyIsRefused(t *testing.T) {
	for round := range 20 {
		h := New(Config{MaxChannels: 2500})
		o := options()
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				c, _, err := h.Connect(Subscriber{Channels: channelNames(fmt.Sprint(i), MaxJoined)}, o)
				switch err {
				case nil:
					c.Done()
				case ErrTooManyChannels, ErrClosed, ErrRetired:
				default:
					t.Error(err)
				}
			})
		}
		if n := h.Stats().Channels; n > 2500 {
			t.Errorf("%d channels", n)
		}
		switch round % 3 {
		case 0:
			h.Retire([]*ConnOptions{o}, ReasonRestart, "")
		case 1:
			h.Close(ReasonRestart, "", 0, time.Minute)
		}
		all.Wait()
		waitFor(t, func() bool { return h.Stats().Connections == 0 })
		if h.Stats().Channels != 0 || len(h.channels) != 0 || h.index.leaves != nil || len(h.quotas) != 0 {
			t.Errorf("left behind: %+v", h.Stats())
		}
		closeHub(h)
	}
}
