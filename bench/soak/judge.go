//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// What the server may have more of when all clients have left than before the first came: connections of the admin API that
// are kept alive, flushers, which end only with the process, and a spare goroutine of Caddy or two.
const (
	slackGoroutines  = 30
	slackDescriptors = 10
)

// figures are what has to stay flat, and by how much the median of the last quarter may exceed that of the second. The first
// quarter does not count: caches and pools fill. A leak of one part in a thousand clients would exceed it within an hour.
var figures = []struct {
	name  string
	of    func(sample) float64
	limit float64
	slack float64 // by how much a small figure may grow beyond that
	count bool
}{
	{"resident memory, MiB", func(s sample) float64 { return mib(s.resident) }, 1.10, 5, false},
	{"live heap, MiB", func(s sample) float64 { return mib(s.heap) }, 1.10, 2, false},
	{"goroutines", func(s sample) float64 { return float64(s.goroutines) }, 1.10, slackGoroutines, true},
	{"descriptors", func(s sample) float64 { return float64(s.descriptors) }, 1.10, slackDescriptors, true},
}

// verdict is what became of a figure.
type verdict []row

type row struct {
	name                        string
	before, second, last, after float64
	slack                       float64
	flat                        bool
	counted                     bool // so that what was not given back can be told: Go keeps memory for later
}

// judge compares the samples of the second and the last quarter.
func judge(samples []sample, before, after sample) (v verdict) {
	for _, f := range figures {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = f.of(s)
		}
		n := len(values)
		r := row{name: f.name, before: f.of(before), second: median(values[n/4 : n/2]), last: median(values[n-n/4:]), after: f.of(after),
			slack: f.slack, counted: f.count}
		r.flat = r.last <= max(r.second*f.limit, r.second+f.slack)
		v = append(v, r)
	}
	return v
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

// err returns an error that names what is not flat, or nil.
func (v verdict) err() error {
	var errs []error
	for _, r := range v {
		if !r.flat {
			errs = append(errs, fmt.Errorf("%s grew from %.1f to %.1f", r.name, r.second, r.last))
		}
		if r.counted && r.after > r.before+r.slack {
			errs = append(errs, fmt.Errorf("%s: %.0f are left of what were %.0f before", r.name, r.after, r.before))
		}
	}
	return errors.Join(errs...)
}

// text returns the figures in Markdown.
func (r *run) text(v verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d clients at a time for %v, %d reloads, %d messages by POST.\n\n", r.clients, r.length.Round(time.Second), r.reloads, r.posts.Load())
	b.WriteString("| | before the first client | second quarter | last quarter | ratio | after the last client |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	for _, row := range v {
		flat := "flat"
		if !row.flat {
			flat = "**not flat**"
		}
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.1f | %.2f, %s | %.1f |\n", row.name, row.before, row.second, row.last, row.last/row.second, flat, row.after)
	}
	b.WriteString("\n| clients | came | got stuck | rejected | reads with messages |\n| --- | ---: | ---: | ---: | ---: |\n")
	for i, k := range kinds {
		c := &r.counts[i]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", k.name, c.came.Load(), c.stuck.Load(), c.rejected.Load(), c.received.Load())
	}
	return b.String()
}

// writeFigures writes the figures into the page.
func writeFigures(page, text string) error { return docs.Write(page, "go run ./bench/soak", text) }
