package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// shape is how connections are spread over channels. Each connection is on one channel.
type shape struct {
	name string

	// Channels have room connections each, or, if room is 0, sizes by Zipf's law: channels of them in all, of which the n-th
	// largest has a share of 1/n. With neither, one channel has all connections.
	room     float64
	channels float64
	zipf     bool

	rate     float64 // messages per second on each channel
	affinity bool    // a channel's connections are on as few nodes as can hold them
}

// system is the nodes and brokers that a shape runs on.
type system struct {
	connections float64 // of all nodes
	perNode     float64
	cores       float64 // of a node
	broker      string  // R1, R3 or Redis
	data        float64 // bytes of a message
}

func (s system) nodes() float64 { return math.Max(1, math.Ceil(s.connections/s.perNode)) }

// load is what a shape asks of a system, per second.
type load struct {
	publishes  float64
	deliveries float64
	egress     float64 // messages that the broker sends to nodes
	pairs      float64 // channels that nodes have open, all together
	channels   float64
}

// interested returns on how many of n nodes a channel of s connections has some, if each is on a random node: a node has none
// with the probability (1-1/n)^s.
func interested(n, s float64) float64 {
	return n * (1 - math.Pow(1-1/n, s))
}

// together returns on how many nodes it has some if they are as close to each other as possible.
func together(n, s, perNode float64) float64 {
	return math.Min(n, math.Max(1, math.Ceil(s/perNode)))
}

// load returns what a shape asks for.
func (sh shape) load(sys system) (l load) {
	n := sys.nodes()
	sh.each(sys, func(count, size float64) {
		on := interested(n, size)
		if sh.affinity {
			on = together(n, size, sys.perNode)
		}
		l.channels += count
		l.publishes += count * sh.rate
		l.deliveries += count * sh.rate * size
		l.egress += count * sh.rate * on
		l.pairs += count * on
	})
	return l
}

// each calls add for groups of channels of one size.
func (sh shape) each(sys system, add func(count, size float64)) {
	switch {
	case sh.zipf:
		zipf(sys.connections, sh.channels, add)
	case sh.room > 0:
		add(sys.connections/sh.room, sh.room)
	case sh.channels > 0:
		add(sh.channels, sys.connections/sh.channels)
	default:
		add(1, sys.connections)
	}
}

// zipf calls add for groups of channels, which together have all connections. The sizes in a group differ by 1 %.
func zipf(connections, channels float64, add func(count, size float64)) {
	harmonic := func(k float64) float64 { // 1 + 1/2 + … + 1/k
		if k < 100 {
			sum := 0.0
			for i := 1.0; i <= k; i++ {
				sum += 1 / i
			}
			return sum
		}
		return math.Log(k) + 0.57721566490153 + 1/(2*k) // Euler's constant
	}
	all := harmonic(channels)
	for from := 1.0; from <= channels; {
		to := math.Min(channels, math.Max(from, math.Floor(from*1.01)))
		count := to - from + 1
		share := harmonic(to)
		if from > 1 {
			share -= harmonic(from - 1)
		}
		add(count, connections*share/all/count)
		from = to + 1
	}
}

// cost is what a load uses. Shares are parts of what is available: over 1 is too much.
type cost struct {
	load
	nodes     float64
	receives  float64 // messages per second that a node gets
	nodeCPU   float64 // cores of a node
	nodeBytes float64
	nodeNet   float64 // bytes per second that a node sends to clients
	brokerCPU float64 // cores of the broker, all servers
	servers   float64 // that the broker needs for its egress
	subBytes  float64 // of the broker
	logShare  float64 // of the messages per second that one log carries
	leader    float64 // cores that the log's server needs to send each message once to each of the others
	heartbeat float64 // messages per second of heartbeats, at all nodes together
	counts    float64 // numbers of subscribers set per second, at most
	restart   float64 // seconds of the broker's CPU if all nodes start again at once: opens and reads
	nodeLost  float64 // channels that others open if a node is lost
}

// cost returns what a shape costs on a system.
func (c *constants) cost(sh shape, sys system) (r cost) {
	r.load, r.nodes = sh.load(sys), sys.nodes()
	n := r.nodes
	r.receives = r.egress/n + c.of(tickRate)
	r.nodeCPU = c.nodeCPU(r.publishes/n, r.receives, r.deliveries/n, math.Min(sys.perNode, sys.connections))
	r.nodeBytes = math.Min(sys.perNode, sys.connections)*c.of(connBytes) + r.pairs/n*c.of(chanBytes)
	r.nodeNet = r.deliveries / n * (sys.data + 10)
	r.subBytes = r.pairs * c.of(subBytes)
	r.logShare = r.publishes / c.of("limit."+sys.broker)

	entries := r.egress + n*c.of(tickRate)
	sent := entries + r.publishes // with acks
	r.brokerCPU = c.brokerCPU(sys.broker, r.publishes, entries)
	if sys.broker == "Redis" {
		// One thread does all of it. More servers would be more logs.
		r.servers, r.leader = 1, r.brokerCPU
	} else {
		// A core for each server's clients, since one goroutine sends a message to all of them. It is half busy at most.
		r.servers = math.Ceil(sent * c.of(sendNATS) / 1e6 / 0.5)
		r.servers = math.Max(r.servers, map[string]float64{"R1": 1, "R3": 3}[sys.broker])
		r.leader = r.publishes * (r.servers - 1) * c.of(sendNATS) / 1e6
	}

	period := 2 * math.Max(1, n/100)
	r.heartbeat = n * (n - 1) / period
	r.counts = math.Min(r.pairs, 2*sys.connections/(c.of(liveMinutes)*60))
	open, read := c.of("open."+sys.broker), c.of(readNATS)
	if sys.broker == "Redis" {
		read = c.of(readRedis)
	}
	r.restart = r.pairs * (open + read) / 1e6
	r.nodeLost = sh.moved(sys)
	return r
}

// nodeCPU returns the cores that a node needs: for what it publishes, receives, and delivers per second to its connections.
func (c *constants) nodeCPU(publishes, receives, deliveries, connections float64) float64 {
	return (publishes*c.of(publishNode) + receives*c.recv(receives) + deliveries*c.deliver(deliveries/connections) + c.of(nodeIdle)) / 1e6
}

// deliver returns the cost of a delivery to a connection that gets messages at a rate.
func (c *constants) deliver(rate float64) float64 {
	return c.of(deliverWarm) + (c.of(deliverCold)-c.of(deliverWarm))/(1+rate/c.of(deliverRate))
}

// brokerCPU returns the cores that the broker needs to store messages, and to send some.
func (c *constants) brokerCPU(broker string, publishes, sent float64) float64 {
	send := sendNATS
	if broker == "Redis" {
		send = sendRedis
	}
	// As on a node, a message that comes alone wakes somebody, and among many nobody.
	store := c.of("store."+broker) + c.of("wake."+broker)/(1+publishes/c.of(wakeRate))
	return (publishes*store + sent*c.of(send)) / 1e6
}

// recv returns the cost of a message that a node receives. At a low rate each wakes several goroutines. At a high rate they
// come in batches, which are woken for once.
func (c *constants) recv(rate float64) float64 {
	return c.of(recvFull) + (c.of(recvLow)-c.of(recvFull))/(1+rate*c.of(batchTime)/1e6)
}

// opened returns how many of n-1 nodes have to open a channel of s connections on random nodes when the other one is lost. Such
// a node had none of them before, which has the probability (1-1/n)^s. Then each was on the lost node and has come here with
// the probability 1/(n-1)^2.
func opened(n, s float64) float64 {
	return (n - 1) * math.Pow(1-1/n, s) * (1 - math.Pow(1-1/((n-1)*(n-1)), s))
}

// moved returns how many channels the other nodes have to open when a node is lost.
func (sh shape) moved(sys system) (opens float64) {
	n := sys.nodes()
	if n < 2 {
		return 0
	}
	sh.each(sys, func(count, size float64) {
		if sh.affinity {
			opens += count * together(n, size, sys.perNode) / n
		} else {
			opens += count * opened(n, size)
		}
	})
	return opens
}

// limit is a resource that a load can exhaust.
type limit struct {
	what  string
	share float64 // that is used: over 1 is too much
	lever string  // what helps
}

// restartTime is how long the broker may be busy with opens and reads after all nodes have been restarted, in seconds.
const restartTime = 30

// limits returns the limits of a load, in the order in which they are reached.
func (c *constants) limits(sh shape, sys system, r cost) []limit {
	spread := "rooms on one node"
	if sh.affinity || sh.room == 0 && !sh.zipf {
		spread = "fewer messages, or several logs (not built)"
	}
	send := limit{"the log's server, which sends to all others", r.leader, spread}
	if sys.broker == "Redis" {
		send.what = "Redis, whose one thread also sends"
	}
	all := []limit{
		{"the log: one server puts all messages in order", r.logShare, "fewer, larger messages, or several logs (not built)"},
		{"CPU of a node", r.nodeCPU / sys.cores, "more nodes with fewer connections each; coalesce"},
		{"network of a node (10 Gbit/s)", r.nodeNet / 1.25e9, "more nodes with fewer connections each"},
		send,
		{"memory of the broker (16 GiB a server)", r.subBytes / r.servers / (16 << 30), "rooms on one node; more servers"},
		{fmt.Sprintf("the broker after a restart of all nodes (%d s)", restartTime), r.restart / r.servers / restartTime, "rooms on one node; restart one after another"},
	}
	slices.SortStableFunc(all, func(a, b limit) int { return cmp.Compare(b.share, a.share) })
	return all
}
