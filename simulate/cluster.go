package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
	"github.com/caddy-broadcast/caddy-broadcast/internal/oracle"
)

// cluster is the nodes, their log, their clients and publishers. It runs in a bubble of testing/synctest, so its time is
// virtual: it advances when nobody has anything to do.
type cluster struct {
	scenario
	size
	seed    uint64
	memory  *brokertest.Memory
	options *hub.ConnOptions
	began   time.Time
	nodes   []*node
	clients []*client
	quiet   chan struct{} // closed when nothing new is to be published
	ended   chan struct{} // closed when everybody has to stop
	running sync.WaitGroup

	mu       sync.Mutex
	random   *rand.Rand
	up       []*node // those that a load balancer sends clients to
	sent     []*message
	unsent   int // messages that have no final answer
	report   report
	problems []string
}

// size is the number of nodes, and of connections of each.
type size struct {
	nodes, connections int // connections of each node
}

// node is a machine. Its hub is another one after each restart, its link to the broker stays.
type node struct {
	number int
	link   *brokertest.MemoryBroker

	// Guarded by cluster.mu, as all clients look at it.
	hub     *hub.Hub
	group   *nodes.Cluster       // nil in scenarios without beats
	up      bool                 // a health check has found it
	refuses bool                 // and not that it is cut off from the log for too long
	killed  bool                 // what it has not answered is not known
	clients map[*client]struct{} // that are connected to it

	alive     int    // how many nodes it knows in the end
	epoch     string // when it was looked at last
	watermark uint64
}

// The delays of a data center, with a client library between: half a millisecond, and up to as much again.
const latency = 500 * time.Microsecond

func newCluster(sc scenario, n size, seed uint64) *cluster {
	c := &cluster{scenario: sc, size: n, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), quiet: make(chan struct{}), ended: make(chan struct{})}
	c.memory = brokertest.NewMemory(brokertest.MemoryConfig{Seed: seed, Latency: latency, Jitter: latency, Tick: sc.tick, Keep: sc.history})
	c.options = &hub.ConnOptions{Format: trace{c}, PingInterval: time.Hour, WriteTimeout: time.Minute, MaxBacklog: 1 << 20}
	c.report.memory(c, "")
	for i := range n.nodes {
		nd := &node{number: i, link: c.memory.Broker(), clients: make(map[*client]struct{})}
		c.nodes = append(c.nodes, nd)
		c.start(nd)
	}
	return c
}

// hubConfig is what the nodes share. The partition timeout is the default of the module.
var hubConfig = hub.Config{History: 100, HistoryAge: 10 * time.Minute, PartitionTimeout: 30 * time.Second}

// oneLoop is held while GOMAXPROCS is 1.
var oneLoop sync.Mutex

// start starts a node. It is up when it has heard from the log, as a health check would find.
func (c *cluster) start(n *node) {
	// One loop for each hub. Real nodes have cores of their own, but here all hubs share those of one machine, so more
	// loops would only take memory. New looks at the number once.
	oneLoop.Lock()
	procs := runtime.GOMAXPROCS(1)
	config := hubConfig
	if c.history > 0 {
		config.History = c.history
	}
	h := hub.New(config)
	runtime.GOMAXPROCS(procs)
	oneLoop.Unlock()
	group, err := c.dial(n, h)
	if err != nil {
		panic(err) // a new hub takes any log
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.hub, n.group, n.killed = h, group, false
	n.epoch, n.watermark, n.refuses = "", 0, false
	c.upLocked(n, true)
}

// upLocked has the load balancer use a node, or not.
func (c *cluster) upLocked(n *node, up bool) {
	n.up = up
	c.up = c.up[:0:0]
	for _, n := range c.nodes {
		if n.up && !n.refuses {
			c.up = append(c.up, n)
		}
	}
}

// restart restarts a node in an orderly way: its clients are sent away over a while, and find other nodes.
func (c *cluster) restart(n *node) {
	c.mu.Lock()
	h := n.hub
	c.upLocked(n, false)
	c.mu.Unlock()
	h.Close(hub.ReasonRestart, "", shutdownDelay, time.Second)
	time.Sleep(startTime)
	c.start(n)
}

const (
	shutdownDelay = 2 * time.Second // shutdown_delay
	startTime     = time.Second     // from the end of a process until the next one listens
)

// kill ends a node as a power failure would. Nothing comes from it any more. A health check finds that two seconds later,
// and until then clients try it in vain.
func (c *cluster) kill(n *node) {
	n.link.Disconnect()
	c.mu.Lock()
	n.killed = true
	h := n.hub
	for k := range n.clients {
		k.wire.cut()
	}
	c.mu.Unlock()
	h.Close(hub.ReasonRestart, "", 0, 0) // nobody hears it
	time.Sleep(2 * time.Second)
	c.mu.Lock()
	c.upLocked(n, false)
	c.mu.Unlock()
}

// revive starts a node that was killed.
func (c *cluster) revive(n *node) {
	n.link.Reconnect()
	c.start(n)
}

// position returns the newest position of the log.
func (c *cluster) position() string { return hub.FormatID(c.memory.Position()) }

// pick returns the node that the load balancer chooses for a channel, or nil. By room it is a hash, and the next node if that
// one is down, as Caddy's lb_policy query does.
func (c *cluster) pick(room int) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.up) == 0 {
		return nil
	}
	if !c.affinity {
		return c.up[c.random.IntN(len(c.up))]
	}
	for i := range c.nodes {
		if n := c.nodes[(room+i)%len(c.nodes)]; n.up && !n.refuses {
			return n
		}
	}
	return nil
}

// wait waits for a while, or returns false when the run is over.
func (c *cluster) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ended:
		return false
	}
}

// between returns a random time up to d.
func (c *cluster) between(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.random.Int64N(int64(d) + 1))
}

// run runs the scenario, and fills its report.
func (c *cluster) run() {
	c.report.memory(c, "the nodes")
	for i := range c.size.nodes * c.size.connections {
		k := &client{cluster: c, number: i, room: i}
		if c.room > 0 {
			k.room = i / c.room
		} else {
			k.room = 0
		}
		c.clients = append(c.clients, k)
		c.running.Go(k.run)
	}
	c.wait(10 * time.Second) // until all are there
	c.report.memory(c, "the clients")
	c.report.begin(c)
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		c.sample()
	}()
	c.running.Go(c.publish)
	var events sync.WaitGroup
	for _, e := range c.events {
		events.Go(func() { c.happen(e) })
	}
	time.Sleep(c.lasts)
	events.Wait()
	close(c.quiet)
	c.report.end(c)
	c.heal()
	for _, n := range c.nodes {
		if n.group != nil {
			n.alive = len(n.group.Nodes())
		}
	}
	close(c.ended)
	<-sampled
	c.running.Wait()
	synctest.Wait()
	c.report.count(c)
	c.check()
	c.close()
}

// heal ends all faults, and waits until everything is done that is under way.
func (c *cluster) heal() {
	c.memory.Start()
	c.memory.Thaw()
	for _, n := range c.nodes {
		n.link.Mute(false)
		n.link.LoseLive(0)
		n.link.Reconnect()
	}
	time.Sleep(90 * time.Second) // clients wait up to 30 s between two tries
	synctest.Wait()
}

func (c *cluster) close() {
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(func() { n.hub.Close(hub.ReasonRestart, "", 0, 0) })
	}
	all.Wait()
	c.memory.Close()
}

// check compares what everybody was told with what the log has.
func (c *cluster) check() {
	log, wrong := oracle.NewLog(c.memory.Stored())
	c.problems = append(c.problems, wrong...)
	for _, k := range c.clients {
		for _, before := range k.before {
			c.problems = append(c.problems, log.Check(before)...)
		}
		if k.wire == nil {
			c.problem("client %d is not connected in the end", k.number)
		}
		k.before = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.sent {
		c.problems = append(c.problems, log.CheckPublished(m.Published, hub.ErrClosed)...)
	}
	for _, n := range c.nodes {
		if n.group != nil && n.alive != len(c.nodes) {
			c.problems = append(c.problems, fmt.Sprintf("node %d knows of %d nodes", n.number, n.alive))
		}
	}
	if c.unsent > 0 {
		c.problems = append(c.problems, fmt.Sprintf("%d publishers have no answer", c.unsent))
	}
}

func (c *cluster) problem(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// lookEvery is how many rounds of sample it takes to look at all nodes. It is also what a health check takes.
const lookEvery = 4

// sample looks at all nodes again and again: a watermark only grows within an epoch, and is never ahead of the log. It also
// notes the most that all nodes have asked of the broker within a second.
func (c *cluster) sample() {
	for round := 0; c.wait(max(time.Second, c.lasts/1000)); round++ {
		for i, n := range c.nodes {
			if i%lookEvery != round%lookEvery {
				continue
			}
			c.mu.Lock()
			h, before, at := n.hub, n.epoch, n.watermark
			c.mu.Unlock()
			_, log, _ := h.Log()
			stats := h.Stats() // it has both at one moment
			w, epoch := stats.Seq, stats.Epoch
			e, seq := c.memory.Position()
			if epoch == before && w < at {
				c.problem("node %d has gone back from %d to %d in epoch %s", n.number, at, w, epoch)
			}
			if e == epoch && w > seq {
				c.problem("node %d is at %d, and the log at %d", n.number, w, seq)
			}
			c.mu.Lock()
			if n.hub == h {
				n.epoch, n.watermark = epoch, w
				if n.refuses != log.Refusing {
					n.refuses = log.Refusing
					c.upLocked(n, n.up)
				}
			}
			c.mu.Unlock()
		}
		c.report.sample(c)
	}
}
