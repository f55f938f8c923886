//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// header is that of result.line, which is for the terminal.
const header = "                 deliveries/s  CPU/delivery  CPU/message       p50       p99   KiB/conn  missing  extra  closed\n"

// line describes a run. A run without deliveries is one of the idle scenarios, which only measure memory.
func (r result) line(name string) (line string) {
	defer func() {
		if r.first > 0 {
			line += fmt.Sprintf("%-16s connects in %s, the tenth in %s\n", "", short(r.first), short(r.tenth))
		}
	}()
	if r.deliveries == 0 {
		return fmt.Sprintf("%-16s %84.1f\n", name, r.memory)
	}
	return fmt.Sprintf("%-16s %12.0f %13s %12s %9s %9s %10.1f %8d %6d %7d\n", name, r.perSecond, micros(r.cpu), micros(r.cpuMessage),
		short(r.p50), short(r.p99), r.memory, r.missing, r.extra, r.closed)
}

func micros(d time.Duration) string { return fmt.Sprintf("%.2f µs", float64(d.Nanoseconds())/1000) }

// short is for latencies, which the histogram knows to 3 %.
func short(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// median takes the median of each figure separately, but adds up what was missing, so that no loss is hidden.
func median(rs []result) (m result) {
	m.messages, m.deliveries = medianOf(rs, func(r result) int64 { return r.messages }), medianOf(rs, func(r result) int64 { return r.deliveries })
	m.perSecond = medianOf(rs, func(r result) float64 { return r.perSecond })
	m.cpu = medianOf(rs, func(r result) time.Duration { return r.cpu })
	m.cpuMessage = medianOf(rs, func(r result) time.Duration { return r.cpuMessage })
	m.p50 = medianOf(rs, func(r result) time.Duration { return r.p50 })
	m.p99 = medianOf(rs, func(r result) time.Duration { return r.p99 })
	m.first = medianOf(rs, func(r result) time.Duration { return r.first })
	m.tenth = medianOf(rs, func(r result) time.Duration { return r.tenth })
	m.memory = medianOf(rs, func(r result) float64 { return r.memory })
	for _, r := range rs {
		m.missing += r.missing
		m.extra += r.extra
		m.closed += r.closed
	}
	return m
}

func medianOf[R any, T int64 | float64 | time.Duration](rs []R, f func(R) T) T {
	vs := make([]T, len(rs))
	for i, r := range rs {
		vs[i] = f(r)
	}
	slices.Sort(vs)
	// Not the mean: one run that something else on the machine has disturbed should not count.
	return vs[len(vs)/2]
}

// table holds the medians of all results.
type table struct {
	peers []peer
	cells map[[2]string]result // by scenario and peer
}

func newTable(ps []peer) *table { return &table{ps, make(map[[2]string]result)} }

func (t *table) set(scenario, peer string, r result) { t.cells[[2]string{scenario, peer}] = r }

func (t *table) get(scenario, peer string) (result, bool) {
	r, ok := t.cells[[2]string{scenario, peer}]
	return r, ok
}

// goal is an upper limit for a figure of ours, relative to another figure of the same run. Ratios are used because absolute
// figures differ between machines. A goal that is missed stays in the report, with the amount. For the reasons, see
// docs/performance.md.
type goal struct {
	what               string
	a, aPeer, b, bPeer string // scenario and peer, divided by scenario and peer; without b, an absolute figure
	figure             func(result) float64
	most               float64
	tolerated          float64 // quick mode fails beyond it, on a machine as busy as may be; 0 if such a run says nothing
}

const (
	ours            = "caddy-broadcast"
	oursStream      = "ours: streams"
	oursV1          = "ours: v1"
	oursSocketIO    = "ours: Socket.IO"
	oursRedis       = "ours: Redis"
	oursPipeline10  = "ours: Redis x10"
	oursPipeline100 = "ours: Redis x100"
	oursH2          = "ours: in h2"
	oursH3          = "ours: in h3"
	oursH1          = "ours: h1"
	oursProxied     = "ours: proxied"
)

func cpuOf(r result) float64     { return float64(r.cpu) }
func messageOf(r result) float64 { return float64(r.cpuMessage) }
func p99Of(r result) float64     { return float64(r.p99) }
func memoryOf(r result) float64  { return r.memory }

var goals = []goal{
	{"paced: CPU per delivery, relative to the floor", "paced", ours, "paced", "floor", cpuOf, 1.15, 0},
	{"paced: the same, relative to the gorilla hub", "paced", ours, "paced", "gorilla hub", cpuOf, 0.65, 0},
	{"paced: event streams, relative to our WebSockets", "paced", oursStream, "paced", ours, cpuOf, 1.2, 0},
	{"burst: CPU per delivery, relative to the gorilla hub", "burst", ours, "burst", "gorilla hub", cpuOf, 0.10, 0},
	{"paced: Socket.IO, relative to our WebSockets", "paced", oursSocketIO, "paced", ours, cpuOf, 1.1, 2},
	{"paced: Socket.IO, relative to npm's", "paced", oursSocketIO, "paced", "Socket.IO", cpuOf, 0.5, 0},
	{"burst: Socket.IO, relative to our WebSockets", "burst", oursSocketIO, "burst", ours, cpuOf, 1.1, 2.5},
	{"burst: Socket.IO, relative to npm's", "burst", oursSocketIO, "burst", "Socket.IO", cpuOf, 0.5, 0.5},
	{"wide: CPU per delivery, relative to the gorilla hub", "wide", ours, "wide", "gorilla hub", cpuOf, 0.70, 0},
	{"wide: p99, relative to nchan", "wide", ours, "wide", "nchan", p99Of, 1, 0},
	{"rooms: CPU per message, relative to nchan", "rooms", ours, "rooms", "nchan", messageOf, 0.70, 0},
	{"rooms: the same, in Redis pipelines of 10", "rooms", oursPipeline10, "rooms", "nchan", messageOf, 0.5, 1},
	{"rooms: the same, in Redis pipelines of 100", "rooms", oursPipeline100, "rooms", "nchan", messageOf, 0.5, 1},
	{"polling: CPU per delivery, relative to npm's Socket.IO", "polling", oursSocketIO, "polling", "Socket.IO", cpuOf, 0.5, 0},
	{"tls: CPU per delivery, relative to our paced without TLS", "tls", ours, "paced", ours, cpuOf, 1.35, 0},
	{"tls-burst: CPU per delivery, relative to our burst without TLS", "tls-burst", ours, "burst", ours, cpuOf, 1.5, 0},
	{"idle: KiB per connection", "idle", ours, "", "", memoryOf, 4.5, 0},
	{"idle: event streams, relative to our WebSockets", "idle", oursStream, "idle", ours, memoryOf, 1.2, 0},
	{"idle: Socket.IO, relative to npm's", "idle", oursSocketIO, "idle", "Socket.IO", memoryOf, 0.25, 0},
	{"idle-tls: KiB per connection", "idle-tls", ours, "", "", memoryOf, 14, 0},
	{"idle-tls: relative to nchan", "idle-tls", ours, "idle-tls", "nchan", memoryOf, 0.5, 0},
	{"paced: behind proxy_protocol, relative to none", "paced", oursProxied, "paced", ours, cpuOf, 1.1, 0},
	{"idle: the same", "idle", oursProxied, "idle", ours, memoryOf, 1.2, 0},
	{"paced: with protocols h1, relative to all", "paced", oursH1, "paced", ours, cpuOf, 1.1, 0},
	{"idle: the same", "idle", oursH1, "idle", ours, memoryOf, 1.2, 0},
	{"mixed: the readers' p99, relative to alone", "mixed", ours, "alone", ours, p99Of, 1.5, 0},
}

// reached returns the figure of a goal, if it was measured.
func (t *table) reached(g goal) (v float64, ok bool) {
	a, ok := t.get(g.a, g.aPeer)
	if !ok {
		return 0, false
	}
	if g.b == "" {
		return g.figure(a), true
	}
	b, ok := t.get(g.b, g.bPeer)
	if !ok || g.figure(b) == 0 {
		return 0, false
	}
	return g.figure(a) / g.figure(b), true
}

// intolerable returns an error if goals are missed by more than a quick run could miss them by chance.
func (t *table) intolerable() (err error) {
	for _, g := range goals {
		if v, ok := t.reached(g); ok && g.tolerated > 0 && v > g.tolerated {
			err = errors.Join(err, fmt.Errorf("%s: %.2f, more than %.2f", g.what, v, g.tolerated))
		}
	}
	return err
}

// ratios returns the goals and what was reached, for the terminal.
func (t *table) ratios() string {
	var b strings.Builder
	for _, g := range goals {
		if v, ok := t.reached(g); ok {
			fmt.Fprintf(&b, "%-58s %6.2f, at most %.2f\n", g.what, v, g.most)
		}
	}
	return "\n" + b.String()
}
