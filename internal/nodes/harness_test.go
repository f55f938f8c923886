package nodes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// cluster is some nodes on one broker in memory, in the time of testing/synctest.
type cluster struct {
	t      testing.TB
	memory *brokertest.Memory
	nodes  []*testNode
}

// testNode is what package brokered makes of a node.
type testNode struct {
	*Cluster
	c       *cluster
	name    string
	hub     *hub.Hub
	broker  *brokertest.MemoryBroker
	session *Session
	log     broker.Log
	conns   map[string][]*hub.Conn

	sent, sentBytes, received, set, counted, forgot atomic.Int64
	hung                                            atomic.Pointer[chan struct{}] // counts are answered when it is closed
	silent                                          atomic.Bool                   // nothing of it goes out, as if its messages were lost
}

func withCluster(t *testing.T, names string, test func(c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, memory: brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond})}
		defer c.memory.Close()
		defer func() {
			for _, n := range c.nodes {
				n.hub.Close(hub.ReasonRestart, "", 0, time.Second)
			}
		}()
		for name := range strings.FieldsSeq(names) {
			c.start(name)
		}
		c.after(2 * time.Second)
		test(c)
		c.after(2 * time.Second) // for answers that nobody waits for any more
	})
}

// after lets time pass.
func (c *cluster) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *cluster) start(name string) *testNode {
	c.t.Helper()
	n := &testNode{c: c, name: name, hub: hub.New(hub.Config{}), broker: c.memory.Broker(), conns: make(map[string][]*hub.Conn)}
	n.Cluster = New(n.hub)
	c.nodes = append(c.nodes, n)
	n.attach()
	return n
}

// attach connects the node, in place of its connection before.
func (n *testNode) attach() {
	n.c.t.Helper()
	err := n.hub.UseLog(func(sink broker.Sink) (broker.Log, error) {
		n.session = n.NewSession(n.name)
		session := n.session
		log, err := n.broker.Dial(session.Sink(sink), broker.Options{Node: n.hub.Node(), Name: n.name, Message: func(from uint64, p []byte) {
			n.received.Add(1)
			session.Receive(from, p)
		}})
		if err != nil {
			return nil, err
		}
		n.log = log
		return session.Attach(counting{log, log.(broker.Peers), n}), nil
	})
	if err != nil {
		n.c.t.Fatal(err)
	}
}

// counting counts what a node asks of the broker.
type counting struct {
	broker.Log
	broker.Peers
	node *testNode
}

func (c counting) Send(to uint64, message []byte) {
	if c.node.silent.Load() {
		return
	}
	c.node.sent.Add(1)
	c.node.sentBytes.Add(int64(len(message)))
	c.Peers.Send(to, message)
}

func (c counting) SetCounts(counts map[string]int, done func(error)) {
	c.node.set.Add(int64(len(counts)))
	c.Peers.SetCounts(counts, done)
}

func (c counting) Counts(channels []string, done func([]map[uint64]int, error)) {
	c.node.counted.Add(int64(len(channels)))
	if hung := c.node.hung.Load(); hung != nil {
		go func() {
			<-*hung
			c.Peers.Counts(channels, done)
		}()
		return
	}
	c.Peers.Counts(channels, done)
}

func (c counting) Forget(node uint64) {
	c.node.forgot.Add(1)
	c.Peers.Forget(node)
}

// kill ends a node as kill -9 does: nobody is told.
func (n *testNode) kill() {
	n.broker.Disconnect()
	n.c.nodes = slices.DeleteFunc(n.c.nodes, func(o *testNode) bool { return o == n })
	n.hub.Close(hub.ReasonRestart, "", 0, time.Second)
}

func (n *testNode) leave() {
	n.c.nodes = slices.DeleteFunc(n.c.nodes, func(o *testNode) bool { return o == n })
	n.hub.Close(hub.ReasonRestart, "", 0, time.Second)
}

// expect compares the nodes that a node sees.
func (n *testNode) expect(want string) {
	n.c.t.Helper()
	var names []string
	for _, node := range n.Nodes() {
		names = append(names, node.Name)
	}
	if got := strings.Join(names, " "); got != want {
		n.c.t.Errorf("%s sees %s, want %s", n.name, got, want)
	}
}

var connOptions = &hub.ConnOptions{Format: format{}, MaxBacklog: 1 << 16, PingInterval: time.Hour, WriteTimeout: time.Second, OneWay: true}

// format and transport are of clients that nothing is sent to.
type (
	format    struct{}
	transport struct{}
)

func (format) Append(dst []byte, _ []*hub.Message) []byte { return dst }
func (format) Ping() []byte                               { return nil }
func (format) Close(hub.Reason, string) []byte            { return nil }
func (format) Gap([]string) []byte                        { return nil }

func (transport) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (transport) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (transport) Close()                                       {}

// subscribe makes a node have so many subscribers on a channel.
func (n *testNode) subscribe(channel string, count int) {
	n.c.t.Helper()
	for len(n.conns[channel]) < count {
		conn, _, err := n.hub.Connect(hub.Subscriber{Channels: []string{channel}}, connOptions)
		if err != nil {
			n.c.t.Fatal(err)
		}
		conn.Start(transport{}, nil)
		n.conns[channel] = append(n.conns[channel], conn)
	}
	for _, conn := range n.conns[channel][count:] {
		if err := conn.Leave(channel, nil); err != nil {
			n.c.t.Fatal(err)
		}
	}
	n.conns[channel] = n.conns[channel][:count]
}

// elsewhere compares the subscribers that a node knows of on others.
func (n *testNode) elsewhere(channel string, want int) {
	n.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if got := n.Subscribers(ctx, []string{channel})[0]; got != want {
		n.c.t.Errorf("%s counts %d subscribers of %s elsewhere, want %d", n.name, got, channel, want)
	}
}

// stored returns what the broker has of a channel, by the names of nodes.
func (c *cluster) stored(channel string) string {
	c.t.Helper()
	names := make(map[uint64]string)
	for _, n := range c.nodes {
		names[n.hub.Node()] = n.name
	}
	got := make(map[string]int)
	done := make(chan struct{})
	c.nodes[0].log.(broker.Peers).Counts([]string{channel}, func(all []map[uint64]int, err error) {
		defer close(done)
		if err != nil {
			c.t.Error(err)
			return
		}
		for id, n := range all[0] {
			name, ok := names[id]
			if !ok {
				name = "?"
			}
			got[name] = n
		}
	})
	<-done
	var list []string
	for _, name := range slices.Sorted(maps.Keys(got)) {
		list = append(list, fmt.Sprintf("%s:%d", name, got[name]))
	}
	return strings.Join(list, " ")
}

func newHub(t testing.TB) *hub.Hub {
	h := hub.New(hub.Config{})
	t.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, time.Second) })
	return h
}

// drain is a broker that everything is lost in.
type drain struct{}

func (*drain) Send(uint64, []byte)                                    {}
func (*drain) SetCounts(_ map[string]int, done func(error))           { done(nil) }
func (*drain) Counts(cs []string, done func([]map[uint64]int, error)) { done(nil, broker.ErrDown) }
func (*drain) Forget(uint64)                                          {}
