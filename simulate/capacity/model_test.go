package main

import (
	"math"
	"strings"
	"testing"
)

// near reports whether two numbers differ by no more than a share.
func near(a, b, share float64) bool {
	return math.Abs(a-b) <= share*math.Max(math.Abs(a), math.Abs(b))+1e-12
}

// placements calls f with all ways to put s connections on n nodes: the node of each.
func placements(n, s int, f func(on []int)) (all float64) {
	on := make([]int, s)
	for {
		f(on)
		all++
		i := 0
		for ; i < s; i++ {
			if on[i]++; on[i] < n {
				break
			}
			on[i] = 0
		}
		if i == s {
			return all
		}
	}
}

func TestInterested(t *testing.T) {
	for n := 1; n <= 5; n++ {
		for s := 1; s <= 6; s++ {
			sum := 0.0
			all := placements(n, s, func(on []int) {
				nodes := make(map[int]bool)
				for _, i := range on {
					nodes[i] = true
				}
				sum += float64(len(nodes))
			})
			if got := interested(float64(n), float64(s)); !near(got, sum/all, 1e-9) {
				t.Errorf("%d on %d: %v, not %v", s, n, got, sum/all)
			}
		}
	}
}

// Node 0 is lost. Each way in which its connections can go to the others counts alike.
func TestOpened(t *testing.T) {
	for n := 2; n <= 4; n++ {
		for s := 1; s <= 4; s++ {
			sum := 0.0
			all := placements(n, s, func(on []int) {
				opens := 0.0
				ways := placements(n-1, s, func(to []int) {
					before, after := make(map[int]bool), make(map[int]bool)
					for i := range on {
						if on[i] > 0 {
							before[on[i]] = true
						} else {
							after[to[i]+1] = true
						}
					}
					for node := range after {
						if !before[node] {
							opens++
						}
					}
				})
				sum += opens / ways
			})
			if got := opened(float64(n), float64(s)); !near(got, sum/all, 1e-9) {
				t.Errorf("%d on %d: %v, not %v", s, n, got, sum/all)
			}
		}
	}
}

// Groups of channels have the same sum as the channels one by one.
func TestZipf(t *testing.T) {
	const channels = 20_000
	sys := system{connections: 1e6, perNode: 1e4}
	n := sys.nodes()
	all := 0.0
	for i := 1.0; i <= channels; i++ {
		all += 1 / i
	}
	var want load
	for i := 1.0; i <= channels; i++ {
		size := sys.connections / i / all
		on := interested(n, size)
		want.publishes += 2
		want.deliveries += 2 * size
		want.egress += 2 * on
		want.pairs += on
		want.channels++
	}
	got := shape{zipf: true, channels: channels, rate: 2}.load(sys)
	for _, pair := range [][2]float64{{got.publishes, want.publishes}, {got.deliveries, want.deliveries}, {got.egress, want.egress}, {got.pairs, want.pairs}, {got.channels, want.channels}} {
		if !near(pair[0], pair[1], 1e-3) {
			t.Errorf("%+v, not %+v", got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	sys := system{connections: 1e5, perNode: 1e4}
	for _, row := range []struct {
		shape
		want load
	}{
		{shape{rate: 3}, load{3, 3e5, 30, 10, 1}},
		{shape{channels: 100, rate: 1}, load{100, 1e5, 1000, 1000, 100}},
		{shape{room: 10, rate: 1, affinity: true}, load{1e4, 1e5, 1e4, 1e4, 1e4}},
		{shape{room: 25_000, rate: 1, affinity: true}, load{4, 1e5, 12, 12, 4}}, // on three nodes, as one cannot hold it
	} {
		got := row.load(sys)
		if !near(got.publishes, row.want.publishes, 1e-3) || !near(got.deliveries, row.want.deliveries, 1e-3) ||
			!near(got.egress, row.want.egress, 1e-3) || !near(got.pairs, row.want.pairs, 1e-3) || got.channels != row.want.channels {
			t.Errorf("%+v: %+v, not %+v", row.shape, got, row.want)
		}
	}
}

func TestCost(t *testing.T) {
	c := defaults()
	sys := system{connections: 1e7, perNode: 1e4, cores: 4, broker: "R3", data: 128}
	r := c.cost(shape{room: 10, rate: 0.04}, sys)
	if !near(r.heartbeat, 1000*999/20.0, 1e-9) || r.nodes != 1000 || r.counts != 2*1e7/600 {
		t.Errorf("%+v", r)
	}
	sys.connections = 1e5
	if r := c.cost(shape{room: 10, rate: 0.04}, sys); r.heartbeat != 45 {
		t.Errorf("%v heartbeats", r.heartbeat)
	}
	// The bounds of the cost of a message are its costs alone and at full rate.
	if !near(c.recv(0), c.of(recvLow), 1e-9) || !near(c.recv(1e12), c.of(recvFull), 1e-3) {
		t.Error(c.recv(0), c.recv(1e12))
	}
	sys.broker, sys.connections = "Redis", 1e6
	r = c.cost(shape{room: 10, rate: 1}, sys)
	if l := c.limits(shape{room: 10, rate: 1}, sys, r); !strings.HasPrefix(l[0].what, "Redis") || l[0].share < 1 || l[1].share > l[0].share {
		t.Errorf("%+v", l)
	}
}

func TestSet(t *testing.T) {
	c := defaults()
	if err := c.set("deliver.warm=5"); err != nil || c.of(deliverWarm) != 5 {
		t.Error(err, c.of(deliverWarm))
	}
	for _, text := range []string{"none=5", "deliver", "deliver=x"} {
		if err := c.set(text); err == nil {
			t.Error(text)
		}
	}
	var out strings.Builder
	if c.write(&out); strings.Count(out.String(), "\n") != len(c.order) {
		t.Error(out.String())
	}
}
