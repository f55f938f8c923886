package redis

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// UnmarshalCaddyfile sets up the broker from its segment of the global option broadcast:
//
//	broker redis <url> {
//	    prefix            <name>
//	    replicas          <n>
//	    durable
//	    user              <name> <password>
//	    password          <password>
//	    sentinel_user     <name> <password>
//	    sentinel_password <password>
//	    tls {
//	        ca            <files...>
//	        cert          <file> <key>
//	        server_name   <name>
//	    }
//	    publish_timeout   <duration>
//	}
func (b *Broker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the broker
	if !d.AllArgs(&b.URL) {
		return d.Err("broker redis takes the URL of a server, such as redis://127.0.0.1:6379")
	}
	return option.Block(d, map[string]option.Parser{
		"prefix":            option.Word(&b.Prefix),
		"replicas":          option.IntBetween(&b.Replicas, 0, maxReplicas),
		"durable":           option.Flag(&b.Durable),
		"user":              brokermodule.Login("password", &b.Password, brokermodule.Args("<name> <password>", &b.User, &b.Password)),
		"password":          brokermodule.Login("user", &b.Password, brokermodule.Args("<password>", &b.Password)),
		"sentinel_user":     brokermodule.Login("sentinel_password", &b.SentinelPassword, brokermodule.Args("<name> <password>", &b.SentinelUser, &b.SentinelPassword)),
		"sentinel_password": brokermodule.Login("sentinel_user", &b.SentinelPassword, brokermodule.Args("<password>", &b.SentinelPassword)),
		"tls":               brokermodule.ParseTLS(&b.TLS),
		"publish_timeout":   option.Duration(&b.PublishTimeout),
	})
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Broker)(nil)
