package redis

import (
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

func BenchmarkLog(b *testing.B) {
	for _, s := range []struct{ name, config string }{
		{"AOF off", ""},
		{"AOF everysec", "appendonly yes\nappendfsync everysec"},
		{"AOF always", redistest.AOF},
	} {
		b.Run(s.name, func(b *testing.B) {
			c := testConfig(b, redistest.Start(b, s.config).Addr())
			c.Durable = s.config == redistest.AOF
			brokertest.Benchmark(b, func(testing.TB) broker.Broker { return dialing(c) })
		})
	}
}
