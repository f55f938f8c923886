// Command million measures the hub alone with a million connections in memory, which have no sockets: what they take, and how
// long the largest operations need.
//
//	go run -tags holds ./bench/million
//
// The tag has the hub measure how long its lock is held. Each shape runs in a process of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// shape is how connections are spread over channels.
type shape struct {
	name     string
	channels func(i, n int) []string // of connection i of n
}

var shapes = []shape{
	{"one channel", func(int, int) []string { return []string{"all"} }},
	{"channels of 10", func(i, _ int) []string { return []string{room(i / 10)} }},
	{"three channels each", func(i, _ int) []string {
		return []string{"all", fmt.Sprintf("topic:%d", i%1000), room(i / 10)}
	}},
}

func room(i int) string { return fmt.Sprintf("room:%d", i) }

func main() {
	n := flag.Int("n", 1_000_000, "connections")
	loops := flag.Int("loops", runtime.GOMAXPROCS(0), "loops of the hub, which is GOMAXPROCS")
	only := flag.Int("shape", -1, "measure this shape only, in this process")
	flag.Parse()
	if *only >= 0 {
		runtime.GOMAXPROCS(*loops)
		newRun(*n, shapes[*only]).all()
		return
	}
	fmt.Printf("%d connections, %d loops, %d cores, %s\n\n", *n, *loops, runtime.NumCPU(), runtime.Version())
	fmt.Println("| | " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat(" --- |", len(columns)+1))
	for i := range shapes {
		c := exec.Command(os.Args[0], fmt.Sprint("-n=", *n), fmt.Sprint("-loops=", *loops), fmt.Sprint("-shape=", i))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "million:", err)
			os.Exit(1)
		}
	}
}

var columns = []string{"bytes per connection", "connect", "broadcast", "join, median", "join, max", "close all",
	"a full GC", "GC pause, max", "GC share of CPU", "longest hold of the lock", "over 1 ms"}

// null is a transport that accepts everything.
type null struct{}

func (null) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (null) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (null) Close()                                       {}

// format is as small as one can be.
type format struct{}

func (format) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = append(append(dst, 0x81, byte(len(m.Data))), m.Data...)
	}
	return dst
}

var ping = []byte{0x89, 0}

func (format) Ping() []byte                    { return ping }
func (format) Close(hub.Reason, string) []byte { return ping }
func (format) Gap([]string) []byte             { return nil }

// run is the measurement of one shape.
type run struct {
	n       int
	shape   shape
	hub     *hub.Hub
	options *hub.ConnOptions
	conns   []*hub.Conn
	holds   hub.Holds
	longest string // the phase of the longest hold
}

func newRun(n int, s shape) *run {
	return &run{n: n, shape: s, conns: make([]*hub.Conn, n), options: &hub.ConnOptions{
		// One-way, so that closing waits for no reply. They get pings all the same.
		Transport: hub.TransportWebSocket, Format: format{}, PingInterval: 25 * time.Second, WriteTimeout: time.Minute,
		MaxBacklog: 1 << 20, OneWay: true,
	}}
}

// all measures everything and prints a row of the table.
func (r *run) all() {
	before := heap()
	r.hub = hub.New(hub.Config{})
	connect := r.timed("connect", r.connect)
	gc := r.timed("gc", runtime.GC)
	size := float64(heap()-before) / float64(r.n)
	broadcast := make([]time.Duration, 9)
	for i := range broadcast {
		broadcast[i] = r.timed("broadcast", r.broadcast)
	}
	joins := r.joins()
	share, pause := gcShare(), gcPause()
	clear(r.conns)
	closing := r.timed("close", func() { r.hub.Close(hub.ReasonRestart, "", 0, time.Minute) })
	fmt.Printf("| %s | %.0f | %s | %s | %s | %s | %s | %s | %s | %.0f %% | %s | %d of %d |\n", r.shape.name, size, round(connect),
		round(median(broadcast)), round(median(joins)), round(slices.Max(joins)), round(closing), round(gc), round(pause), share,
		round(r.holds.Longest), r.holds.Long, r.holds.N)
	fmt.Fprintf(os.Stderr, "longest hold: %v by %s, in phase %s\n", r.holds.Longest, r.holds.By, r.longest)
}

// timed runs f, and notes for how long the lock was held meanwhile.
func (r *run) timed(name string, f func()) time.Duration {
	hub.LongestHolds()
	begin := time.Now()
	f()
	took := time.Since(begin)
	h := hub.LongestHolds()
	r.holds.N += h.N
	r.holds.Long += h.Long
	if h.Longest > r.holds.Longest {
		r.holds.Longest, r.holds.By, r.longest = h.Longest, h.By, name
	}
	return took
}

func (r *run) connect() {
	for i := range r.conns {
		// Each with strings of its own, as they come from a request.
		c, _, err := r.hub.Connect(hub.Subscriber{Channels: r.shape.channels(i, r.n), Remote: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}, r.options)
		if err != nil {
			panic(err)
		}
		c.Start(null{}, nil)
		r.conns[i] = c
	}
	r.conns[r.n-1].Settle()
}

// broadcast publishes a message to every connection, by as many channels as that takes, and waits until all have it.
func (r *run) broadcast() {
	channels := 1
	if r.shape.channels(0, r.n)[0] != "all" {
		channels = (r.n + 9) / 10
	}
	want := r.hub.Stats().Deliveries + uint64(r.n)
	data := make([]byte, 100)
	for i := range channels {
		m := &hub.Message{Channel: "all", Data: data, Kind: hub.Binary}
		if channels > 1 {
			m.Channel = room(i)
		}
		if err := r.hub.PublishWait(m); err != nil {
			panic(err)
		}
	}
	for r.hub.Stats().Deliveries < want {
		time.Sleep(100 * time.Microsecond)
	}
}

// joins has connections join one more channel, one after the other.
func (r *run) joins() []time.Duration {
	took := make([]time.Duration, 1000)
	frame := func(hub.Welcome, []*hub.Message) []byte { return ping }
	for i := range took {
		c := r.conns[i*(r.n/len(took))]
		took[i] = r.timed("join", func() {
			if err := c.Join("joined later", "", frame); err != nil {
				panic(err)
			}
			c.Settle()
		})
	}
	return took
}

// heap returns the bytes that are in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// gcShare returns the percentage of the CPU time that the garbage collector has used.
func gcShare() float64 {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(s)
	return 100 * s[0].Value.Float64() / (s[1].Value.Float64() - s[2].Value.Float64())
}

// gcPause returns the longest pause of the latest garbage collections.
func gcPause() time.Duration {
	var s debug.GCStats
	debug.ReadGCStats(&s)
	return slices.Max(s.Pause)
}

func median(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}

func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(time.Microsecond)
	}
}
