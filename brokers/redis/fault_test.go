package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// count returns how often each data of a channel came.
func (n *node) count(channel string) map[string]int {
	times := map[string]int{}
	for _, e := range n.Came {
		if e.Channel == channel {
			times[string(e.Data)]++
		}
	}
	return times
}

// Connections are lost, and scripts forgotten, while messages without a key are published and not waited for. Each that is
// acked is stored once, and the others at most once.
func TestConnectionsAreKilled(t *testing.T) {
	s := redistest.Start(t)
	from, reader := dialTest(t, testConfig(t, s.Addr())), dialTest(t, testConfig(t, s.Addr()))
	reader.MustOpen(t, "a")
	const messages = 3000
	errs := make([]error, messages)
	places := make([]uint64, messages)
	var wait sync.WaitGroup
	room := make(chan struct{}, 64)
	for i := range messages {
		room <- struct{}{}
		wait.Add(1)
		from.Publish([]broker.Entry{entry("a", fmt.Sprint(i))}, func(ps []broker.Place, err error) {
			if errs[i] = err; err == nil {
				places[i] = ps[0].Seq
			}
			<-room
			wait.Done()
		})
		if i%300 == 150 {
			s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			s.Do("SCRIPT", "FLUSH")
		}
		if i%300 == 299 {
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		}
	}
	wait.Wait()
	last := from.MustPublish(t, entry("a", "last"))[0].Seq
	reader.Await(t, "the last", func() bool { return reader.W >= last && !reader.Down })
	reader.Mu.Lock()
	defer reader.Mu.Unlock()
	times := reader.count("a")
	acked := 0
	for i, err := range errs {
		n := times[fmt.Sprint(i)]
		switch {
		case n > 1, err == nil && n != 1, errors.Is(err, broker.ErrDown) && n > 0:
			t.Errorf("message %d came %d times, and was answered with %v", i, n, err)
		case err == nil:
			acked++
		}
	}
	for _, e := range reader.Came {
		if i := slices.Index(places, e.Seq); i >= 0 && string(e.Data) != fmt.Sprint(i) {
			t.Errorf("%d has %q, and %d was acked there", e.Seq, e.Data, i)
		}
	}
	if acked < messages/2 || len(reader.Epochs) != 1 || len(reader.Missing) > 0 {
		t.Errorf("%d acked, epochs %v, lost %v", acked, reader.Epochs, reader.Missing)
	}
}

// The epoch changes once, on all nodes, though nobody publishes.
func TestFlushed(t *testing.T) {
	for _, command := range []string{"FLUSHALL", "DEL {bc:0}:m"} {
		t.Run(command, func(t *testing.T) {
			s := redistest.Start(t)
			var nodes []*node
			for range 3 {
				n := dialTest(t, testConfig(t, s.Addr()))
				n.MustOpen(t, "a")
				nodes = append(nodes, n)
			}
			nodes[0].MustPublish(t, entry("a", "1"), entry("a", "2"))
			s.Do(strings.Fields(command)...)
			for _, n := range nodes {
				n.Await(t, "another epoch", func() bool { return len(n.Epochs) > 1 && !n.Down })
			}
			nodes[0].MustPublish(t, entry("a", "after"))
			for _, n := range nodes {
				n.Await(t, "the entry", func() bool { return n.count("a")["after"] == 1 })
				if len(n.Epochs) != 2 || n.Epochs[1] != nodes[0].Epochs[1] {
					t.Errorf("epochs %v, of another %v", n.Epochs, nodes[0].Epochs)
				}
			}
			// What is left of the epoch before is not taken for one of this.
			es, _, err := nodes[1].Read(t.Context(), "a", 0, 10, 1000)
			if err != nil || len(es) != 1 || string(es[0].Data) != "after" {
				t.Errorf("Read: %v, %v", es, err)
			}
		})
	}
}

// A restarted server that does not keep its promise has another epoch, and what it kept can be read.
func TestRestartOfSnapshot(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustOpen(t, "a")
	n.MustPublish(t, entry("a", "kept"))
	s.Do("SAVE")
	n.MustPublish(t, entry("a", "lost"))
	s.Kill()
	s.Run()
	n.Await(t, "another epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
	if p := n.MustPublish(t, entry("a", "after")); p[0].Seq != 2 {
		t.Errorf("the position is %d", p[0].Seq)
	}
	es, err := n.Last(t.Context(), "a", 10, 1000)
	if err != nil || len(es) != 2 || string(es[0].Data) != "kept" || string(es[1].Data) != "after" {
		t.Errorf("Last: %v, %v", es, err)
	}
}

// publishConfirmed publishes until a replica confirms. A new one does so only after its first report to the server, of which it
// sends one a second.
func (n *node) publishConfirmed(t *testing.T, e broker.Entry) broker.Place {
	t.Helper()
	places, err := n.Try(e)
	for deadline := time.Now().Add(patience); errors.Is(err, broker.ErrUnknown) && time.Now().Before(deadline); {
		places, err = n.Try(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return places[0]
}

// A message is acked when a replica has it, and not otherwise.
func TestReplicas(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	c := testConfig(t, s.Addr())
	c.Replicas, c.PublishTimeout = 1, time.Second
	n := dialTest(t, c)
	first := n.publishConfirmed(t, entry("a", "0")).Seq
	for i := range uint64(10) {
		n.MustPublish(t, entry("a", fmt.Sprint(i)))
		if got := replica.Do("HGET", "{bc:0}:m", "s"); got != fmt.Sprint(first+i+1) {
			t.Fatalf("after the ack of %d the replica has %s", first+i+1, got)
		}
	}
	replica.Freeze()
	if _, err := n.Try(entry("a", "unsure")); !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("without a replica: %v", err)
	}
	replica.Thaw()
	n.MustPublish(t, entry("a", "x"))
}

// While no replica answers, callers wait no longer than they have to, however many there are, and are told what is stored.
func TestManyWithoutReplica(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	c := testConfig(t, s.Addr())
	c.Replicas, c.PublishTimeout = 1, time.Second
	n := dialTest(t, c)
	first := n.publishConfirmed(t, entry("a", "0"))
	replica.Freeze()
	const calls = 50_000
	answers := make(chan error, calls)
	for range calls {
		n.Publish([]broker.Entry{entry("a", "x")}, func(_ []broker.Place, err error) { answers <- err })
	}
	unknown, down := 0, 0
	for range calls {
		switch err := <-answers; {
		case errors.Is(err, broker.ErrUnknown):
			unknown++
		case errors.Is(err, broker.ErrDown):
			down++
		default:
			t.Fatal(err)
		}
	}
	if stored := s.Do("HGET", "{bc:0}:m", "s"); stored != fmt.Sprint(int(first.Seq)+unknown) {
		t.Errorf("%s are stored, unknown are %d, and ErrDown %d", stored, unknown, down)
	}
	if p := n.Status().Problem; !strings.Contains(p, "replicas") {
		t.Errorf("the problem is %q", p)
	}
	replica.Thaw()
	c.PublishTimeout = 5 * time.Second
	dialTest(t, c).MustPublish(t, entry("a", "y"))
}

// A node does not take a replica for the server, nor goes on with one that has become a replica.
func TestReadOnly(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	n := dialBroken(t, testConfig(t, replica.Addr()), keepAll)
	awaitProblem(t, n, "READONLY")
	replica.Do("REPLICAOF", "NO", "ONE")
	n.Await(t, "the epoch", func() bool { return len(n.Epochs) == 1 && !n.Down })
	replica.Do("REPLICAOF", "127.0.0.1", s.Port)
	n.Await(t, "that it is broken", func() bool { return n.Down })
	if _, err := n.Try(entry("a", "x")); !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("Publish on a replica: %v", err)
	}
}

// awaitProblem waits until Status has a text. There is no event for it.
func awaitProblem(t *testing.T, n *node, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(n.Status().Problem, text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the problem is %q", n.Status().Problem)
		}
	}
}

// An account that may not do something is told what.
func TestDenied(t *testing.T) {
	for name, rule := range map[string]string{"INFO": "-info", "password": ">other"} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, "user app on >secret ~* &* +@all "+rule)
			if name == "password" {
				s.Do("ACL", "SETUSER", "app", "<secret")
			}
			c := testConfig(t, s.Addr())
			c.User, c.Password = "app", "secret"
			want := map[string]string{"INFO": "INFO", "password": "WRONGPASS"}[name]
			n := dialBroken(t, c, keepAll)
			awaitProblem(t, n, want)
			if strings.Contains(n.Status().Problem, "secret") {
				t.Errorf("the problem is %q", n.Status().Problem)
			}
		})
	}
}

// A Sink that takes nothing does not make the node's memory grow, and misses nothing.
func TestSlowSink(t *testing.T) {
	s := redistest.Start(t)
	from := dialTest(t, testConfig(t, s.Addr()))
	gate := &gated{open: make(chan struct{})}
	reader := dialSink(t, testConfig(t, s.Addr()), keepAll, func(n *node) broker.Sink { gate.node = n; return gate })
	reader.AwaitUp(t)
	reader.MustOpen(t, "a")
	data := strings.Repeat("x", 1<<20)
	for range 60 {
		from.MustPublish(t, entry("a", data))
	}
	// The session ends when the queue is full, although the receiver is in the Sink.
	for deadline := time.Now().Add(patience); reader.log.used() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the queue is not bounded")
		}
	}
	close(gate.open)
	reader.Await(t, "all", func() bool { return len(reader.Came) == 60 && !reader.Down })
	if reader.Status().Repairs["overflow"] == 0 {
		t.Errorf("repairs: %v", reader.Status().Repairs)
	}
}

// gated is a Sink that takes no entries until it is opened.
type gated struct {
	*node
	open chan struct{}
}

func (g *gated) Entries(run []broker.Entry) { <-g.open; g.node.Entries(run) }

// The server disconnects a subscriber that cannot keep up. It misses nothing.
func TestOutputBuffer(t *testing.T) {
	s := redistest.Start(t, "client-output-buffer-limit pubsub 1mb 1mb 1")
	proxy := redistest.NewProxy(t, s)
	from, reader := dialTest(t, testConfig(t, s.Addr())), dialTest(t, testConfig(t, proxy.Addr()))
	reader.MustOpen(t, "a")
	proxy.Hold()
	data := strings.Repeat("x", 256<<10)
	for range 60 {
		from.MustPublish(t, entry("a", data))
	}
	proxy.Pass()
	reader.Await(t, "all", func() bool { return len(reader.Came) == 60 && !reader.Down })
	if len(reader.Missing) > 0 || len(reader.Epochs) != 1 {
		t.Errorf("lost %v, epochs %v", reader.Missing, reader.Epochs)
	}
}

// A large call is not too much for a subscriber at once; and what is too much for it is read.
func TestLargeCall(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustOpen(t, "a")
	es := slices.Repeat([]broker.Entry{entry("a", strings.Repeat("x", 1<<20))}, 40)
	n.MustPublish(t, es...)
	n.Await(t, "all", func() bool { return len(n.Came) == 40 })
	if repairs := n.Status().Repairs; len(repairs) > 0 {
		t.Errorf("repairs: %v", repairs)
	}
	s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
	n.MustPublish(t, es...)
	n.Await(t, "all", func() bool { return len(n.Came) == 80 && !n.Down })
	if repairs := n.Status().Repairs; len(repairs) == 0 || len(n.Missing) > 0 {
		t.Errorf("repairs: %v, lost: %v", repairs, n.Missing)
	}
}

// startCluster starts a cluster of two servers that share the slots.
func startCluster(t *testing.T) (a, b *redistest.Server) {
	t.Helper()
	// Without this port the servers take one that is 10000 higher, which may not be free.
	port := caddytest.FreePort(t)
	a = redistest.Start(t, "cluster-enabled yes", "cluster-port "+caddytest.FreePort(t))
	b = redistest.Start(t, "cluster-enabled yes", "cluster-port "+port)
	// By hand, since redis-cli --cluster waits for seconds.
	a.Do("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	b.Do("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
	b.Do("CLUSTER", "SET-CONFIG-EPOCH", "2")
	a.Do("CLUSTER", "MEET", "127.0.0.1", b.Port, port)
	for deadline := time.Now().Add(patience); !strings.Contains(a.Do("CLUSTER", "INFO"), "cluster_state:ok") || !strings.Contains(b.Do("CLUSTER", "INFO"), "cluster_state:ok"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(a.Do("CLUSTER", "INFO"))
		}
	}
	return a, b
}

// The log is on one node of a cluster, which the others name.
func TestCluster(t *testing.T) {
	a, b := startCluster(t)
	for _, address := range []string{a.Addr(), b.Addr()} {
		c := testConfig(t, address)
		c.Cluster = true
		n := dialTest(t, c)
		n.MustOpen(t, "a", "")
		n.MustPublish(t, entry("a", "x"))
		n.Await(t, "the entry", func() bool { return len(n.Came) == 1 })
	}
}

// All channels are subscribed to by a pattern: what came while the node was away is found though no channel is known.
func TestMissedOfAll(t *testing.T) {
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s)
	c, away := testConfig(t, s.Addr()), testConfig(t, proxy.Addr())
	c.Prefix, away.Prefix = "a*[b?c", "a*[b?c"
	from, n := dialTest(t, c), dialTest(t, away)
	n.MustOpen(t, "", "x")
	from.MustPublish(t, entry("x", "0"))
	n.Await(t, "the first", func() bool { return len(n.Came) == 1 })
	proxy.Refuse()
	n.Await(t, "that it is broken", func() bool { return n.Down })
	for i := range 5000 {
		from.Publish([]broker.Entry{entry(fmt.Sprint("c", i%700), fmt.Sprint(i))}, func([]broker.Place, error) {})
	}
	last := from.MustPublish(t, entry("x", "1"))[0].Seq
	proxy.Accept()
	n.Await(t, "the rest", func() bool { return n.W >= last && !n.Down })
	if len(n.Came) != 5002 || len(n.Missing) > 0 {
		t.Errorf("%d entries, lost %v", len(n.Came), n.Missing)
	}
	for i := 1; i < len(n.Came); i++ {
		if n.Came[i-1].Seq >= n.Came[i].Seq {
			t.Fatalf("%d comes after %d", n.Came[i].Seq, n.Came[i-1].Seq)
		}
	}
}

// A server that said that it keeps everything, and has not, gets another epoch.
func TestPromiseNotKept(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			s := redistest.Start(t)
			c := testConfig(t, s.Addr())
			c.Durable = true
			n := dialTest(t, c)
			n.MustOpen(t, "a")
			n.MustPublish(t, entry("a", "kept"))
			s.Do("SAVE")
			n.MustPublish(t, entry("a", "lost"))
			n.Await(t, "both", func() bool { return len(n.Came) == 2 })
			if restart {
				s.Kill()
				s.Run()
			} else {
				s.Do("DEBUG", "RELOAD", "NOSAVE")
			}
			n.Await(t, "another epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
			if p := n.MustPublish(t, entry("a", "after")); p[0].Seq != 2 {
				t.Errorf("the position is %d", p[0].Seq)
			}
			s.Kill()
			s.Run()
		})
	}
}

// Databases of one server are logs of their own.
func TestDatabases(t *testing.T) {
	s := redistest.Start(t)
	c := testConfig(t, s.Addr())
	n := dialTest(t, c)
	c.DB = 3
	other := dialTest(t, c)
	n.MustOpen(t, "a")
	other.MustOpen(t, "a", "")
	n.MustPublish(t, entry("a", "1"))
	other.MustPublish(t, entry("a", "2"))
	other.Await(t, "its entry", func() bool { return len(other.Came) == 1 })
	n.Await(t, "its entry", func() bool { return len(n.Came) == 1 })
	if len(n.Epochs) != 1 || len(other.Epochs) != 1 || n.Down || n.Epochs[0] == other.Epochs[0] {
		t.Errorf("epochs %v and %v", n.Epochs, other.Epochs)
	}
}

// What others publish on the channels of the log is counted, and does no harm.
func TestForeign(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustOpen(t, "a")
	s.Do("PUBLISH", "{bc:0}:c:a", "not ours")
	n.MustPublish(t, entry("a", "1"))
	n.Await(t, "what is ours", func() bool { return len(n.Came) == 1 })
	if foreign := n.Status().Foreign; foreign != 1 || string(n.Came[0].Data) != "1" {
		t.Errorf("%d are foreign, and %q came", foreign, n.Came[0].Data)
	}
}

// A server that removes keys when its memory is full is warned of, once.
func TestPolicy(t *testing.T) {
	for policy, want := range map[string]int{"noeviction": 0, "allkeys-lru": 1} {
		s := redistest.Start(t, "maxmemory-policy "+policy)
		core, logged := observer.New(zap.WarnLevel)
		c := testConfig(t, s.Addr())
		c.Logger = func() *zap.Logger { return zap.New(core) }
		n := dialTest(t, c)
		n.MustPublish(t, entry("a", "1"))
		if got := logged.FilterMessageSnippet("removes messages").Len(); got != want {
			t.Errorf("%s: %d warnings", policy, got)
		}
	}
}
