package nats

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// UnmarshalCaddyfile sets up the broker from its segment of the global option broadcast:
//
//	broker nats <url...> {
//	    stream          <name>
//	    prefix          <name>
//	    replicas        <n>
//	    storage         file|memory
//	    max_bytes       <size>
//	    credentials     <file>
//	    user            <name> <password>
//	    token           <token>
//	    nkey            <file>
//	    tls {
//	        ca          <files...>
//	        cert        <file> <key>
//	        server_name <name>
//	    }
//	    publish_timeout <duration>
//	    manage          on|off
//	}
func (b *Broker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the broker
	if b.Servers = d.RemainingArgs(); len(b.Servers) == 0 {
		return d.Err("broker nats needs the URL of a server, such as nats://127.0.0.1:4222")
	}
	return option.Block(d, map[string]option.Parser{
		"stream":          option.Word(&b.Stream),
		"prefix":          option.Word(&b.Prefix),
		"replicas":        option.IntBetween(&b.Replicas, 1, maxReplicas),
		"storage":         option.Word(&b.Storage),
		"max_bytes":       option.Size(&b.MaxBytes),
		"credentials":     option.Word(&b.Credentials),
		"user":            brokermodule.Args("<name> <password>", &b.User, &b.Password),
		"token":           brokermodule.Args("<token>", &b.Token),
		"nkey":            option.Word(&b.NKey),
		"tls":             brokermodule.ParseTLS(&b.TLS),
		"publish_timeout": option.Duration(&b.PublishTimeout),
		"manage":          option.OnOff(&b.Manage),
	})
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Broker)(nil)
