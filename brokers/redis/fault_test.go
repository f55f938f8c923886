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
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// count returns how often each data of a channel came.
func (n *node) count(channel string) map[string]int {
	times := map[string]int{}
	for _, e := range n.entries {
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
	reader.open(t, "a")
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
	last := from.publish(t, entry("a", "last"))[0].Seq
	reader.await(t, "the last", func() bool { return reader.at >= last && !reader.broken })
	reader.mu.Lock()
	defer reader.mu.Unlock()
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
	for _, e := range reader.entries {
		if i := slices.Index(places, e.Seq); i >= 0 && string(e.Data) != fmt.Sprint(i) {
			t.Errorf("%d has %q, and %d was acked there", e.Seq, e.Data, i)
		}
	}
	if acked < messages/2 || len(reader.epochs) != 1 || len(reader.lost) > 0 {
		t.Errorf("%d acked, epochs %v, lost %v", acked, reader.epochs, reader.lost)
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
				n.open(t, "a")
				nodes = append(nodes, n)
			}
			nodes[0].publish(t, entry("a", "1"), entry("a", "2"))
			s.Do(strings.Fields(command)...)
			for _, n := range nodes {
				n.await(t, "another epoch", func() bool { return len(n.epochs) > 1 && !n.broken })
			}
			nodes[0].publish(t, entry("a", "after"))
			for _, n := range nodes {
				n.await(t, "the entry", func() bool { return n.count("a")["after"] == 1 })
				if len(n.epochs) != 2 || n.epochs[1] != nodes[0].epochs[1] {
					t.Errorf("epochs %v, of another %v", n.epochs, nodes[0].epochs)
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
	n.open(t, "a")
	n.publish(t, entry("a", "kept"))
	s.Do("SAVE")
	n.publish(t, entry("a", "lost"))
	s.Kill()
	s.Run()
	n.await(t, "another epoch", func() bool { return len(n.epochs) == 2 && !n.broken })
	if p := n.publish(t, entry("a", "after")); p[0].Seq != 2 {
		t.Errorf("the position is %d", p[0].Seq)
	}
	es, err := n.Last(t.Context(), "a", 10, 1000)
	if err != nil || len(es) != 2 || string(es[0].Data) != "kept" || string(es[1].Data) != "after" {
		t.Errorf("Last: %v, %v", es, err)
	}
}

// A message is acked when a replica has it, and not otherwise.
func TestReplicas(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	c := testConfig(t, s.Addr())
	c.Replicas, c.PublishTimeout = 1, time.Second
	n := dialTest(t, c)
	for i := range 10 {
		n.publish(t, entry("a", fmt.Sprint(i)))
		if got := replica.Do("HGET", "{bc:0}:m", "s"); got != fmt.Sprint(i+1) {
			t.Fatalf("after the ack of %d the replica has %s", i+1, got)
		}
	}
	replica.Freeze()
	if _, err := n.try(entry("a", "unsure")); !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("without a replica: %v", err)
	}
	replica.Thaw()
	n.publish(t, entry("a", "x"))
}

// While no replica answers, callers wait no longer than they have to, however many there are, and are told what is stored.
func TestManyWithoutReplica(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	c := testConfig(t, s.Addr())
	c.Replicas, c.PublishTimeout = 1, time.Second
	n := dialTest(t, c)
	first, err := n.try(entry("a", "0"))
	for err != nil { // the replica may not be ready to confirm
		first, err = n.try(entry("a", "0"))
	}
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
	if stored := s.Do("HGET", "{bc:0}:m", "s"); stored != fmt.Sprint(int(first[0].Seq)+unknown) {
		t.Errorf("%s are stored, unknown are %d, and ErrDown %d", stored, unknown, down)
	}
	if p := n.Status().Problem; !strings.Contains(p, "replicas") {
		t.Errorf("the problem is %q", p)
	}
	replica.Thaw()
	c.PublishTimeout = 5 * time.Second
	dialTest(t, c).publish(t, entry("a", "y"))
}

// A node does not take a replica for the server, nor goes on with one that has become a replica.
func TestReadOnly(t *testing.T) {
	s := redistest.Start(t)
	replica := redistest.StartReplica(t, s)
	n := dialBroken(t, testConfig(t, replica.Addr()), keepAll)
	awaitProblem(t, n, "READONLY")
	replica.Do("REPLICAOF", "NO", "ONE")
	n.await(t, "the epoch", func() bool { return len(n.epochs) == 1 && !n.broken })
	replica.Do("REPLICAOF", "127.0.0.1", s.Port)
	n.await(t, "that it is broken", func() bool { return n.broken })
	if _, err := n.try(entry("a", "x")); !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
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
	reader.await(t, "the first epoch", func() bool { return len(reader.epochs) > 0 && !reader.broken })
	reader.open(t, "a")
	data := strings.Repeat("x", 1<<20)
	for range 60 {
		from.publish(t, entry("a", data))
	}
	// The session ends when the queue is full, although the receiver is in the Sink.
	for deadline := time.Now().Add(patience); reader.log.used() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the queue is not bounded")
		}
	}
	close(gate.open)
	reader.await(t, "all", func() bool { return len(reader.entries) == 60 && !reader.broken })
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

// The server cuts a subscriber that does not get on. It misses nothing.
func TestOutputBuffer(t *testing.T) {
	s := redistest.Start(t, "client-output-buffer-limit pubsub 1mb 1mb 1")
	proxy := redistest.NewProxy(t, s)
	from, reader := dialTest(t, testConfig(t, s.Addr())), dialTest(t, testConfig(t, proxy.Addr()))
	reader.open(t, "a")
	proxy.Hold()
	data := strings.Repeat("x", 256<<10)
	for range 60 {
		from.publish(t, entry("a", data))
	}
	proxy.Pass()
	reader.await(t, "all", func() bool { return len(reader.entries) == 60 && !reader.broken })
	if len(reader.lost) > 0 || len(reader.epochs) != 1 {
		t.Errorf("lost %v, epochs %v", reader.lost, reader.epochs)
	}
}

// A large call is not too much for a subscriber at once; and what is too much for it is read.
func TestLargeCall(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.open(t, "a")
	es := slices.Repeat([]broker.Entry{entry("a", strings.Repeat("x", 1<<20))}, 40)
	n.publish(t, es...)
	n.await(t, "all", func() bool { return len(n.entries) == 40 })
	if repairs := n.Status().Repairs; len(repairs) > 0 {
		t.Errorf("repairs: %v", repairs)
	}
	s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
	n.publish(t, es...)
	n.await(t, "all", func() bool { return len(n.entries) == 80 && !n.broken })
	if repairs := n.Status().Repairs; len(repairs) == 0 || len(n.lost) > 0 {
		t.Errorf("repairs: %v, lost: %v", repairs, n.lost)
	}
}

// startCluster starts a cluster of two servers that share the slots.
func startCluster(t *testing.T) (a, b *redistest.Server) {
	t.Helper()
	a = redistest.Start(t, "cluster-enabled yes")
	b = redistest.Start(t, "cluster-enabled yes")
	// By hand, since redis-cli --cluster waits for seconds.
	a.Do("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	b.Do("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
	b.Do("CLUSTER", "SET-CONFIG-EPOCH", "2")
	a.Do("CLUSTER", "MEET", "127.0.0.1", b.Port)
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
		n.open(t, "a", "")
		n.publish(t, entry("a", "x"))
		n.await(t, "the entry", func() bool { return len(n.entries) == 1 })
	}
}

// All channels are subscribed to by a pattern: what came while the node was away is found though no channel is known.
func TestMissedOfAll(t *testing.T) {
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s)
	c, away := testConfig(t, s.Addr()), testConfig(t, proxy.Addr())
	c.Prefix, away.Prefix = "a*[b?c", "a*[b?c"
	from, n := dialTest(t, c), dialTest(t, away)
	n.open(t, "", "x")
	from.publish(t, entry("x", "0"))
	n.await(t, "the first", func() bool { return len(n.entries) == 1 })
	proxy.Refuse()
	n.await(t, "that it is broken", func() bool { return n.broken })
	for i := range 5000 {
		from.Publish([]broker.Entry{entry(fmt.Sprint("c", i%700), fmt.Sprint(i))}, func([]broker.Place, error) {})
	}
	last := from.publish(t, entry("x", "1"))[0].Seq
	proxy.Accept()
	n.await(t, "the rest", func() bool { return n.at >= last && !n.broken })
	if len(n.entries) != 5002 || len(n.lost) > 0 {
		t.Errorf("%d entries, lost %v", len(n.entries), n.lost)
	}
	for i := 1; i < len(n.entries); i++ {
		if n.entries[i-1].Seq >= n.entries[i].Seq {
			t.Fatalf("%d comes after %d", n.entries[i].Seq, n.entries[i-1].Seq)
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
			n.open(t, "a")
			n.publish(t, entry("a", "kept"))
			s.Do("SAVE")
			n.publish(t, entry("a", "lost"))
			n.await(t, "both", func() bool { return len(n.entries) == 2 })
			if restart {
				s.Kill()
				s.Run()
			} else {
				s.Do("DEBUG", "RELOAD", "NOSAVE")
			}
			n.await(t, "another epoch", func() bool { return len(n.epochs) == 2 && !n.broken })
			if p := n.publish(t, entry("a", "after")); p[0].Seq != 2 {
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
	n.open(t, "a")
	other.open(t, "a", "")
	n.publish(t, entry("a", "1"))
	other.publish(t, entry("a", "2"))
	other.await(t, "its entry", func() bool { return len(other.entries) == 1 })
	n.await(t, "its entry", func() bool { return len(n.entries) == 1 })
	if len(n.epochs) != 1 || len(other.epochs) != 1 || n.broken || n.epochs[0] == other.epochs[0] {
		t.Errorf("epochs %v and %v", n.epochs, other.epochs)
	}
}

// What others publish on the channels of the log is counted, and does no harm.
func TestForeign(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.open(t, "a")
	s.Do("PUBLISH", "{bc:0}:c:a", "not ours")
	n.publish(t, entry("a", "1"))
	n.await(t, "what is ours", func() bool { return len(n.entries) == 1 })
	if foreign := n.Status().Foreign; foreign != 1 || string(n.entries[0].Data) != "1" {
		t.Errorf("%d are foreign, and %q came", foreign, n.entries[0].Data)
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
		n.publish(t, entry("a", "1"))
		if got := logged.FilterMessageSnippet("removes messages").Len(); got != want {
			t.Errorf("%s: %d warnings", policy, got)
		}
	}
}
