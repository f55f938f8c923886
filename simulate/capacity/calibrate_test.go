//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/coder/websocket"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// TestCalibration compares the model with three real Caddys and a real nats-server on this machine. Costs are first measured
// with loads that differ in one thing: nothing, publishing only, one subscriber, ten. With these the model predicts other loads,
// and has to be within 20 %. It compares counts and CPU time and no latencies, so a busy machine does little harm; still, run
// it on a quiet one:
//
//	CALIBRATE=1 go test -count=1 -v -run TestCalibration ./simulate/capacity
func TestCalibration(t *testing.T) {
	if os.Getenv("CALIBRATE") == "" {
		t.Skip("it takes five minutes of both cores: CALIBRATE=1 runs it")
	}
	b := startBench(t)
	sys := system{broker: "R1", cores: 4, data: 128, perNode: 200}
	sys.connections = nodeCount * sys.perNode
	var measured []costs
	loads := make([][]result, len(calibrationLoads))
	for range rounds { // all in each, because other processes come and go
		measured = append(measured, b.measureCosts())
		for i, sh := range calibrationLoads {
			loads[i] = append(loads[i], b.measure(sh, sys))
		}
	}
	c := defaults()
	for name := range measured[0] {
		c.values[name] = &constant{median(measured, func(k costs) float64 { return k[name] }), "measured now"}
		fmt.Printf("%-14s %8.1f\n", name, c.of(name))
	}
	c.values[recvFull] = c.values[recvLow] // at these rates there are no batches
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t\tpredicted\tmeasured\t\t")
	for i, sh := range calibrationLoads {
		sh.rate = median(loads[i], func(r result) float64 { return r.published }) / sh.load(sys).channels
		want := predict(c, sh, sys)
		for k, name := range []string{"to the broker/s", "from the broker/s", "broker, CPU µs/message", "nodes, CPU µs/message"} {
			got := median(loads[i], func(r result) float64 { return r.figures[k] })
			off := want[k]/got - 1
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%+.0f %%\t\n", sh.name, name, want[k], got, 100*off)
			if math.Abs(off) > 0.2 {
				t.Errorf("%s, %s: predicted %.1f, measured %.1f", sh.name, name, want[k], got)
			}
		}
	}
	w.Flush()
}

var calibrationLoads = []shape{
	{name: "rooms of 10, random", room: 10, rate: 5},
	{name: "rooms of 10, each on a node", room: 10, rate: 5, affinity: true},
	{name: "rooms of 50, random", room: 50, rate: 20},
	{name: "one channel", rate: 40},
}

// result is what was measured of a load: in the order of predict, and how many messages were published per second.
type result struct {
	figures   [4]float64
	published float64
}

// median returns the middle one of values.
func median[T any](all []T, value func(T) float64) float64 {
	var values []float64
	for _, x := range all {
		values = append(values, value(x))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// predict returns the model's figures, in the order of those that are measured.
func predict(c *constants, sh shape, sys system) [4]float64 {
	l, n := sh.load(sys), sys.nodes()
	ticks := c.of(tickRate)
	nodes := n * c.nodeCPU(l.publishes/n, l.egress/n, l.deliveries/n, sys.perNode)
	broker := c.brokerCPU(sys.broker, l.publishes, l.egress) + c.of(brokerIdle)/1e6
	return [4]float64{l.publishes + ticks, l.egress + l.publishes + ticks*n + ticks, 1e6 * broker / l.publishes, 1e6 * nodes / l.publishes}
}

const (
	nodeCount = 3
	runTime   = 4 * time.Second
	rounds    = 5
)

// bench is three Caddys and a nats-server.
type bench struct {
	*testing.T
	nats    *natstest.Server
	monitor string
	nodes   []*benchNode
	serial  int
}

type benchNode struct {
	addr string
	pid  int
}

const calibrationCaddyfile = `{
	admin ADMIN
	persist_config off
	log {
		output discard
	}
	broadcast {
		history 100
		broker nats NATS {
			replicas 1
		}
	}
}
http://ADDR {
	broadcast /live/* {path.1}
}
`

func startBench(t *testing.T) *bench {
	b := &bench{T: t, monitor: caddytest.FreeAddr(t)}
	b.nats = natstest.Start(t, fmt.Sprintf("http: %q\n", b.monitor))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range nodeCount {
		addr, admin, file := caddytest.FreeAddr(t), caddytest.FreeAddr(t), filepath.Join(t.TempDir(), "Caddyfile")
		text := strings.NewReplacer("ADDR", addr, "ADMIN", admin, "NATS", b.nats.URL()).Replace(calibrationCaddyfile)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, _ := caddytest.StartProcess(t, self, file, addr, admin)
		b.nodes = append(b.nodes, &benchNode{addr, cmd.Process.Pid})
	}
	return b
}

// channel returns a name that was not used before.
func (b *bench) channel() string {
	b.serial++
	return fmt.Sprint("c", b.serial)
}

// subscribe connects to a channel on a node. got counts what comes.
func (b *bench) subscribe(n *benchNode, channel string, got *atomic.Int64) *websocket.Conn {
	b.Helper()
	var conn *websocket.Conn
	err := caddytest.UntilAnswered(func() (err error) {
		conn, _, err = websocket.Dial(b.Context(), "ws://"+n.addr+"/live/"+channel, nil)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				return
			}
			got.Add(1)
		}
	}()
	return conn
}

// figures are totals of the processes: the first is of nats-server.
type figures struct {
	cpu     []float64 // seconds
	in, out float64   // messages of nats-server's clients
	at      time.Time
}

// nodes returns what the Caddys have used together.
func (f figures) nodes() (seconds float64) {
	for _, cpu := range f.cpu[1:] {
		seconds += cpu
	}
	return seconds
}

func (b *bench) figures() (f figures) {
	resp, err := http.Get("http://" + b.monitor + "/varz")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var v struct {
		In  float64 `json:"in_msgs"`
		Out float64 `json:"out_msgs"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		b.Fatal(err)
	}
	f.in, f.out, f.at = v.In, v.Out, time.Now()
	f.cpu = append(f.cpu, cpuTime(b.nats.PID()))
	for _, n := range b.nodes {
		f.cpu = append(f.cpu, cpuTime(n.pid))
	}
	return f
}

// cpuTime adds up what the threads of a process have used, in seconds. The first field of schedstat is the time on a core in
// nanoseconds (kernel: Documentation/scheduler/sched-stats.rst).
func cpuTime(pid int) (seconds float64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		if f := strings.Fields(string(text)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			seconds += float64(ns) / 1e9
		}
	}
	return seconds
}

// run publishes at a rate, each message on the next of the channels and, if they are several, on a random node. It returns
// what was used per second.
func (b *bench) run(rate float64, channels []string, nodes []*benchNode) (used figures, published float64) {
	b.Helper()
	before := b.figures()
	var wg sync.WaitGroup
	var count atomic.Int64
	const posters = 8
	data := strings.Repeat("x", 128)
	if rate == 0 {
		time.Sleep(runTime)
		nodes = nil
	}
	for p := range min(posters, posters*len(nodes)) {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(time.Duration(posters * float64(time.Second) / rate))
			defer tick.Stop()
			for i := p; time.Since(before.at) < runTime; i += posters {
				<-tick.C
				n := nodes[rand.IntN(len(nodes))]
				resp, err := client.Post("http://"+n.addr+"/live/"+channels[i%len(channels)], "text/plain", strings.NewReader(data))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				count.Add(1)
			}
		})
	}
	wg.Wait()
	after := b.figures()
	seconds := after.at.Sub(before.at).Seconds()
	for i := range after.cpu {
		used.cpu = append(used.cpu, (after.cpu[i]-before.cpu[i])/seconds)
	}
	used.in, used.out = (after.in-before.in)/seconds, (after.out-before.out)/seconds
	return used, float64(count.Load()) / seconds
}

// brokerIdle is what nats-server uses in a second without messages. It is not in the table, since it is little.
const brokerIdle = "broker.idle"

// costs are what measureCosts measures, in microseconds per second, message or delivery.
type costs map[string]float64

// measureCosts measures the costs of the model, by loads that differ in one thing: nothing, messages that nobody gets,
// messages that come to 1, 10 and 100 connections of another node, and to rooms there.
func (b *bench) measureCosts() costs {
	a, other := b.nodes[0], b.nodes[1]
	idle, _ := b.run(0, nil, nil)
	only, n := b.run(costRate, []string{b.channel()}, []*benchNode{a})
	// In a cluster messages come from all nodes, so each connection is quiet for longer, and wakes more for each of them.
	spread, n3 := b.run(costRate, []string{b.channel()}, b.nodes)
	name := b.channel()
	var conns []*websocket.Conn
	var got atomic.Int64
	var perMessage, broker []float64
	for _, subscribers := range []int{1, 10, 100} {
		for len(conns) < subscribers {
			conns = append(conns, b.subscribe(other, name, &got))
		}
		used, n := b.run(costRate, []string{name}, []*benchNode{a})
		perMessage = append(perMessage, 1e6*(used.cpu[2]-idle.cpu[2])/n)
		broker = append(broker, 1e6*(used.cpu[0]-idle.cpu[0])/n)
	}
	leave(conns)
	rooms := b.subscribeRooms(other)
	time.Sleep(settleTime)
	cold, n2 := b.run(costRate, rooms.channels, []*benchNode{a})
	leave(rooms.conns)
	b.Logf("a message to 1, 10 and 100 of another node: %.0f µs there, %.0f of the broker", perMessage, broker)
	store := 1e6 * (only.cpu[0] - idle.cpu[0]) / n
	each := (perMessage[2] - perMessage[1]) / 90
	recv := perMessage[1] - 10*each
	// Each connection gets 7.5 messages per second: this is what a delivery costs then, and what follows for one that gets none.
	slow := (1e6*(cold.cpu[2]-idle.cpu[2])/n2 - recv) / roomSize
	rate := float64(costRate) / roomCount
	return costs{
		deliverCold: each + (slow-each)*(1+rate/defaults().of(deliverRate)),
		brokerIdle:  1e6 * idle.cpu[0], nodeIdle: 1e6 * idle.nodes() / nodeCount, tickRate: idle.in,
		publishNode: 1e6 * (spread.nodes() - idle.nodes()) / n3, sendNATS: (broker[0]+broker[1]+broker[2])/3 - store,
		deliverWarm: each, recvLow: recv,
		wakeR1: (1e6*(spread.cpu[0]-idle.cpu[0])/n3 - defaults().of(storeR1)) * (1 + costRate/defaults().of(wakeRate)),
	}
}

// Rooms in which each connection gets few messages.
const roomCount, roomSize = 20, 10

// group is connections to channels.
type group struct {
	channels []string
	conns    []*websocket.Conn
}

func (b *bench) subscribeRooms(n *benchNode) (g group) {
	var got atomic.Int64
	for range roomCount {
		name := b.channel()
		g.channels = append(g.channels, name)
		for range roomSize {
			g.conns = append(g.conns, b.subscribe(n, name, &got))
		}
	}
	return g
}

// leave closes connections, and waits until the nodes have done with them, so that it is in no figure.
func leave(conns []*websocket.Conn) {
	for _, conn := range conns {
		conn.CloseNow()
	}
	time.Sleep(settleTime)
}

// settleTime is how long processes are left alone after many connections have come or gone.
const settleTime = time.Second

// costRate is about what a node publishes and gets in the loads.
const costRate = 150

// measure runs a load.
func (b *bench) measure(sh shape, sys system) result {
	b.Helper()
	var count, size int
	sh.each(sys, func(channels, connections float64) { count, size = int(channels), int(connections) }) // all of one size
	var channels []string
	var conns []*websocket.Conn
	var got atomic.Int64
	for i := range count {
		name := b.channel()
		channels = append(channels, name)
		for j := range size {
			n := b.nodes[rand.IntN(nodeCount)]
			if sh.affinity {
				n = b.nodes[i%nodeCount]
			} else if count == 1 {
				n = b.nodes[j%nodeCount]
			}
			conns = append(conns, b.subscribe(n, name, &got))
		}
	}
	time.Sleep(settleTime)
	used, n := b.run(sh.rate*float64(count), channels, b.nodes)
	leave(conns)
	if delivered := float64(got.Load()); delivered < 0.99*n*float64(size)*runTime.Seconds() {
		b.Errorf("%s: only %.0f deliveries", sh.name, delivered)
	}
	nodes := used.nodes()
	return result{[4]float64{used.in, used.out, 1e6 * used.cpu[0] / n, 1e6 * nodes / n}, n}
}
