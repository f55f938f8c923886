//go:build linux

// Command bench measures this module against its peers. It builds and starts each server, puts load on it, and reads the
// server's own CPU time and memory from /proc, so that the cost of the load generator does not count.
//
//	go run ./bench                                     # everything; writes docs/performance.md and docs/cluster-performance.md
//	go run ./bench -scenarios paced,burst -peers caddy-broadcast,nchan
//	go run ./bench -scenarios cluster                  # several Caddys behind NATS and Redis; writes docs/cluster-performance.md
//	go run ./bench -scenarios herd                     # 10,000 clients that come back at once; writes docs/cluster-performance.md
//	go run ./bench -memory 64                          # how far the process grows with max_memory 64MiB
//	go run ./bench -quick                              # only checks that every message is delivered, and that no ratio is far off
//	go run ./bench -scenarios polling,idle-polling     # clients of Socket.IO that poll, of ours and of the peers
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// main writes the report only when everything of it was measured, because a table with some new rows and some old ones would
// compare different days.
func main() {
	only := flag.String("peers", "", "peers, by name, separated by commas; default all")
	which := flag.String("scenarios", "", "scenarios, by name, separated by commas; default all")
	quick := flag.Bool("quick", false, "one second each, without a report: only check that every message is delivered, and that no ratio is far off")
	rounds := flag.Int("rounds", 3, "how often each is measured; the median is reported")
	seconds := flag.Float64("seconds", 5, "duration of each measurement")
	report := flag.String("report", "", "folder that contains performance.md and cluster-performance.md; default docs when everything is measured, or only cluster, or only herd or storm as they are by default")
	var herd herdOptions
	flag.StringVar(&herd.broker, "broker", "nats", "herd: nats is one nats-server, nats3 three with three replicas, redis one Redis")
	flag.IntVar(&herd.clients, "clients", 0, "herd and storm: how many; default 1,000, 3,000 and 10,000, one after the other, and in storm 10,000")
	flag.DurationVar(&herd.jitter, "jitter", 0, "herd: the longest that clients wait before they come back; the JavaScript client does not wait")
	flag.DurationVar(&herd.latency, "latency", 0, "herd: how long the broker is away from the nodes, there and back")
	memory := flag.Int("memory", 0, "only measure how far misbehaving clients make the process grow with this max_memory, in MiB")
	flag.Parse()
	if addr := os.Getenv(stormPublisherEnv); addr != "" {
		if err := runStormPublisher(addr); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *memory > 0 {
		if err := benchMemory(*memory, *seconds); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *quick {
		*rounds, *seconds = 1, 1
	}
	if *report == "" && !*quick && (*only == "" && *which == "" || *which == clusterName || (*which == stormName || *which == herdName) && herd == (herdOptions{broker: "nats"})) {
		*report = "docs"
	}
	ps, err := pick(peers, *only, func(p peer) string { return p.name })
	if err == nil {
		var scs []scenario
		if scs, err = pick(scenarios, *which, func(s scenario) string { return s.name }); err == nil {
			err = bench(ps, scs, *rounds, *seconds, herd, *quick, *report)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// pick returns the entries with these names, or all of them.
func pick[T any](all []T, names string, name func(T) string) (some []T, err error) {
	if names == "" {
		return all, nil
	}
	for n := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(v T) bool { return name(v) == n })
		if i < 0 {
			return nil, fmt.Errorf("unknown name %q", n)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// available returns the peers that this machine can run, and reports the others. A missing peer is not an error, because most
// machines lack some of them.
func available(ps []peer) []peer {
	return slices.DeleteFunc(slices.Clone(ps), func(p peer) bool {
		if p.lacks == nil {
			return false
		}
		what := p.lacks()
		if what != "" {
			fmt.Printf("%s is skipped: it needs %s\n", p.name, what)
		}
		return what != ""
	})
}

// bench measures the scenarios one after the other, each with all peers before the next begins. Only quick mode fails for
// what is wrong with ours: a report shows it in a column. The ports are below 32768, where Linux begins to give them to
// clients, of which there are 15,000 here. The pause after each run lets the kernel finish with the sockets of the killed
// server, so that they are not in the next measurement.
func bench(ps []peer, scs []scenario, rounds int, seconds float64, herd herdOptions, quick bool, report string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ps = available(ps)
	t := newTable(ps)
	wrong, port := 0, 20100
	for _, sc := range scs {
		if other, err := benchOther(sc.name, dir, rounds, seconds, herd, quick, report); err != nil {
			return err
		} else if other {
			continue
		}
		if quick {
			// Enough to find a lost message, and few enough for a small machine without a higher limit of open files.
			sc.subscribers = min(sc.subscribers, 500)
		}
		fmt.Printf("\n%s: %s\n%s", sc.name, sc.about, header)
		results := make(map[string][]result)
		for range rounds { // in turn, so that a machine that becomes slower does so for all peers
			for _, p := range ps {
				if !sc.applies(p) {
					continue
				}
				// New ports for each run: connections that have just ended would keep the old ones busy (TIME_WAIT).
				port += 10
				r, err := sc.measure(p, dir, port, seconds)
				if err != nil {
					fmt.Printf("%-16s %v\n", p.name, err)
					if p.ours() {
						wrong++
					}
					continue
				}
				results[p.name] = append(results[p.name], r)
				fmt.Print(r.line(p.name))
				if p.ours() && r.missing+r.extra+r.closed > 0 {
					wrong++ // peers may lose messages; ours must not
				}
				time.Sleep(200 * time.Millisecond)
			}
		}
		for name, rs := range results {
			t.set(sc.name, name, median(rs))
		}
	}
	fmt.Print(t.ratios())
	if err := t.writeTo(report, rounds, seconds); err != nil {
		return err
	}
	if wrong > 0 && quick {
		return fmt.Errorf("%d runs of %s failed, or lost or repeated messages", wrong, ours)
	}
	if quick {
		return t.intolerable()
	}
	return nil
}

// benchOther measures the scenarios that compare no peers, if this is one of them.
func benchOther(name, dir string, rounds int, seconds float64, herd herdOptions, quick bool, report string) (bool, error) {
	switch name {
	case clusterName:
		return true, benchCluster(dir, rounds, seconds, quick, report)
	case herdName:
		return true, benchHerd(dir, herd, quick, report)
	case stormName:
		return true, benchStorm(dir, rounds, herd.clients, quick, report)
	}
	return false, nil
}

// writeTo writes the report, unless none is wanted or there is nothing in it.
func (t *table) writeTo(report string, rounds int, seconds float64) error {
	if report == "" || len(t.cells) == 0 {
		return nil
	}
	return t.write(report, rounds, seconds)
}
