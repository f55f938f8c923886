package main

import (
	"fmt"
	"io"
	"strings"
)

// constants are the measured costs that the table is computed from, in microseconds of CPU time or in bytes, unless said
// otherwise. The flag -set changes one.
type constants struct {
	values map[string]*constant
	order  []string
}

// constant is one figure, and where it comes from.
type constant struct {
	value  float64
	source string
}

// Names of constants. Those that end in R1, R3 or Redis are costs of that broker.
const (
	recvLow     = "recv.low"     // node: a message that comes from the broker while little else does
	recvFull    = "recv.full"    // the same at full rate
	batchTime   = "recv.batch"   // how long a batch takes, and so what the rate has to be for batches to form
	publishNode = "publish.node" // node: a message that is published there, with its ack
	deliverWarm = "deliver.warm" // node: a delivery to a connection that gets many messages
	deliverCold = "deliver.cold" // node: and to one that gets few, whose memory no cache has any more
	deliverRate = "deliver.rate" // messages per second to a connection at which it is halfway between
	nodeIdle    = "node.idle"    // node: a second without messages
	tickRate    = "tick.rate"    // ticks per second, which each node gets
	connBytes   = "conn.bytes"   // node: a connection
	chanBytes   = "chan.bytes"   // node: an open channel
	liveMinutes = "conn.minutes" // how long a client stays connected
	storeR1     = "store.R1"     // broker: a message stored
	storeR3     = "store.R3"     // the same, all three servers
	storeRedis  = "store.Redis"
	wakeR1      = "wake.R1" // broker: the additional cost of a message that comes alone
	wakeR3      = "wake.R3"
	wakeRedis   = "wake.Redis"
	wakeRate    = "wake.rate" // messages per second at which the additional cost is half of that
	sendNATS    = "send.NATS" // broker: a message sent to one node
	sendRedis   = "send.Redis"
	limitR1     = "limit.R1" // messages per second of one log
	limitR3     = "limit.R3"
	limitRedis  = "limit.Redis"
	openR1      = "open.R1" // broker: a channel that a node opens
	openR3      = "open.R3"
	openRedis   = "open.Redis"
	readNATS    = "read.NATS" // broker: a read of a channel's newest messages
	readRedis   = "read.Redis"
	subBytes    = "sub.bytes" // broker: a channel that a node has open
)

func defaults() *constants {
	c := &constants{values: make(map[string]*constant)}
	add := func(name string, value float64, source string) {
		c.values[name] = &constant{value, source}
		c.order = append(c.order, name)
	}
	const bench = "docs/cluster-performance.md, "
	const design = "prototype (scaleout.md, 3), "
	add(recvLow, 50, bench+"To 1, replicas 1: all on another node less all on the publisher's node")
	add(recvFull, 3, design+"republish, full rate: 2.0 to 2.2, and what the hub adds")
	add(batchTime, 200, "about a publish to delivery; judgement")
	add(publishNode, 14.5, bench+"Acked: 21.45 with replicas 1, less a delivery at full rate")
	add(deliverWarm, 6.5, bench+"no broker: To 100 less To 1, a delivery (200 messages/s each)")
	add(deliverCold, 15, bench+"no broker: In rooms less To 1: 13.3 (2 messages/s each)")
	add(deliverRate, 5, bench+"no broker: To 1,000 is 7.4 (20 messages/s each)")
	add(nodeIdle, 1700, bench+"Idle, replicas 1: 5.1 ms for three nodes")
	add(tickRate, 2, "brokers/nats/tick.go: one to three a second, of all nodes together")
	add(connBytes, 2410, "docs/performance.md: idle, 2.35 KiB per connection")
	add(chanBytes, 1036, bench+"Warm: heap of the Caddy per channel, replicas 1")
	add(liveMinutes, 10, "assumption")
	add(storeR1, 15, bench+"Acked and Log: 15.26 and 17.67")
	add(storeR3, 44, bench+"Acked and Log: 39.43 and 48.60")
	add(storeRedis, 8.5, design+"the script, no AOF")
	add(wakeR1, 246, bench+"replicas 1, less idle: 250 at 20/s, 219 at 200/s, 138 at 1000/s, 15 at 44,000/s")
	add(wakeR3, 1800, bench+"replicas 3, less idle: 1822, 1277, 723, and 39 at 30,000/s")
	add(wakeRedis, 0, "not measured")
	add(wakeRate, 1000, "the same")
	add(sendNATS, 3, design+"each further consumer, republish")
	add(sendRedis, 0.8, design+"each further consumer")
	add(limitR1, 61354, bench+"Log, replicas 1, on 2 cores that the publisher shares")
	add(limitR3, 36195, bench+"Log, replicas 3, the same")
	add(limitRedis, 92000, design+"the script, no AOF, 512 in flight")
	add(openR1, 42, bench+"Cold, replicas 1")
	add(openR3, 174, bench+"Cold, replicas 3")
	add(openRedis, 10, design+"a SUBSCRIBE and a script of a few keys; not measured alone")
	add(readNATS, 67, design+"direct get of what is near the end")
	add(readRedis, 11, design+"all 10 entries of a channel")
	add(subBytes, 1200, bench+"Warm: RSS of nats-server per channel")
	return c
}

// of returns a constant.
func (c *constants) of(name string) float64 { return c.values[name].value }

// set sets one from "name=value".
func (c *constants) set(text string) error {
	name, value, _ := strings.Cut(text, "=")
	k := c.values[name]
	if k == nil {
		return fmt.Errorf("there is no constant %q", name)
	}
	if _, err := fmt.Sscanf(value, "%g", &k.value); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	k.source = "-set"
	return nil
}

// write lists them with their sources.
func (c *constants) write(w io.Writer) {
	for _, name := range c.order {
		fmt.Fprintf(w, "%-14s %8g  %s\n", name, c.values[name].value, c.values[name].source)
	}
}
