// Package integration tests the plugin from outside: a real Caddy, real sockets. Each file has one subject.
package integration

import (
	"os"
	"testing"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestMain(m *testing.M) {
	caddytest.WithHTTP2WebSockets()
	os.Exit(caddytest.Main(m))
}
