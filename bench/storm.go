//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// stormName is the scenario in which all clients of one server lose their connection and come back at once, as after a network
// failure, and resume what they have missed. There is no broker here, unlike in the scenario herd, and a channel has many clients.
const stormName = "storm"

const (
	stormClients = 10_000
	stormRooms   = 100
	stormMissed  = 100 // messages, by each client

	// Publishers go on meanwhile, at this rate.
	stormInterval = 10 * time.Millisecond
	stormPatience = 90 * time.Second
)

// stormPublish is how long a message took until it was confirmed.
type stormPublish struct {
	took time.Duration
	// The CPU time that the server has used meanwhile, divided by the cores: what it would have taken on a machine that does nothing else.
	busy time.Duration
}

// stormResult is what a storm cost.
type stormResult struct {
	tls           bool
	last          time.Duration // until the last client had what it had missed
	half          time.Duration // until half of them had
	cpu           time.Duration // the server's
	settled, peak int64         // bytes: with all clients, before the storm, and the most during it
	publish       []stormPublish
	attempts      int64 // to connect, more than one each
	missing       int64
}

// benchStorm measures storms, plain and with TLS in turn, and writes the figures if report is a folder.
func benchStorm(dir string, rounds, clients int, quick bool, report string) error {
	debug.SetGCPercent(400) // the generator has memory to spare, and shares the cores with the server
	if clients == 0 {
		clients = stormClients
	}
	if quick {
		clients = 300
	}
	fmt.Printf("\n%s: %d clients come back at once and resume %d messages each\n", stormName, clients, stormMissed)
	var results []stormResult
	for i := range rounds {
		for j, secure := range []bool{false, true} {
			r, err := measureStorm(dir, 24000+20*i+10*j, clients, secure)
			if err != nil {
				return fmt.Errorf("%s, TLS %t: %w", stormName, secure, err)
			}
			fmt.Println(r.line())
			if r.missing != 0 {
				return fmt.Errorf("%s: %d messages missing", stormName, r.missing)
			}
			results = append(results, r)
		}
	}
	if report == "" {
		return nil
	}
	return docs.Write(filepath.Join(report, "performance.md"), "go run ./bench -scenarios "+stormName, stormFigures(results, clients))
}

// measureStorm measures one storm.
func measureStorm(dir string, port, n int, secure bool) (r stormResult, err error) {
	r.tls = secure
	s, err := startCaddy(dir, port, "broadcast {\n history 1000 10m\n }")
	if err != nil {
		return r, err
	}
	defer s.stop()
	prefer(s.cmd.Process.Pid)
	crowd := newStormCrowd(s, n, secure)
	defer crowd.close()
	// Few at a time, which is the level to compare with: a server whose clients came over hours.
	if err := crowd.connect(8); err != nil {
		return r, err
	}
	s.settle()
	r.settled = s.usage().rss
	crowd.cut()
	if err := awaitEmpty(s); err != nil {
		return r, err
	}
	if err := publishMissed(s); err != nil {
		return r, err
	}
	p, err := startStormPublisher(s)
	if err != nil {
		return r, err
	}
	time.Sleep(time.Second) // so that it publishes before the storm begins
	pid := s.cmd.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // VmHWM begins anew
		return r, err
	}
	crowd.want, crowd.attempts = stormMissed, atomic.Int64{}
	before, begin := s.usage().cpu, time.Now()
	err = crowd.connect(n)
	r.last, r.cpu = time.Since(begin), s.usage().cpu-before
	r.half = crowd.half.Load().Sub(begin)
	r.peak = highWater(pid)
	r.attempts = crowd.attempts.Load() - int64(n)
	published := p.stop()
	r.publish = published
	if err == nil {
		r.missing = crowd.awaitAll(len(published))
	}
	return r, err
}

// publishMissed publishes what the clients will have missed.
func publishMissed(s *server) error {
	p, err := newPoster(s.addr)
	if err != nil {
		return err
	}
	defer p.c.Close()
	data := bytes.Repeat([]byte("x"), 128)
	for i := range stormMissed * stormRooms {
		if err := p.publish(s.addr, s.publish(i%stormRooms), data); err != nil {
			return err
		}
	}
	return nil
}

// awaitEmpty waits until the server has noticed that its clients are gone.
func awaitEmpty(s *server) error {
	for end := time.Now().Add(stormPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command("curl", "-s", "http://"+s.admin+"/metrics").Output()
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(string(out)) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, "caddy_broadcast_connections") {
				one, _ := strconv.Atoi(value)
				n += one
			}
		}
		if n == 0 {
			return nil
		}
	}
	return fmt.Errorf("the server still has connections")
}

// highWater returns the most memory that a process has had (VmHWM), in bytes.
func highWater(pid int) (n int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(rest, &n)
	return n << 10
}

// stormPublisher is a process of its own: ten thousand goroutines of the clients would otherwise be in its way.
type stormPublisher struct {
	cmd *exec.Cmd
	in  interface{ Close() error }
	out *bytes.Buffer
}

// stormPublisherEnv tells a process of this program to be a publisher: the server's address and process ID.
const stormPublisherEnv = "BENCH_STORM_PUBLISHER"

func startStormPublisher(s *server) (*stormPublisher, error) {
	p := &stormPublisher{cmd: exec.Command("/proc/self/exe"), out: new(bytes.Buffer)}
	p.cmd.Env = append(os.Environ(), stormPublisherEnv+"="+fmt.Sprint(s.addr, " ", s.cmd.Process.Pid))
	p.cmd.Stdout, p.cmd.Stderr = p.out, os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	err = p.cmd.Start()
	if err == nil {
		prefer(p.cmd.Process.Pid)
	}
	return p, err
}

// prefer gives a process the cores before the clients, which would be on other machines: ten thousand of them need as much as the
// server. Only root may do that; without it the figures are worse.
func prefer(pid int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, t := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(t))
		unix.Setpriority(unix.PRIO_PROCESS, tid, -10) // threads that begin later have that of the one that began them
	}
}

// stop ends it and returns how long each message took.
func (p *stormPublisher) stop() (published []stormPublish) {
	p.in.Close()
	p.cmd.Wait()
	for line := range strings.Lines(p.out.String()) {
		var one stormPublish
		fmt.Sscan(line, (*int64)(&one.took), (*int64)(&one.busy))
		published = append(published, one)
	}
	return published
}

// runStormPublisher is the process. It publishes to the rooms in turn until its input ends, on a connection that is kept, and
// writes how long after it was due each message was confirmed: one that waits for the one before counts that too.
func runStormPublisher(to string) error {
	addr, number, _ := strings.Cut(to, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	p, err := newPoster(addr)
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte("x"), 128)
	var published []stormPublish
	for m := range stormTicks(pid) {
		if err := p.publish(addr, "/ws/"+strconv.Itoa(len(published)%stormRooms), data); err != nil {
			return err
		}
		published = append(published, stormPublish{time.Since(m.due), (cpuClock(pid) - m.cpu) / time.Duration(runtime.NumCPU())})
	}
	for _, one := range published {
		fmt.Println(int64(one.took), int64(one.busy))
	}
	return nil
}

// stormTick is when a message is due, and the CPU time that the server has used by then.
type stormTick struct {
	due time.Time
	cpu time.Duration
}

// stormTicks returns a tick for each message, until the input ends. They do not wait for the publisher.
func stormTicks(pid int) <-chan stormTick {
	ended := make(chan struct{})
	go func() { os.Stdin.Read(make([]byte, 1)); close(ended) }()
	ticks := make(chan stormTick, 100_000) // more than a storm has
	go func() {
		defer close(ticks)
		for due := time.Now(); ; due = due.Add(stormInterval) {
			select {
			case <-ended:
				return
			case <-time.After(time.Until(due)):
				ticks <- stormTick{due, cpuClock(pid)}
			}
		}
	}()
	return ticks
}

// cpuClock returns the CPU time that a process has used, to the nanosecond (clock_getcpuclockid(3)).
func cpuClock(pid int) time.Duration {
	var t unix.Timespec
	unix.ClockGettime(int32(^pid<<3|2), &t)
	return time.Duration(t.Nano())
}

// percentile returns the duration that a share of those have not exceeded.
func percentile(published []stormPublish, share float64, of func(stormPublish) time.Duration) time.Duration {
	if len(published) == 0 {
		return 0
	}
	var sorted []time.Duration
	for _, one := range published {
		sorted = append(sorted, of(one))
	}
	slices.Sort(sorted)
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

func took(p stormPublish) time.Duration { return p.took }
func busy(p stormPublish) time.Duration { return p.busy }

func (r stormResult) ratio() float64 { return float64(r.peak) / float64(r.settled) }

func (r stormResult) transport() string {
	if r.tls {
		return "TLS"
	}
	return "plain"
}

// line is for the terminal.
func (r stormResult) line() string {
	return fmt.Sprintf("%-5s half live after %s, all after %s; CPU %.2f s; settled %d MiB, peak %d MiB, %.2f x; publish p50 %s p99 %s max %s (%d), busy p50 %s p99 %s max %s; %d more attempts, %d missing",
		r.transport(), short(r.half), short(r.last), r.cpu.Seconds(), r.settled>>20, r.peak>>20, r.ratio(),
		short(percentile(r.publish, 0.5, took)), short(percentile(r.publish, 0.99, took)), short(percentile(r.publish, 1, took)), len(r.publish),
		short(percentile(r.publish, 0.5, busy)), short(percentile(r.publish, 0.99, busy)), short(percentile(r.publish, 1, busy)), r.attempts, r.missing)
}

// stormFigures returns the part of performance.md between its marks: the median of each figure.
func stormFigures(results []stormResult, clients int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s. %d clients, medians of %d storms each.\n\n", time.Now().Format("2006-01-02"), machine(), clients, len(results)/2)
	b.WriteString("| | half are live after | all after | CPU of the server | settled | peak | | publish p50 | p99 | |\n| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- |\n")
	for _, secure := range []bool{false, true} {
		var some []stormResult
		for _, r := range results {
			if r.tls == secure {
				some = append(some, r)
			}
		}
		of := func(f func(stormResult) float64) float64 {
			var values []float64
			for _, r := range some {
				values = append(values, f(r))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		seconds := func(f func(stormResult) time.Duration) float64 {
			return of(func(r stormResult) float64 { return f(r).Seconds() })
		}
		ratio := of(stormResult.ratio)
		p99 := seconds(func(r stormResult) time.Duration { return percentile(r.publish, 0.99, busy) })
		fmt.Fprintf(&b, "| %s | %.1f s | %.1f s | %.2f s | %.0f MiB | %.0f MiB | %.2f x, %s | %.1f ms | %.1f ms | %s |\n", some[0].transport(),
			seconds(func(r stormResult) time.Duration { return r.half }), seconds(func(r stormResult) time.Duration { return r.last }),
			seconds(func(r stormResult) time.Duration { return r.cpu }),
			of(func(r stormResult) float64 { return float64(r.settled >> 20) }), of(func(r stormResult) float64 { return float64(r.peak >> 20) }),
			ratio, docs.Met(ratio, 1.5), 1000*seconds(func(r stormResult) time.Duration { return percentile(r.publish, 0.5, busy) }), 1000*p99, docs.Met(p99, 0.020))
	}
	return b.String()
}
