// Command cores measures how the hub's costs grow with its loops, of which there is one per core. Connections are in memory, and
// more loops than the machine has cores share those.
//
//	go run ./bench/cores
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rows are the figures of the table: a benchmark in internal/hub, one of its units, and what that is.
var rows = []struct{ benchmark, unit, about string }{
	{"Hold/alone/subscribers=0", "held-mean-ns", "lock held by a publish without subscribers, ns"},
	{"Hold/alone/subscribers=1000", "held-mean-ns", "by one to 1,000 subscribers, a message at a time, ns"},
	{"Hold/burst/subscribers=1000", "held-mean-ns", "the same, as fast as possible, ns"},
	{"Hold/burst/subscribers=1000", "held-p99-ns", "its 99th percentile, ns"},
	{"Publish/subscribers=0/publishers=1", "cpu-ns/op", "CPU of a publish without subscribers, ns"},
	{"Publish/subscribers=0/publishers=2", "cpu-ns/op", "with two publishers, ns"},
	{"Publish/subscribers=1/publishers=1", "cpu-ns/op", "CPU of a publish to one subscriber, ns"},
	{"Publish/subscribers=1000/publishers=1", "cpu-ns/op", "to 1,000 subscribers, ns"},
	{"Publish/subscribers=1000/publishers=2", "cpu-ns/op", "with two publishers, each with 1,000, ns"},
	{"Publish/subscribers=1000/publishers=1", "B/op", "bytes allocated for it"},
	{"Connect", "cpu-ns/op", "CPU of connecting, subscribing and disconnecting, ns"},
}

func main() {
	loops := flag.String("loops", "1,2,8,64", "numbers of loops")
	count := flag.Int("count", 5, "runs, of which the median counts")
	benchtime := flag.String("benchtime", "0.2s", "duration of each")
	flag.Parse()
	if err := bench(strings.Split(*loops, ","), *count, *benchtime); err != nil {
		fmt.Fprintln(os.Stderr, "cores:", err)
		os.Exit(1)
	}
}

func bench(loops []string, count int, benchtime string) error {
	c := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkCores", "-benchtime", benchtime, "-count", strconv.Itoa(count),
		"-cpu", strings.Join(loops, ","), "./internal/hub")
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return err
	}
	figures := parse(out)
	fmt.Printf("| loops | %s |\n|%s\n", strings.Join(loops, " | "), strings.Repeat(" --- |", len(loops)+1))
	for _, r := range rows {
		fmt.Printf("| %s |", r.about)
		for _, n := range loops {
			fmt.Printf(" %.0f |", median(figures[key{r.benchmark, n, r.unit}]))
		}
		fmt.Println()
	}
	return nil
}

// key is a figure of one benchmark with so many loops.
type key struct{ benchmark, loops, unit string }

// line is one of a benchmark. go test leaves out -1.
var line = regexp.MustCompile(`^BenchmarkCores(.*?)(?:-(\d+))?\s+\d+\s+(.*)$`)

// parse reads what go test prints.
func parse(out []byte) map[key][]float64 {
	figures := make(map[key][]float64)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		m := line.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		if m[2] == "" {
			m[2] = "1"
		}
		fields := strings.Fields(m[3])
		for i := 0; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				k := key{m[1], m[2], fields[i+1]}
				figures[k] = append(figures[k], v)
			}
		}
	}
	return figures
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}
