package nodes

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestBeatsAreSpread starts nodes at one moment, as after a failure of power. Their next beats do not come at one moment too:
// with 300 nodes the broker had four times as much to send in some seconds as on average (simulate, scenario beats).
func TestBeatsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, memory: brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond})}
		defer c.memory.Close()
		const count = 40
		for i := range count {
			n := c.start(fmt.Sprint("node", i))
			defer n.hub.Close(hub.ReasonRestart, "", 0, 0)
		}
		c.after(100 * time.Millisecond) // they have greeted each other
		sent := func() (all int64) {
			for _, n := range c.nodes {
				all += n.sent.Load()
			}
			return all
		}
		begun, most := sent(), int64(0)
		before := begun
		for range 19 {
			c.after(100 * time.Millisecond)
			now := sent()
			before, most = now, max(most, now-before)
		}
		if all := before - begun; all < count*3/4 || most > count/3 {
			t.Errorf("%d beats in a period, and up to %d of them in a tenth of a second", all, most)
		}
	})
}

// TestBeatsAfterOutage: many nodes that a broker is back for at one moment do not all send beats at that moment.
func TestBeatsAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, memory: brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond})}
		defer c.memory.Close()
		const count = 20
		for i := range count {
			n := c.start(fmt.Sprint("node", i))
			defer n.hub.Close(hub.ReasonRestart, "", 0, 0)
		}
		c.after(2 * basic)          // all know of each other
		for _, n := range c.nodes { // and of more, which need no hubs for that
			s := n.session
			s.mu.Lock()
			for i := range uint64(manyNodes) {
				s.table.nodes[i+1] = &peer{until: time.Now().Add(time.Minute)}
			}
			s.mu.Unlock()
		}
		c.memory.Stop()
		c.after(time.Second)
		sent := func() (all int64) {
			for _, n := range c.nodes {
				all += n.sent.Load()
			}
			return all
		}
		before, most, begun := sent(), int64(0), sent()
		c.memory.Start()
		for range 20 {
			c.after(100 * time.Millisecond)
			now := sent()
			before, most = now, max(most, now-before)
		}
		if all := before - begun; all < count || most > count*2/3 {
			t.Errorf("%d beats, and up to %d of them in a tenth of a second", all, most)
		}
	})
}
