package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// report is the measurements of a run.
type report struct {
	mu       sync.Mutex
	began    time.Time // of virtual time
	took     time.Duration
	heap     []string // what it was when something had been done
	lastHeap uint64
	back     []time.Duration // how long clients were without a connection
	refusals map[string]int

	links     []brokertest.Traffic // of each node, until the end without what was before the beginning
	last      brokertest.Traffic   // of all, when it was looked at last
	lastTime  time.Time
	peak      map[string]float64 // the most messages per second, by flow
	published int
	delivered int
	gaps      int
}

// memory notes how much the heap has grown since the last call, per node. In a bubble nothing else runs meanwhile.
func (r *report) memory(c *cluster, what string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if r.lastHeap > 0 && m.HeapAlloc > r.lastHeap {
		r.heap = append(r.heap, fmt.Sprintf("%s %d KiB", what, (m.HeapAlloc-r.lastHeap)/uint64(c.size.nodes)>>10))
	}
	r.lastHeap = m.HeapAlloc
}

func (r *report) begin(c *cluster) {
	r.began, r.lastTime, r.peak = time.Now(), time.Now(), make(map[string]float64)
	for _, n := range c.nodes {
		t := n.link.Traffic()
		r.links = append(r.links, t)
		r.last = sum(r.last, t, 1)
	}
}

func (r *report) sample(c *cluster) {
	var all brokertest.Traffic
	for _, n := range c.nodes {
		all = sum(all, n.link.Traffic(), 1)
	}
	seconds := time.Since(r.lastTime).Seconds()
	for _, f := range flows(sum(all, r.last, -1)) {
		r.peak[f.name] = max(r.peak[f.name], float64(f.Messages)/seconds)
	}
	r.last, r.lastTime = all, time.Now()
}

func (r *report) end(c *cluster) {
	r.took = time.Since(r.began)
	for i, n := range c.nodes {
		r.links[i] = sum(n.link.Traffic(), r.links[i], -1)
	}
}

// count counts what clients were told, when all of it has come.
func (r *report) count(c *cluster) {
	r.published = len(c.sent)
	for _, k := range c.clients {
		for _, conn := range k.before {
			r.delivered += strings.Count(conn.Transcript, "message ")
			first, _, _ := strings.Cut(conn.Transcript, "\n")
			if n := strings.Count(conn.Transcript, "\ngap "); n > 0 || !strings.HasSuffix(first, " ") {
				r.gaps += max(1, n)
			}
		}
	}
	if r.gaps > 0 && !c.gaps {
		c.problem("%d gaps were told, though nothing was lost", r.gaps)
	}
}

func (r *report) returned(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = append(r.back, after)
}

func (r *report) refused(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusals == nil {
		r.refusals = make(map[string]int)
	}
	switch {
	case errors.Is(err, hub.ErrNotReady):
		r.refusals["503, not ready"]++
	case errors.Is(err, hub.ErrClosed):
		r.refusals["closing"]++
	default:
		r.refusals[err.Error()]++
	}
}

// flow is one of the fields of brokertest.Traffic.
type flow struct {
	name string
	brokertest.Flow
}

func flows(t brokertest.Traffic) (all []flow) {
	v := reflect.ValueOf(t)
	for i := range v.NumField() {
		all = append(all, flow{strings.ToLower(v.Type().Field(i).Name), v.Field(i).Interface().(brokertest.Flow)})
	}
	return all
}

// sum adds sign times another traffic to a traffic.
func sum(t, other brokertest.Traffic, sign int) brokertest.Traffic {
	v, o := reflect.ValueOf(&t).Elem(), reflect.ValueOf(other)
	for i := range v.NumField() {
		f, g := v.Field(i).Addr().Interface().(*brokertest.Flow), o.Field(i).Interface().(brokertest.Flow)
		f.Messages += uint64(sign) * g.Messages
		f.Bytes += uint64(sign) * g.Bytes
	}
	return t
}

// write writes the report for people.
func (r *report) write(w io.Writer, c *cluster, wall time.Duration) {
	fmt.Fprintf(w, "\n%s: %s\n  %d nodes, %d connections; %v of virtual time in %v; seed %d\n", c.name, c.about, c.size.nodes, len(c.clients),
		r.took.Round(time.Second), wall.Round(100*time.Millisecond), c.seed)
	seconds := r.took.Seconds()
	fmt.Fprintf(w, "  %d published, %d delivered (%.0f/s); gaps %d; heap of a node: %s\n", r.published, r.delivered, float64(r.delivered)/seconds, r.gaps, strings.Join(r.heap, ", "))
	if slices.Sort(r.back); len(r.back) > 0 {
		at := func(q float64) time.Duration { return r.back[int(q*float64(len(r.back)-1))].Round(time.Millisecond) }
		fmt.Fprintf(w, "  %d reconnects: p50 %v, p99 %v, at most %v; refused: %v\n", len(r.back), at(.5), at(.99), at(1), r.refusals)
	}
	fmt.Fprintf(w, "  %-10s %12s %12s %12s %14s %14s\n", "", "all/s", "peak/s", "bytes/s", "node, mean/s", "node, most/s")
	var all brokertest.Traffic
	most := make(map[string]uint64)
	for _, l := range r.links {
		all = sum(all, l, 1)
		for _, f := range flows(l) {
			most[f.name] = max(most[f.name], f.Messages)
		}
	}
	for _, f := range flows(all) {
		per := float64(f.Messages) / seconds
		fmt.Fprintf(w, "  %-10s %12.1f %12.0f %12.0f %14.3f %14.3f\n", f.name, per, r.peak[f.name], float64(f.Bytes)/seconds,
			per/float64(c.size.nodes), float64(most[f.name])/seconds)
	}
}
