// Package manual tests README.md and docs/: it runs their commands, loads their Caddyfiles, and checks what they name.
//
// A new page needs nothing here, as long as its commands work with the site of newSite. If one needs another site or other
// clients, or cannot be run, the page gets a file of its own that calls describe: see admin_test.go.
package manual

import (
	"os"
	"testing"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }
