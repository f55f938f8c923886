package ratelimit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewKeyed(Limit{PerSecond: 2, Burst: 3})
		for i := range 3 {
			if d := c.Wait("a"); d != 0 {
				t.Errorf("the %dth waits %v", i, d)
			}
		}
		if d := c.Wait("a"); d != time.Second/2 {
			t.Errorf("over the burst: %v", d)
		}
		if d := c.Wait("b"); d != 0 {
			t.Errorf("another client waits %v", d)
		}
		time.Sleep(time.Second / 2)
		if d := c.Wait("a"); d != 0 {
			t.Errorf("half a second later: %v", d)
		}
		for i := range 100_000 {
			c.Wait(fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		if n := len(c.recent) + len(c.old); n > 4000 { // 1500 come in the time in which a bucket fills up
			t.Errorf("%d clients are remembered", n)
		}
	})
	if NewKeyed(Limit{}).Wait("a") != 0 || (Limit{}).New() != nil {
		t.Error("no limit is one")
	}
}

// TestClientsForgetNobody: a client that goes on is held to its rate over any number of generations.
func TestClientsForgetNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewKeyed(Limit{PerSecond: 1, Burst: 5})
		passed := 0
		for range 100_000 {
			if c.Wait("a") == 0 {
				passed++
			}
			time.Sleep(time.Millisecond)
		}
		if passed != 104 { // the burst, and one a second
			t.Errorf("%d messages in 100 s", passed)
		}
	})
}

// TestClientsAreBounded: many clients take no more memory than some, and are not refused for it.
func TestClientsAreBounded(t *testing.T) {
	c := NewKeyed(Limit{PerSecond: 1. / 3600, Burst: 1})
	for i := range 5 * maxClients {
		if c.Wait(fmt.Sprint(i)) != 0 {
			t.Fatalf("client %d is refused", i)
		}
		if c.Wait(fmt.Sprint(i)) == 0 {
			t.Fatalf("client %d has no limit", i)
		}
	}
	if n := len(c.recent) + len(c.old); n > 2*maxClients {
		t.Errorf("%d clients are remembered", n)
	}
}

func BenchmarkWait(b *testing.B) {
	for _, n := range []int{1_000, 30_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprint(i)
			}
			c := NewKeyed(Limit{PerSecond: 1. / 3600, Burst: 1})
			longest := time.Duration(0)
			i := 0
			for b.Loop() {
				before := time.Now()
				c.Wait(names[i%n])
				longest = max(longest, time.Since(before))
				i++
			}
			b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
		})
	}
}
