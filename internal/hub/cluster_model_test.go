package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/oracle"
)

// TestClusterModel has three hubs share a log that fails in every way that it can, while clients connect, join, leave,
// publish, and hop between the hubs. What each connection was told is compared with what the log has stored: see
// package oracle. A round is a short scenario in virtual time.
func TestClusterModel(t *testing.T) {
	if replay := os.Getenv("CLUSTER_REPLAY"); replay != "" {
		var seed, round uint64
		if _, err := fmt.Sscanf(replay, "%d,%d", &seed, &round); err != nil {
			t.Fatal(err)
		}
		runCluster(t, seed, round)
		return
	}
	rounds := uint64(1000)
	switch {
	case raceEnabled || testing.Short():
		rounds = 300
	case os.Getenv("CI") != "":
		rounds = 10000
	}
	seed := rand.Uint64()
	const workers = 2
	for worker := range uint64(workers) {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for round := worker; round < rounds && !t.Failed(); round += workers {
				runCluster(t, seed, round)
			}
		})
	}
}

// runCluster is one round.
func runCluster(t *testing.T, seed, round uint64) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(rand.New(rand.NewPCG(seed, round)))
		for range 30 + c.IntN(40) {
			c.step()
			c.pause()
		}
		c.heal()
		problems := c.check()
		c.close()
		if len(problems) > 0 {
			slices.Sort(problems)
			t.Errorf("%s\n\nThe round:\n%s\nReplay it: CLUSTER_REPLAY=%d,%d go test -run TestClusterModel ./internal/hub",
				strings.Join(problems[:min(len(problems), 5)], "\n"), strings.Join(c.journal, "\n"), seed, round)
		}
	})
}

// cluster is three hubs, their log, and the clients.
type cluster struct {
	*rand.Rand
	memory  *brokertest.Memory
	nodes   []*clusterNode
	options *ConnOptions
	config  Config
	began   time.Time

	mu      sync.Mutex
	journal []string // what was done, to be read when it fails
	clients []*clusterClient
	sent    []*clusterMessage
	running int // calls that have not returned
	wrong   []string
}

type clusterNode struct {
	*Hub
	number int
	broker *brokertest.MemoryBroker
}

// clusterClient is one connection. A client that hops is another one, with the position of the first.
type clusterClient struct {
	number   int
	node     *clusterNode
	channels []string // at first
	all      bool     // it is on all channels, without a position
	replay   int
	lastID   string
	client   *client
	conn     *Conn
	joined   []string
	busy     bool // a call has not returned
	gone     bool // it has no connection
}

// clusterMessage is a message, which may be published several times.
type clusterMessage struct {
	channel, data string
	key           string
	from          *clusterClient // which gets no echo
	answers       []oracle.Answer
}

var clusterChannels = []string{"a", "b", "c", "d"}

func newCluster(r *rand.Rand) *cluster {
	latency := []time.Duration{0, time.Millisecond, 20 * time.Millisecond}[r.IntN(3)]
	c := &cluster{Rand: r, began: time.Now()}
	c.memory = brokertest.NewMemory(brokertest.MemoryConfig{
		Seed: r.Uint64(), Latency: latency, Jitter: latency, Keep: []int{5, 1000}[r.IntN(2)],
	})
	c.options = &ConnOptions{Format: trace{c}, PingInterval: time.Hour, WriteTimeout: time.Minute, MaxBacklog: 1 << 20}
	config := Config{
		History: []int{0, 3, 100}[r.IntN(3)], HistoryAge: []time.Duration{0, 0, 2 * time.Second}[r.IntN(3)],
		PartitionTimeout: []time.Duration{0, 8 * time.Second}[r.IntN(2)],
	}
	for range c.IntN(3) {
		some, count := clusterChannels[c.IntN(len(clusterChannels)):], c.IntN(4)
		matches := func(name string) bool { return slices.Contains(some, name) }
		config.Histories = append(config.Histories, HistoryRule{Matches: matches, Count: count, Age: config.HistoryAge / 2})
		c.note("history %d of %q", count, some)
	}
	c.config = config
	c.note("latency %v, history %d for %v, partition timeout %v", latency, config.History, config.HistoryAge, config.PartitionTimeout)
	for i := range 3 {
		n := &clusterNode{Hub: New(config), number: i, broker: c.memory.Broker()}
		c.nodes = append(c.nodes, n)
		n.dial(c)
	}
	return c
}

// dial gives the hub a new connection to the log.
func (n *clusterNode) dial(c *cluster) {
	err := n.UseLog(func(s broker.Sink) (broker.Log, error) {
		return n.broker.Dial(notedSink{s, c, n}, broker.Options{Node: n.Node(), Retention: n.Retention()})
	})
	if err != nil {
		c.fail("UseLog: %v", err)
	}
}

// notedSink notes what the log tells the hub.
type notedSink struct {
	broker.Sink
	c *cluster
	n *clusterNode
}

func (s notedSink) Epoch(epoch string, at uint64) {
	s.c.note("node %d: Epoch(%s, %d)", s.n.number, epoch, at)
	s.Sink.Epoch(epoch, at)
}

func (s notedSink) Entries(run []broker.Entry) {
	var es []string
	for _, e := range run {
		es = append(es, fmt.Sprintf("%d of %s", e.Seq, e.Channel))
	}
	s.c.note("node %d: Entries(%s)", s.n.number, strings.Join(es, ", "))
	s.Sink.Entries(run)
}

func (s notedSink) Broken(why error) {
	s.c.note("node %d: Broken(%v)", s.n.number, why)
	s.Sink.Broken(why)
}

func (s notedSink) Lost(channels []string) {
	s.c.note("node %d: Lost(%q)", s.n.number, channels)
	s.Sink.Lost(channels)
}

func (s notedSink) Repaired() {
	s.c.note("node %d: Repaired", s.n.number)
	s.Sink.Repaired()
}

func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal = append(c.journal, fmt.Sprintf("%v "+format, append([]any{time.Since(c.began)}, args...)...))
}

func (c *cluster) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// start runs a call that may have to wait.
func (c *cluster) start(call func()) {
	c.mu.Lock()
	c.running++
	c.mu.Unlock()
	go func() {
		call()
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	}()
}

// pause lets some time go by.
func (c *cluster) pause() {
	d := []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, 2 * time.Second}[c.IntN(5)]
	if d > 0 {
		time.Sleep(time.Duration(c.Int64N(int64(d))))
	}
	synctest.Wait()
}

func (c *cluster) step() {
	switch k := c.IntN(100); {
	case k < 15:
		c.connect(nil)
	case k < 25:
		c.hop()
	case k < 35:
		c.join()
	case k < 38:
		c.leave()
	case k < 68:
		c.publish()
	case k < 75:
		c.emit()
	default:
		c.fault()
	}
}

// idle returns a client that is connected and has no call under way, or nil.
func (c *cluster) idle() *clusterClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*clusterClient
	for _, k := range c.clients {
		if !k.busy && !k.gone {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[c.IntN(len(all))]
}

// connect makes a connection: a new client's, or one that goes on where another one was.
func (c *cluster) connect(before *clusterClient) {
	k := &clusterClient{number: len(c.clients), node: c.nodes[c.IntN(len(c.nodes))], client: newClient(), busy: true}
	for _, i := range c.Perm(len(clusterChannels))[:1+c.IntN(len(clusterChannels))] {
		k.channels = append(k.channels, clusterChannels[i])
	}
	switch {
	case before == nil && c.IntN(6) == 0 || before != nil && before.all:
		k.channels, k.all = clusterChannels, true
	case before != nil:
		k.channels, k.lastID = before.joined, before.position()
	case len(k.channels) == 1:
		k.replay = c.IntN(4)
	}
	k.joined = slices.Clone(k.channels)
	c.note("client %d connects to node %d for %q after %q, all %v, replay %d", k.number, k.node.number, k.channels, k.lastID, k.all, k.replay)
	c.mu.Lock()
	c.clients = append(c.clients, k)
	c.mu.Unlock()
	c.start(func() {
		subscriber := Subscriber{Channels: k.channels, LastID: k.lastID, Replay: k.replay}
		if k.all {
			subscriber = Subscriber{All: true}
		}
		conn, w, err := k.node.Connect(subscriber, c.options)
		c.mu.Lock()
		k.conn, k.busy, k.gone = conn, false, err != nil
		c.mu.Unlock()
		if err != nil {
			c.note("client %d: %v", k.number, err)
			if !errors.Is(err, ErrNotReady) {
				c.fail("client %d cannot connect: %v", k.number, err)
			}
			return
		}
		conn.Start(k.client, oracle.Hello(nil, w.ID, c.position(), w.Gaps))
	})
}

// hop ends a connection, and makes another one that goes on from there.
func (c *cluster) hop() {
	if k := c.idle(); k != nil {
		c.note("client %d goes", k.number)
		k.gone = true
		k.conn.Close(ReasonClient, "")
		k.conn.Done()
		synctest.Wait()
		c.connect(k)
	}
}

func (c *cluster) join() {
	k := c.idle()
	name := clusterChannels[c.IntN(len(clusterChannels))]
	if k == nil || k.all || slices.Contains(k.joined, name) {
		return
	}
	last := ""
	if c.IntN(2) == 0 {
		last = k.position()
	}
	c.note("client %d joins %s after %q", k.number, name, last)
	k.busy = true
	c.start(func() {
		err := k.conn.Join(name, last, func(w Welcome, ms []*Message) []byte {
			p := oracle.Joined(nil, name, w.ID, c.position(), last, len(w.Gaps) > 0)
			for _, m := range ms {
				p = oracle.Missed(p, m.Channel, m.ID(), m.Data)
			}
			return p
		})
		c.mu.Lock()
		defer c.mu.Unlock()
		k.busy = false
		if err == nil {
			k.joined = append(k.joined, name)
		} else if !errors.Is(err, ErrNotReady) && !errors.Is(err, ErrClosed) {
			c.wrong = append(c.wrong, fmt.Sprintf("client %d cannot join: %v", k.number, err))
		}
	})
}

func (c *cluster) leave() {
	k := c.idle()
	if k == nil || k.all || len(k.joined) == 0 {
		return
	}
	i := c.IntN(len(k.joined))
	name := k.joined[i]
	c.note("client %d leaves %s", k.number, name)
	k.joined = slices.Delete(slices.Clone(k.joined), i, i+1)
	k.conn.Leave(name, oracle.Left(nil, name))
}

// publish publishes some messages, on one node or on several, or one again that was published before.
func (c *cluster) publish() {
	for range 1 + c.IntN(3)*c.IntN(3) {
		m := &clusterMessage{channel: clusterChannels[c.IntN(len(clusterChannels))], data: fmt.Sprint(len(c.sent))}
		if c.IntN(5) == 0 {
			m.data = oracle.Transient(m.data)
		}
		if c.IntN(3) == 0 {
			m.key = "key " + m.data
		} else if k := c.idle(); k != nil && c.IntN(3) == 0 {
			m.from = k
		}
		c.mu.Lock()
		if len(c.sent) > 0 && c.IntN(6) == 0 {
			if again := c.sent[c.IntN(len(c.sent))]; again.key != "" {
				m = again
			}
		}
		if len(m.answers) == 0 && !slices.Contains(c.sent, m) {
			c.sent = append(c.sent, m)
		}
		c.mu.Unlock()
		times := 1
		if m.key != "" {
			times += c.IntN(3)
		}
		for range times {
			c.publishOnce(m)
		}
	}
}

func (c *cluster) publishOnce(m *clusterMessage) {
	n := c.nodes[c.IntN(len(c.nodes))]
	message := &Message{Channel: m.channel, Data: []byte(m.data), Key: m.key, Transient: oracle.IsTransient(m.data)}
	if m.from != nil {
		n = m.from.node
		message.From, message.NoEcho = m.from.conn, true
	}
	c.note("node %d publishes %s on %s, %q", n.number, m.data, m.channel, m.key)
	c.start(func() {
		n.PublishAsync(message, func(err error) {
			a := oracle.Answer{Err: err}
			if err == nil {
				a.ID = message.ID()
			}
			c.mu.Lock()
			m.answers = append(m.answers, a)
			c.mu.Unlock()
			c.note("node %d: %s is %s %v", n.number, m.data, a.ID, err)
		})
	})
}

// fault breaks something, or mends it.
func (c *cluster) fault() {
	n := c.nodes[c.IntN(len(c.nodes))]
	channel := clusterChannels[c.IntN(len(clusterChannels))]
	count := 1 + c.IntN(3)
	faults := []struct {
		what string
		do   func()
	}{
		{"cut off", n.broker.Disconnect}, {"back", n.broker.Reconnect}, {"back", n.broker.Reconnect},
		{"mute", func() { n.broker.Mute(true) }}, {"not mute", func() { n.broker.Mute(false) }}, {"not mute", func() { n.broker.Mute(false) }},
		{"slow", func() { n.broker.SetLatency(200 * time.Millisecond) }}, {"fast", func() { n.broker.SetLatency(0) }},
		{"loses publishes", func() { n.broker.LosePublishes(count) }}, {"loses acks", func() { n.broker.LoseAcks(count) }},
		{"loses entries", func() { n.broker.LoseLive(count) }}, {"dials again", func() { c.start(func() { n.dial(c) }) }},
		{"(broker) down", c.memory.Stop}, {"(broker) up", c.memory.Start}, {"(broker) up", c.memory.Start},
		{"(broker) frozen", c.memory.Freeze}, {"(broker) thawed", c.memory.Thaw}, {"(broker) thawed", c.memory.Thaw},
		{"(broker) forgets " + channel, func() { c.memory.Forget(channel, count-1) }},
		{"(broker) rolled back", func() { c.memory.Rollback(c.IntN(4)) }},
	}
	f := faults[c.IntN(len(faults))]
	c.note("node %d: %s, %d", n.number, f.what, count)
	f.do()
}

// heal ends all faults, and waits until everything is done that is under way.
func (c *cluster) heal() {
	c.note("all is well again")
	c.memory.Start()
	c.memory.Thaw()
	for _, n := range c.nodes {
		n.broker.Mute(false)
		n.broker.LoseLive(0)
		n.broker.LosePublishes(0)
		n.broker.LoseAcks(0)
		n.broker.SetLatency(0)
		n.broker.Reconnect()
	}
	time.Sleep(20 * time.Second)
	synctest.Wait()
}

func (c *cluster) close() {
	for _, k := range c.clients {
		if k.conn != nil && !k.gone {
			k.conn.Done()
		}
	}
	for _, n := range c.nodes {
		closeHub(n.Hub)
	}
	c.memory.Close()
}
