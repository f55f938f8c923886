package nats

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func channelNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("orders.customer-%06d", i)
	}
	return names
}

func countsOf(names []string, value int) map[string]int {
	counts := make(map[string]int, len(names))
	for _, name := range names {
		counts[name] = value
	}
	return counts
}

// setParts sets counts as a node does: 1000 at once.
func (n *node) setParts(b *testing.B, names []string, value int) {
	for len(names) > 0 {
		part := names[:min(1000, len(names))]
		n.set(b, countsOf(part, value))
		names = names[len(part):]
	}
}

// startServers starts one server, or a cluster, and returns the address of one.
func startServers(b *testing.B, n int) string {
	if n == 1 {
		return natstest.Start(b, "").URL()
	}
	return natstest.StartCluster(b, n, "")[0].URL()
}

// All counts of a node in one call, as after the broker has lost them.
func BenchmarkSetCounts(b *testing.B) {
	for _, replicas := range []int{1, 3} {
		b.Run(fmt.Sprint(replicas, " servers"), func(b *testing.B) {
			n := dialTest(b, testConfig(b, startServers(b, replicas), replicas))
			names := channelNames(10_000)
			n.set(b, countsOf(names[:1], 1))
			i := 0
			for b.Loop() {
				i++
				n.set(b, countsOf(names, i))
			}
			b.ReportMetric(float64(b.N*len(names))/b.Elapsed().Seconds(), "counts/s")
		})
	}
}

// Counts of 1 and of 1000 channels that three nodes have subscribers of, one call at a time.
func BenchmarkCounts(b *testing.B) {
	for _, replicas := range []int{1, 3} {
		url := startServers(b, replicas)
		names := channelNames(10_000)
		var n *node
		for range 3 {
			n = dialTest(b, testConfig(b, url, replicas))
			n.setParts(b, names, 7)
		}
		for _, channels := range []int{1, 1000} {
			b.Run(fmt.Sprint(replicas, " servers, ", channels, " channels"), func(b *testing.B) {
				for b.Loop() {
					counts, err := n.tryCounts(names[:channels]...)
					if err != nil || len(counts[channels-1]) != 3 {
						b.Fatal(counts[channels-1], err)
					}
				}
			})
		}
	}
}

// The memory of the server for each channel and node, and what it still has when the numbers are 0.
func BenchmarkCountsMemory(b *testing.B) {
	for _, channels := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(channels), func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			port := listener.Addr().(*net.TCPAddr).Port
			listener.Close()
			n := dialTest(b, testConfig(b, natstest.Start(b, fmt.Sprintf("prof_port: %d", port)).URL(), 1))
			names := channelNames(channels)
			n.set(b, countsOf(names[:1], 1))
			before := heapOf(b, port)
			for b.Loop() {
				n.setParts(b, names, 1)
			}
			n.setParts(b, names, 2) // a second time: what is replaced has to go
			b.ReportMetric(float64(heapOf(b, port)-before)/float64(channels), "server-B/count")
		})
	}
}

// heapOf returns what is in use on the heap of a server, after a collection.
func heapOf(b *testing.B, port int) int64 {
	b.Helper()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", port))
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "# HeapAlloc = "); found {
			size, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return size
		}
	}
	b.Fatal("the server does not say how large its heap is")
	return 0
}
