package nodes

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestAlive: nodes see each other at once, one that is killed is gone after three periods, and one that leaves in order, at
// once. A node that starts again is another one.
func TestAlive(t *testing.T) {
	withCluster(t, "a b c", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		a.expect("a b c")
		b.expect("b a c")
		if list := a.Nodes(); list[1].Epoch == "" || list[1].Epoch != list[0].Epoch || list[1].ID != b.hub.Node() || list[1].Connections != 0 {
			t.Errorf("a sees %+v", list)
		}
		b.subscribe("x", 3)
		c.after(basic)
		if n := a.Nodes()[1].Connections; n != 3 {
			t.Errorf("b has %d connections for a", n)
		}
		before := b.hub.Node()
		b.kill()
		c.after(deadAfter*basic - basic)
		a.expect("a b c")
		c.after(basic + basic/2)
		a.expect("a c")
		c.start("b")
		c.after(10 * time.Millisecond)
		a.expect("a b c")
		if a.Nodes()[1].ID == before {
			t.Error("the restarted node has the same number")
		}
		c.nodes[1].leave() // c
		c.after(10 * time.Millisecond)
		a.expect("a b")
		// What it had sent before does not bring it back.
		c.after(time.Minute)
		a.expect("a b")
	})
}

// TestAway: a node that has fallen silent is away for as long as it may have clients, and one that leaves is not. A node
// that is cut off does not take the others for gone.
func TestAway(t *testing.T) {
	withCluster(t, "a b c", func(c *cluster) {
		a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
		known := func(n *testNode, want string) {
			t.Helper()
			var names []string
			for _, k := range n.Known() {
				if k.Away {
					k.Name += "?"
				}
				names = append(names, k.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s knows %s, want %s", n.name, got, want)
			}
		}
		b.silent.Store(true)
		c.after(deadAfter * basic)
		known(a, "a b? c")
		a.expect("a c")
		if n := a.Alive(); n != 2 {
			t.Errorf("%d are alive", n)
		}
		c.after(hub.KickTime - basic)
		known(a, "a b? c")
		c.after(2 * basic)
		known(a, "a c")
		b.silent.Store(false)
		c.after(2 * basic)
		known(a, "a b c")

		a.KeepAway(30 * time.Minute)
		b.kill()
		c.after(29 * time.Minute)
		known(a, "a b? c")
		known(d, "c a")
		c.after(2 * time.Minute)
		known(a, "a c")
		d.leave()
		c.after(10 * time.Millisecond)
		known(a, "a")

		c.start("d")
		c.after(2 * time.Second)
		a.KeepAway(0)
		a.broker.Disconnect()
		c.after(time.Hour)
		known(a, "a d?")
		a.broker.Reconnect()
		c.after(time.Second)
		known(a, "a d")
	})
}

// TestCutOff: a node that is cut off is alone, and comes back as soon as it is connected. Nobody's counts are removed by it.
func TestCutOff(t *testing.T) {
	withCluster(t, "a b c", func(c *cluster) {
		a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
		for _, n := range c.nodes {
			n.subscribe("x", 1)
		}
		c.after(2 * time.Second)
		b.broker.Disconnect()
		c.after(time.Minute)
		b.expect("b")
		a.expect("a c")
		a.elsewhere("x", 1)
		if got := c.stored("x"); got != "a:1 c:1" {
			t.Errorf("the broker has %s", got)
		}
		b.broker.Reconnect()
		c.after(10 * time.Millisecond)
		b.expect("b a c")
		a.expect("a b c")
		c.after(3 * time.Second)
		if got := c.stored("x"); got != "a:1 b:1 c:1" {
			t.Errorf("the broker has %s", got)
		}
		if b.forgot.Load() != 0 || a.forgot.Load()+d.forgot.Load() != 1 {
			t.Errorf("forgotten by a %d, b %d, c %d times", a.forgot.Load(), b.forgot.Load(), d.forgot.Load())
		}
	})
}

// TestLoss: a node is not dead when two beats in a row are lost. One that seemed to be dead has its counts set again when it
// is heard of.
func TestLoss(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 2)
		for range 10 {
			a.broker.LoseMessages(2)
			for range 6 {
				c.after(basic / 2)
				a.expect("a b")
			}
			c.after(basic)
		}
		b.silent.Store(true)
		c.after(30 * time.Second)
		a.expect("a")
		a.elsewhere("x", 0)
		if got := c.stored("x"); got != "" {
			t.Errorf("the broker has %s", got)
		}
		b.silent.Store(false)
		c.after(basic + 2*reportInterval)
		a.expect("a b")
		if got := c.stored("x"); got != "b:2" {
			t.Errorf("the broker has %s", got)
		}
		a.elsewhere("x", 2)
	})
}

// TestReattach: a node that connects again with other options is the same node, and keeps its counts.
func TestReattach(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 2)
		c.after(2 * time.Second)
		for range 3 {
			b.name = "b2"
			b.attach()
			c.after(2 * time.Second)
			a.expect("a b2")
			b.expect("b2 a")
			a.elsewhere("x", 2)
			c.after(time.Minute)
			a.expect("a b2")
			a.elsewhere("x", 2)
		}
		if err := b.hub.UseLog(nil); err != nil {
			t.Fatal(err)
		}
		c.after(time.Millisecond)
		a.expect("a")
		b.expect("b2")
		b.elsewhere("x", 0)
		if got := c.stored("x"); got != "" {
			t.Errorf("the broker has %s", got)
		}
		b.attach()
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
	})
}

// TestSwitch: a node that goes to another broker leaves no counts in the one before. When all are back nothing counts that has
// ended meanwhile.
func TestSwitch(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		other := brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond})
		defer other.Close()
		a, b := c.nodes[0], c.nodes[1]
		b.subscribe("x", 2)
		b.subscribe("y", 3)
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
		first := []*brokertest.MemoryBroker{a.broker, b.broker}
		for i, n := range c.nodes {
			n.broker = other.Broker()
			n.attach()
			defer func() { n.broker = first[i] }()
		}
		c.after(2 * time.Second)
		a.elsewhere("x", 2)
		b.subscribe("x", 0)
		c.after(2 * time.Second)
		a.elsewhere("x", 0)
		for i, n := range c.nodes {
			n.broker = first[i]
			n.attach()
		}
		c.after(2 * time.Second)
		a.elsewhere("x", 0)
		a.elsewhere("y", 3)
		if got := c.stored("x") + "," + c.stored("y"); got != ",b:3" {
			t.Errorf("the broker has %s", got)
		}
	})
}

// TestFrozen: a process that was stopped does not take the others for dead when it goes on.
func TestFrozen(t *testing.T) {
	now := time.Now()
	x := newTable(now)
	other := &beat{run: 1, period: basic, node: Node{ID: 2}}
	sweep := func(want int) {
		t.Helper()
		if forget := x.sweep(1, now, time.Minute); len(forget) != want {
			t.Errorf("%v are forgotten", forget)
		}
	}
	for range 5 {
		x.heard(other, now)
		now = now.Add(basic)
		sweep(0)
	}
	now = now.Add(time.Minute) // and nothing of what has come meanwhile was read yet
	sweep(0)
	if x.claim(2, now) {
		t.Error("its counts may be removed")
	}
	for range deadAfter - 1 {
		now = now.Add(basic)
		sweep(0)
	}
	now = now.Add(basic)
	sweep(1)
}

// TestOtherEpoch: nodes with different logs are warned of, once, but not while an epoch changes.
func TestOtherEpoch(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	before := logger
	defer func() { logger = before }()
	logger = func() *zap.Logger { return zap.New(core) }
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		for range 5 {
			c.memory.Rollback(0)
			c.after(2 * time.Second)
		}
		b.broker.Disconnect()
		c.memory.Rollback(0)
		c.after(time.Minute)
		b.broker.Reconnect()
		c.after(time.Minute)
		if n := logs.Len(); n != 0 {
			t.Errorf("warnings: %v", logs.All())
		}
		// As if it had another stream, but the same prefix.
		other := &beat{run: 1, period: basic, node: Node{ID: b.hub.Node() + 2, Name: "other", Epoch: "OTHER"}}
		for range 30 {
			a.session.Receive(other.node.ID, other.append(nil))
			c.after(basic)
		}
		if n := logs.Len(); n != 1 || !strings.Contains(logs.All()[0].Message, "another log") {
			t.Errorf("warnings: %v", logs.All())
		}
	})
}

// TestClocks: nothing depends on the clocks of other nodes.
func TestClocks(t *testing.T) {
	withCluster(t, "a", func(c *cluster) {
		a := c.nodes[0]
		for i, started := range []time.Time{{}, time.UnixMilli(0), time.Now().Add(1e6 * time.Hour), time.UnixMilli(1 << 62)} {
			b := &beat{run: 1, period: basic, node: Node{Name: "other", Started: started}}
			a.session.Receive(uint64(i+1), b.append(nil))
		}
		a.expect("a other other other other")
		for _, n := range a.Nodes() {
			if _, err := n.MarshalJSON(); err != nil {
				t.Error(err)
			}
		}
		c.after(deadAfter * basic)
		a.expect("a")
	})
}

// TestAlone: without a broker a node is alone, asks nobody, and leaves the hub as it is.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		defer h.Close(hub.ReasonRestart, "", 0, time.Second)
		c := New(h)
		c.Rename("me")
		c.Handle("echo", func(p []byte) []byte { return p })
		answers, missing := c.Ask(t.Context(), "echo", []byte("hello"), c.Known())
		if len(answers) != 1 || string(answers[0].Data) != "hello" || answers[0].Node.Name != "me" || len(missing) != 0 {
			t.Errorf("answers %v, missing %v", answers, missing)
		}
		if n := c.Subscribers(t.Context(), []string{"a", "b"}); len(n) != 2 || n[0] != 0 || len(c.Nodes()) != 1 {
			t.Errorf("subscribers %v, nodes %v", n, c.Nodes())
		}
	})
}

// TestTraffic: of 200 nodes each gets at most some 50 beats a second, all see all, and those that are dead are forgotten by one
// node.
func TestTraffic(t *testing.T) {
	if testing.Short() {
		t.Skip("200 hubs are too many for -short")
	}
	for _, size := range []int{3, 200} {
		withCluster(t, "", func(c *cluster) {
			for range size {
				c.start("n")
			}
			c.after(8 * time.Second)
			first := c.nodes[0]
			total := func() (sent, bytes, received int64) {
				for _, n := range c.nodes {
					sent, bytes, received = sent+n.sent.Load(), bytes+n.sentBytes.Load(), received+n.received.Load()
				}
				return sent, bytes, received
			}
			for _, n := range c.nodes {
				if got := len(n.Nodes()); got != size {
					t.Fatalf("a node sees %d", got)
				}
			}
			sent, bytes, received := total()
			const seconds = 12
			c.after(seconds * time.Second)
			sent2, bytes2, received2 := total()
			each := float64(received2-received) / seconds / float64(size)
			t.Logf("%d nodes: %.1f messages and %.0f B a second sent, %.1f received by each", size,
				float64(sent2-sent)/seconds, float64(bytes2-bytes)/seconds, each)
			if each > 60 {
				t.Errorf("each node gets %.0f messages a second", each)
			}
			for range size / 2 {
				c.nodes[len(c.nodes)-1].kill()
			}
			c.after(24 * time.Second)
			if got := len(first.Nodes()); got != len(c.nodes) {
				t.Errorf("a node sees %d, want %d", got, len(c.nodes))
			}
			var forgot int64
			for _, n := range c.nodes {
				forgot += n.forgot.Load()
			}
			if forgot != int64(size/2) {
				t.Errorf("%d nodes were forgotten, want %d", forgot, size/2)
			}
		})
	}
}
