package nats

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func (n *node) trySet(counts map[string]int) error {
	done := make(chan error, 1)
	n.SetCounts(maps.Clone(counts), func(err error) { done <- err })
	return <-done
}

// set sets counts until that succeeds: the stream may have to be made, or elect a leader.
func (n *node) set(t testing.TB, counts map[string]int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := n.trySet(counts)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) tryCounts(channels ...string) ([]map[uint64]int, error) {
	type result struct {
		counts []map[uint64]int
		err    error
	}
	done := make(chan result, 1)
	n.Counts(channels, func(counts []map[uint64]int, err error) { done <- result{counts, err} })
	r := <-done
	return r.counts, r.err
}

// awaitCount asks until the count of a channel on a node is that.
func (n *node) awaitCount(t testing.TB, channel string, on *node, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		counts, err := n.tryCounts(channel)
		if err == nil && counts[0][on.Number] == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v and %v, want %d", counts, err, want)
		}
		time.Sleep(time.Millisecond)
	}
}

// usePeers does everything of broker.Peers that needs a permission.
func usePeers(t *testing.T, a, b *node) {
	t.Helper()
	a.Send(b.Number, []byte("to one"))
	b.Send(0, []byte("to all"))
	b.Await(t, "a message", func() bool { return b.Messages["to one"] == a.Number })
	a.Await(t, "a message", func() bool { return a.Messages["to all"] == b.Number })
	a.set(t, map[string]int{"x": 3})
	b.set(t, map[string]int{"x": 4})
	a.awaitCount(t, "x", b, 4)
	b.awaitCount(t, "x", a, 3)
	a.Forget(b.Number)
	a.awaitCount(t, "x", b, 0)
}

// An account that lacks what is beside the log has the log nevertheless.
func TestPeersWithoutPermission(t *testing.T) {
	lacking := func(what ...string) string {
		text := permissions(t)
		for _, w := range what {
			if less := strings.ReplaceAll(text, `, "`+w+`"`, ""); less != text {
				text = less
			} else {
				t.Fatalf("%s is not in %s", w, text)
			}
		}
		return `authorization: { users: [{ user: u, password: "secret", ` + text + ` }] }`
	}
	dial := func(t *testing.T, server string) (a, b *node, logged *observer.ObservedLogs) {
		c := testConfig(t, natstest.Start(t, server).URL(), 1)
		c.User, c.Password, c.PublishTimeout = "u", "secret", 500*time.Millisecond
		core, logged := observer.New(zap.DebugLevel)
		c.Logger = func() *zap.Logger { return zap.New(core) }
		return dialTest(t, c), dialTest(t, c), logged
	}
	works := func(t *testing.T, a, b *node) {
		t.Helper()
		b.MustOpen(t, "x")
		a.MustPublish(t, entry("x", "1"))
		b.Await(t, "the entry", func() bool { return len(b.data("x")) == 1 })
		if s := b.Status(); !s.Up || s.Problem != "" {
			t.Errorf("status: %+v", s)
		}
	}
	t.Run("all", func(t *testing.T) {
		a, b, logged := dial(t, lacking("bc.q.>", "bc.n.>", "$JS.API.STREAM.CREATE.BROADCAST_COUNTS", "$JS.API.STREAM.INFO.BROADCAST_COUNTS",
			"$JS.API.STREAM.PURGE.BROADCAST_COUNTS", "$JS.API.DIRECT.GET.BROADCAST_COUNTS"))
		a.Send(0, []byte("x"))
		if err := a.trySet(map[string]int{"x": 1}); !errors.Is(err, broker.ErrUnknown) && !errors.Is(err, broker.ErrDown) {
			t.Errorf("SetCounts: %v", err)
		}
		if _, err := a.tryCounts("x"); !errors.Is(err, broker.ErrDown) {
			t.Errorf("Counts: %v", err)
		}
		works(t, a, b)
		if logged.FilterLevelExact(zap.ErrorLevel).Len() > 0 || logged.FilterLevelExact(zap.WarnLevel).Len() == 0 {
			t.Errorf("logged: %v", logged.All())
		}
	})
	t.Run("purge", func(t *testing.T) {
		a, b, logged := dial(t, lacking("$JS.API.STREAM.PURGE.BROADCAST_COUNTS"))
		b.set(t, map[string]int{"x": 1})
		a.Forget(b.Number)
		deadline := time.Now().Add(patience)
		for logged.FilterMessageSnippet("remove").Len() == 0 {
			if time.Now().After(deadline) {
				t.Fatal("nothing was logged")
			}
			time.Sleep(time.Millisecond) // a log has no event
		}
		works(t, a, b)
		a.awaitCount(t, "x", b, 1)
		if logged.FilterLevelExact(zap.ErrorLevel).Len()+logged.FilterLevelExact(zap.WarnLevel).Len() > 0 {
			t.Errorf("logged: %v", logged.All())
		}
	})
}

// A node that does not take the messages of others loses some, and not one entry: the client library reports both in the same
// way.
func TestPeersFlood(t *testing.T) {
	s := natstest.Start(t, "")
	c := testConfig(t, s.URL(), 1)
	core, logged := observer.New(zap.WarnLevel)
	c.Logger = func() *zap.Logger { return zap.New(core) }
	a, b := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, c)
	b.MustOpen(t, "x")
	gate := make(chan struct{})
	b.Change(func() { b.Gate = gate })
	for i := range 2 * maxPeerMessages {
		a.Send(b.Number, fmt.Append(nil, i))
		if i%1000 == 0 {
			a.MustPublish(t, entry("x", fmt.Sprint(i)))
		}
	}
	a.MustPublish(t, entry("x", "last"))
	b.Await(t, "the entries", func() bool { return len(b.data("x")) == 2*maxPeerMessages/1000+2 })
	close(gate)
	for deadline, came := time.Now().Add(patience), false; !came; time.Sleep(time.Millisecond) {
		a.Send(b.Number, []byte("after")) // it may be dropped too
		b.Mu.Lock()
		_, came = b.Messages["after"]
		b.Mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no message comes any more")
		}
	}
	if status := b.Status(); !status.Up || len(status.Repairs) > 0 {
		t.Errorf("%+v", status)
	}
	if logged.Len() != 1 || logged.FilterMessageSnippet("dropped").Len() != 1 {
		t.Errorf("logged: %v", logged.All())
	}
}

// With manage off the stream of counts has to be there. Nothing else needs it.
func TestCountsUnmanaged(t *testing.T) {
	s := natstest.Start(t, "")
	dialTest(t, testConfig(t, s.URL(), 1)).Close() // makes the log's stream
	c := testConfig(t, s.URL(), 1)
	c.Manage = false
	core, logged := observer.New(zap.WarnLevel)
	c.Logger = func() *zap.Logger { return zap.New(core) }
	n := dialTest(t, c)
	said := func() int { return logged.FilterMessageSnippet("not counted").Len() }
	for deadline := time.Now().Add(patience); said() == 0; {
		if err := n.trySet(map[string]int{"x": 1}); !errors.Is(err, broker.ErrDown) {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the log does not say that there are no counts")
		}
	}
	n.peers.counts.prepare.mu.Lock()
	n.peers.counts.prepare.after = time.Time{}
	n.peers.counts.prepare.mu.Unlock()
	if _, err := n.tryCounts("x"); !errors.Is(err, broker.ErrDown) {
		t.Errorf("Counts: %v", err)
	}
	_, js := s.JetStream(t)
	_, err := js.AddStream(&natsgo.StreamConfig{Name: "BROADCAST_COUNTS", Subjects: []string{"bc.n.>"}, MaxMsgsPerSubject: 1,
		AllowDirect: true, AllowMsgTTL: true, Storage: natsgo.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	n.set(t, map[string]int{"x": 1})
	n.awaitCount(t, "x", n, 1)
	if said() != 1 {
		t.Errorf("it was said %d times that there are no counts: %v", said(), logged.All())
	}
}

// A server that restarts has lost the counts, as they are in memory. Nobody is told that they are stored meanwhile.
func TestCountsRestart(t *testing.T) {
	s := natstest.Start(t, "")
	a, b := dialTest(t, testConfig(t, s.URL(), 1)), dialTest(t, testConfig(t, s.URL(), 1))
	a.set(t, map[string]int{"x": 1, "y": 2})
	b.set(t, map[string]int{"x": 3})
	s.Kill()
	a.Await(t, "Broken", func() bool { return a.Down })
	if err := a.trySet(map[string]int{"y": 4}); !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("SetCounts: %v", err)
	}
	s.Run()
	a.Await(t, "Repaired", func() bool { return !a.Down })
	b.Await(t, "Repaired", func() bool { return !b.Down })
	a.set(t, map[string]int{"x": 5})
	b.awaitCount(t, "x", a, 5)
	b.awaitCount(t, "y", a, 0)
	b.awaitCount(t, "x", b, 0)
}

// With three servers counts outlive the leader, and are answered by others meanwhile.
func TestCountsLeaderKilled(t *testing.T) {
	servers := natstest.StartCluster(t, 3, "")
	urls := natstest.URLs(servers)
	conn, err := natsgo.Connect(strings.Join(urls, ","))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var nodes []*node
	for _, url := range urls {
		c := testConfig(t, url, 3)
		c.Servers = append(c.Servers, urls...)
		nodes = append(nodes, dialTest(t, c))
	}
	for i, n := range nodes {
		n.set(t, map[string]int{"x": i + 1})
	}
	js, _ := conn.JetStream()
	info, err := js.StreamInfo("BROADCAST_COUNTS")
	if err != nil {
		t.Fatal(err)
	}
	if info.Config.Replicas != 3 || info.Config.Storage != natsgo.MemoryStorage {
		t.Errorf("the stream is %+v", info.Config)
	}
	for i, s := range servers {
		if info.Cluster.Leader == fmt.Sprint("n", i) {
			s.Kill()
		}
	}
	began := time.Now()
	for i, n := range nodes {
		n.set(t, map[string]int{"y": i + 1})
	}
	t.Logf("counts can be set again after %v", time.Since(began))
	for _, n := range nodes {
		for i, on := range nodes {
			n.awaitCount(t, "x", on, i+1)
			n.awaitCount(t, "y", on, i+1)
		}
	}
}

// What is set again replaces what was before, and a 0 goes by itself. The node keeps nothing of what is stored.
func TestCountsAreBounded(t *testing.T) {
	s := natstest.Start(t, "")
	n := dialTest(t, testConfig(t, s.URL(), 1))
	zero, more := map[string]int{}, map[string]int{}
	for i := range 1000 {
		more[fmt.Sprint(i)] = i + 1
		if i > 0 {
			zero[fmt.Sprint(i)] = 0
		}
	}
	for range 3 {
		n.set(t, more)
	}
	n.set(t, zero)
	_, js := s.JetStream(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		info, err := js.StreamInfo("BROADCAST_COUNTS")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", info, err)
		}
		if info.Config.MaxAge != countAge || info.Config.MaxBytes != maxCountBytes || info.State.Msgs > 1000 {
			t.Fatalf("%+v", info)
		}
		if info.State.Msgs == 1 {
			break
		}
	}
	n.awaitCount(t, "0", n, 1)
	c := &n.peers.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.numbers)+len(c.queue)+len(c.flying) > 0 {
		t.Errorf("%d numbers are kept, %d wait, and %d have no ack", len(c.numbers), len(c.queue), len(c.flying))
	}
}

// TestCountedByTooMany: a channel that more nodes have counted than a server returns at once is not known. The others are.
func TestCountedByTooMany(t *testing.T) {
	server := natstest.Start(t, "")
	c := testConfig(t, server.URL(), 1)
	core, logs := observer.New(zap.WarnLevel)
	c.Logger = func() *zap.Logger { return zap.New(core) }
	n := dialTest(t, c)
	n.set(t, map[string]int{"a": 1, "fat": 1, "z": 2})
	_, js := server.JetStream(t)
	for i := range maxAnswers {
		if _, err := js.PublishAsync(n.peers.counts.subject+"fat."+peerName(uint64(i+1)), []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	for range 2 {
		counts, err := n.tryCounts("a", "fat", "b", "z")
		if err != nil || counts[0][n.Number] != 1 || len(counts[1]) != 0 || counts[3][n.Number] != 2 {
			t.Errorf("%d of fat, a %v, z %v, %v", len(counts[1]), counts[0], counts[3], err)
		}
	}
	if all := logs.FilterMessageSnippet("more nodes than can be counted").All(); len(all) != 1 {
		t.Errorf("the log has %v", logs.All())
	}
}

// A broker that does not answer gets one message for each channel that is set meanwhile, and calls end.
func TestCountsOfSlowBroker(t *testing.T) {
	s := natstest.Start(t, "")
	c := testConfig(t, s.URL(), 1)
	c.PublishTimeout = 500 * time.Millisecond
	n := dialTest(t, c)
	n.set(t, map[string]int{"x": 1})
	s.Freeze()
	var wait sync.WaitGroup
	for i := range 1000 {
		wait.Add(1)
		n.SetCounts(map[string]int{"x": i, fmt.Sprint("y", i%10): i}, func(err error) {
			if !errors.Is(err, broker.ErrUnknown) && !errors.Is(err, broker.ErrDown) {
				t.Errorf("SetCounts: %v", err)
			}
			wait.Done()
		})
	}
	k := &n.peers.counts
	k.mu.Lock()
	if len(k.flying) != 11 {
		t.Errorf("%d messages for 11 channels", len(k.flying))
	}
	k.mu.Unlock()
	wait.Wait()
	s.Thaw()
	n.Await(t, "Repaired", func() bool { return !n.Down })
	n.set(t, map[string]int{"x": 5})
	n.awaitCount(t, "x", n, 5)
}
