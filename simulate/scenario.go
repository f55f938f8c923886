package main

import (
	"sync"
	"time"
)

// scenario is a load, and what happens meanwhile.
type scenario struct {
	name, about string
	room        int           // connections of a channel; 0: one channel has all
	several     bool          // each connection is in three rooms
	affinity    bool          // those of a room are on one node
	rate        float64       // messages per second
	perNode     bool          // times the number of nodes
	lasts       time.Duration // of virtual time, after all have connected
	tick        time.Duration // between the signs of life of a node; 0: that of a Memory
	events      []event
	beats       bool // the nodes tell each other that they are there
	gaps        bool // clients may be told of gaps
	history     int  // messages that the log and the nodes keep of a channel, if not those of hubConfig
	atMost      int  // nodes: more take too long
}

// event is something that happens, once, or again and again.
type event struct {
	after, every time.Duration
	what         func(*cluster)
}

// happen has an event happen at its times.
func (c *cluster) happen(e event) {
	for at := e.after; at < c.lasts; at += e.every {
		time.Sleep(time.Until(c.report.began.Add(at)))
		e.what(c)
		if e.every == 0 {
			return
		}
	}
}

var scenarios = []scenario{
	{name: "everybody", about: "all connections on one channel", rate: 2, lasts: time.Minute},
	{name: "rooms", about: "rooms of 10, whose connections are on random nodes", room: 10, rate: 0.4, perNode: true, lasts: time.Minute},
	{name: "affinity", about: "rooms of 10, each on one node", room: 10, affinity: true, rate: 0.4, perNode: true, lasts: time.Minute},
	{name: "rolling", about: "all nodes are restarted in order, 5 % at a time", room: 10, rate: 0.2, perNode: true, lasts: 2 * time.Minute,
		events: []event{{after: time.Second, what: restartAll}}},
	{name: "slow", about: "the same, and a third of the links is 500 ms slow, so that clients are ahead of their new node", room: 10, rate: 0.2, perNode: true,
		lasts: 2 * time.Minute, events: []event{{what: slowLinks}, {after: time.Second, what: restartAll}}},
	{name: "loss", about: "1 % of the nodes lose their power, and come back after a minute", room: 10, rate: 0.2, perNode: true, lasts: 2 * time.Minute,
		events: []event{{after: 10 * time.Second, what: killSome}}},
	{name: "partition", about: "a third of the nodes is cut off for 45 s, half of them without noticing", room: 10, rate: 0.2, perNode: true, lasts: 2 * time.Minute,
		events: []event{{after: 10 * time.Second, what: partition}}},
	{name: "leader", about: "each minute the broker has no leader for 4 s, and loses what it was sending", room: 10, rate: 0.2, perNode: true, lasts: 2 * time.Minute,
		events: []event{{after: 10 * time.Second, every: time.Minute, what: changeLeader}}},
	{name: "restart", about: "the broker is restarted, and a minute later all nodes at once", room: 1, rate: 0.2, perNode: true, lasts: 2 * time.Minute,
		events: []event{{after: 10 * time.Second, what: restartBroker}, {after: 70 * time.Second, what: killAll}}},
	{name: "reload", about: "nodes lose a message on its way, and are given another log of the same broker before they miss it", room: 10, rate: 2, perNode: true,
		lasts: time.Minute, atMost: 300, events: []event{{after: time.Second, every: 500 * time.Millisecond, what: reloadSome}}},
	{name: "late", about: "a rolling restart, while nodes lose messages on their way and miss them later", room: 10, rate: 0.5, perNode: true,
		lasts: time.Minute, atMost: 300, gaps: true,
		events: []event{{after: time.Second, what: restartAll}, {after: time.Second, every: 200 * time.Millisecond, what: loseSome}}},
	{name: "forget", about: "the log keeps 3 messages of a channel, so those who were away miss some: outages of 20 s, lost nodes, reloads", room: 10, rate: 0.5,
		perNode: true, lasts: 2 * time.Minute, history: 3, gaps: true,
		events: []event{{after: 10 * time.Second, every: 30 * time.Second, what: cutOff}, {after: 15 * time.Second, every: 20 * time.Second, what: reloadSome},
			{after: 30 * time.Second, what: killSome}, {after: time.Minute, what: changeLeader}}},
	{name: "rollback", about: "the broker loses acked messages twice", room: 10, rate: 0.2, perNode: true, lasts: time.Minute, gaps: true,
		events: []event{{after: 20 * time.Second, every: 20 * time.Second, what: func(c *cluster) { c.memory.Rollback(20) }}}},
	{name: "beats", about: "nodes tell each other that they are there, and how many subscribers they have, while some are lost", room: 10, rate: 0.1,
		perNode: true, lasts: 2 * time.Minute, beats: true, atMost: 300, events: []event{{after: 30 * time.Second, what: killSome}, {after: 100 * time.Second, what: restartBroker}}},
	{name: "several", about: "connections in three rooms, with a partition, a leader's change and lost nodes at once", room: 10, several: true, rate: 0.1,
		perNode: true, lasts: 2 * time.Minute, gaps: true,
		events: []event{{after: 10 * time.Second, what: partition}, {after: 20 * time.Second, every: 30 * time.Second, what: changeLeader},
			{after: 30 * time.Second, what: killSome}}},
	{name: "day", about: "a day: a rolling restart, a node lost each hour, a leader's change every two, two partitions", room: 10, rate: 0.01, perNode: true,
		lasts: 24 * time.Hour, tick: 5 * time.Second, atMost: 50,
		events: []event{
			{after: time.Hour, every: 12 * time.Hour, what: restartAll}, {after: 10 * time.Minute, every: time.Hour, what: killSome},
			{after: 20 * time.Minute, every: 2 * time.Hour, what: changeLeader}, {after: 3 * time.Hour, every: 12 * time.Hour, what: partition},
		}},
}

// restartAll restarts all nodes, some at a time.
func restartAll(c *cluster) {
	step := max(1, len(c.nodes)/20)
	for i := 0; i < len(c.nodes); i += step {
		var some sync.WaitGroup
		for _, n := range c.nodes[i:min(i+step, len(c.nodes))] {
			some.Go(func() { c.restart(n) })
		}
		some.Wait()
	}
}

// slowLinks makes a third of the links slow.
func slowLinks(c *cluster) {
	for i, n := range c.nodes {
		if i%3 == 0 {
			n.link.SetLatency(500 * time.Millisecond)
		}
	}
}

// some returns nodes that are up.
func (c *cluster) some(n int) []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []*node
	for _, i := range c.random.Perm(len(c.up))[:min(n, len(c.up))] {
		nodes = append(nodes, c.up[i])
	}
	return nodes
}

func killSome(c *cluster) { c.killAndRevive(c.some(max(1, len(c.nodes)/100)), time.Minute) }

// killAll is a power failure of everything but the broker.
func killAll(c *cluster) { c.killAndRevive(c.nodes, 5*time.Second) }

func (c *cluster) killAndRevive(nodes []*node, down time.Duration) {
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			c.kill(n)
			time.Sleep(down)
			c.revive(n)
		})
	}
	all.Wait()
}

// partition cuts a third of the nodes off for so long that they send their clients away.
func partition(c *cluster) { c.cut(45 * time.Second) }

// cutOff cuts a third of the nodes off for so short a time that their clients stay.
func cutOff(c *cluster) { c.cut(20 * time.Second) }

// cut cuts a third of the nodes off. For every second of them, connections are not closed, but nothing comes through them.
func (c *cluster) cut(lasts time.Duration) {
	cut := c.some(max(1, len(c.nodes)/3))
	for i, n := range cut {
		if i%2 == 0 {
			n.link.Disconnect()
		} else {
			n.link.Mute(true)
		}
	}
	time.Sleep(lasts)
	for _, n := range cut {
		n.link.Mute(false)
		n.link.Reconnect()
	}
}

// changeLeader is what three nats-servers do when the leader is killed: the others elect another one within seconds, and
// everything acked is kept. What the old one was sending may be lost.
func changeLeader(c *cluster) {
	for i, n := range c.nodes {
		if i%3 == 0 {
			n.link.LoseLive(1)
		}
	}
	time.Sleep(time.Second)
	c.memory.Freeze()
	time.Sleep(4 * time.Second)
	c.memory.Thaw()
}

// loseSome has nodes lose a message on its way.
func loseSome(c *cluster) {
	for _, n := range c.some(max(1, len(c.nodes)/10)) {
		n.link.LoseLive(1)
	}
}

// reloadSome does what a reload does that changes options of the broker: while messages come, another log of the same epoch
// takes the place of the hub's. Some of the nodes have lost a message on its way before.
func reloadSome(c *cluster) {
	var all sync.WaitGroup
	for i, n := range c.some(max(1, len(c.nodes)/10)) {
		if i%2 == 0 {
			n.link.LoseLive(1)
		}
		all.Go(func() {
			time.Sleep(c.between(time.Second))
			if err := c.redial(n); err != nil {
				c.problem("node %d was not given another log: %v", n.number, err)
			}
		})
	}
	all.Wait()
}

func restartBroker(c *cluster) {
	c.memory.Stop()
	time.Sleep(3 * time.Second)
	c.memory.Start()
}
