//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// herdName is the scenario that measures what many clients cost that come back at once: after a node was killed, after all of
// them were, and after the broker was. Each client is alone on its channel, so nothing is shared among them: each needs its
// channel opened, and what it has missed looked up.
const herdName = "herd"

// herdSizes are numbers of clients. Three show how the cost grows.
var herdSizes = []int{1000, 3000, 10_000}

// What is killed.
const (
	oneNode  = "one node"
	allNodes = "all nodes"
	theLog   = "the broker"
	all      = "all of it"
)

// herdPatience is how long a phase may take. It is far beyond the goal, so that a miss is measured and not only noticed.
const herdPatience = 60 * time.Second

// herdBrokers are the deployments that can be measured, by what -broker calls them.
var herdBrokers = map[string]string{"nats": r1, "nats3": r3, "redis": redisDurable}

// herdOptions are those of the command line.
type herdOptions struct {
	broker  string        // one of herdBrokers
	clients int           // if not 0, instead of herdSizes
	jitter  time.Duration // before the first attempt of each client
	latency time.Duration // of the nodes' connections to the broker, there and back
}

// herdResult is what a phase cost.
type herdResult struct {
	killed  string
	clients int
	*herdCounts
	took    time.Duration // from the kill until all were back
	up      time.Duration // until what was killed accepts connections again, if it was restarted
	nodes   time.Duration // CPU
	broker  time.Duration
	acked   int64 // messages published meanwhile
	nodeRSS int64 // the most that all nodes together had
	rss     int64 // and the brokers
	opens   map[string]int64
}

// benchHerd measures the scenario, and writes its figures if report is a folder. In quick mode it only checks that all come
// back and miss nothing.
func benchHerd(dir string, o herdOptions, quick bool, report string) error {
	if herdBrokers[o.broker] == "" {
		return fmt.Errorf("unknown broker %q", o.broker)
	}
	if ok, err := haveBroker(herdName, herdBrokers[o.broker]); !ok {
		return err
	}
	sizes := herdSizes
	if o.clients > 0 {
		sizes = []int{o.clients}
	}
	if quick {
		sizes = []int{300}
	}
	fmt.Printf("\n%s: clients that come back at once, each on a channel of its own\n", herdName)
	share := watchOthers()
	var results []herdResult
	for i, n := range sizes {
		some, err := measureHerd(dir, 22000+100*i, n, o)
		results = append(results, some...)
		if err != nil {
			return fmt.Errorf("%s, %d clients: %w", herdName, n, err)
		}
	}
	others := share()
	fmt.Printf("Other processes took %.0f %% of the cores.\n", 100*others)
	for _, r := range results {
		// A gap notice tells clients that something may be missing. When all is killed on a busy machine, a few may get one.
		if bad := r.missing + r.twice; quick && (bad > 0 || r.gaps > 0 && r.killed != all) {
			return fmt.Errorf("%s: %d messages missing, %d twice, %d gaps", herdName, r.missing, r.twice, r.gaps)
		}
	}
	if report == "" {
		return nil
	}
	return writeHerd(report, results, o, others)
}

// measureHerd runs all phases with this many clients.
func measureHerd(dir string, port, n int, o herdOptions) (results []herdResult, err error) {
	// The history has to cover the time that clients are away.
	d, err := deploy(dir, herdBrokers[o.broker], port, "history 100 10m", o.latency/2)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	d.nodes[0].others = nil
	// All on the node that will be killed. A thousand a second is what it can take without a queue.
	h, err := startHerd(n, []string{d.nodes[0].addr}, time.Duration(n)*time.Millisecond, o.jitter)
	if err != nil {
		return nil, err
	}
	defer h.stop()
	if err := h.awaitLive(int64(n)); err != nil {
		return nil, err
	}
	p := publishTo(d, n)
	defer p.stop()
	time.Sleep(2 * time.Second)

	m := &herdMeasurement{d: d, h: h, p: p, n: n}
	a, b, c := d.nodes[0], d.nodes[1], d.nodes[2]
	// In the second phase the node that was killed in the first is started too.
	phases := []struct {
		killed string
		stop   []*server
		start  []*server
		aim    []*server // where clients and publishers go from then on
	}{
		{oneNode, []*server{a}, nil, []*server{b, c}},
		{allNodes, []*server{b, c}, d.nodes, d.nodes},
		{theLog, d.brokers, d.brokers, d.nodes},
		{all, append(slices.Clone(d.nodes), d.brokers...), append(slices.Clone(d.nodes), d.brokers...), d.nodes},
	}
	for _, phase := range phases {
		r, err := m.measure(phase.killed, phase.stop, phase.start, phase.aim)
		results = append(results, r)
		fmt.Print(r.line())
		if err != nil {
			return results, fmt.Errorf("%s killed: %w", phase.killed, err)
		}
	}
	return results, nil
}

// together starts servers again that were stopped.
func together(ss []*server) error {
	errs := make(chan error, len(ss))
	for _, s := range ss {
		go func() { errs <- s.again() }()
	}
	for range ss {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// awaitLive waits until this many clients are connected.
func (h *herd) awaitLive(n int64) error {
	for end := time.Now().Add(herdPatience); h.live.Load() < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d clients are connected after %v: %+v", h.live.Load(), n, herdPatience, h.summary())
		}
	}
	return nil
}

// summary is for errors.
func (h *herd) summary() (s string) {
	h.do(func() {
		c := h.counts
		s = fmt.Sprintf("%d handshakes, %d with a 503, %d failed, %d attempts that no node accepted, %d lost", c.handshakes, c.refused, c.other, c.noNode, c.lost)
	})
	return s
}

// herdMeasurement measures phases.
type herdMeasurement struct {
	// Held while processes are stopped and started, as their usage cannot be read then.
	changing sync.Mutex
	d        *deployment
	h        *herd
	p        *herdPublisher
	n        int
}

// measure kills some processes, starts some, and waits until all clients are back and have what was published.
func (m *herdMeasurement) measure(killed string, stop, start, aim []*server) (r herdResult, err error) {
	r = herdResult{killed: killed, clients: m.n}
	m.h.phase()
	before, opens, acked := m.used(), m.opens(), m.p.acked.Load()
	unwatch := m.watchMemory(&r)
	begin := time.Now()
	m.h.aim(aim)
	m.p.aim(aim)
	m.changing.Lock()
	for _, s := range stop {
		s.kill() // all of them first, as clients of one would go to the next that is killed
	}
	for _, s := range stop {
		s.stop()
	}
	err = together(start)
	m.changing.Unlock()
	if err != nil {
		unwatch()
		return r, err
	}
	if len(start) > 0 {
		r.up = time.Since(begin)
	}
	lost := func() (n int64) { m.h.do(func() { n = m.h.counts.lost }); return n }
	if killed != theLog { // otherwise they are live before they have noticed
		for lost() < int64(m.n) && time.Since(begin) < herdPatience {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if err = m.h.awaitLive(int64(m.n)); err == nil {
		err = m.p.awaitProgress()
	}
	r.took = time.Since(begin)
	unwatch()
	after := m.used()
	r.nodes, r.broker = since(before.nodes, after.nodes), since(before.brokers, after.brokers)
	r.opens = make(map[string]int64)
	for pid, counts := range m.opens() {
		for what, count := range counts {
			r.opens[what] += count - opens[pid][what]
		}
	}
	r.acked = m.p.acked.Load() - acked
	if err == nil {
		err = m.settle()
	}
	r.herdCounts = m.h.phase()
	return r, err
}

// settle stops publishing for a moment, until each client has everything that was acked.
func (m *herdMeasurement) settle() error {
	numbers := m.p.pause()
	defer m.p.resume()
	behind := 0
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		behind = 0
		m.h.do(func() {
			for i, member := range m.h.members {
				if member.last >= 0 && member.last < numbers[i] {
					behind++
				}
			}
		})
		if behind == 0 {
			return nil
		}
	}
	// They have missed it without being told.
	m.h.do(func() {
		for i, member := range m.h.members {
			if member.last >= 0 && member.last < numbers[i] {
				m.h.counts.missing += int64(numbers[i] - member.last)
			}
		}
	})
	return nil
}

// since returns what processes have used between two moments. One that is not there any more has none.
func since(before, after map[int]time.Duration) (used time.Duration) {
	for pid, cpu := range after {
		used += max(0, cpu-before[pid])
	}
	return used
}

// cpuTimes is what processes have used, by ID: one that was restarted begins anew.
type cpuTimes struct{ nodes, brokers map[int]time.Duration }

func (m *herdMeasurement) used() cpuTimes {
	of := func(ss []*server) map[int]time.Duration {
		used := make(map[int]time.Duration)
		for _, s := range ss {
			used[s.cmd.Process.Pid] = cpu(s.cmd.Process.Pid)
		}
		return used
	}
	return cpuTimes{of(m.d.nodes), of(m.d.brokers)}
}

// watchMemory looks at the memory until it is stopped.
func (m *herdMeasurement) watchMemory(r *herdResult) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				m.changing.Lock()
				r.nodeRSS, r.rss = max(r.nodeRSS, usageOf(m.d.nodes).rss), max(r.rss, m.d.broker().rss)
				m.changing.Unlock()
			}
		}
	}()
	return func() { close(done); <-ended }
}

// opens returns how often the nodes have opened and read channels, and waited for a barrier, by process.
func (m *herdMeasurement) opens() map[int]map[string]int64 {
	all := make(map[int]map[string]int64)
	for _, s := range m.d.nodes {
		counts := make(map[string]int64)
		all[s.cmd.Process.Pid] = counts
		resp, err := http.Get("http://" + s.admin + "/metrics")
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			var v float64
			switch {
			case !strings.HasPrefix(name, "caddy_broadcast_broker_opens_total") && name != "caddy_broadcast_broker_barriers_total":
				continue
			case strings.Contains(name, "{"):
				_, name, _ = strings.Cut(name, `"`)
				name, _, _ = strings.Cut(name, `"`)
			default:
				name = "barriers"
			}
			fmt.Sscan(value, &v)
			counts[name] += int64(v)
		}
	}
	return all
}

// herdPublisher publishes numbered messages on all channels, one after the other, and repeats each until it has an ack.
type herdPublisher struct {
	mu      sync.Mutex
	nodes   []*server
	paused  sync.RWMutex
	numbers []int // of the last message that was acked, by channel
	acked   atomic.Int64
	cancel  context.CancelFunc
	all     sync.WaitGroup
}

// herdPublishers publish at the same time, each on its own share of the channels.
const herdPublishers = 8

// herdInterval is the time between two messages of a channel. So each client misses about one message for each ten seconds
// that it is away: most of them have missed nothing, and some have.
const herdInterval = 10 * time.Second

// publishTo begins to publish.
func publishTo(d *deployment, n int) *herdPublisher {
	p := &herdPublisher{nodes: d.nodes, numbers: make([]int, n)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	client := &http.Client{Timeout: 10 * time.Second}
	for first := range herdPublishers {
		p.all.Go(func() {
			tick := time.NewTicker(herdInterval * herdPublishers / time.Duration(n))
			defer tick.Stop()
			for i := first; ; i += herdPublishers {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if i >= n {
					i = first
				}
				p.publish(ctx, client, i)
			}
		})
	}
	return p
}

// publish publishes the next message of a channel.
func (p *herdPublisher) publish(ctx context.Context, client *http.Client, i int) {
	p.paused.RLock()
	defer p.paused.RUnlock()
	number := p.numbers[i] + 1
	body := fmt.Sprintf(`{"publish":{"data":%d,"key":"%d-%d"},"ref":1}`, number, i, number)
	for ctx.Err() == nil {
		p.mu.Lock()
		node := p.nodes[rand.IntN(len(p.nodes))]
		p.mu.Unlock()
		resp, err := client.Post("http://"+node.addr+"/ws/"+herdChannel(i)+"?protocol=broadcast.v1", "application/json", strings.NewReader(body))
		if err == nil {
			answer, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if bytes.HasPrefix(answer, []byte(`[{"ack"`)) && json.Valid(answer) {
				p.numbers[i] = number
				p.acked.Add(1)
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// aim sets where is published.
func (p *herdPublisher) aim(nodes []*server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = nodes
}

// awaitProgress waits until each publisher has had an ack.
func (p *herdPublisher) awaitProgress() error {
	at := p.acked.Load()
	for end := time.Now().Add(herdPatience); p.acked.Load() < at+2*herdPublishers; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("nothing can be published after %v", herdPatience)
		}
	}
	return nil
}

// pause stops publishing, and returns the number of each channel's last message.
func (p *herdPublisher) pause() []int {
	p.paused.Lock()
	return p.numbers
}

func (p *herdPublisher) resume() { p.paused.Unlock() }

func (p *herdPublisher) stop() {
	p.cancel()
	p.all.Wait()
}
