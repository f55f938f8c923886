package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// progress returns a function that says how far the run is.
func (l *load) progress(connections int) func() string {
	arrived, at := int64(0), time.Now()
	return func() string {
		if n := l.opened.Load(); n < int64(connections) {
			return fmt.Sprintf("%d of %d connections", n, connections)
		}
		now, n := time.Now(), l.arrived.Load()
		perSecond := float64(n-arrived) / now.Sub(at).Seconds()
		arrived, at = n, now
		return fmt.Sprintf("%d messages, %d deliveries (%.0f/s), %d under way", l.published.Load(), n, perSecond, l.expected.Load()-n)
	}
}

// report prints the result. The JSON has more numbers, for scripts that compare runs.
func (l *load) report(cmd *cobra.Command, messages int, connected, took time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.late)
	at := func(share float64) float64 { // a quantile, in milliseconds
		if len(l.late) == 0 {
			return 0
		}
		return milliseconds(l.late[min(len(l.late)-1, int(share*float64(len(l.late))))])
	}
	missing := l.expected.Load() - l.arrived.Load()
	out, connections := cmd.OutOrStdout(), len(l.connections)
	if isJSON(cmd) {
		// The result and the error: a script needs the numbers most when something is missing.
		return errors.Join(json.NewEncoder(out).Encode(map[string]any{
			"connections": connections, "connect_seconds": connected.Seconds(), "messages": messages, "deliveries": l.arrived.Load(),
			"missing": missing, "deliveries_per_second": float64(l.arrived.Load()) / took.Seconds(),
			"p50_ms": at(.5), "p90_ms": at(.9), "p99_ms": at(.99), "max_ms": at(1), "histogram": histogram(l.late), "closed": l.closed,
		}), missingError(missing))
	}
	fmt.Fprintf(out, "%d connections in %.2f s\n", connections, connected.Seconds())
	fmt.Fprintf(out, "%d messages in %.1f s, %.0f deliveries/s\n", messages, took.Seconds(), float64(l.arrived.Load())/took.Seconds())
	fmt.Fprintf(out, "latency: p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms\n", at(.5), at(.9), at(.99), at(1))
	drawHistogram(out, histogram(l.late))
	for why, n := range l.closed {
		// Texts of close frames come from the server, or from a proxy before it.
		fmt.Fprintf(out, "%d connections ended: %s\n", n, visible(why))
	}
	return missingError(missing)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// bucket is a line of a histogram: how many deliveries took at most this long, and longer than the bucket before.
type bucket struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int     `json:"count"`
}

// histogram counts sorted latencies in buckets that grow as 1, 2, 5, 10: fine enough to see two peaks, and few enough lines
// for latencies from microseconds to seconds. It begins and ends with a bucket that is not empty.
func histogram(sorted []time.Duration) []bucket {
	buckets := []bucket{} // and not nil, so that JSON has an array
	steps := []time.Duration{1, 2, 5}
	unit := time.Microsecond
	for i, from := 0, 0; from < len(sorted); i++ {
		upTo := steps[i%3] * unit
		if i%3 == 2 {
			unit *= 10
		}
		n, _ := slices.BinarySearch(sorted[from:], upTo+1)
		if n > 0 || len(buckets) > 0 {
			buckets = append(buckets, bucket{milliseconds(upTo), n})
		}
		from += n
	}
	return buckets
}

// drawHistogram prints a histogram. The bars are of plain characters, which any terminal and any bug report can show.
func drawHistogram(out io.Writer, buckets []bucket) {
	const width = 40
	most, total := 0, 0
	for _, b := range buckets {
		most, total = max(most, b.Count), total+b.Count
	}
	for _, b := range buckets {
		// Rounded up, so that a few late ones are seen.
		bar := strings.Repeat("#", (b.Count*width+most-1)/most)
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  up to %8g ms %6.2f %%  %s", b.UpTo, 100*float64(b.Count)/float64(total), bar), " "))
	}
}

// missingError makes the exit code 1 if something is missing, so that a run can be a check in a script.
func missingError(n int64) error {
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d deliveries are missing", n)
}
