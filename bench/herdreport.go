//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// share returns how many of a hundred handshakes were refused with a 503.
func (r herdResult) share() float64 {
	return 100 * float64(r.refused) / float64(max(1, r.handshakes))
}

// line is for the terminal.
func (r herdResult) line() string {
	c := r.herdCounts
	return fmt.Sprintf("%6d clients, %-10s back p50 %s p99 %s max %s; all after %.1f s (up after %.1f s); handshakes %d, 503 %.2f %%, other %d, no node %d; "+
		"CPU nodes %.2f s, broker %.2f s; RSS nodes %d MiB, broker %d MiB; lost %d resumed %d gaps %d missing %d twice %d; acked %d, delivered %d; %v\n",
		r.clients, r.killed, short(c.back.quantile(0.5)), short(c.back.quantile(0.99)), short(c.slowest), r.took.Seconds(), r.up.Seconds(),
		c.handshakes, r.share(), c.other, c.noNode, r.nodes.Seconds(), r.broker.Seconds(), r.nodeRSS>>20, r.rss>>20, c.lost, c.resumed, c.gaps, c.missing, c.twice,
		r.acked, c.deliveries, r.opens)
}

// writeHerd replaces the figures in dir/cluster-performance.md.
func writeHerd(dir string, results []herdResult, o herdOptions, others float64) error {
	return docs.Write(filepath.Join(dir, "cluster-performance.md"), "go run ./bench -scenarios herd", herdFigures(results, o, others))
}

// herdFigures returns the part of cluster-performance.md between its marks.
func herdFigures(results []herdResult, o herdOptions, others float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s.\nProcesses that have nothing to do with it took %.0f %% of the cores meanwhile. The broker was: %s.\nThe clients' jitter was %v, and the latency of the broker %v more than that of loopback.\n\n",
		time.Now().Format("2006-01-02"), machine(), 100*others, herdBrokers[o.broker], o.jitter, o.latency)
	b.WriteString("| goal, of 10,000 clients | | reached | |\n| --- | --- | --- | --- |\n")
	for _, r := range results {
		if r.clients == 10_000 && (r.killed == oneNode || r.killed == allNodes) {
			fmt.Fprintf(&b, "| %s killed: the last is back after | at most 5 s | %s | %s |\n", r.killed, short(r.slowest), docs.Met(r.slowest.Seconds(), 5))
			fmt.Fprintf(&b, "| handshakes with a 503 | at most 1 %% | %.2f %% | %s |\n", r.share(), docs.Met(r.share(), 1))
			fmt.Fprintf(&b, "| messages missing or twice | 0 | %d | %s |\n", r.missing+r.twice, docs.Met(float64(r.missing+r.twice), 0))
		}
	}
	b.WriteString("\n| killed | clients | back, p50 | p99 | last | all is well after | handshakes with a 503 | CPU of the Caddys | of the broker | peak RSS of the Caddys | of the broker | gaps | missing |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, killed := range []string{oneNode, allNodes, theLog, all} {
		for _, r := range results {
			if r.killed != killed {
				continue
			}
			back := "| | "
			if killed != theLog { // whose clients stay
				back = fmt.Sprintf("%s | %s | %s", short(r.back.quantile(0.5)), short(min(r.slowest, r.back.quantile(0.99))), short(r.slowest))
			}
			fmt.Fprintf(&b, "| %s | %d | %s | %.1f s | %.2f %% | %.2f s | %.2f s | %d MiB | %d MiB | %d | %d |\n", killed, r.clients, back, r.took.Seconds(), r.share(), r.nodes.Seconds(), r.broker.Seconds(),
				r.nodeRSS>>20, r.rss>>20, r.gaps, r.missing+r.twice)
		}
	}
	return b.String()
}
