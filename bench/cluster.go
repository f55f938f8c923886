//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clusterName is the scenario that measures several Caddys behind a broker. It compares ways to run this module, and not
// peers, so it has its own figures, in docs/cluster-performance.md.
const clusterName = "cluster"

// setup is a way to run a load: a deployment, and where the subscribers are. The first of each load is without a broker, and
// is what the others are compared with.
type setup struct {
	deployment string
	layout     layout
}

// clusterLoad is a load, and the setups that it is measured in. Not each layout is measured with each deployment, because
// more replicas change what NATS does and not where subscribers are.
type clusterLoad struct {
	scenario
	setups []setup
}

// With 1 subscriber the cost of a message shows, with 1,000 that of a delivery, which a broker should hardly change. In rooms
// is what a real site is like: many channels with few subscribers each. Of the Redis deployments, the one that syncs each second
// is measured most: like a nats-server as it is by default, it keeps everything when only its process is killed.
var clusterLoads = []clusterLoad{
	{
		scenario{name: "to 1", about: "1 subscriber, 1,000 messages/s of 128 B", subscribers: 1, load: load{size: 128, rate: 1000, posters: 8}},
		[]setup{
			{alone, here},
			{r1, here}, {r1, elsewhere}, {r3, here}, {r3, elsewhere},
			{redisOff, here}, {redisSecond, here}, {redisSecond, elsewhere}, {redisDurable, here}, {redisDurable, elsewhere},
		},
	},
	{
		scenario{name: "to 100", about: "100 subscribers, 200 messages/s of 128 B", subscribers: 100, load: load{size: 128, rate: 200, posters: 4}},
		[]setup{{alone, here}, {r1, here}, {r1, spread}, {r3, here}, {redisSecond, here}, {redisSecond, spread}, {redisDurable, here}},
	},
	{
		scenario{name: "to 1,000", about: "1,000 subscribers, 20 messages/s of 128 B, as in scenario paced", subscribers: 1000, load: load{size: 128, rate: 20, posters: 1}},
		[]setup{{alone, here}, {r1, here}, {r1, spread}, {r3, here}, {redisSecond, here}, {redisSecond, spread}, {redisDurable, here}},
	},
	{
		scenario{name: "in rooms", about: "5,000 subscribers in 500 channels, 1,000 messages/s of 128 B, as in scenario rooms", subscribers: 5000, load: load{size: 128, rate: 1000, posters: 8, rooms: 500}},
		[]setup{{alone, here}, {r1, here}, {r1, byRoom}, {r1, spread}, {r3, byRoom}, {redisSecond, here}, {redisSecond, byRoom}, {redisSecond, spread}, {redisDurable, byRoom}},
	},
}

// Measurements that are not loads of subscribers.
const (
	ackedName = "acked"
	coldName  = "cold"
	idleName  = "idle"
)

// warmSizes are numbers of open channels. The largest needs 100 connections. They are large because a Go heap grows in steps:
// among few channels one step would be the result.
var warmSizes = []int{1000, 10_000, 50_000}

// clusterResult is what was measured in one setup. The figures in result are those of the Caddys together, not of the broker,
// so the two columns add up to the cost of the machine.
type clusterResult struct {
	result
	broker    time.Duration // the broker's CPU time, per message or open
	heap      float64       // bytes per channel of the Caddy's heap
	brokerRSS float64       // and of the broker
	silence   time.Duration // how long a node delivered nothing
}

// cluster runs the scenario. Only one goroutine uses it.
type cluster struct {
	dir      string
	port     int
	seconds  float64
	quick    bool
	redis    bool                          // there is a redis-server
	measured map[[3]string][]clusterResult // by load, deployment and layout
	wrong    int
	// The cluster uses all cores, so anything else that runs makes each figure worse. The report has the share, so that a
	// reader can tell.
	others float64 // the share of the cores that processes of others took
}

// benchCluster measures the scenario, and writes its figures if report is a folder. In quick mode it only checks that every
// message is delivered.
func benchCluster(dir string, rounds int, seconds float64, quick bool, report string) error {
	if ok, err := haveBroker(clusterName, r1); !ok {
		return err
	}
	redis, err := haveBroker(clusterName+" with Redis", redisSecond)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s: %d Caddys behind a broker\n", clusterName, clusterNodes)
	c := &cluster{dir: dir, port: 23000, seconds: seconds, quick: quick, redis: redis, measured: make(map[[3]string][]clusterResult)}
	if quick {
		c.seconds = min(seconds, 0.3)
	}
	others := watchOthers()
	for range rounds {
		if err := c.round(); err != nil {
			return err
		}
	}
	c.others = others()
	fmt.Printf("%s\nOther processes took %.0f %% of the cores.\n", c.ratios(), 100*c.others)
	if quick && c.wrong > 0 {
		return fmt.Errorf("%s: %d runs lost or repeated messages", clusterName, c.wrong)
	}
	if report == "" {
		return nil
	}
	return c.write(report, rounds)
}

// watchOthers returns what returns the share of the cores that processes of others have taken since.
func watchOthers() (share func() float64) {
	begin, busy, own := time.Now(), busyTime(), ownTime()
	return func() float64 {
		cores := time.Since(begin).Seconds() * float64(runtime.NumCPU())
		return max(0, (busyTime()-busy).Seconds()-(ownTime()-own).Seconds()) / cores
	}
}

// busyTime returns how long the cores have worked, all together. /proc/stat has hundredths of a second: user, nice, system,
// idle, iowait, irq and softirq come first (proc(5)).
func busyTime() (d time.Duration) {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, f := range strings.Fields(line) {
		if i >= 1 && i <= 7 && i != 4 && i != 5 {
			n, _ := strconv.ParseInt(f, 10, 64)
			d += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return d
}

// ownTime returns the CPU time of this process, and of those that it has started and that have ended. The kernel adds a
// child's time when it has been waited for, which server.stop does. It counts in clock ticks or finer, enough for a share
// over minutes.
func ownTime() (d time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		syscall.Getrusage(who, &r)
		d += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return d
}

// add keeps a result. One that lost or repeated messages is kept too, and makes quick mode fail: a broker is no reason to
// lose any, unless it was killed. What clients are told then is checked by internal/cluster, and is only measured here.
func (c *cluster) add(name string, s setup, r clusterResult) {
	key := [3]string{name, s.deployment, string(s.layout)}
	c.measured[key] = append(c.measured[key], r)
	if name != killName && r.missing+r.extra+r.closed > 0 {
		c.wrong++
	}
}

// with starts deployments with these global options, has them measured, and stops them. 60 ports are enough for three Caddys
// with ten each and three nats-servers with two each.
func (c *cluster) with(names []string, options string, measure func(map[string]*deployment) error) error {
	ds := make(map[string]*deployment)
	defer func() {
		for _, d := range ds {
			d.stop()
		}
	}()
	for _, name := range names {
		d, err := deploy(c.dir, name, c.port, options, 0)
		c.port += 60
		if err != nil {
			return fmt.Errorf("%s, %s: %w", clusterName, name, err)
		}
		ds[name] = d
	}
	return measure(ds)
}

// pick returns those of these deployments that are measured. Quick mode leaves out what others show: other scenarios check
// what no broker delivers, and how Redis writes to its disk makes no difference to what it sends.
func (c *cluster) pick(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return !c.redis && isRedis(name) || c.quick && (name == alone || name == redisOff || name == redisDurable)
	})
}

// round measures everything once. All deployments run at a time, so that what is compared is measured within seconds: on a
// machine with others on it, a minute makes more of a difference than idle deployments, which together use a twentieth of a
// core.
func (c *cluster) round() error {
	names := c.pick(alone, r1, r3, redisOff, redisSecond, redisDurable)
	err := c.with(names, "", func(ds map[string]*deployment) error {
		for _, name := range names {
			if !c.quick {
				c.measureIdle(ds[name])
			}
		}
		for _, l := range clusterLoads {
			if err := c.measureSetups(ds, l); err != nil {
				return err
			}
		}
		for _, m := range []struct {
			name    string
			measure func(*deployment) error
		}{{ackedName, c.measureAcked}, {logName, c.measureLog}, {coldName, c.measureCold}} {
			for _, name := range names {
				if err := m.measure(ds[name]); err != nil {
					return fmt.Errorf("%s, %s, %s: %w", clusterName, m.name, name, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// With a history, as a site has that wants to miss nothing: the node reads from it what came while it was cut off. The other
	// measurements are without, as it would be a part of their memory and CPU time.
	for _, name := range c.pick(r1, r3, redisOff, redisSecond, redisDurable) {
		if c.quick && name == r3 {
			continue // an election takes seconds
		}
		err := c.with([]string{name}, "history 1000 10m", func(ds map[string]*deployment) error { return c.measureKill(ds[name]) })
		if err != nil {
			return fmt.Errorf("%s, %s, %s: %w", clusterName, killName, name, err)
		}
	}
	// On fresh processes, as the heap of those above has grown already. Only one deployment of each kind, since a Caddy does
	// not know how many replicas there are, or how they store.
	for _, name := range c.pick(alone, r1, redisSecond) {
		err := c.with([]string{name}, "", func(ds map[string]*deployment) error { return c.measureWarm(ds[name]) })
		if err != nil {
			return fmt.Errorf("%s, warm, %s: %w", clusterName, name, err)
		}
	}
	return nil
}

// measureSetups measures a load in its setups. In quick mode a small load is enough to see that three replicas deliver, and that
// Redis does: the hub is the same.
func (c *cluster) measureSetups(ds map[string]*deployment, l clusterLoad) error {
	for _, s := range l.setups {
		if ds[s.deployment] == nil || c.quick && s.deployment != r1 && l.name != "to 1" {
			continue
		}
		if err := c.measureLoad(ds[s.deployment], l.scenario, s); err != nil {
			return fmt.Errorf("%s %s, %s, %s: %w", clusterName, l.name, s.deployment, s.layout, err)
		}
	}
	return nil
}

// prefix is of channels that nothing has used before.
func (c *cluster) prefix() string {
	n := 0
	for _, rs := range c.measured {
		n += len(rs)
	}
	return fmt.Sprint("c", n)
}

// As in scenario.measure the connections are there before CPU time counts.
func (c *cluster) measureLoad(d *deployment, sc scenario, where setup) error {
	if c.quick {
		sc.subscribers = min(sc.subscribers, 200)
	}
	s := d.place(where.layout, c.prefix())
	f, err := dialAll(s.target, sc.subscribers, sc.rooms(), 0)
	if err != nil {
		return err
	}
	defer f.close()
	time.Sleep(300 * time.Millisecond)
	var r clusterResult
	broker := d.broker().cpu
	if err := sc.measureLoad(&r.result, s, f, s.usage().cpu, c.seconds); err != nil {
		return err
	}
	r.broker = (d.broker().cpu - broker) / time.Duration(max(1, r.messages))
	c.add(sc.name, where, r)
	fmt.Printf("%-9s %-21s %-28s CPU/delivery %9s, /message %10s, broker %9s; p50 %s p99 %s; missing %d extra %d closed %d\n", sc.name, where.deployment,
		where.layout, micros(r.cpu), micros(r.cpuMessage), micros(r.broker), short(r.p50), short(r.p99), r.missing, r.extra, r.closed)
	return nil
}

// measureIdle measures what the processes use per second when nobody does anything: it is a part of every other figure. The
// nodes send a sign of life twice a second, and brokers have heartbeats of their own. At low rates that is much of
// the CPU time per message, so it is to be read beside that.
func (c *cluster) measureIdle(d *deployment) {
	s := d.place(here, "")
	broker, cpu := d.broker().cpu, s.usage().cpu
	time.Sleep(time.Duration(c.seconds * float64(time.Second)))
	per := func(used time.Duration) time.Duration { return time.Duration(float64(used) / c.seconds) }
	r := clusterResult{broker: per(d.broker().cpu - broker)}
	r.cpuMessage = per(s.usage().cpu - cpu)
	c.add(idleName, setup{d.name, here}, r)
	fmt.Printf("%-9s %-21s CPU/s %s, broker %s\n", idleName, d.name, micros(r.cpuMessage), micros(r.broker))
}

// measureAcked publishes on one node as fast as acks come, from WebSockets. Each has a channel of its own, so each message is
// delivered to one subscriber. The rate is what one node can do while the load generator and the broker share its cores. On
// machines of their own it would be higher.
func (c *cluster) measureAcked(d *deployment) error {
	s := d.place(here, c.prefix())
	broker, cpu := d.broker().cpu, s.usage().cpu
	acked, took, err := publishAcked(s, 128, time.Duration(c.seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	n := time.Duration(max(1, acked))
	r := clusterResult{broker: (d.broker().cpu - broker) / n}
	r.messages, r.cpuMessage, r.perSecond = acked, (s.usage().cpu-cpu)/n, float64(acked)/took.Seconds()
	c.add(ackedName, setup{d.name, here}, r)
	fmt.Printf("%-9s %-21s %.0f/s, CPU/message %s, broker %s\n", ackedName, d.name, r.perSecond, micros(r.cpuMessage), micros(r.broker))
	return nil
}

// measureCold connects many WebSockets, each to a channel of its own that the node has not opened yet. Sixteen connect at a
// time, see dialAll. Each open needs an answer from the broker, which a channel that is open does not. So it is the worst that a
// node can meet: all clients come back at once, each to another channel.
func (c *cluster) measureCold(d *deployment) error {
	n := 10_000
	if c.quick {
		n = 200
	}
	s := d.place(here, c.prefix())
	broker, cpu, begin := d.broker().cpu, s.usage().cpu, time.Now()
	f, err := dialAll(s.target, n, n, 0)
	if err != nil {
		return err
	}
	defer f.close()
	took := time.Since(begin)
	r := clusterResult{broker: (d.broker().cpu - broker) / time.Duration(n)}
	r.messages, r.cpuMessage, r.perSecond = int64(n), (s.usage().cpu-cpu)/time.Duration(n), float64(n)/took.Seconds()
	r.p50, r.p99 = f.connects.quantile(0.5), f.connects.quantile(0.99)
	c.add(coldName, setup{d.name, here}, r)
	fmt.Printf("%-9s %-21s %.0f/s, CPU/open %s, broker %s; p50 %s p99 %s\n", coldName, d.name, r.perSecond, micros(r.cpuMessage), micros(r.broker), short(r.p50), short(r.p99))
	return nil
}

// warmName is a number of open channels, as a measurement.
func warmName(n int) string { return fmt.Sprint("warm ", n) }

// measureWarm opens channels by joining them, and measures the growth of the process since there were none. It joins by
// broadcast.v1 and not by a connection each, because a connection takes more memory than a channel. RSS also grows with
// garbage that is not returned yet, so the heap is measured too.
func (c *cluster) measureWarm(d *deployment) error {
	s := d.place(here, c.prefix())
	s.others = nil // the other nodes open nothing
	var conns []io.Closer
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	sizes := warmSizes
	if c.quick {
		sizes = []int{300}
	}
	var first clusterResult
	for i, n := range append([]int{0}, sizes...) {
		if i > 0 {
			more, err := joinChannels(s, append([]int{0}, sizes...)[i-1], n)
			conns = append(conns, more...)
			if err != nil {
				return err
			}
		}
		if !c.quick {
			s.settle()
		}
		heap, err := s.heap()
		if err != nil {
			return err
		}
		r := clusterResult{heap: float64(heap), brokerRSS: float64(d.broker().rss)}
		r.memory = float64(s.usage().rss)
		if i == 0 {
			first = r
			continue
		}
		r.memory, r.heap, r.brokerRSS = (r.memory-first.memory)/float64(n), (r.heap-first.heap)/float64(n), (r.brokerRSS-first.brokerRSS)/float64(n)
		c.add(warmName(n), setup{d.name, here}, r)
		fmt.Printf("%-9s %-21s %d channels: %.0f bytes of RSS each, %.0f of heap, broker %.0f\n", "warm", d.name, n, r.memory, r.heap, r.brokerRSS)
	}
	return nil
}
