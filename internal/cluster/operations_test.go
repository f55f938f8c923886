package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// The tests of this file do what docs/operations.md tells people to do, and check what it says of their clients.

// wanderer is a client that connects again when its connection ends, first to the next node, and resumes.
type wanderer struct {
	kind   string
	texts  []string // what it got
	gaps   int
	closed []websocket.StatusCode
	err    error
}

// wander starts clients, one of each kind that can resume on each node, and returns what waits until each of them has the text
// end.
func wander(t *testing.T, nodes []*node, channel, end string) (finish func() []*wanderer) {
	t.Helper()
	var all []*wanderer
	var wandering sync.WaitGroup
	for i, n := range nodes {
		for _, kind := range []string{v1, stream} {
			w, c := &wanderer{kind: kind}, open(t, n, kind, "", channel)
			all = append(all, w)
			wandering.Go(func() { w.err = w.follow(t.Context(), c, nodes, i, end) })
		}
	}
	return func() []*wanderer {
		t.Helper()
		wandering.Wait()
		for _, w := range all {
			if w.err != nil {
				t.Fatalf("%s, after %d messages: %v", w.kind, len(w.texts), w.err)
			}
		}
		return all
	}
}

func (w *wanderer) follow(ctx context.Context, c *client, nodes []*node, at int, end string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		stop := context.AfterFunc(ctx, c.close)
		e, err := c.next(ctx)
		stop()
		switch {
		case err != nil:
			c.close()
			if c.kind != stream {
				w.closed = append(w.closed, websocket.CloseStatus(err))
			}
			if c, err = reconnect(ctx, c, nodes, &at); err != nil {
				return err
			}
		case e.Gap != nil:
			w.gaps++
		case e.ID != "":
			w.texts = append(w.texts, c.text(e))
			if c.text(e) == end {
				c.close()
				return nil
			}
		}
	}
}

// reconnect tries the nodes one after the other, as a load balancer does.
func reconnect(ctx context.Context, c *client, nodes []*node, at *int) (*client, error) {
	for {
		*at++
		next, err := connect(ctx, nodes[*at%len(nodes)].Addr, c.kind, c.lastID, c.channels...)
		if err == nil {
			return next, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// publishDuring publishes one message after another until what is done has ended, and then end. It returns all of them.
func publishDuring(t *testing.T, nodes []*node, channel, end string, do func()) (texts []string, told map[int]int) {
	t.Helper()
	done, published := make(chan struct{}), make(chan struct{})
	told = map[int]int{}
	go func() {
		defer close(published)
		for i := 0; ; i++ {
			text := fmt.Sprint("until ", end, " ", i)
			select {
			case <-done:
				text = end
			default:
			}
			_, more, err := insist(t.Context(), nodes, channel, text)
			if err != nil {
				t.Error(err)
				return
			}
			for status, n := range more {
				told[status] += n
			}
			if texts = append(texts, text); text == end {
				return
			}
			time.Sleep(time.Millisecond) // a publisher that leaves the machine time for the rest
		}
	}()
	do()
	close(done)
	<-published
	return texts, told
}

// stop ends the node in order, as systemctl stop does.
func (n *node) stop() {
	n.T.Helper()
	n.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-n.ended; err != nil {
		n.T.Errorf("node %s: %v", n.name, err)
	}
}

// waitHealthy waits until a load balancer may give the node clients.
func (n *node) waitHealthy() {
	n.T.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + n.Admin + "/broadcast/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return
			}
		}
		if time.Now().After(deadline) {
			n.T.Fatalf("node %s is not healthy", n.name)
		}
	}
}

// TestRestartNodes: three nodes are restarted one after another, each when the one before is healthy again. Clients are closed
// with 1012, resume on another node, and get everything once, in one order. Publishers that repeat a message with its key
// need nothing else.
func TestRestartNodes(t *testing.T) {
	t.Parallel()
	t.Run("NATS", func(t *testing.T) { testRestartNodes(t, broker(one, natstest.Start(t, "").URL())) })
	t.Run("Redis", func(t *testing.T) { testRestartNodes(t, redis("", redistest.Start(t).URL())) })
}

func testRestartNodes(t *testing.T, options string) {
	nodes := startNodes(t, 3, func(int) string { return "shutdown_delay 200ms\n" + options })
	finish := wander(t, nodes, "rolling", "end")
	texts, told := publishDuring(t, nodes, "rolling", "end", func() {
		for _, n := range nodes {
			n.stop()
			n.run(t)
			n.waitHealthy()
		}
	})
	t.Logf("%d messages; publishers were told %v", len(texts), told)
	for i, w := range finish() {
		if !slices.Equal(w.texts, texts) {
			t.Errorf("%s %d got %d messages of %d, or in another order", w.kind, i, len(w.texts), len(texts))
		}
		if w.gaps > 0 {
			t.Errorf("%s %d got %d gaps", w.kind, i, w.gaps)
		}
		if w.kind == v1 && len(w.closed) == 0 {
			t.Errorf("%s %d was not closed", w.kind, i)
		}
		for _, code := range w.closed {
			if code != websocket.StatusServiceRestart {
				t.Errorf("%s %d was closed with %v", w.kind, i, code)
			}
		}
	}
}

// TestRestartServers: three nats-servers are restarted one after another, each in lame duck mode, and each when /healthz of the
// one before is 200. Clients stay connected, and get everything once, in one order.
func TestRestartServers(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	ports := t.TempDir()
	servers := natstest.StartCluster(t, 3, fmt.Sprintf("lame_duck_grace_period: \"100ms\"\nhttp: \"127.0.0.1:-1\"\nports_file_dir: %q", ports))
	nodes := startNodes(t, 3, func(int) string { return broker("publish_timeout 2s", natstest.URLs(servers)...) })
	all := join(t, nodes, "servers")
	texts, told := publishDuring(t, nodes, "servers", "end", func() {
		for _, s := range servers {
			s.LameDuck()
			s.WaitEnd()
			s.Run()
			waitHealthz(t, ports, s)
		}
	})
	t.Logf("%d messages; publishers were told %v", len(texts), told)
	for status := range told {
		if status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout {
			t.Errorf("publishers were told %d", status)
		}
	}
	all.expect(t, texts...)
}

// waitHealthz waits until a nats-server says that it has caught up. Its ports are in a file that it writes.
func waitHealthz(t *testing.T, dir string, s *natstest.Server) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(dir, "*.ports"))
		for _, file := range files {
			var v struct{ Nats, Monitoring []string }
			data, err := os.ReadFile(file)
			if err != nil || json.Unmarshal(data, &v) != nil || len(v.Monitoring) == 0 || !slices.Contains(v.Nats, s.URL()) {
				continue
			}
			resp, err := http.Get(v.Monitoring[0] + "/healthz")
			if err != nil {
				continue // that of the process before
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not healthy", s.URL())
		}
	}
}

// TestRestartRedis: a replica is restarted, Sentinel makes it the master, and then the server that was the master is restarted.
// Clients stay connected, and get a gap that names their channels, and after it everything. A restart of a replica is not
// noticed.
func TestRestartRedis(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	g := redistest.StartGroup(t, 1)
	nodes := startNodes(t, 2, func(int) string { return redis("publish_timeout 2s", g.URL()) })
	all := join(t, nodes, "servers")
	restart := func(s *redistest.Server) {
		s.Signal(syscall.SIGTERM)
		s.WaitEnd()
		s.Run()
		s.WaitReady()
		s.WaitInfo("replication", "master_link_status:up")
	}
	before := nodes[0].epoch()
	texts, told := publishDuring(t, nodes, "servers", "replica", func() { restart(g.Servers[1]) })
	if len(told) > 0 {
		t.Errorf("while a replica was restarted, publishers were told %v", told)
	}
	all.expect(t, texts...)
	failOver(t, g)
	for _, n := range nodes {
		n.waitState("another epoch", func(v totals) bool { return !strings.HasPrefix(v.ID, before+"-") && v.Broker.Up })
	}
	all.expectGapThen(t, nodes[0], "servers", "failover")
	before = nodes[0].epoch()
	texts, _ = publishDuring(t, nodes, "servers", "end", func() { restart(g.Servers[0]) })
	all.expect(t, texts...)
	for _, n := range nodes {
		if n.epoch() != before {
			t.Errorf("node %s has another epoch again", n.name)
		}
	}
}

// failOver has a Sentinel make the replica the master, as soon as it knows that the replica is there again: before that it
// answers NOGOODSLAVE.
func failOver(t *testing.T, g *redistest.Group) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		replicas := g.Sentinels[0].Do("SENTINEL", "REPLICAS", redistest.Master)
		if strings.Contains(replicas, "flags:slave ") && strings.Contains(replicas, "master-link-status:ok") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the Sentinel has no replica: %s", replicas)
		}
	}
	g.Sentinels[0].Do("SENTINEL", "FAILOVER", redistest.Master)
	g.WaitMaster(g.Servers[0])
}

// TestTooFewReplicas: without the replicas that have to have a message, its publisher is told that it may be published, and
// subscribers get it.
func TestTooFewReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := startNodes(t, 1, func(int) string { return redis("replicas 1\npublish_timeout 200ms", server.URL()) })[0]
	all := join(t, []*node{n}, "replicas")
	mustNot(t, n, "replicas", "unsafe", "", http.StatusGatewayTimeout)
	all.expect(t, "unsafe")
}

// TestMoveToBroker: nodes without a broker get one, one after another. Each client gets a gap that names all of its channels, or
// two, when its node does, and nothing when others do. Until all have it, messages do not reach the clients of the others.
func TestMoveToBroker(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	nodes := []*node{newNode(t, "a", ""), newNode(t, "b", "")}
	for _, n := range nodes {
		n.run(t)
	}
	testMove(t, nodes, broker(one, server.URL()), nil)
}

// TestMoveBetweenBrokers: the broker is stopped, and then the nodes get another one, one after another. Meanwhile publishers are
// told that nothing was published. Clients stay connected, and get a gap as in TestMoveToBroker.
func TestMoveBetweenBrokers(t *testing.T) {
	t.Parallel()
	nats, redisServer := natstest.Start(t, ""), redistest.Start(t)
	onNATS, onRedis := broker(one, nats.URL()), redis("", redisServer.URL())
	t.Run("NATS to Redis", func(t *testing.T) {
		testMove(t, startNodes(t, 2, func(int) string { return onNATS }), onRedis, nats.Kill)
	})
	nats.Run()
	nats.WaitReady()
	t.Run("Redis to NATS", func(t *testing.T) {
		testMove(t, startNodes(t, 2, func(int) string { return onRedis }), onNATS, redisServer.Kill)
	})
}

// testMove gives two nodes another log. stop ends the one that they have, so that nobody publishes there any more; nil means
// that they have none.
func testMove(t *testing.T, nodes []*node, options string, stop func()) {
	a, b := nodes[0], nodes[1]
	ofA, ofB := join(t, []*node{a}, "move"), join(t, []*node{b}, "move")
	position := send(t, a, "move", "before", "")
	ofA.expect(t, "before")
	if stop == nil {
		send(t, b, "move", "before", "")
	}
	ofB.expect(t, "before")
	if stop != nil {
		stop()
		for _, n := range nodes {
			n.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
			mustNot(t, n, "move", "no", "", http.StatusServiceUnavailable)
		}
	}
	change(t, a, options)
	ofA.expectGapThen(t, a, "move", "first")
	if stop == nil {
		send(t, b, "move", "only on b", "")
		ofB.expect(t, "only on b")
	} else {
		mustNot(t, b, "move", "no", "", http.StatusServiceUnavailable)
	}
	send(t, a, "move", "only on a", "")
	ofA.expect(t, "only on a")
	change(t, b, options)
	ofB.expectGapThen(t, b, "move", "second")
	send(t, b, "move", "end", "")
	ofB.expect(t, "end")
	if a.epoch() != b.epoch() {
		t.Errorf("the epochs are %s and %s", a.epoch(), b.epoch())
	}
	for _, c := range ofA { // what b's clients had after their gap, and nothing else
		for e := c.read(t); c.text(e) != "end"; e = c.read(t) {
			if e.Gap != nil || !strings.HasPrefix(c.text(e), "second ") {
				t.Fatalf("%s: gap %v, %q", c.kind, e.Gap, c.text(e))
			}
		}
	}
	// A client that was away meanwhile gets a gap, too. One that comes from the other node gets none.
	for _, kind := range []string{v1, stream} {
		open(t, b, kind, position, "move").expectGap(t, "move")
		c := open(t, b, kind, ofA[0].lastID, "move")
		send(t, a, "move", kind, "")
		c.expect(t, kind)
		for _, c := range slices.Concat(ofA, ofB) {
			c.expect(t, kind)
		}
	}
}

// change reloads a node with another log, which is its own if options is empty, and waits until it has it.
func change(t *testing.T, n *node, options string) {
	t.Helper()
	before := n.epoch()
	n.reload(options)
	n.waitState("another log", func(v totals) bool {
		return !strings.HasPrefix(v.ID, before+"-") && (options == "" || v.Broker != nil && v.Broker.Up)
	})
}
