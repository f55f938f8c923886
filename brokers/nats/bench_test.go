package nats

import (
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func BenchmarkLog(b *testing.B) {
	c := testConfig(b, natstest.Start(b, "").URL(), 1)
	brokertest.Benchmark(b, func(testing.TB) broker.Broker { return dialing(c) })
}
