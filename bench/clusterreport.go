//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// get returns the median of each figure in a setup. Each figure has its own median, so those of a row may be of different
// rounds. What is missing is added up: see median.
func (c *cluster) get(name string, s setup) (m clusterResult, ok bool) {
	rs := c.measured[[3]string{name, s.deployment, string(s.layout)}]
	if len(rs) == 0 {
		return m, false
	}
	var plain []result
	for _, r := range rs {
		plain = append(plain, r.result)
	}
	m.result = median(plain)
	m.broker = medianOf(rs, func(r clusterResult) time.Duration { return r.broker })
	m.heap = medianOf(rs, func(r clusterResult) float64 { return r.heap })
	m.brokerRSS = medianOf(rs, func(r clusterResult) float64 { return r.brokerRSS })
	m.silence = medianOf(rs, func(r clusterResult) time.Duration { return r.silence })
	return m, true
}

// compared returns the median over the rounds of a figure in a setup, divided by the same without a broker in the same round,
// or less that. The ratio is taken within a round, because a machine that is slower for a minute is so for both. A ratio of
// two medians would mix rounds.
func (c *cluster) compared(name string, s setup, figure func(clusterResult) float64, how func(a, b float64) float64) (v float64, ok bool) {
	as, bs := c.measured[[3]string{name, s.deployment, string(s.layout)}], c.measured[[3]string{name, alone, string(here)}]
	if len(as) == 0 || len(as) != len(bs) {
		return 0, false
	}
	var vs []float64
	for i := range as {
		vs = append(vs, how(figure(as[i]), figure(bs[i])))
	}
	slices.Sort(vs)
	return vs[len(vs)/2], true
}

func quotient(a, b float64) float64   { return a / b }
func difference(a, b float64) float64 { return a - b }

// clusterGoal is a bound for a figure. A goal that is missed stays in the report, with the amount.
type clusterGoal struct {
	what   string
	want   float64
	least  bool // the figure has to be at least as large
	name   string
	setup  setup
	figure func(clusterResult) float64
	how    func(a, b float64) float64 // compares with no broker, if it is set
	format string
}

func deliveryCPU(r clusterResult) float64 { return float64(r.cpu) / 1000 }
func messageCPU(r clusterResult) float64  { return float64(r.cpuMessage) / 1000 }
func brokerCPU(r clusterResult) float64   { return float64(r.broker) / 1000 }
func medianTime(r clusterResult) float64  { return float64(r.p50) / 1e6 }
func slowTime(r clusterResult) float64    { return float64(r.p99) / 1e6 }
func rate(r clusterResult) float64        { return r.perSecond }
func resident(r clusterResult) float64    { return r.memory }
func silent(r clusterResult) float64      { return r.silence.Seconds() }
func wrong(r clusterResult) float64       { return float64(r.missing + r.extra) }

// clusterGoals are the same for both brokers, where both have them.
var clusterGoals = slices.Concat(
	goalsOf(r1), goalsOf(redisSecond),
	[]clusterGoal{
		{what: "log: acked messages per second", want: 80_000, least: true, name: logName, setup: setup{r1, here}, figure: rate, format: "%.0f"},
		{what: "log: the same", want: 35_000, least: true, name: logName, setup: setup{r3, here}, figure: rate, format: "%.0f"},
		{what: "log: the same", want: 80_000, least: true, name: logName, setup: setup{redisOff, here}, figure: rate, format: "%.0f"},
		{what: "log: the same", want: 80_000, least: true, name: logName, setup: setup{redisSecond, here}, figure: rate, format: "%.0f"},
	},
	goalsOfKill(r1), goalsOfKill(r3), goalsOfKill(redisDurable),
)

// goalsOf are those of a deployment with one server.
func goalsOf(name string) []clusterGoal {
	return []clusterGoal{
		{what: "to 1,000: CPU per delivery, relative to no broker", want: 1.05, name: "to 1,000", setup: setup{name, here}, figure: deliveryCPU, how: quotient, format: "%.2f"},
		{what: "to 100: CPU per delivery, relative to no broker", want: 1.05, name: "to 100", setup: setup{name, here}, figure: deliveryCPU, how: quotient, format: "%.2f"},
		{what: "acked: CPU per message at full rate, received and delivered to 1, more than with no broker", want: 6, name: ackedName, setup: setup{name, here}, figure: messageCPU, how: difference, format: "%.1f µs"},
		{what: "to 1: CPU per message at 1,000 messages/s, more than with no broker", want: 60, name: "to 1", setup: setup{name, here}, figure: messageCPU, how: difference, format: "%.0f µs"},
		{what: "to 1: publish to delivery on another node, p50", want: 0.3, name: "to 1", setup: setup{name, elsewhere}, figure: medianTime, format: "%.2f ms"},
		{what: "to 1: the same, p99", want: 1, name: "to 1", setup: setup{name, elsewhere}, figure: slowTime, format: "%.2f ms"},
		{what: "cold: CPU of the broker per open", want: 100, name: coldName, setup: setup{name, here}, figure: brokerCPU, format: "%.0f µs"},
		{what: "cold: p99 of an open", want: 5, name: coldName, setup: setup{name, here}, figure: slowTime, format: "%.1f ms"},
		{what: "warm: bytes of RSS per channel, more than with no broker, of 50,000", want: 1024, name: warmName(50_000), setup: setup{name, here}, figure: resident, how: difference, format: "%.0f"},
	}
}

// goalsOfKill are those of a deployment that keeps what it has acked when a server is killed.
func goalsOfKill(name string) []clusterGoal {
	return []clusterGoal{
		{what: "kill -9: silence", want: 10, name: killName, setup: setup{name, here}, figure: silent, format: "%.1f s"},
		{what: "kill -9: acked messages missing or twice", want: 0, name: killName, setup: setup{name, here}, figure: wrong, format: "%.0f"},
	}
}

// reached returns the figure of a goal, if it was measured.
func (c *cluster) reached(g clusterGoal) (v float64, ok bool) {
	if g.how != nil {
		return c.compared(g.name, g.setup, g.figure, g.how)
	}
	r, ok := c.get(g.name, g.setup)
	return g.figure(r), ok
}

func (g clusterGoal) bound() string {
	if g.least {
		return "at least " + fmt.Sprintf(g.format, g.want)
	}
	return "at most " + fmt.Sprintf(g.format, g.want)
}

// met returns whether a goal is, or by how much it is missed.
func (g clusterGoal) met(v float64) string {
	if g.least && v < g.want {
		return fmt.Sprintf("**missed by %.0f %%**", (1-v/g.want)*100)
	}
	if g.least {
		return "met"
	}
	return docs.Met(v, g.want)
}

// ratios returns the goals and what was reached, for the terminal.
func (c *cluster) ratios() string {
	var b strings.Builder
	for _, g := range clusterGoals {
		if v, ok := c.reached(g); ok {
			fmt.Fprintf(&b, "%s, %s: "+g.format+", %s\n", g.setup.deployment, g.what, v, g.bound())
		}
	}
	return "\n" + b.String()
}

// write replaces the figures in dir/cluster-performance.md.
func (c *cluster) write(dir string, rounds int) error {
	return docs.Write(filepath.Join(dir, "cluster-performance.md"), "go run ./bench -scenarios cluster", c.figures(rounds))
}

// figures returns the part of cluster-performance.md between its marks.
func (c *cluster) figures(rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s. Each figure is the median of %d runs of %g s. All Caddys and brokers share\nthese cores, and processes that have nothing to do with it took %.0f %% of them meanwhile.\n",
		time.Now().Format("2006-01-02"), machine(), rounds, c.seconds, 100*c.others)
	b.WriteString("\n| goal | log | | reached | |\n| --- | --- | --- | --- | --- |\n")
	for _, g := range clusterGoals {
		if v, ok := c.reached(g); ok {
			fmt.Fprintf(&b, "| %s | %s | %s | "+g.format+" | %s |\n", g.what, g.setup.deployment, g.bound(), v, g.met(v))
		}
	}
	for _, l := range clusterLoads {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", strings.ToUpper(l.name[:1])+l.name[1:], l.about)
		b.WriteString("| log | subscribers | CPU of the Caddys per delivery | relative to no broker | per message | CPU of the broker per message | p50 | p99 | missing |\n")
		b.WriteString("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
		for _, s := range l.setups {
			r, ok := c.get(l.name, s)
			if !ok {
				continue
			}
			times, _ := c.compared(l.name, s, deliveryCPU, quotient)
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s | %s | %s | %s | %s |\n", s.deployment, s.layout, micros(r.cpu), times,
				micros(r.cpuMessage), c.brokerCell(s, r), short(r.p50), short(r.p99), r.faults())
		}
	}
	c.writeRest(&b)
	return b.String()
}

// brokerCell is empty where there is no broker.
func (c *cluster) brokerCell(s setup, r clusterResult) string {
	if s.deployment == alone {
		return ""
	}
	return micros(r.broker)
}

// share returns a figure relative to no broker, as a cell.
func (c *cluster) share(name string, s setup, figure func(clusterResult) float64) string {
	if v, ok := c.compared(name, s, figure, quotient); ok {
		return fmt.Sprintf("%.2f", v)
	}
	return ""
}

// each calls a function for each deployment in which something was measured.
func (c *cluster) each(name string, row func(setup, clusterResult)) {
	for _, deployment := range []string{alone, r1, r3, redisOff, redisSecond, redisDurable} {
		s := setup{deployment, here}
		if r, ok := c.get(name, s); ok {
			row(s, r)
		}
	}
}

// writeRest writes what is not a load of subscribers.
func (c *cluster) writeRest(b *strings.Builder) {
	b.WriteString("\n## Idle\n\nWhat all processes use together when nobody is connected. It is a part of all other figures.\n\n")
	b.WriteString("| log | CPU of the Caddys per second | CPU of the broker |\n| --- | ---: | ---: |\n")
	c.each(idleName, func(s setup, r clusterResult) {
		fmt.Fprintf(b, "| %s | %s | %s |\n", s.deployment, short(r.cpuMessage), c.brokerCell(s, r))
	})
	fmt.Fprintf(b, "\n## Acked\n\n%d WebSockets of broadcast.v1 on one node, each with %d messages of 128 B under way and the only subscriber of its own channel.\n\n", ackPublishers, ackWindow)
	b.WriteString("| log | acked messages/s | relative to no broker | CPU of the Caddys per message | relative to no broker | CPU of the broker |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	c.each(ackedName, func(s setup, r clusterResult) {
		fmt.Fprintf(b, "| %s | %.0f | %s | %s | %s | %s |\n", s.deployment, r.perSecond, c.share(ackedName, s, rate), micros(r.cpuMessage), c.share(ackedName, s, messageCPU), c.brokerCell(s, r))
	})
	fmt.Fprintf(b, "\n## Log\n\nThe same without a Caddy: one process publishes to the broker as our Caddys do, on %d channels, with %d messages under way.\n\n", logChannels, logWindow)
	b.WriteString("| log | acked messages/s | CPU of the publisher per message | CPU of the broker |\n| --- | ---: | ---: | ---: |\n")
	c.each(logName, func(s setup, r clusterResult) {
		fmt.Fprintf(b, "| %s | %.0f | %s | %s |\n", s.deployment, r.perSecond, micros(r.cpuMessage), c.brokerCell(s, r))
	})
	b.WriteString("\n## Cold\n\n10,000 WebSockets, each on a new channel of its own, 16 connecting at a time. An open includes the connection and its handshake.\n\n")
	b.WriteString("| log | opens/s | p50 | p99 | CPU of the Caddys per open | relative to no broker | CPU of the broker |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	c.each(coldName, func(s setup, r clusterResult) {
		fmt.Fprintf(b, "| %s | %.0f | %s | %s | %s | %s | %s |\n", s.deployment, r.perSecond, short(r.p50), short(r.p99), micros(r.cpuMessage), c.share(coldName, s, messageCPU), c.brokerCell(s, r))
	})
	b.WriteString("\n## Warm\n\nMemory per channel in bytes, on top of what the process uses without channels. Each connection joins 500 channels. History is off.\n\n")
	b.WriteString("| channels | log | RSS of the Caddy | heap of the Caddy | RSS of the broker |\n| ---: | --- | ---: | ---: | ---: |\n")
	for _, n := range warmSizes {
		c.each(warmName(n), func(s setup, r clusterResult) {
			rss := ""
			if s.deployment != alone {
				rss = fmt.Sprintf("%.0f", r.brokerRSS)
			}
			fmt.Fprintf(b, "| %d | %s | %.0f | %.0f | %s |\n", n, s.deployment, r.memory, r.heap, rss)
		})
	}
	fmt.Fprintf(b, "\n## Kill\n\nThe process of the broker is killed with `kill -9` and started again at once; of three nats-servers it is the leader, and it stays away. %d publishers\nsend 200 messages/s on all nodes, and repeat each until it is acked. Silence is the longest time in which a node delivers nothing. Missing is what was acked, on all\nthree nodes together.\n\n", killPublishers)
	b.WriteString("| log | silence | acked | missing | twice |\n| --- | ---: | ---: | ---: | ---: |\n")
	c.each(killName, func(s setup, r clusterResult) {
		fmt.Fprintf(b, "| %s | %s | %d | %d | %d |\n", s.deployment, short(r.silence), r.messages, r.missing, r.extra)
	})
}
