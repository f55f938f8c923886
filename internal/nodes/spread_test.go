package nodes

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// sent returns how many messages the nodes have sent.
func (c *cluster) sent() (all int64) {
	for _, n := range c.nodes {
		all += n.sent.Load()
	}
	return all
}

// sending returns how many messages the nodes send in some tenths of a second, and the most in one of them. They had sent some
// before.
func (c *cluster) sending(tenths int, before int64) (all, most int64) {
	begun := before
	for range tenths {
		c.after(100 * time.Millisecond)
		now := c.sent()
		before, most = now, max(most, now-before)
	}
	return before - begun, most
}

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
		if all, most := c.sending(19, c.sent()); all < count*3/4 || most > count/3 {
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
		begun := c.sent()
		c.memory.Start()
		if all, most := c.sending(20, begun); all < count || most > count*2/3 {
			t.Errorf("%d beats, and up to %d of them in a tenth of a second", all, most)
		}
	})
}
