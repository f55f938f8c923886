package rates

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(Limit{PerSecond: 2, Burst: 3})
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
		if n := len(c.buckets); n > 2*minBuckets {
			t.Errorf("%d clients are remembered", n)
		}
	})
	if NewClients(Limit{}).Wait("a") != 0 || (Limit{}).New() != nil {
		t.Error("no limit is one")
	}
}
