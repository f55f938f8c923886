package nodes

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestCounts: a node knows how many subscribers channels have on the others, and the broker is told of each change within a
// second or so, and of nothing else.
func TestCounts(t *testing.T) {
	withCluster(t, "a b c", func(c *cluster) {
		a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
		a.subscribe("x", 1)
		b.subscribe("x", 2)
		d.subscribe("x", 4)
		d.subscribe("y", 8)
		c.after(2 * time.Second)
		a.elsewhere("x", 6)
		b.elsewhere("x", 5)
		b.elsewhere("y", 8)
		b.elsewhere("z", 0)
		set := d.set.Load()
		for range 100 { // as pages that are reloaded
			d.subscribe("x", 5)
			d.subscribe("x", 4)
			d.subscribe("w", 1)
			d.subscribe("w", 0)
		}
		c.after(5 * time.Second)
		if n := d.set.Load() - set; n > 2 {
			t.Errorf("%d numbers were set again that are the same", n)
		}
		set = d.set.Load()
		for i := range 100 {
			d.subscribe("x", 4+i%2)
			c.after(50 * time.Millisecond)
		}
		c.after(2 * time.Second)
		if n := d.set.Load() - set; n > 6 {
			t.Errorf("%d numbers were set in 5 s", n)
		}
		d.subscribe("x", 0)
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
		if got := c.stored("x"); got != "a:1 b:2" {
			t.Errorf("the broker has %s", got)
		}
		b.leave()
		c.after(cacheTime)
		a.elsewhere("x", 0)
		if got := c.stored("x"); got != "a:1" {
			t.Errorf("the broker has %s", got)
		}
	})
}

// TestCountsHang: while the broker does not tell numbers, a publisher waits for them once, and not for each message. It is
// asked little meanwhile, and the numbers are there again when it answers.
func TestCountsHang(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 2)
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
		hung := make(chan struct{})
		a.hung.Store(&hung)
		begun := time.Now()
		before := a.counted.Load()
		for i := range 1000 {
			a.elsewhere(fmt.Sprint("y", i), 0)
		}
		if d := time.Since(begun); d > 200*time.Millisecond {
			t.Errorf("1000 publishers in a row waited for %v", d)
		}
		c.after(time.Minute)
		for i := range 10 * maxAsks {
			go a.elsewhere(fmt.Sprint("z", i), 0)
		}
		c.after(time.Second)
		if n := a.counted.Load() - before; n > maxAsks {
			t.Errorf("%d questions are open", n)
		}
		a.hung.Store(nil)
		close(hung)
		c.after(10 * time.Millisecond)
		a.elsewhere("x", 2)
		a.elsewhere("y999", 0)

		// Many at once are not too many for a broker that answers.
		for i := range 10 * maxAsks {
			go a.elsewhere(fmt.Sprint("w", i), 0)
		}
		c.after(time.Second)
		a.elsewhere("x", 2)
	})
}

// TestDeadCounts: those of a killed node do not count when it is dead, and one node removes them from the broker. If nobody
// else was there, who finds them does.
func TestDeadCounts(t *testing.T) {
	withCluster(t, "a b c d", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		a.subscribe("x", 1)
		b.subscribe("x", 2)
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
		b.kill()
		c.after(deadAfter*basic + 10*time.Millisecond)
		a.elsewhere("x", 0)
		c.after(graceTime + 2*basic)
		if got := c.stored("x"); got != "a:1" {
			t.Errorf("the broker has %s", got)
		}
		var forgot int64
		for _, n := range c.nodes {
			forgot += n.forgot.Load()
		}
		if forgot != 1 {
			t.Errorf("it was forgotten %d times", forgot)
		}
		// All at once.
		for len(c.nodes) > 0 {
			c.nodes[0].kill()
		}
		e := c.start("e")
		c.start("f")
		c.after(deadAfter*basic + time.Second)
		if got := c.stored("x"); got != "?:1" {
			t.Errorf("the broker has %s", got)
		}
		e.elsewhere("x", 0)
		c.after(time.Second)
		if got := c.stored("x"); got != "" {
			t.Errorf("the broker has %s", got)
		}
	})
}

// TestCountsAgain: what was not stored is set again when the broker answers, and everything when the broker has lost it.
func TestCountsAgain(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 1)
		b.subscribe("gone", 1)
		for i := range 3 * reportSize {
			b.subscribe(fmt.Sprint("room ", i), 1)
		}
		c.after(5 * time.Second)
		c.memory.Stop()
		b.subscribe("x", 2)
		b.subscribe("gone", 0)
		c.after(20 * time.Second)
		c.memory.ForgetCounts()
		c.memory.Start()
		c.after(5 * time.Second)
		a.elsewhere("x", 2)
		a.elsewhere("gone", 0)
		a.elsewhere("room 1499", 1)
		c.memory.Freeze() // no answers
		b.subscribe("x", 5)
		c.after(5 * time.Second)
		b.subscribe("x", 6)
		c.after(5 * time.Second)
		c.memory.Thaw()
		c.after(10 * time.Second)
		a.elsewhere("x", 6)
		c.memory.Stop()
		c.memory.Rollback(0)
		c.memory.ForgetCounts()
		c.memory.Start()
		c.after(allInterval + 5*time.Second)
		a.elsewhere("x", 6)
		a.elsewhere("room 7", 1)
		// It is found without a cause too.
		c.memory.ForgetCounts()
		c.after(auditInterval + 5*time.Second)
		a.elsewhere("room 7", 1)
	})
}

// TestOverflow: more changes than are noted, while the broker is away, leave nothing wrong in it, and no more is kept of them.
func TestOverflow(t *testing.T) {
	h := newHub(t)
	connect := func(channel string) *hub.Conn {
		c, _, err := h.Connect(hub.Subscriber{Channels: []string{channel}}, connOptions)
		if err != nil {
			t.Fatal(err)
		}
		c.Start(transport{}, nil)
		return c
	}
	s := New(h).NewSession("me")
	store := &storage{counts: make(map[string]int)}
	s.peers = store
	r := &s.reports
	r.init(s)
	// Without the loop, which would do the same once a second.
	pass := func(changed ...string) {
		for _, name := range changed {
			r.pending[name] = struct{}{}
		}
		r.setChanged()
		r.setSome()
		if n := len(r.pending) + len(r.failed) + len(r.told); n > maxPending+4*reportSize {
			t.Fatalf("%d channels are kept", n)
		}
	}
	connect("stays")
	gone := connect("gone")
	pass("stays", "gone")
	store.down = true
	if err := gone.Leave("gone", nil); err != nil {
		t.Fatal(err)
	}
	connect("new")
	pass("gone", "new")
	for i := range 3 * maxPending / 1000 {
		var names []string
		for j := range 1000 {
			names = append(names, fmt.Sprint(i, " ", j)) // someone came and went
		}
		pass(names...)
	}
	store.down = false
	for range 10 {
		pass()
	}
	if want := map[string]int{"stays": 1, "new": 1}; !maps.Equal(store.counts, want) || !maps.Equal(r.told, want) || len(r.pending)+len(r.failed) != 0 {
		t.Errorf("the broker has %d numbers, %d are told, %d wait", len(store.counts), len(r.told), len(r.pending)+len(r.failed))
	}
}

// storage is a broker that keeps numbers.
type storage struct {
	drain
	down   bool
	counts map[string]int
}

func (s *storage) SetCounts(counts map[string]int, done func(error)) {
	if s.down {
		done(broker.ErrUnknown)
		return
	}
	maps.Copy(s.counts, counts)
	maps.DeleteFunc(s.counts, func(_ string, n int) bool { return n == 0 })
	done(nil)
}

// TestCache: many messages ask once a second for each channel, all channels of a request at once, and nobody waits for longer
// than they want to. What is kept is bounded.
func TestCache(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 3)
		c.after(2 * time.Second)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { a.elsewhere("x", 3) })
		}
		all.Wait()
		for range 20 {
			c.after(45 * time.Millisecond)
			a.elsewhere("x", 3)
		}
		if n := a.counted.Load(); n != 1 {
			t.Errorf("the broker was asked for %d numbers", n)
		}
		c.after(time.Second)
		a.broker.SetLatency(time.Second)
		begun := time.Now()
		a.elsewhere("x", 0)
		if d := time.Since(begun); d != 100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		a.broker.SetLatency(time.Millisecond)
		c.after(5 * time.Second)
		names := make([]string, 5*cacheSize)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		names[len(names)-1] = "x"
		if got := a.Subscribers(context.Background(), names); got[0] != 0 || got[len(got)-1] != 3 {
			t.Errorf("counts of %d channels, %d of the last", len(got), got[len(got)-1])
		}
		if n := len(a.session.subscribers.newer) + len(a.session.subscribers.older); n > 2*cacheSize {
			t.Errorf("%d numbers are kept", n)
		}
		// An error is not kept.
		a.broker.Disconnect()
		c.after(2 * time.Second)
		a.elsewhere("x", 0)
		a.broker.Reconnect()
		c.after(100 * time.Millisecond)
		a.elsewhere("x", 3)
	})
}

// BenchmarkCounts is the memory that a node needs for each channel whose number it has told.
func BenchmarkCounts(b *testing.B) {
	c := New(newHub(b))
	s := c.NewSession("me")
	s.peers = new(drain)
	s.reports.init(s)
	b.ReportAllocs()
	names := make([]string, b.N)
	for i := range names {
		names[i] = fmt.Sprint("room:", i)
	}
	b.ResetTimer()
	for _, name := range names {
		s.reports.told[name] = 1
	}
}
