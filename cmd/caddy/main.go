// Caddy with the broadcast module compiled in, for trying it out and for its tests. For your own build use xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
)

func main() {
	caddycmd.Main()
}
