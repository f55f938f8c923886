package brokertest

import (
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// memoryCluster is a Memory as the suite needs it.
type memoryCluster struct{ *Memory }

func (c memoryCluster) Broker() broker.Broker { return c.Memory.Broker() }

func (c memoryCluster) RollBack()             { c.Memory.Rollback(5) }
func (c memoryCluster) Forget(channel string) { c.Memory.Forget(channel, 1) }
func (c memoryCluster) CutOff()               { c.last().Disconnect() }
func (c memoryCluster) Restore()              { c.last().Reconnect() }

func (c memoryCluster) last() *MemoryBroker {
	c.Memory.clock.mu.Lock()
	defer c.Memory.clock.mu.Unlock()
	return c.Memory.brokers[len(c.Memory.brokers)-1]
}

func TestMemoryConforms(t *testing.T) {
	for name, latency := range map[string]time.Duration{"near": 0, "far": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T) Cluster {
				// It runs in real time. On a busy machine a node that waits for six ticks of 20 ms, or a second for its
				// ack, gives up although nothing is wrong.
				m := NewMemory(MemoryConfig{
					Latency: latency, Jitter: latency, Tick: 100 * time.Millisecond, PublishTimeout: time.Second, MaxData: 1 << 20,
				})
				t.Cleanup(m.Close)
				return memoryCluster{m}
			})
		})
	}
}
