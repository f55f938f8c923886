package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

const (
	hoppers     = 60
	publishers  = 8
	hopChannels = 12
)

// hop is clients that move from node to node while others publish and brokers are killed.
type hop struct {
	nodes     []*node
	goal      int64 // how many messages are delivered to all clients together
	faults    int   // how many times what is tested fails
	delivered atomic.Int64
	last      atomic.Int64 // when the last message was delivered, in nanoseconds since 1970
	silence   atomic.Int64 // the longest time between two of them
	hops      atomic.Int64
	refused   atomic.Int64 // connections that a node did not accept
	stop      chan struct{}
	name      string // of the test: keys begin with it
	lossy     bool   // messages to nodes are lost: clients may be told of gaps, and leave before anything shows that they missed one
	forgets   bool   // the server loses what it has acknowledged: clients are told of gaps, and one key may be two messages

	mu     sync.Mutex
	epochs []string          // in their order
	acked  map[string]uint64 // positions, by data
	failed map[string]int    // publishes that failed and were repeated, by the status or code

	feeds [publishers]*feed // each publisher's own

	// Of each client.
	channels [][]string
	begun    []uint64    // its first position
	received [][]message // in its order
}

// message is one that was received, or a gap on one channel, or a move to another node.
type message struct {
	seq     uint64 // 0 for those
	hop     bool
	at      uint64 // the position that the client is told after a move
	channel string
	data    string
}

// TestHop: 60 clients move between three nodes, and 8 publishers repeat with the same key what failed, while nats-server is
// killed twice. Each client gets each message of its channels once, in the order that all others have too, and no gap.
// With HOP in the environment it does as much as scaleout.md asks for.
func TestHop(t *testing.T) {
	t.Run("R1", func(t *testing.T) {
		server := natstest.Start(t, "")
		nodes := startNodes(t, 3, func(int) string { return broker(one, server.URL()) })
		newHop(nodes).run(t, func(goOn func(int)) {
			server.Kill()
			time.Sleep(700 * time.Millisecond) // how long it is away
			server.Run()
		})
	})
	t.Run("R3", func(t *testing.T) {
		servertest.Thorough(t)
		servers := natstest.StartCluster(t, 3, "")
		nodes := startNodes(t, 3, func(int) string { return broker("", natstest.URLs(servers)...) })
		newHop(nodes).run(t, func(goOn func(int)) {
			leader := leaderOf(t, servers)
			servers[leader].Kill()
			goOn(8) // without it
			servers[leader].Run()
			waitCurrent(t, servers)
		})
	})
}

// TestHopOfRedis: the same with Redis. If it keeps what it has acknowledged, nobody notices; if it does not, all are told.
func TestHopOfRedis(t *testing.T) {
	for _, c := range []struct {
		name, config, options string
		forgets               bool
	}{{"durable", redistest.AOF, "durable", false}, {"without AOF", "", "", true}} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Start(t, c.config)
			h := newHop(startNodes(t, 3, func(int) string { return redis(c.options, server.URL()) }))
			h.forgets = c.forgets
			h.run(t, func(func(int)) {
				server.Kill()
				time.Sleep(700 * time.Millisecond) // how long it is away
				server.Run()
			})
		})
	}
}

// TestHopOfNodes: the same while the connections of nodes are cut and held up, and nodes are killed.
func TestHopOfNodes(t *testing.T) {
	server := natstest.Start(t, "")
	var proxies []*natstest.Proxy
	for range 3 {
		proxies = append(proxies, natstest.NewProxy(t, server))
	}
	nodes := startNodes(t, 3, func(i int) string { return broker(one, proxies[i].URL()) })
	h := newHop(nodes)
	h.run(t, func(goOn func(int)) {
		for range rounds(10, 60) {
			p := proxies[rand.N(len(proxies))]
			switch rand.N(3) {
			case 0:
				p.Cut()
			case 1:
				p.Hold()
				time.Sleep(rand.N(300 * time.Millisecond)) // how long
				p.Pass()
			default:
				p.Delay(rand.N(2 * time.Millisecond))
			}
			time.Sleep(rand.N(100 * time.Millisecond)) // until the next fault
		}
		victim := nodes[rand.N(len(nodes))]
		victim.kill()
		goOn(20)
		victim.run(t)
		for _, p := range proxies {
			p.Delay(0)
		}
	})
}

// TestHopOfLoss: the same while some of what the server sends to nodes does not arrive there. What a client misses then it is
// told of, unless it has left the node before there was anything that the node could notice it by.
func TestHopOfLoss(t *testing.T) {
	server := natstest.Start(t, "")
	var proxies []*natstest.Proxy
	nodes := startNodes(t, 3, func(int) string {
		p := natstest.NewProxy(t, server)
		proxies = append(proxies, p)
		return broker(one, p.URL())
	})
	h := newHop(nodes)
	h.lossy = true
	h.run(t, func(goOn func(int)) {
		for _, p := range proxies {
			p.Drop(func(subject string, payload []byte) bool {
				return strings.HasPrefix(subject, "bc.l.c") && !strings.Contains(string(payload), "end c") && rand.N(300) == 0
			})
		}
		goOn(10)
		dropped := 0
		for _, p := range proxies {
			p.Drop(nil)
			dropped += p.Dropped()
		}
		if dropped == 0 {
			t.Error("nothing was dropped")
		}
	})
}

func newHop(nodes []*node) *hop {
	h := &hop{
		nodes: nodes, goal: 60_000, faults: 2, stop: make(chan struct{}), acked: map[string]uint64{}, failed: map[string]int{},
		channels: make([][]string, hoppers), begun: make([]uint64, hoppers), received: make([][]message, hoppers),
	}
	if os.Getenv("HOP") != "" {
		h.goal = 560_000
	}
	return h
}

// run runs it with faults. goOn waits until one of so many parts of all is delivered.
func (h *hop) run(t *testing.T, fault func(goOn func(parts int))) {
	h.name = t.Name()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.last.Store(time.Now().UnixNano())
	begun := time.Now()
	var publishing, receiving sync.WaitGroup
	for i := range hoppers {
		receiving.Go(func() { h.receive(ctx, t, i) })
	}
	for p := range publishers {
		publishing.Go(func() { h.publish(ctx, t, p) })
	}
	goOn := func(parts int) { h.wait(t, h.delivered.Load()+h.goal/int64(parts)) }
	for range h.faults {
		goOn(4)
		fault(goOn)
	}
	h.wait(t, h.goal)
	close(h.stop)
	publishing.Wait()
	for i := range hopChannels {
		h.store(ctx, t, p0, fmt.Sprint("c", i), "end "+fmt.Sprint("c", i))
	}
	timer := time.AfterFunc(patience, cancel)
	receiving.Wait()
	timer.Stop()
	h.check(t, time.Since(begun))
}

// wait waits until so many messages are delivered.
func (h *hop) wait(t *testing.T, n int64) {
	t.Helper()
	// It counts, because the clients are many and none is told of the others.
	for idle := time.Now(); h.delivered.Load() < n; time.Sleep(time.Millisecond) {
		if at := time.Unix(0, h.last.Load()); at.After(idle) {
			idle = at
		}
		if time.Since(idle) > patience {
			t.Fatalf("nothing is delivered any more; %d are", h.delivered.Load())
		}
	}
}

// p0 publishes by POST.
const p0 = 0

// publish publishes on one channel after another, or, if it has a WebSocket, on one.
func (h *hop) publish(ctx context.Context, t *testing.T, p int) {
	for n := 0; ; n++ {
		select {
		case <-h.stop:
			return
		default:
		}
		channel := fmt.Sprint("c", (p+n)%hopChannels)
		if p%2 == 1 {
			channel = fmt.Sprint("c", p)
		}
		if !h.store(ctx, t, p, channel, fmt.Sprint(p, " ", n)) {
			return
		}
	}
}

// store publishes a message until a node says that it is stored, always with the same key.
func (h *hop) store(ctx context.Context, t *testing.T, p int, channel, data string) bool {
	for deadline := time.Now().Add(patience); ctx.Err() == nil; {
		var id, problem string
		if p%2 == 1 {
			id, problem = h.feed(ctx, p, channel, data)
		} else {
			a, err := post(ctx, h.any().Addr, channel, data, h.name+" "+data)
			if id, problem = a.id, fmt.Sprint(a.status); err != nil {
				problem = "connection"
			}
		}
		h.mu.Lock()
		if id != "" {
			h.acked[channel+" "+data] = h.positionLocked(id)
			h.mu.Unlock()
			return true
		}
		h.failed[problem]++
		h.mu.Unlock()
		if time.Now().After(deadline) {
			t.Errorf("%q cannot be published: %s", data, problem)
			return false
		}
		time.Sleep(20 * time.Millisecond) // as a publisher does that is told to try again later
	}
	return false
}

// position returns the place of an ID in the order of all, which are of several epochs if the server forgets.
func (h *hop) position(id string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.positionLocked(id)
}

func (h *hop) positionLocked(id string) uint64 {
	epoch, _, _ := strings.Cut(id, "-")
	i := slices.Index(h.epochs, epoch)
	if i < 0 {
		i = len(h.epochs)
		h.epochs = append(h.epochs, epoch)
	}
	return uint64(i)<<40 + seqOf(id)
}

func (h *hop) any() *node { return h.nodes[rand.N(len(h.nodes))] }

// feed publishes over a WebSocket, which moves to another node when something fails, and once in a while.
func (h *hop) feed(ctx context.Context, p int, channel, data string) (id, problem string) {
	f := h.feeds[p]
	if f == nil {
		var err error
		if f, err = openFeed(ctx, h.any().Addr, channel); err != nil {
			return "", "connect"
		}
		h.feeds[p] = f
	}
	id, code, err := f.publish(ctx, data, h.name+" "+data)
	if err != nil {
		code = "connection"
	}
	if id == "" || rand.N(200) == 0 {
		f.close()
		h.feeds[p] = nil
	}
	return id, code
}

// receive has a client move from node to node until it has the last message of each of its channels.
func (h *hop) receive(ctx context.Context, t *testing.T, i int) {
	kind := v1
	count := 1 + i%4
	if i%5 == 4 {
		kind, count = stream, 1
	}
	var channels []string
	for k := range count {
		channels = append(channels, fmt.Sprint("c", (i+k*5)%hopChannels))
	}
	h.channels[i] = channels
	lastID := ""
	for ends := 0; ends < count && ctx.Err() == nil; {
		n := h.any()
		stay := 100*time.Millisecond + rand.N(900*time.Millisecond)
		if i%10 == 0 {
			stay = patience // to be there when something fails, and afterwards
		}
		once, cancel := context.WithTimeout(ctx, stay)
		c, err := connect(once, n.Addr, kind, lastID, channels...)
		if err != nil {
			if r := refused(0); errors.As(err, &r) && r != http.StatusServiceUnavailable {
				t.Errorf("client %d: %v", i, err)
			}
			h.refused.Add(1)
			cancel()
			time.Sleep(rand.N(50 * time.Millisecond)) // as clients do
			continue
		}
		h.hops.Add(1)
		ends += h.read(once, t, i, c, lastID, count-ends)
		lastID = c.lastID
		c.close()
		cancel()
	}
	if ctx.Err() != nil {
		t.Errorf("client %d on %v did not get everything; it is at %s", i, channels, lastID)
	}
}

// read reads until the connection ends, or the channels do.
func (h *hop) read(ctx context.Context, t *testing.T, i int, c *client, lastID string, left int) (ends int) {
	for ends < left {
		e, err := c.next(ctx)
		if e.Hello != nil {
			h.received[i] = append(h.received[i], message{hop: true, at: h.position(e.Hello.ID)})
		}
		switch {
		case err != nil:
			return ends
		case e.Gap != nil && (h.lossy || h.forgets):
			for _, channel := range e.Gap.Channels {
				h.received[i] = append(h.received[i], message{channel: channel})
			}
		case e.Gap != nil:
			t.Errorf("client %d (%s) was told of a gap on %v, after %s", i, c.kind, e.Gap.Channels, lastID)
		case e.Hello != nil && lastID == "":
			h.begun[i] = h.position(e.Hello.ID)
		case e.Hello != nil && c.kind == v1 && !e.Hello.Resumed && !h.lossy && !h.forgets:
			t.Errorf("client %d was not resumed from %s", i, lastID)
		case e.ID != "":
			m := message{seq: h.position(e.ID), channel: e.Channel, data: c.text(e)}
			h.received[i] = append(h.received[i], m)
			h.delivered.Add(1)
			now := time.Now().UnixNano()
			if pause := now - h.last.Swap(now); pause > h.silence.Load() {
				h.silence.Store(pause)
			}
			if strings.HasPrefix(m.data, "end ") {
				ends++
			}
		}
	}
	return ends
}

// leaderOf returns which server leads the stream, once one does.
func leaderOf(t *testing.T, servers []*natstest.Server) int {
	t.Helper()
	return waitStream(t, servers, func(c *nats.ClusterInfo) bool { return c.Leader != "" })
}

// waitCurrent waits until all servers have everything.
func waitCurrent(t *testing.T, servers []*natstest.Server) {
	t.Helper()
	waitStream(t, servers, func(c *nats.ClusterInfo) bool {
		current := 0
		for _, r := range c.Replicas {
			if r.Current && !r.Offline {
				current++
			}
		}
		return c.Leader != "" && current == len(servers)-1
	})
}

func waitStream(t *testing.T, servers []*natstest.Server, so func(*nats.ClusterInfo) bool) (leader int) {
	t.Helper()
	conn, err := nats.Connect(strings.Join(natstest.URLs(servers), ","))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream(nats.MaxWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		info, err := js.StreamInfo("BROADCAST")
		if err == nil && info.Cluster != nil && so(info.Cluster) {
			fmt.Sscanf(info.Cluster.Leader, "n%d", &leader)
			return leader
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream does not get ready", err)
		}
	}
}
