// Capacity computes what a cluster of Caddys needs, from measured costs: nodes, broker servers, messages and CPU time, what
// breaks first, and what helps.
//
//	go run ./simulate/capacity                                    # 10^5, 10^6 and 10^7 connections with NATS and Redis
//	go run ./simulate/capacity -connections 2e6 -room 50 -rate 0.2 -affinity -broker R3
//	go run ./simulate/capacity -constants                         # the costs, and where each was measured
//	go run ./simulate/capacity -set deliver.warm=5                # with another cost
//
// The formulas are in model.go. CALIBRATE=1 go test -v -run TestCalibration ./simulate/capacity compares them with three real
// Caddys and a real nats-server.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// shapes are those of the table.
var shapes = []shape{
	{name: "one channel for all, 10 messages/s", rate: 10},
	{name: "1000 large channels, 10 messages/s each", channels: 1000, rate: 10},
	{name: "rooms of 10, 0.04 messages/s each", room: 10, rate: 0.04},
	{name: "the same, each room on one node", room: 10, rate: 0.04, affinity: true},
	{name: "rooms of 10, 1 message/s each", room: 10, rate: 1},
	{name: "the same, each room on one node", room: 10, rate: 1, affinity: true},
	{name: "Zipf, a channel per 10 connections, 0.04 messages/s each", zipf: true, rate: 0.04},
	{name: "the same, each channel on few nodes", zipf: true, rate: 0.04, affinity: true},
}

func main() {
	c := defaults()
	connections := flag.Float64("connections", 0, "how many, all together; without, the table is for 10^5, 10^6 and 10^7")
	sys := system{}
	flag.Float64Var(&sys.perNode, "per-node", 10_000, "connections of a node")
	flag.Float64Var(&sys.cores, "cores", 4, "of a node")
	flag.Float64Var(&sys.data, "data", 128, "bytes of a message")
	broker := flag.String("broker", "R1,R3,Redis", "R1, R3 (NATS with one or three replicas), Redis, or several")
	own := shape{name: "yours"}
	flag.Float64Var(&own.room, "room", 0, "connections of each channel; 0 is one channel for all")
	flag.Float64Var(&own.channels, "channels", 0, "how many channels there are, instead")
	flag.BoolVar(&own.zipf, "zipf", false, "their sizes are by Zipf's law")
	flag.Float64Var(&own.rate, "rate", 0, "messages per second on each channel; without, the table has several loads")
	flag.BoolVar(&own.affinity, "affinity", false, "the connections of a channel are on as few nodes as can hold them")
	list := flag.Bool("constants", false, "print the costs, and where each was measured")
	flag.Func("set", "sets a cost: name=value", c.set)
	flag.Parse()
	if *list {
		c.write(os.Stdout)
		return
	}
	loads := shapes
	if own.rate > 0 {
		loads = []shape{own}
	}
	sizes := []float64{1e5, 1e6, 1e7}
	if *connections > 0 {
		sizes = []float64{*connections}
	}
	for _, size := range sizes {
		sys.connections = size
		for _, b := range strings.Split(*broker, ",") {
			if sys.broker = b; c.values["store."+b] == nil {
				fmt.Fprintf(os.Stderr, "there is no broker %q\n", b)
				os.Exit(2)
			}
			c.table(os.Stdout, sys, loads)
		}
	}
}

// table writes the figures of loads on a system.
func (c *constants) table(w io.Writer, sys system, loads []shape) {
	names := map[string]string{"R1": "NATS, 1 replica", "R3": "NATS, 3 replicas", "Redis": "Redis"}
	fmt.Fprintf(w, "\n## %s connections, %.0f nodes with %s each, %s\n\n", short(sys.connections), sys.nodes(), short(sys.perNode), names[sys.broker])
	fmt.Fprintln(w, "| load | published/s | broker sends/s | a node gets/s | node: cores | node: memory | broker: cores | broker: servers | broker: memory for channels | all nodes restart: broker CPU | node lost: opens | heartbeats/s | counts/s |")
	fmt.Fprintln(w, "| --- |"+strings.Repeat(" ---: |", 12))
	var verdicts []string
	for _, sh := range loads {
		if sh.zipf && sh.channels == 0 {
			sh.channels = sys.connections / 10
		}
		r := c.cost(sh, sys)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f | %s | %.2f | %.0f | %s | %s s | %s | %s | %s |\n", sh.name, short(r.publishes), short(r.egress), short(r.receives),
			r.nodeCPU, bytes(r.nodeBytes), r.brokerCPU, r.servers, bytes(r.subBytes), short(r.restart), short(r.nodeLost), short(r.heartbeat), short(r.counts))
		verdicts = append(verdicts, "- "+sh.name+": "+verdict(c.limits(sh, sys, r)))
	}
	fmt.Fprintf(w, "\n%s\n", strings.Join(verdicts, "\n"))
}

// verdict returns what breaks first, or everything that is too much.
func verdict(limits []limit) string {
	say := func(l limit) string { return fmt.Sprintf("%s, at %.0f %% (%s)", l.what, 100*l.share, l.lever) }
	if limits[0].share <= 1 {
		return "fits. The first to break is " + say(limits[0]) + "."
	}
	var over []string
	for _, l := range limits {
		if l.share > 1 {
			over = append(over, say(l))
		}
	}
	return "**does not fit**: " + strings.Join(over, "; ") + "."
}

// short writes a number with about three digits.
func short(x float64) string {
	switch {
	case x >= 999.5e3:
		return fmt.Sprintf("%.3gM", x/1e6)
	case x >= 9995:
		return fmt.Sprintf("%.3gk", x/1e3)
	case x >= 99.5:
		return fmt.Sprintf("%.0f", x)
	default:
		return fmt.Sprintf("%.2g", x)
	}
}

// bytes writes a size.
func bytes(x float64) string {
	switch {
	case x >= 1<<30:
		return fmt.Sprintf("%.2g GiB", x/(1<<30))
	case x >= 1<<20:
		return fmt.Sprintf("%.3g MiB", x/(1<<20))
	default:
		return fmt.Sprintf("%.3g KiB", x/(1<<10))
	}
}
